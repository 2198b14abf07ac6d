"""Models of `transformers` under the same evaluators: scores against their own logits, answers against `generate`."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from hub_server import Repo

from stochastok_cli.errors import FAILED, USAGE, UserError
from stochastok_cli.evaluation.activations import (
    attention_layers,
    require_residual_layers,
    residual_after_attention,
)
from stochastok_cli.evaluation.benchmarks import load_benchmark
from stochastok_cli.evaluation.encoding import encode
from stochastok_cli.models.huggingface import HuggingFaceModel
from stochastok_cli.models.huggingface_spec import HUGGINGFACE, open_pretrained
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama.state_dict import save_model
from stochastok_cli.models.model_sources import locate_model, open_model
from stochastok_cli.models.weight_files import open_safetensors
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.evaluation.test_benchmarks import ROWS
from tests.evaluation.test_generation import greedy
from tests.evaluation.test_scoring import log_likelihoods
from tests.evaluation.test_shared_prefix import question_log_likelihoods, random_questions
from tests.models.huggingface_families import SIZES, random_model
from tests.models.small_models import sharp_model, small_config

FAMILIES = ("gpt2", "llama3_untied", "qwen2", "gpt_neox", "opt", "gemma2")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    random_model(request.param).save_pretrained(folder)
    load_vocabulary("sample2k").save_tokenizer(folder)
    return folder


def open_by_name(name, folder):
    """A model and its vocabulary."""
    where = locate_model(name, folder)
    vocabulary = load_vocabulary(where.folder)
    return open_model(where, vocabulary, "cpu"), vocabulary


def test_a_model_on_the_hub_is_fetched_without_what_could_hold_a_program(hub_server, folder):
    name = f"someone/{folder.name}"
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    extra = {"pytorch_model.bin": b"a pickle", "onnx/model.safetensors": b"", "modeling.py": b"raise SystemExit"}
    hub_server.repos[f"models/{name}"] = Repo()
    hub_server.repos[f"models/{name}"].commit({**files, **extra})
    model, _ = open_by_name(name, None)
    ours, _ = open_by_name(str(folder), folder)
    pairs, num_options = random_questions(np.random.default_rng(5), 5)
    np.testing.assert_array_equal(
        question_log_likelihoods(model, pairs, num_options), question_log_likelihoods(ours, pairs, num_options)
    )
    assert hub_server.requests_like("model.safetensors") and not hub_server.requests_like(
        "pickle|pytorch_model|onnx|modeling"
    )


def test_weights_that_could_hold_a_program_are_not_opened(folder, tmp_path):
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="transformers can't open .*safetensors") as caught:
        open_by_name(str(tmp_path), tmp_path)
    assert caught.value.exit_code == FAILED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": 10**9}, "describes .* parameters, and the files"),
        ({"num_hidden_layers": 10**9}, "layers"),
    ],
)
def test_sizes_that_the_weights_can_not_have_are_refused_before_memory_is_taken(tmp_path, change, message):
    random_model("llama3_untied").save_pretrained(tmp_path)
    load_vocabulary("sample2k").save_tokenizer(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=message):
        open_by_name(str(tmp_path), tmp_path)


def test_scores_are_those_of_its_own_logits(folder):
    model, _ = open_by_name(str(folder), folder)
    assert isinstance(model, HuggingFaceModel) and model.context_window == 64
    pairs, num_options = random_questions(np.random.default_rng(5), 25)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = []
    with torch.no_grad():
        for context, option in pairs:
            log_p = F.log_softmax(theirs(torch.tensor([[*context, *option]])).logits[0].double(), dim=-1)
            places = range(len(context) - 1, len(context) + len(option) - 1)
            expected.append(sum(log_p[i, target].item() for i, target in zip(places, option, strict=True)))
    np.testing.assert_allclose(question_log_likelihoods(model, pairs, num_options), expected, atol=1e-3)
    np.testing.assert_allclose(log_likelihoods(model, pairs), expected, atol=1e-3)
    assert model.head_is_supported


def test_greedy_answers_are_what_it_generates(folder):
    model, vocabulary = open_by_name(str(folder), folder)
    prompts = [vocabulary.encode(text) for text in ("The old house", "A", "It was the")]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected = [
        theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=6, eos_token_id=None)[
            0, len(ids) :
        ].tolist()
        for ids in prompts
    ]
    assert greedy(model, prompts, 6, lambda ids: False) == expected


def test_our_own_checkpoints_stay_ours_and_score_the_same(tmp_path, model, vocabulary):
    save_model(model, tmp_path, vocabulary)
    loaded, _ = open_by_name("x", tmp_path)
    assert isinstance(loaded, Llama)
    theirs = HuggingFaceModel(transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval(), 48)
    pairs, num_options = random_questions(np.random.default_rng(6), 10)
    np.testing.assert_allclose(
        question_log_likelihoods(theirs, pairs, num_options),
        question_log_likelihoods(loaded, pairs, num_options),
        atol=2e-4,
    )


def test_a_vocabulary_that_is_larger_than_the_model(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    load_vocabulary("gpt2").save_tokenizer(tmp_path)
    with pytest.raises(UserError, match="the tokenizer has 50,257 entries and the model 2,048") as caught:
        open_by_name("x", tmp_path)
    assert caught.value.exit_code == USAGE


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("family", ["gpt2", "llama3_untied"])
def test_weights_that_are_no_numbers_are_named(family, value, tmp_path):
    model = random_model(family)
    name, tensor = next((name, tensor) for name, tensor in model.named_parameters() if "mlp" in name)
    with torch.no_grad():
        tensor.view(-1)[0] = value
    model.save_pretrained(tmp_path)
    load_vocabulary("sample2k").save_tokenizer(tmp_path)
    with pytest.raises(UserError) as caught:
        open_by_name(str(tmp_path), tmp_path)
    reason = f"{tmp_path} gives no numbers: its weights hold NaN or infinity, in {name}; take an earlier checkpoint"
    assert str(caught.value).startswith(reason) and caught.value.exit_code == FAILED
    with pytest.raises(ValueError, match=f"NaN or infinity, in {name}"):
        HuggingFaceModel(model.eval(), 48)


def test_activations_that_overflow(tmp_path):
    model = random_model("gpt2")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight.fill_(60_000)
        model.transformer.h[0].mlp.c_proj.weight.fill_(60_000)
    model.save_pretrained(tmp_path)
    load_vocabulary("sample2k").save_tokenizer(tmp_path)
    message = "its activations overflow in float16, though its weights are finite; give --dtype float32"
    with pytest.raises(UserError, match=message):
        open_pretrained(tmp_path, "x", "cpu", torch.float16)
    assert open_pretrained(tmp_path, "x", "cpu").context_window


def test_what_transformers_can_not_open(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing like it"}))
    with pytest.raises(UserError, match="transformers can't open") as caught:
        locate_model("x", tmp_path)
    assert caught.value.exit_code == FAILED and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"config.json is missing"):
        locate_model("x", tmp_path / "..")


# ------------------------------------------------------------------------------------------------ lm-eval


@pytest.mark.slow
def test_likelihoods_equal_those_of_lm_evaluation_harness(tmp_path, vocabulary):
    """On our checkpoint as it is, the same pairs of ids, of rows of local files."""
    huggingface = pytest.importorskip("lm_eval.models.huggingface", reason="the extra lm-eval is not installed")
    model = sharp_model(small_config(context_window=128))
    save_model(model, tmp_path, vocabulary)
    theirs = huggingface.HFLM(pretrained=str(tmp_path), device="cpu", dtype="float32", batch_size=4)
    for name in ("mmlu", "hellaswag", "arc", "winograd", "blimp"):
        file = tmp_path / f"{name}.jsonl"
        file.write_text(json.dumps(ROWS[name]) + "\n", encoding="utf-8")
        benchmark = load_benchmark(f"{name}={file}", tmp_path)
        encoded = encode(benchmark, vocabulary, 128)
        requests = [(("", ""), list(context), list(option)) for context, option in encoded.pairs]
        expected = [score for score, _ in theirs._loglikelihood_tokens(requests, disable_tqdm=True)]
        actual = question_log_likelihoods(model, encoded.pairs, encoded.num_options)
        np.testing.assert_allclose(actual, expected, atol=1e-3)


FEED_FORWARD_NORMS = {"gpt2": "ln_2", "llama": "post_attention_layernorm", "qwen2": "post_attention_layernorm"}


def test_activations_after_attention(folder):
    """Where attention and feed-forward follow each other, they are what the latter's norm reads."""
    model, _ = open_by_name(str(folder), folder)
    layers = [layer for layer, _ in attention_layers(model)]
    assert len(layers) == model.model.config.num_hidden_layers
    if model.model.config.model_type == "gemma2":  # it norms what attention gives before it is added
        with pytest.raises(UserError, match=r"can't tell what attention adds .*\(Gemma2DecoderLayer\)"):
            require_residual_layers(model)
        return
    require_residual_layers(model)
    norm_inputs = []
    norm = FEED_FORWARD_NORMS.get(model.model.config.model_type)
    for layer in layers if norm else []:
        getattr(layer, norm).register_forward_pre_hook(lambda _, inputs: norm_inputs.append(inputs[0]))
    with torch.no_grad():
        activations = residual_after_attention(model, torch.tensor([[5, 6, 7, 8]]))
    assert [x.shape for x in activations] == [(1, 4, 32)] * len(layers)
    for actual, expected in zip(activations, norm_inputs, strict=norm is not None):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (
            transformers.BertConfig(**SIZES, intermediate_size=64, max_position_embeddings=64),
            "no causal language model",
        ),
        (transformers.MambaConfig(vocab_size=2048, hidden_size=32, num_hidden_layers=2), "keeps no keys and values"),
        (
            transformers.BertConfig(**SIZES, intermediate_size=64, max_position_embeddings=64, is_decoder=True),
            None,
        ),
    ],
)
def test_models_that_are_not_causal_or_keep_no_cache_are_refused(config, why, tmp_path):
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    load_vocabulary("sample2k").save_tokenizer(tmp_path)
    if why is None:
        assert open_by_name(str(tmp_path), tmp_path)
    else:
        with pytest.raises(UserError, match=why) as info:
            open_by_name(str(tmp_path), tmp_path)
        assert info.value.exit_code == FAILED


def test_the_context_window_of_a_model_for_texts_and_images_is_that_of_its_texts(tmp_path):
    text = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 77}
    transformers.Gemma3Config(text_config=text).save_pretrained(tmp_path)
    assert HUGGINGFACE.read_config(tmp_path).context_window == 77


@pytest.mark.slow
def test_a_model_in_half_precision_is_causal():
    """Of this one, the logits of a prefix differ by more than 0.01 where later tokens follow: rounding."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_positions=64, n_embd=512, n_layer=8, n_head=8, initializer_range=0.1)
    assert HuggingFaceModel(transformers.GPT2LMHeadModel(config).half().eval(), 64).context_window == 64


def test_a_file_of_weights_that_can_not_be_read_is_not_called_damaged(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    for name, message in (
        ("folder", "can't be read"),
        ("cut", "damaged or cut short"),
        ("none", "missing"),
    ):
        with pytest.raises(UserError, match=message), open_safetensors(tmp_path / f"{name}.safetensors"):
            pass


def test_code_that_a_model_brings_is_never_run(tmp_path, monkeypatch):
    """By default `transformers` asks, and a `y` on stdin runs it."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    auto_map = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "its_own", "auto_map": auto_map}))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'it_ran')!r}, 'w')\n")
    with pytest.raises(UserError, match="brings code of its own, which is never run") as caught:
        open_by_name(str(tmp_path), tmp_path)
    assert caught.value.exit_code == FAILED and not (tmp_path / "it_ran").exists()


def test_a_model_without_a_vocabulary_is_refused(tmp_path):
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="holds no language model: its configuration has no vocab_size"):
        open_by_name(str(tmp_path), tmp_path)

"""Checkpoint folders: what transformers makes of ours, what we make of others', and what damaged ones say."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stochastok_cli.errors import FAILED, USAGE, UserError
from stochastok_cli.models.llama import LLAMA
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama.state_dict import load_weights, save_model
from stochastok_cli.models.llama_config import read_model_config
from tests.models.small_models import random_ids, sharp_model, small_config

load_model = LLAMA.load


@pytest.fixture
def saved(model, vocabulary, tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    save_model(model, folder, vocabulary)
    return folder


@pytest.fixture
def tied_folder(vocabulary, tmp_path):
    folder = tmp_path / "tied"
    folder.mkdir()
    save_model(sharp_model(small_config(tied=True)), folder, vocabulary)
    return folder


def change_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def refusal(function, *arguments):
    """The one line that a UserError says, and its exit code."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value), caught.value.exit_code


# ------------------------------------------------------------------------------------------------ transformers


def test_transformers_computes_the_same_logits(model, saved):
    theirs, report = LlamaForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.dtype == torch.float32
    assert theirs.num_parameters() == model.num_parameters()
    ids = random_ids(3, 48)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(ids)), theirs.eval()(ids).logits, atol=1e-4, rtol=1e-4)


def test_transformers_opens_the_tokenizer_and_generation_config(saved, vocabulary):
    assert AutoTokenizer.from_pretrained(saved).encode("Hello world", add_special_tokens=False) == vocabulary.encode(
        "Hello world"
    )
    end = LlamaForCausalLM.from_pretrained(saved).generation_config
    assert end.eos_token_id == end.bos_token_id == vocabulary.end_of_text


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shard_size", ["1GB", "50KB"])
@pytest.mark.parametrize("tied", [True, False])
def test_reads_what_transformers_saves(tmp_path, dtype, shard_size, tied):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
    )
    theirs = LlamaForCausalLM(config).to(dtype)
    theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "50KB")
    model = load_model(tmp_path)
    ids = random_ids(2, 32, vocab_size=300)
    with torch.no_grad():
        torch.testing.assert_close(model.logits(model(ids)), theirs.float()(ids).logits, atol=1e-4, rtol=1e-4)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


# ------------------------------------------------------------------------------------------------ round trips


def test_round_trip_is_exact(model, saved):
    again = load_model(saved)
    assert again.config == model.config
    assert not again.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_bytes_depend_on_the_weights_alone(model, saved, vocabulary, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    save_model(load_model(saved), again, vocabulary)
    for file in ("model.safetensors", "config.json", "generation_config.json"):
        assert (again / file).read_bytes() == (saved / file).read_bytes()


def test_wrappers_leave_no_trace_in_the_files(model, saved, vocabulary, tmp_path):
    class Wrapper(torch.nn.Module):
        """The names that DistributedDataParallel gives, which itself needs a process group."""

        def __init__(self, module):
            super().__init__()
            self.module = module

    for i, wrapped in enumerate([torch.compile(model), Wrapper(torch.compile(model)), torch.compile(Wrapper(model))]):
        folder = tmp_path / str(i)
        folder.mkdir()
        save_model(wrapped, folder, vocabulary)
        assert (folder / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()
        load_weights(wrapped, folder)
    model.layers[1] = torch.compile(model.layers[1])
    save_model(model, folder, vocabulary)
    assert (folder / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_in_a_file_are_stripped(tied_folder, prefix):
    file = tied_folder / "model.safetensors"
    before = load_model(tied_folder)
    save_file({prefix + name: tensor for name, tensor in load_file(file).items()}, file)
    assert torch.equal(load_model(tied_folder).layers[0].attention.qkv.weight, before.layers[0].attention.qkv.weight)


def test_loading_into_a_model_keeps_its_parameters_tied_and_trainable(tied_folder):
    model = Llama(small_config(tied=True), dropout=0.1)
    load_weights(model, tied_folder)
    assert model.embedding.weight is model.head_weight
    assert model.head_weight.requires_grad
    assert model.dropout == 0.1


def test_spare_tensors_are_passed_over(tied_folder):
    file = tied_folder / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, file)
    load_model(tied_folder)


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "gpt2"),
        ("hidden_act", "gelu"),
        ("rms_norm_eps", 1e-5),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("head_dim", 16),
        ("num_key_value_heads", 3),
        ("num_hidden_layers", None),
        ("hidden_size", "64"),
        ("vocab_size", -1),
    ],
)
def test_a_field_that_does_not_fit_is_named(tied_folder, field, value):
    change_config(tied_folder, **{field: value})
    line, code = refusal(load_model, tied_folder)
    assert "config.json" in line
    assert f"{field} = " in line
    assert code == USAGE


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
        {"rope_parameters": None, "rope_theta": 500000.0},
    ],
)
def test_another_rope_base_is_refused(tied_folder, fields):
    change_config(tied_folder, **fields)
    assert "rope_theta = 500000.0" in refusal(read_model_config, tied_folder)[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0}},
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": "linear"},
    ],
)
def test_scaled_rope_is_refused(tied_folder, fields):
    change_config(tied_folder, **fields)
    assert "rope_type = " in refusal(read_model_config, tied_folder)[0]


def test_all_fields_that_do_not_fit_are_named_at_once(tied_folder):
    change_config(tied_folder, rms_norm_eps=1e-5, mlp_bias=True)
    line, _ = refusal(read_model_config, tied_folder)
    assert "rms_norm_eps" in line
    assert "mlp_bias" in line


def test_configuration_of_transformers_4_is_read(tied_folder):
    change_config(tied_folder, rope_parameters=None, rope_theta=10000.0, rope_scaling=None)
    assert read_model_config(tied_folder) == small_config(tied=True)


def test_missing_folder_and_files(tied_folder, tmp_path):
    assert "nowhere is not a folder" in refusal(load_model, tmp_path / "nowhere")[0]
    (tied_folder / "model.safetensors").unlink()
    line, code = refusal(load_model, tied_folder)
    assert "model.safetensors is missing" in line
    assert code == FAILED
    (tied_folder / "config.json").unlink()
    assert "config.json is missing" in refusal(load_model, tied_folder)[0]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]"])
def test_damaged_config(tied_folder, content):
    (tied_folder / "config.json").write_bytes(content)
    line, code = refusal(load_model, tied_folder)
    assert "config.json is damaged" in line
    assert code == FAILED


@pytest.mark.parametrize("size", [0, 5, 100, 5000, -1])
def test_weights_cut_short(tied_folder, size):
    file = tied_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    line, code = refusal(load_model, tied_folder)
    assert "model.safetensors is damaged or cut short" in line
    assert code == FAILED


def test_weights_that_are_no_safetensors(tied_folder):
    (tied_folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 20)
    line, code = refusal(load_model, tied_folder)
    assert "model.safetensors is damaged" in line
    assert code == FAILED


def test_shards_missing_and_damaged(tied_folder):
    shard = tied_folder / "model-00001-of-00001.safetensors"
    index = tied_folder / "model.safetensors.index.json"
    shutil.move(tied_folder / "model.safetensors", shard)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(load_file(shard), shard.name)}))
    load_model(tied_folder)
    content = shard.read_bytes()
    shard.write_bytes(content[:-7])
    assert refusal(load_model, tied_folder)[0].startswith(f"{shard} is damaged")
    shard.unlink()
    assert refusal(load_model, tied_folder) == (f"{shard} is missing; copy or download it again", FAILED)
    index.write_text('{"weight_map": 3}')
    assert refusal(load_model, tied_folder)[1] == FAILED


@pytest.mark.parametrize("name", ["pytorch_model.bin", "checkpoint.pt"])
def test_pickles_are_refused_by_name_and_not_opened(tied_folder, name):
    (tied_folder / "model.safetensors").unlink()
    (tied_folder / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    line, code = refusal(load_model, tied_folder)
    assert name in line
    assert "pickle" in line
    assert code == USAGE


def test_tensors_that_do_not_fit_are_named(tied_folder):
    file = tied_folder / "model.safetensors"
    tensors = load_file(file)

    def refused(changed):
        save_file(changed, file)
        return refusal(load_model, tied_folder)[0]

    name = "model.layers.1.self_attn.k_proj.weight"
    assert name in refused({n: t for n, t in tensors.items() if n != name})
    assert f"{name} has the shape [8, 64], the model's has [16, 64]" in refused({**tensors, name: tensors[name][:8]})
    assert f"{name} has the type torch.int8" in refused({**tensors, name: tensors[name].to(torch.int8)})
    bias = "model.layers.0.self_attn.q_proj.bias"
    assert bias in refused({**tensors, bias: torch.zeros(64)})

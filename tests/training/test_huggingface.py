"""The trainer with models of `transformers`: it learns, resumes exactly, and keeps what came with the model."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from stochastok_cli.errors import UserError
from stochastok_cli.models.base import load_model
from stochastok_cli.models.huggingface import HuggingFaceModel
from stochastok_cli.training.plan import plan
from stochastok_cli.training.train import train
from tests.models.huggingface_families import CONFIGS, random_model
from tests.training.runs import metrics, tensors, train_at_once_and_in_parts

TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def save(family: str, folder: Path, vocabulary, **changes) -> Path:
    folder.mkdir()
    transformers.AutoModelForCausalLM.from_config(CONFIGS[family], dtype=torch.bfloat16).save_pretrained(folder)
    vocabulary.save_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 7], "temperature": 0.6}))
    return folder


@pytest.fixture(params=["qwen3", "llama3_untied", "gpt2"])
def pretrained(request, tmp_path, vocabulary) -> Path:
    torch.manual_seed(0)
    return save(request.param, tmp_path / "pretrained", vocabulary)


def test_it_trains_resumes_exactly_and_keeps_what_came_with_the_model(configured, pretrained):
    options = (f"trainer.checkpoint_name={pretrained}", "trainer.dataset.expand_prop=0.2")
    straight, parts = train_at_once_and_in_parts(configured, *options)
    assert tensors(parts.checkpoint) == tensors(straight.checkpoint)

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (straight.checkpoint / name).read_bytes() == (pretrained / name).read_bytes()
    changed = {"dtype", "transformers_version"}
    before, after = (json.loads((f / "config.json").read_text()) for f in (pretrained, straight.checkpoint))
    assert {k: v for k, v in after.items() if k not in changed} == {k: v for k, v in before.items() if k not in changed}

    model = transformers.AutoModelForCausalLM.from_pretrained(straight.checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(straight.checkpoint)
    chat = [{"role": "user", "content": "a house"}]
    ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)["input_ids"]
    assert tokenizer.decode(ids[0]) == "user: a house\n"
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > ids.shape[1]
    ours = load_model(straight.checkpoint)
    assert isinstance(ours, HuggingFaceModel)
    torch.testing.assert_close(ours.logits(ours(ids)), model.float()(ids).logits)


def test_questions_with_answers_are_packed(configured, pretrained):
    options = ("trainer.dataset.name=langgame", "trainer.dataset.is_instruction=true", "model.context_window=64")
    trained = train(configured(f"trainer.checkpoint_name={pretrained}", *options))
    assert trained.metrics["validation/loss"] < 8
    assert trained.folder.name == "pretraining-langgame-from-pretrained"


@pytest.mark.slow
def test_a_model_with_more_entries_than_its_tokenizer(configured, tmp_path, vocabulary, monkeypatch):
    padded = CONFIGS["qwen2"].__class__(**{**CONFIGS["qwen2"].to_dict(), "vocab_size": 2112})
    monkeypatch.setitem(CONFIGS, "padded", padded)
    folder = save("padded", tmp_path / "padded", vocabulary)
    planned = plan(configured(f"trainer.checkpoint_name={folder}"), run_name="x")
    assert planned.parameters == sum(p.numel() for p in random_model("padded").parameters())
    trained = train(configured(f"trainer.checkpoint_name={folder}", "trainer.training.max_iters=1"))
    assert load_model(trained.checkpoint).vocab_size == 2112


def test_what_can_not_be_packed_is_refused_by_name(configured, tmp_path, vocabulary):
    folder = save("bloom", tmp_path / "bloom", vocabulary)
    options = ("trainer.dataset.name=langgame", "trainer.dataset.is_instruction=true", "model.context_window=64")
    with pytest.raises(UserError, match="BloomForCausalLM does not keep packed examples apart"):
        train(configured(f"trainer.checkpoint_name={folder}", *options))


@pytest.mark.parametrize("family", [None, "qwen3", "gpt2"])
def test_activations_that_are_computed_again_change_nothing(configured, tmp_path, vocabulary, family):
    options = ["trainer.training.max_iters=3", "trainer.dropout_scheduler.dropout=0.2"]
    if family is not None:
        options.append(f"trainer.checkpoint_name={save(family, tmp_path / family, vocabulary)}")
    kept = train(configured(*options), run_name="kept")
    again = train(configured(*options, "trainer.training.activation_checkpointing=true"), run_name="again")
    assert metrics(again.folder) == metrics(kept.folder)

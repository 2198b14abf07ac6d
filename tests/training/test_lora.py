"""LoRA: adapters alone are trained, saved in the format of `peft`, resumed exactly, merged, and evaluated."""

import json
import shutil
from pathlib import Path

import peft
import pytest
import safetensors.torch
import torch
import transformers

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.run import evaluate
from stochastok_cli.models import adapters
from stochastok_cli.models.base import load_model
from stochastok_cli.training import events
from stochastok_cli.training.plan import plan
from stochastok_cli.training.train import train
from tests.training.runs import train_at_once_and_in_parts
from tests.training.test_huggingface import save

IDS = torch.arange(1, 12)[None]


@pytest.fixture
def pretrained(request, tmp_path, vocabulary) -> Path:
    torch.manual_seed(0)
    return save(getattr(request, "param", "qwen3"), tmp_path / "pretrained", vocabulary)


def lora(base: Path, *more: str) -> tuple[str, ...]:
    return (f"trainer.checkpoint_name={base}", "trainer.lora.rank=4", "trainer.lora.dropout=0.1", *more)


def adapter_bytes(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")]


@pytest.mark.parametrize("pretrained", [pytest.param("qwen3", marks=pytest.mark.slow), "gpt2"], indirect=True)
def test_an_adapter_is_trained_resumed_exactly_and_opened_by_peft(configured, pretrained):
    options = lora(pretrained)
    before = pretrained.joinpath("model.safetensors").read_bytes()
    straight, parts = train_at_once_and_in_parts(configured, *options)
    assert adapter_bytes(parts.checkpoint) == adapter_bytes(straight.checkpoint)
    assert (parts.checkpoint / "optimizer.safetensors").read_bytes() == (
        straight.checkpoint / "optimizer.safetensors"
    ).read_bytes()
    assert pretrained.joinpath("model.safetensors").read_bytes() == before

    folder = straight.checkpoint
    assert not (folder / "config.json").exists()
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (pretrained / name).read_bytes()
    ours = load_model(folder)
    auto = peft.AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    base = transformers.AutoModelForCausalLM.from_pretrained(pretrained, dtype=torch.float32)
    bare = base.eval()(IDS).logits
    onto = peft.PeftModel.from_pretrained(base, folder).eval()
    expected = ours.logits(ours(IDS))
    torch.testing.assert_close(auto(IDS).logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(onto(IDS).logits, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(bare, expected, atol=1e-3)


@pytest.mark.slow
def test_the_adapter_of_a_merged_checkpoint_is_exact_and_the_model_opens_alone(configured, pretrained):
    apart = train(configured(*lora(pretrained)), run_name="apart")
    train(configured(*lora(pretrained, "trainer.training.max_iters=4")), run_name="merged")
    merged = train(configured(*lora(pretrained, "trainer.lora.merge=true")), run_name="merged")  # may change on the way
    assert adapter_bytes(merged.checkpoint / "adapter") == adapter_bytes(apart.checkpoint)
    assert not (merged.checkpoint / "adapter_config.json").exists()
    longer = configured(*lora(pretrained, "trainer.lora.merge=true", "trainer.training.max_iters=9"))
    again = train(longer, run_name="merged")
    assert again.checkpoint.name == "step_9"  # goes on from adapter/

    ours, both = load_model(merged.checkpoint), load_model(apart.checkpoint)
    torch.testing.assert_close(ours.logits(ours(IDS)), both.logits(both(IDS)))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(merged.checkpoint, dtype=torch.float32).eval()
    torch.testing.assert_close(theirs(IDS).logits, ours.logits(ours(IDS)))
    before, after = (json.loads((f / "config.json").read_text()) for f in (pretrained, merged.checkpoint))
    assert {k: v for k, v in after.items() if k != "dtype"} == {k: v for k, v in before.items() if k != "dtype"}


@pytest.mark.slow
def test_an_adapter_is_evaluated_and_is_a_start_for_all_weights(configured, pretrained, data_dir, tmp_path):
    run = train(configured(*lora(pretrained)), run_name="adapter")
    options = {"checkpoint_dir": tmp_path / "runs", "data_dir": data_dir, "device": "cpu"}
    evaluator = {"evaluator": "bits_per_byte", "benchmarks": ["sample-tokenized"], "num_samples": 4}
    adapted, bare = evaluate(["adapter", str(pretrained)], evaluator, **options)
    assert adapted.iteration == 8
    assert adapted.metrics[0].value < bare.metrics[0].value
    further = train(configured("trainer.checkpoint_name=adapter", "trainer.training.max_iters=1"), run_name="all")
    ours, start = load_model(further.checkpoint), load_model(run.checkpoint)  # the first learning rate is 0
    torch.testing.assert_close(ours.logits(ours(IDS)), start.logits(start(IDS)))
    with pytest.raises(UserError, match="is an adapter itself, and trainer.lora needs a whole model"):
        train(configured(*lora(Path("adapter"))), run_name="twice")


@pytest.mark.slow
def test_a_run_of_our_own_architecture_has_adapters_of_the_layers_that_others_know(configured):
    train(configured("trainer.training.max_iters=4"), run_name="own")
    options, seen = lora(Path("own"), "trainer.lora.target_modules=[q_proj,v_proj]"), []
    adapted = train(configured(*options), run_name="adapted", listeners=[seen.append])
    config = peft.PeftConfig.from_pretrained(adapted.checkpoint)
    assert Path(config.base_model_name_or_path) == adapted.folder.with_name("own") / "step_4"
    train(configured("trainer.training.max_iters=8"), run_name="own")
    longer = train(configured(*options, "trainer.training.max_iters=9"), run_name="adapted")  # of step_4, as before
    assert peft.PeftConfig.from_pretrained(longer.checkpoint) == config
    opened = peft.AutoPeftModelForCausalLM.from_pretrained(adapted.checkpoint)
    trained = sum(p.numel() for name, p in opened.named_parameters() if "lora_" in name)
    assert next(event for event in seen if isinstance(event, events.Started)).parameters == trained


@pytest.mark.parametrize("merge", ["false", "true"])
def test_the_plan_counts_what_is_trained(configured, pretrained, merge):
    options = lora(pretrained, "trainer.training.max_iters=1", f"trainer.lora.merge={merge}")
    planned, whole = plan(configured(*options)), plan(configured(options[0]))
    files = train(configured(*options)).checkpoint.rglob("*.safetensors")
    stored = [safetensors.torch.load_file(file) for file in files]
    assert planned.checkpoint_bytes == pytest.approx(
        sum(tensor.nbytes for tensors in stored for tensor in tensors.values()), rel=0.01
    )
    assert planned.parameters < whole.parameters / 4
    assert whole.flops_per_token / 2 < planned.flops_per_token < whole.flops_per_token


def test_other_weights_of_the_base_are_noticed(configured, pretrained, monkeypatch):
    options = lora(pretrained, "trainer.training.max_iters=1")
    run = train(configured(*options), run_name="x")
    before = {file: file.read_bytes() for file in run.folder.glob("*.*")}
    weights = safetensors.torch.load_file(pretrained / "model.safetensors")
    name = max(weights, key=lambda name: weights[name].dim())
    weights[name] = weights[name] + 1
    safetensors.torch.save_file(weights, pretrained / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="is an adapter of other weights than its base model has now"):
        load_model(run.checkpoint)
    with pytest.raises(UserError, match="is an adapter of other weights than its base model has now"):
        train(configured(*lora(pretrained, "trainer.training.max_iters=2")), run_name="x")
    assert {file: file.read_bytes() for file in run.folder.glob("*.*")} == before
    shutil.rmtree(pretrained)
    with pytest.raises(UserError, match="the base model of the adapter in .*, is not there"):
        load_model(run.checkpoint)
    file = run.checkpoint / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "x/step_9"}))
    monkeypatch.chdir(run.checkpoint.parent.parent)  # a missing checkpoint of a run is not looked for on the Hub
    with pytest.raises(UserError, match="x/step_9, the base model of the adapter in .*, is not there"):
        adapters.find_base(run.checkpoint)


def test_what_has_no_adapter_is_refused(configured, pretrained, monkeypatch):
    for targets, problem in [("[nothing]", "has no layer 'nothing'|does not fit"), ("[lm_head]", "head can't have")]:
        with pytest.raises(UserError, match=problem) as info:
            train(configured(*lora(pretrained, f"trainer.lora.target_modules={targets}")))
        assert "layers are" in str(info.value) or "take some of" in str(info.value)
    with pytest.raises(UserError, match="trainer.lora.rank = 4 needs a model to start from"):
        configured("trainer.lora.rank=4")
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UserError, match=r"needs peft, which is not installed.*pip install 'stochastok\[peft\]'"):
        train(configured(*lora(pretrained)))


def test_adapters_of_others_that_do_not_fit_or_are_pickles_are_refused(pretrained, tmp_path):
    base = transformers.AutoModelForCausalLM.from_pretrained(pretrained, dtype=torch.float32)
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    theirs.save_pretrained(tmp_path / "theirs")
    assert load_model(tmp_path / "theirs")
    weights = safetensors.torch.load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    weights.pop(min(weights))
    safetensors.torch.save_file(weights, tmp_path / "theirs" / "adapter_model.safetensors")
    with pytest.raises(UserError, match="does not fit its base model"):
        load_model(tmp_path / "theirs")
    (tmp_path / "theirs" / "adapter_model.safetensors").rename(tmp_path / "theirs" / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model.safetensors is missing"):
        load_model(tmp_path / "theirs")

"""`trainer.training.weight_dtype` and `checkpoint_dtype`: what is computed, saved and resumed in which type."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from stochastok_cli.errors import UserError
from stochastok_cli.models.base import load_model
from stochastok_cli.training.plan import plan
from stochastok_cli.training.train import train
from tests.training.runs import metrics, tensors
from tests.training.test_huggingface import save

BFLOAT16 = "trainer.training.weight_dtype=bfloat16"
ROUNDED = "trainer.training.checkpoint_dtype=bfloat16"
EVALUATIONS = ("trainer.training.eval_interval=2", "trainer.training.checkpoint_interval=2")


def iterations(count: int) -> list[str]:
    return [f"trainer.training.max_iters={count}", *EVALUATIONS]


@pytest.fixture(params=[None, "qwen3", "gpt2"])
def start(request, tmp_path, vocabulary) -> list[str]:
    """Overrides that start from a model of `transformers`; none for our own architecture."""
    if request.param is None:
        return []
    torch.manual_seed(0)
    return [f"trainer.checkpoint_name={save(request.param, tmp_path / request.param, vocabulary)}"]


def dtypes(file) -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(file).values()}


def config_dtype(checkpoint) -> str:
    return json.loads((checkpoint / "config.json").read_text())["dtype"]


def test_weights_in_bfloat16_learn_and_resume_exactly(configured, start):
    straight = train(configured(*start, BFLOAT16, *iterations(4)), run_name="straight")
    losses = [line["validation/loss"] for line in metrics(straight.folder) if "validation/loss" in line]
    assert losses[-1] < losses[0]
    assert all(isinstance(line["train/loss"], float) for line in metrics(straight.folder) if "train/loss" in line)
    train(configured(*start, BFLOAT16, *iterations(2)), run_name="parts")
    parts = train(configured(*start, BFLOAT16, *iterations(4)), run_name="parts")
    assert tensors(parts.checkpoint) == tensors(straight.checkpoint)

    assert dtypes(straight.checkpoint / "model.safetensors") == {torch.bfloat16}
    assert dtypes(straight.checkpoint / "optimizer.safetensors") == {torch.bfloat16, torch.float32}  # step counts
    assert config_dtype(straight.checkpoint) == "bfloat16"
    opened = transformers.AutoModelForCausalLM.from_pretrained(straight.checkpoint)
    assert opened.dtype == torch.bfloat16
    ids = torch.arange(1, 12)[None]
    ours = load_model(straight.checkpoint)
    torch.testing.assert_close(ours.logits(ours(ids)), opened.float().eval()(ids).logits, rtol=1e-3, atol=1e-3)


def test_the_loss_is_no_sixteen_bit_number(configured):
    exact, coarse = (
        train(configured(*more, "trainer.training.max_iters=1"), run_name=name)
        for name, more in [("exact", ()), ("coarse", (BFLOAT16,))]
    )
    expected, actual = metrics(exact.folder)[1]["train/loss"], metrics(coarse.folder)[1]["train/loss"]
    assert actual == pytest.approx(expected, rel=1e-3)
    assert torch.tensor(actual).bfloat16().item() != actual


def test_rounded_checkpoints_resume_exactly_from_float32_weights(configured, start):
    exact = train(configured(*start, *iterations(4)), run_name="exact")
    train(configured(*start, ROUNDED, *iterations(2)), run_name="rounded")
    rounded = train(configured(*start, ROUNDED, *iterations(4)), run_name="rounded")
    assert metrics(rounded.folder) == metrics(exact.folder)
    expected, actual = (load_file(run.checkpoint / "model.safetensors") for run in (exact, rounded))
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor.bfloat16())
    assert (config_dtype(exact.checkpoint), config_dtype(rounded.checkpoint)) == ("float32", "bfloat16")
    assert transformers.AutoModelForCausalLM.from_pretrained(rounded.checkpoint).dtype == torch.bfloat16
    longer = configured(*start, *iterations(5))
    back = train(longer, run_name="rounded")  # the type may change while a run goes on
    assert tensors(back.checkpoint) == tensors(train(longer, run_name="exact").checkpoint)


@pytest.mark.parametrize("start", ["qwen3"], indirect=True)
@pytest.mark.parametrize("merge", ["false", "true"])
def test_adapters_are_float32_and_the_merged_model_has_the_type_of_its_base(configured, start, merge):
    options = [*start, "trainer.lora.rank=4", f"trainer.lora.merge={merge}", BFLOAT16]
    straight = train(configured(*options, *iterations(4)), run_name="straight")
    train(configured(*options, ROUNDED, *iterations(2)), run_name="parts")
    parts = train(configured(*options, *iterations(4)), run_name="parts")
    (adapter,) = parts.checkpoint.rglob("adapter_model.safetensors")
    (expected,) = straight.checkpoint.rglob("adapter_model.safetensors")
    assert adapter.read_bytes() == expected.read_bytes()
    assert dtypes(adapter) == {torch.float32}
    (halfway,) = (parts.folder / "step_2").rglob("adapter_model.safetensors")
    assert dtypes(halfway) == {torch.bfloat16}
    if merge == "true":
        assert dtypes(straight.checkpoint / "model.safetensors") == {torch.bfloat16}
        assert config_dtype(straight.checkpoint) == "bfloat16"


@pytest.mark.parametrize("options", [[BFLOAT16], [ROUNDED], [BFLOAT16, ROUNDED]])
def test_the_plan_knows_the_size(configured, options):
    planned = plan(configured(*options, "trainer.training.max_iters=1"))
    checkpoint = train(configured(*options, "trainer.training.max_iters=1")).checkpoint
    stored = sum(tensor.nbytes for file in checkpoint.glob("*.safetensors") for tensor in load_file(file).values())
    assert planned.checkpoint_bytes == pytest.approx(stored, rel=0.01)


def test_fused_kernels_are_refused_by_reason(configured):
    with pytest.raises(UserError, match="general.kernels is fused, but trainer.training.weight_dtype is bfloat16"):
        train(configured(BFLOAT16, "general.kernels=fused"))

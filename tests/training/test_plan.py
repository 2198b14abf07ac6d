"""`--plan`: what it predicts, compared with the run."""

import dataclasses
import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stochastok_cli.cli.plan_output import plan_table
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training import events, trainer
from stochastok_cli.training import plan as plan_module
from stochastok_cli.training.backends import EagerBackend
from stochastok_cli.training.background_writer import HostBuffers
from stochastok_cli.training.plan import plan
from stochastok_cli.training.train import train
from tests.training.test_ranks import launched

MCQ = "trainer.eval=[{evaluator:mcq,num_samples:10,benchmarks:[langgame-val]}]"
UNEVEN = ("trainer.training.max_iters=10", "trainer.training.eval_interval=3", "trainer.training.checkpoint_interval=2")


def test_the_run_is_as_planned(configured, tmp_path):
    config = configured(*UNEVEN, MCQ)
    planned = plan(config)
    assert not (tmp_path / "runs").exists()  # nothing was written
    seen = []
    trained = train(config, listeners=[seen.append])
    started = next(event for event in seen if isinstance(event, events.Started))
    assert planned.folder == trained.folder
    assert planned.parameters == started.parameters
    assert (planned.tokens_per_iteration, planned.tokens) == (started.tokens_per_iteration, 10 * 3 * 4 * 24)
    assert planned.evaluations == sum(isinstance(event, events.Evaluated) for event in seen)
    assert planned.checkpoints == 5  # all that are written: 3, the best and the one being written
    on_disk = sum((trained.checkpoint / name).stat().st_size for name in ("model.safetensors", "optimizer.safetensors"))
    assert planned.checkpoint_bytes == pytest.approx(on_disk, rel=0.15)  # and some kB of headers
    assert planned.seconds == pytest.approx(10 * planned.seconds_per_iteration + 5 * planned.seconds_per_evaluation)
    assert planned.seconds_per_iteration > 0 and planned.seconds_per_evaluation > 0
    assert planned.memory < planned.memory_total
    assert (planned.windows_at_once, planned.recomputes_activations) == (3, False)
    assert "3 windows at once\n" in plan_table(planned)


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_evaluations_are_planned_where_a_forward_pass_takes_several_batches(configured, monkeypatch, steps):
    """As with the fused kernels, which take the windows of an iteration together."""

    class WholeIterations(EagerBackend):
        def micro_batches(self, windows):
            return [windows.ravel()]

        def loss(self, batch):
            nonlocal now
            now += 1  # second for each forward pass, whatever its size
            return batch.token_weights.sum()

    now = 0.0
    monkeypatch.setattr(trainer, "EagerBackend", WholeIterations)
    monkeypatch.setattr(plan_module.time, "monotonic", lambda: now)
    monkeypatch.setattr(plan_module, "_measure_iterations", lambda *of: (0.0, 1.0))
    options = f"trainer.training.gradient_accumulation_steps={steps}", "trainer.training.eval_iters=640"
    assert plan(configured(*options)).seconds_per_evaluation == 640 / steps


def test_recomputed_activations_are_part_of_the_plan(configured):
    planned = plan(configured("trainer.training.activation_checkpointing=true"))
    assert planned.recomputes_activations
    assert "3 windows at once, activations computed again in the backward pass" in plan_table(planned)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_copies_in_host_memory_are_part_of_the_plan(dtype, configured, monkeypatch):
    config = configured("trainer.training.async_save=true", f"trainer.training.checkpoint_dtype={dtype}")
    planned = plan(config)
    buffers, make = {}, HostBuffers._buffer
    monkeypatch.setattr(HostBuffers, "_buffer", lambda self, *of: buffers.setdefault((self, of[0]), make(self, *of)))
    train(config)
    sizes = [tensor.nbytes for tensor in buffers.values() if tensor.dim()]  # without the counts of steps
    assert planned.host_copies == sum(sizes)
    assert "host memory" in plan_table(planned) and "NOT ENOUGH" not in plan_table(planned)
    small = dataclasses.replace(planned, host_memory_total=planned.host_copies - 1)
    assert "for the copies of `async_save`: NOT ENOUGH" in plan_table(small)
    assert "host memory" not in plan_table(dataclasses.replace(planned, host_copies=0))


def test_the_rest_of_a_stopped_run_is_planned(configured):
    train(configured("trainer.training.max_iters=4"))
    rest = plan(configured(*UNEVEN[:1], "trainer.training.eval_interval=4"))
    assert rest.iterations == 6
    assert rest.evaluations == 2  # after 8 and after 10: the one after 4 was made


def test_a_complete_run_has_no_plan(command, configured):
    folder = train(configured("trainer.training.max_iters=1")).folder
    assert plan(configured("trainer.training.max_iters=1")) == folder
    done = command("--plan", "trainer.training.max_iters=1")
    assert (done.returncode, done.stdout) == (0, f"{folder}\n")
    assert done.stderr.endswith("is complete; nothing is left to do\n")


def test_a_very_long_run_can_be_planned(configured):
    planned = plan(configured("trainer.training.max_iters=1000000000000"))
    assert (planned.evaluations, planned.checkpoints) == (250_000_000_001, 5)


def test_operations_are_those_of_the_products(configured):
    """Counted by torch while it computes: 2 for a multiplication and addition, the backward pass twice that."""
    model = Llama(configured("model.context_window=128").model)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # as products, the masked half too
        hidden = model(torch.zeros(2, 128, dtype=torch.int64))
        model.logits(hidden)
    products = 2 * model.num_matrix_parameters()
    attention = 2 * model.flops_per_token(128) / 6 - products
    assert counter.get_total_flops() / 256 == pytest.approx(products + 2 * attention)


def test_the_command_prints_a_table_or_an_object(command, tmp_path):
    table = command("--plan", MCQ)
    assert table.returncode == 0, table.stderr
    titles = [line.split()[0] for line in table.stdout.splitlines() if not line.startswith(" ")]
    assert titles == ["run", "model", "device", "training", "speed", "memory", "disk", "evaluation", "time"]
    overrides = ("trainer.training.max_iters=2", "trainer.training.async_save=true")
    planned = json.loads(command("--plan", "--json", "--quiet", *overrides).stdout)
    assert 0 < planned["host_copies"] < planned["host_memory_total"]
    assert (planned["schema"], planned["iterations"], planned["ranks"], planned["device"]) == (1, 2, 1, "CPU")
    assert planned["flops"] == planned["tokens"] * planned["flops_per_token"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_several_ranks_plan_together_and_rank_0_prints(config_file):
    process = launched(config_file, 2, "--plan", "--json", "--quiet", MCQ)
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert json.loads(out)["ranks"] == 2


def test_a_plan_refuses_what_training_would(command):
    refused = command("--plan", "model.vocab_size=100")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "of 2,048 entries" in refused.stderr

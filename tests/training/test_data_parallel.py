"""Whole models on each rank: gradients, clipping, sums over ranks, the same number of forward passes on every rank."""

import subprocess
import sys

import pytest
import torch

from stochastok_cli.config import OptimizerConfig
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.data_parallel import Replicated, SingleRank
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.optimizers import clip_or_skip_update, make_optimizer


@pytest.fixture
def model(configured):
    torch.manual_seed(0)
    return Llama(configured().model)


def prepared(kind, model):
    parallel = kind(DistributedContext(0, 1, torch.device("cpu")))
    parallel.prepare(model)
    return parallel


def backward(model):
    model.logits(model(torch.arange(12).view(2, 6))).square().mean().backward()


@pytest.mark.parametrize("kind", [SingleRank, Replicated])
@pytest.mark.parametrize("max_norm", [0, 0.01, 1e6])
def test_two_micro_batches_and_an_update_equal_those_of_torch(model, kind, max_norm):
    plain = Llama(model.config)
    plain.load_state_dict(model.state_dict())
    parallel = prepared(kind, model)
    optimizer, plain_optimizer = (make_optimizer(each, OptimizerConfig(lr=0.01)) for each in (model, plain))
    for _ in range(3):
        parallel.zero_grad()
        plain_optimizer.zero_grad()
        for _ in range(2):
            backward(model)
            backward(plain)
        parallel.reduce_gradients()
        expected = torch.nn.utils.clip_grad_norm_(plain.parameters(), max_norm or float("inf"))
        norm = parallel.gradient_norm()
        torch.testing.assert_close(norm, expected)
        clip_or_skip_update(optimizer, norm, max_norm, skip=torch.tensor(False))
        optimizer.step()
        plain_optimizer.step()
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
    parallel.zero_grad()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_the_flat_buffer_holds_every_gradient(model):
    parallel = prepared(Replicated, model)
    backward(model)
    assert sum(p.grad.numel() for p in model.parameters()) == len(parallel.gradient)
    parallel.gradient.copy_(torch.arange(len(parallel.gradient)))
    places = torch.cat([p.grad.flatten() for p in model.parameters()]).long()
    assert places.bincount().eq(1).all()
    first_of_blocks = min(int(p.grad.min()) for p in model.layers.parameters())
    assert first_of_blocks == sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in model.layers.parameters()
    )


@pytest.mark.parametrize("kind", [SingleRank, Replicated])
def test_weight_decay_acts_on_a_weight_that_had_no_part_in_the_loss(model, kind):
    parallel = prepared(kind, model)
    optimizer = make_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5))
    backward(model)
    unused = model.embedding.weight
    unused.grad = None if kind is SingleRank else unused.grad.zero_()
    before = unused.detach().clone()
    parallel.reduce_gradients()
    clip_or_skip_update(optimizer, parallel.gradient_norm(), 1.0, skip=torch.tensor(False))
    optimizer.step()
    torch.testing.assert_close(unused.detach(), before * 0.95)


def run_on_two_ranks(tmp_path, script, *arguments):
    file = tmp_path / "script.py"
    file.write_text(script)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, str(file), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


SUM_IN_PIECES = """
import torch
from stochastok_cli.config import config_from_dict
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.distributed import distributed_context
from stochastok_cli.training import data_parallel
from stochastok_cli.training.data_parallel import Replicated

model = {"core_model": {"num_layers": 3, "ffn": {"ffn_dim": 32}, "attn": {"num_heads": 2, "group_size": 2}}}
config = config_from_dict({"model": {**model, "hidden_dim": 16, "vocab_size": 300}}, "test")
with distributed_context("cpu") as world:
    parallel = Replicated(world)
    torch.manual_seed(world.rank)
    model = parallel.prepare(Llama(config.model))
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), Llama(config.model).parameters(), strict=True))
    expected = torch.arange(len(parallel.flat), dtype=torch.float32)
    of_block = parallel._blocks[0].stop - parallel._blocks[0].start
    starts = []
    start = world.all_reduce_async
    count = lambda tensor: starts.append(len(tensor)) or start(tensor)
    object.__setattr__(world, "all_reduce_async", count)
    for blocks, sums in ((1, [1, 1, 1]), (2, [2]), (3, [3]), (4, [])):
        data_parallel.BUCKET_BYTES = blocks * of_block * 4
        for complete in ([2, 1, 0], [], [1], [2, 0], [0, 2]):
            parallel.flat.copy_(expected * (world.rank + 1))
            starts.clear()
            for block in complete:
                parallel.on_gradients_ready(block)
            if complete == [2, 1, 0]:
                assert starts == [n * of_block for n in sums], (blocks, starts)
            parallel.reduce_gradients()
            assert torch.equal(parallel.flat, expected * 3), (blocks, complete)
"""


@pytest.mark.slow
def test_gradients_are_summed_once_whichever_blocks_are_reduced_early(tmp_path):
    run_on_two_ranks(tmp_path, SUM_IN_PIECES)


UNUSED_WEIGHT = """
import torch
from stochastok_cli.config import OptimizerConfig, config_from_dict
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.distributed import distributed_context
from stochastok_cli.training.optimizers import clip_or_skip_update, make_optimizer
from stochastok_cli.training.sharded import Sharded

model = {"core_model": {"num_layers": 1, "ffn": {"ffn_dim": 32}, "attn": {"num_heads": 2, "group_size": 2}}}
config = config_from_dict({"model": {**model, "hidden_dim": 16, "vocab_size": 300}}, "test")
with distributed_context("cpu") as world:
    model = Llama(config.model)
    model.layers[0].unused = torch.nn.Parameter(torch.ones(4, 4))
    parallel = Sharded(world)
    model = parallel.prepare(model)
    optimizer = make_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5), world)
    parallel.zero_grad()
    model.logits(model(torch.arange(12).view(2, 6))).square().mean().backward()
    parallel.reduce_gradients()
    clip_or_skip_update(optimizer, parallel.gradient_norm(), 1.0, skip=torch.tensor(False))
    optimizer.step()
    unused = model.layers[0].unused.full_tensor()
    torch.testing.assert_close(unused, torch.full((4, 4), 0.95))
"""


@pytest.mark.slow
def test_weight_decay_acts_on_such_a_weight_where_the_model_is_sharded(tmp_path):
    run_on_two_ranks(tmp_path, UNUSED_WEIGHT)


VALIDATE = """
import sys
import torch
from stochastok_cli.config import load_config
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.backends import EagerBackend
from stochastok_cli.training.distributed import distributed_context
from stochastok_cli.training.data import open_data
from stochastok_cli.training.validation import Validation

config = load_config(sys.argv[1], ["trainer.training.eval_iters=3"])
with distributed_context("cpu") as world:
    torch.manual_seed(0)
    data, backend = open_data(config), EagerBackend(Llama(config.model), config, world.device)
    passes = []
    compute = backend.loss
    backend.loss = lambda batch: passes.append(1) or compute(batch)
    metrics = Validation(data.val, config.trainer.training, world, data.vocabulary)(backend.model, backend)
    everyone = world.all_gather_object(len(passes))
    backend.micro_batches = lambda windows: [windows.ravel()]  # as the fused kernels
    together = Validation(data.val, config.trainer.training, world, data.vocabulary)(backend.model, backend)
    if world.is_main:
        print(metrics["validation/loss"], metrics["validation/bits_per_byte"], together["validation/loss"], *everyone)
"""


@pytest.mark.slow
def test_every_rank_makes_as_many_forward_passes_in_a_validation(tmp_path, config_file):
    script = tmp_path / "validate.py"
    script.write_text(VALIDATE)
    alone = subprocess.check_output([sys.executable, str(script), str(config_file)], text=True).split()
    divided = run_on_two_ranks(tmp_path, VALIDATE, str(config_file)).split()
    assert [float(x) for x in divided[:3]] == pytest.approx([float(x) for x in alone[:3]], rel=1e-6)
    assert float(alone[2]) == pytest.approx(float(alone[0]), rel=1e-6)
    assert (alone[3:], divided[3:]) == (["3"], ["2", "2"])

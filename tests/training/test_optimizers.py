"""Decay groups, the flat gradient, clipping, and updates that are skipped on the device."""

import pytest
import torch

from stochastok_cli.config import OptimizerConfig
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.optimizers import make_optimizer, optimizer_tensors, skip_update_where
from stochastok_cli.training.parallel import Replicated

ALONE = DistributedContext(0, 1, torch.device("cpu"))


@pytest.fixture
def model(configured):
    torch.manual_seed(0)
    return Llama(configured().model)


def replicated(model):
    parallel = Replicated(ALONE)
    parallel.prepare(model)
    return parallel


def backward(model):
    model.logits(model(torch.arange(12).view(2, 6))).square().mean().backward()


def test_decay_is_on_tensors_of_two_or_more_dimensions_the_embedding_included(model):
    decayed, plain = make_optimizer(model, OptimizerConfig(weight_decay=0.3)).param_groups
    assert decayed["weight_decay"] == 0.3
    assert plain["weight_decay"] == 0
    assert any(p is model.embedding.weight for p in decayed["params"])
    assert {p.dim() for p in plain["params"]} == {1}
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))
    assert (decayed["eps"], decayed["betas"]) == (1e-8, (0.9, 0.95))


def test_the_flat_buffer_holds_every_gradient_and_survives_steps(model):
    plain = Llama(model.config)
    plain.load_state_dict(model.state_dict())
    gradients = replicated(model)
    for _ in range(2):
        backward(model)
        backward(plain)
    expected = torch.cat([p.grad.flatten() for p in plain.parameters()])
    torch.testing.assert_close(gradients.gradient, expected)
    norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    torch.testing.assert_close(gradients.clip_(0.01), norm)
    torch.testing.assert_close(gradients.gradient, torch.cat([p.grad.flatten() for p in plain.parameters()]))
    make_optimizer(model, OptimizerConfig()).step()
    gradients.zero_grad()
    assert all(not p.grad.any() for p in model.parameters())


def test_no_clipping_at_zero(model):
    gradients = replicated(model)
    backward(model)
    before = gradients.gradient.clone()
    gradients.clip_(0)
    assert torch.equal(gradients.gradient, before)


def test_a_bad_update_touches_neither_weights_nor_moments(model):
    optimizer, gradients = make_optimizer(model, OptimizerConfig(lr=0.1)), replicated(model)
    backward(model)
    skip_update_where(torch.tensor(False), optimizer)
    optimizer.step()
    state = [t.clone() for t in [*model.parameters(), *optimizer_tensors(model, optimizer).values()]]
    gradients.gradient.fill_(float("nan"))
    skip_update_where(torch.tensor(True), optimizer)
    optimizer.step()
    for before, after in zip(state, [*model.parameters(), *optimizer_tensors(model, optimizer).values()], strict=True):
        assert torch.equal(before, after)

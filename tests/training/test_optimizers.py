"""Decay groups, and updates that are skipped on the device."""

import pytest
import torch

from stochastok_cli.config import OptimizerConfig
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.optimizers import clip_or_skip_update, make_optimizer, optimizer_tensors


@pytest.fixture
def model(configured):
    torch.manual_seed(0)
    return Llama(configured().model)


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


def test_a_bad_update_touches_neither_weights_nor_moments(model):
    optimizer = make_optimizer(model, OptimizerConfig(lr=0.1))
    backward(model)
    clip_or_skip_update(optimizer, torch.tensor(1.0), 1.0, skip=torch.tensor(False))
    optimizer.step()
    state = [t.clone() for t in [*model.parameters(), *optimizer_tensors(model, optimizer).values()]]
    for parameter in model.parameters():
        parameter.grad.fill_(float("nan"))
    clip_or_skip_update(optimizer, torch.tensor(float("nan")), 1.0, skip=torch.tensor(True))
    optimizer.step()
    for before, after in zip(state, [*model.parameters(), *optimizer_tensors(model, optimizer).values()], strict=True):
        assert torch.equal(before, after)

import pytest
import torch

from tests.model.fused.twins import fused_config
from tests.model.small_models import sharp_model

BETAS, EPS, DECAY = (0.9, 0.95), 1e-8, 0.1
RATES = (1e-2, 3e-3, 2e-3, 1e-3)


def _fused(device, dtype, grad_clip):
    from stochastok_cli.model.fused.adamw import FusedAdamW
    from stochastok_cli.model.fused.step import FusedStep

    model = sharp_model(fused_config(layers=1, vocab_size=300)).to(device)
    step = FusedStep(model, 0.0, dtype=dtype)
    return model, step, FusedAdamW(step, betas=BETAS, eps=EPS, weight_decay=DECAY, grad_clip=grad_clip)


def _draw_gradients(model, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator).to(parameter.device)


@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
def test_updates_are_torchs_and_the_copies_follow(device, dtype, grad_clip):
    model, step, optimizer = _fused(device, dtype, grad_clip)
    twin = sharp_model(model.config).to(device)
    groups = [
        {"params": [p for p in twin.parameters() if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in twin.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    expected = torch.optim.AdamW(groups, betas=BETAS, eps=EPS)
    for i, rate in enumerate(RATES):
        scale = 1.0 if i else 1e-4  # the first gradient is too small to be clipped
        _draw_gradients(model, i, scale)
        _draw_gradients(twin, i, scale)
        norm = optimizer.update(rate)
        expected_norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), grad_clip or torch.inf)
        torch.testing.assert_close(norm, expected_norm)
        for group in expected.param_groups:
            group["lr"] = rate
        expected.step()
    for found, wanted in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    for parameter, copy in step.weights.items():
        torch.testing.assert_close(copy[: len(parameter)], parameter.detach().to(copy.dtype), atol=0, rtol=0)
        assert not copy[len(parameter) :].any()


@pytest.mark.parametrize("bad", ["nan", "inf", "skip"])
def test_update_is_skipped_on_the_device(device, dtype, bad):
    model, _, optimizer = _fused(device, dtype, 1.0)
    _draw_gradients(model, 0)
    optimizer.update(1e-3)
    before = [t.clone() for t in (*model.parameters(), *optimizer.exp_avg, *optimizer.exp_avg_sq, optimizer.updates)]
    if bad != "skip":
        model.norm.weight.grad[3] = float(bad)
    optimizer.update(1e-3, skip=torch.tensor(bad == "skip", device=device))
    after = [*model.parameters(), *optimizer.exp_avg, *optimizer.exp_avg_sq, optimizer.updates]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

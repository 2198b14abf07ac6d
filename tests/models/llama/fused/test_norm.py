import pytest
import torch
import torch.nn.functional as F

from stochastok_cli.models.llama.model import NORM_EPS
from tests.models.llama.fused.reference_kernels import random_keys, relative_error, residual_mask

WINDOWS, LENGTH, STREAM = 2, 64, 8
ROWS = WINDOWS * LENGTH


@pytest.fixture(params=[192, 1100], ids=["narrow", "wide"])
def case(request, device, dtype):
    """x, y, gain, keys, and a gradient for each of the two results."""
    generator, width = torch.Generator().manual_seed(0), request.param
    x, y, normed_grad, total_grad = torch.randn(4, ROWS, width, generator=generator).to(device, dtype)
    gain = torch.rand(width, generator=generator).to(device) + 0.5
    return x, y, gain, random_keys(WINDOWS, device), normed_grad, total_grad


def _forward(x, y, gain, keys, dropout):
    from stochastok_cli.models.llama.fused.norm import residual_norm

    total, normed = torch.empty_like(x), torch.empty_like(x)
    rstd = torch.empty(ROWS, device=x.device)
    residual_norm(x, y, gain, keys, STREAM, dropout, LENGTH, total, normed, rstd)
    return total, normed, rstd


def _mask(keys, dropout, width):
    return residual_mask(keys, STREAM, LENGTH, width, dropout).view(ROWS, width)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_forward(case, dropout, tolerance):
    x, y, gain, keys, _, _ = case
    total, normed, rstd = _forward(x, y, gain, keys, dropout)
    expected = x.float() + y.float() * _mask(keys, dropout, x.shape[1])
    assert relative_error(total, expected) < tolerance
    assert relative_error(normed, F.rms_norm(expected, (x.shape[1],), gain, NORM_EPS)) < tolerance
    assert relative_error(rstd, (expected.square().mean(1) + NORM_EPS).rsqrt()) < tolerance


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_backward(case, dropout, tolerance):
    from stochastok_cli.models.llama.fused.norm import residual_norm_backward

    x, y, gain, keys, normed_grad, total_grad = case
    total, _, rstd = _forward(x, y, gain, keys, dropout)
    dx, dy = torch.empty_like(x), torch.empty_like(x)
    gain_grad, partial = torch.ones_like(gain), torch.empty(3, x.shape[1], device=x.device)
    residual_norm_backward(
        normed_grad, total, rstd, gain, total_grad, dx, gain_grad, partial, dy=dy, dropout_keys=keys, stream=STREAM,
        dropout=dropout, length=LENGTH,
    )  # fmt: skip

    wide, gain = total.float().requires_grad_(), gain.clone().requires_grad_()
    normed = F.rms_norm(wide, (x.shape[1],), gain, NORM_EPS)
    torch.autograd.backward((normed, wide.clone()), (normed_grad.float(), total_grad.float()))
    assert relative_error(dx, wide.grad) < tolerance
    assert relative_error(dy, wide.grad * _mask(keys, dropout, x.shape[1])) < tolerance
    assert relative_error(gain_grad - 1, gain.grad) < tolerance


def test_backward_without_a_residual_gradient(case, tolerance):
    from stochastok_cli.models.llama.fused.norm import residual_norm_backward

    x, y, gain, keys, normed_grad, _ = case
    total, _, rstd = _forward(x, y, gain, keys, 0.0)
    dx, gain_grad = torch.empty_like(x), torch.zeros_like(gain)
    residual_norm_backward(
        normed_grad, total, rstd, gain, None, dx, gain_grad, torch.empty(2, x.shape[1], device=x.device)
    )
    wide = total.float().requires_grad_()
    F.rms_norm(wide, (x.shape[1],), gain, NORM_EPS).backward(normed_grad.float())
    assert relative_error(dx, wide.grad) < tolerance


def test_the_norm_alone_has_the_same_bits(case):
    from stochastok_cli.models.llama.fused.norm import norm

    x, y, gain, keys, _, _ = case
    total, normed, rstd = _forward(x, y, gain, keys, 0.3)
    again, rstd_again = torch.empty_like(normed), torch.empty_like(rstd)
    norm(total, gain, again, rstd_again)
    assert torch.equal(again, normed) and torch.equal(rstd_again, rstd)


def test_programs_take_fewer_of_wide_rows():
    from stochastok_cli.models.llama.fused.norm import rows_of_program

    assert [rows_of_program(block, 16) for block in (128, 512, 1024, 4096, 16384)] == [16, 16, 8, 2, 1]

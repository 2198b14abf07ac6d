import pytest
import torch
import torch.nn.functional as F

from stochastok_cli.models.llama.model import NORM_EPS
from tests.models.llama.fused.reference_kernels import random_keys, relative_error, residual_mask

WINDOWS, LENGTH, STREAM = 2, 64, 8
ROWS = WINDOWS * LENGTH


@pytest.fixture(params=[192, 1100], ids=["narrow", "wide"])
def case(request, device, dtype):
    """x, gain, and two gradients."""
    generator, width = torch.Generator().manual_seed(0), request.param
    x, grad, residual_grad = torch.randn(3, ROWS, width, generator=generator).to(device, dtype)
    gain = torch.rand(width, generator=generator).to(device) + 0.5
    return x, gain, grad, residual_grad


def _rstd(x):
    return (x.float().square().mean(1) + NORM_EPS).rsqrt()


def test_the_last_norm_and_its_gradient(case, tolerance):
    from stochastok_cli.models.llama.fused.norm import norm, norm_backward

    x, gain, grad, _ = case
    normed, rstd = torch.empty_like(x), torch.empty(ROWS, device=x.device)
    norm(x, gain, normed, rstd)
    wide, wide_gain = x.float().requires_grad_(), gain.clone().requires_grad_()
    expected = F.rms_norm(wide, (x.shape[1],), wide_gain, NORM_EPS)
    assert relative_error(normed, expected) < tolerance
    assert relative_error(rstd, _rstd(x)) < 1e-5

    expected.backward(grad.float())
    dx, gain_grad = torch.full_like(x, torch.nan), torch.ones_like(gain)
    norm_backward(grad, x, rstd, gain, dx, gain_grad, torch.empty(3, x.shape[1], device=x.device))
    assert relative_error(dx, wide.grad) < tolerance
    assert relative_error(gain_grad - 1, wide_gain.grad) < tolerance


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_projection_of_rows_that_are_not_normalized_has_the_gradients_of_one_that_are(case, dropout, tolerance):
    """With the gradient of the result times `rstd`, as kernels store it."""
    from stochastok_cli.models.llama.fused.norm import (
        add_projection_gradients,
        copy_scaled_weight,
        scaled_norm_backward,
    )

    x, gain, _, residual_grad = case
    width, columns, keys = x.shape[1], 37 * 8, random_keys(WINDOWS, x.device)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(columns, width, generator=generator).to(x.device) / width**0.5
    result_grad = torch.randn(ROWS, columns, generator=generator).to(x.device)
    wide, wide_gain, wide_weight = (t.detach().float().clone().requires_grad_() for t in (x, gain, weight))
    projected = F.rms_norm(wide, (width,), wide_gain, NORM_EPS) @ wide_weight.T
    torch.autograd.backward((projected, wide.clone()), (result_grad, residual_grad.float()))

    rstd = _rstd(x)
    scaled_grad = (result_grad * rstd[:, None]).to(x.dtype)
    weight_grad, gain_grad = torch.ones_like(weight), torch.ones_like(gain)
    product = torch.full((columns + 8, width), torch.nan, device=x.device)
    partial = torch.full((3, width), torch.nan, device=x.device)
    add_projection_gradients(scaled_grad, x, weight, gain, weight_grad, gain_grad, product, partial)
    assert relative_error(weight_grad - 1, wide_weight.grad) < tolerance
    assert relative_error(gain_grad - 1, wide_gain.grad) < tolerance

    scaled_weight = torch.full_like(weight, torch.nan, dtype=x.dtype)
    copy_scaled_weight(weight, gain, scaled_weight)
    assert torch.equal(scaled_weight, (weight * gain).to(x.dtype))
    grad = scaled_grad @ scaled_weight
    dx, dy = torch.full_like(x, torch.nan), torch.full_like(x, torch.nan)
    scaled_norm_backward(
        grad, x, rstd, residual_grad, dx, dy=dy, dropout_keys=keys, stream=STREAM, dropout=dropout, length=LENGTH
    )
    mask = residual_mask(keys, STREAM, LENGTH, width, dropout).view(ROWS, width)
    assert relative_error(dx, wide.grad) < tolerance
    assert relative_error(dy, wide.grad * mask) < tolerance

    in_place = residual_grad.clone()
    scaled_norm_backward(grad, x, rstd, in_place, in_place)
    assert torch.equal(in_place, dx)


def test_the_rms_of_rows_follows_from_sums_of_the_squares_of_their_parts(device):
    from stochastok_cli.models.llama.fused.norm import rstd_of_square_sums

    x = torch.randn(600, 300, generator=torch.Generator().manual_seed(0)).to(device)
    square_sums = torch.stack([part.square().sum(1) for part in x.split(128, 1)], 1)
    rstd = torch.full((600,), torch.nan, device=device)
    rstd_of_square_sums(square_sums, 300, rstd)
    assert relative_error(rstd, _rstd(x)) < 1e-6


def test_programs_take_fewer_of_wide_rows():
    from stochastok_cli.models.llama.fused.norm import rows_of_program

    assert [rows_of_program(block, 16) for block in (128, 512, 1024, 4096, 16384)] == [16, 16, 8, 2, 1]

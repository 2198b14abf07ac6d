import pytest
import torch
import torch.nn.functional as F

from tests.models.llama.fused.reference_kernels import relative_error


def _random(generator, device, dtype, *shape):
    return torch.randn(shape, generator=generator).to(device, dtype)


@pytest.mark.parametrize(
    ("rows", "depth", "width"),
    [
        (192, 128, 200),  # no whole number of tiles
        (64, 64, 64),  # a part of one tile
        (4096, 512, 1320),  # several tiles a program
        (256, 576, 320),  # deep enough for smaller parts of tiles
        (256, 1088, 192),  # deep enough for another order of tiles
        # Several tiles a program, of both kinds.
        pytest.param(4200, 576, 1320, marks=pytest.mark.gpu),
        pytest.param(4200, 1088, 1320, marks=pytest.mark.gpu),
    ],
)
def test_products_swiglu_and_its_gradient(rows, depth, width, device, dtype, tolerance):
    from stochastok_cli.models.llama.fused.swiglu import gate_up_swiglu, swiglu_backward

    generator = torch.Generator().manual_seed(0)
    x = _random(generator, device, dtype, rows, depth)
    weight = _random(generator, device, dtype, 2 * width, depth) / depth**0.5
    gate_up = torch.full((rows, 2 * width), torch.nan, dtype=dtype, device=device)
    act = torch.full((rows, width), torch.nan, dtype=dtype, device=device)
    rstd = torch.rand(rows, generator=generator).to(device) + 0.5
    gate_up_swiglu(x, weight, rstd, gate_up, act)
    expected = x.float() @ weight.float().T * rstd[:, None]
    assert relative_error(gate_up, expected) < tolerance
    gate, up = expected.chunk(2, dim=1)
    assert relative_error(act, F.silu(gate) * up) < tolerance

    wide = gate_up.float().requires_grad_()
    grad = _random(generator, device, dtype, rows, depth)
    down = _random(generator, device, dtype, depth, width) / width**0.5
    gate, up = wide.chunk(2, dim=1)
    ((F.silu(gate) * up) @ down.float().T).backward(grad.float())
    gate_up_grad = torch.full_like(gate_up, torch.nan)
    swiglu_backward(grad, down, gate_up, rstd, gate_up_grad)
    assert relative_error(gate_up_grad, wide.grad * rstd[:, None]) < tolerance

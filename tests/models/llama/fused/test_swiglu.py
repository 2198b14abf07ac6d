import torch
import torch.nn.functional as F

from tests.models.llama.fused.reference_kernels import relative_error


def test_products_swiglu_and_its_gradient(device, dtype, tolerance):
    from stochastok_cli.models.llama.fused.swiglu import gate_up_swiglu, swiglu_backward

    rows, depth, width = 192, 128, 200  # no whole number of tiles
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, depth, generator=generator).to(device, dtype)
    weight = (torch.randn(2 * width, depth, generator=generator) / depth**0.5).to(device, dtype)
    gate_up = torch.full((rows, 2 * width), torch.nan, dtype=dtype, device=device)
    act = torch.full((rows, width), torch.nan, dtype=dtype, device=device)
    gate_up_swiglu(x, weight, gate_up, act)
    expected = x.float() @ weight.float().T
    assert relative_error(gate_up, expected) < tolerance
    gate, up = expected.chunk(2, dim=1)
    assert relative_error(act, F.silu(gate) * up) < tolerance

    wide = gate_up.float().requires_grad_()
    grad = torch.randn(rows, width, generator=generator).to(device, dtype)
    gate, up = wide.chunk(2, dim=1)
    (F.silu(gate) * up).backward(grad.float())
    gate_up_grad = torch.full_like(gate_up, torch.nan)
    swiglu_backward(gate_up, grad, gate_up_grad)
    assert relative_error(gate_up_grad, wide.grad) < tolerance


def test_gradient_of_a_wide_layer(device, dtype, tolerance):
    from stochastok_cli.models.llama.fused.swiglu import MAX_BACKWARD_BLOCK, swiglu_backward

    rows, width = 4, MAX_BACKWARD_BLOCK + 904
    generator = torch.Generator().manual_seed(0)
    gate_up = torch.randn(rows, 2 * width, generator=generator).to(device, dtype)
    grad = torch.randn(rows, width, generator=generator).to(device, dtype)
    wide = gate_up.float().requires_grad_()
    gate, up = wide.chunk(2, dim=1)
    (F.silu(gate) * up).backward(grad.float())
    gate_up_grad = torch.full_like(gate_up, torch.nan)
    swiglu_backward(gate_up, grad, gate_up_grad)
    assert relative_error(gate_up_grad, wide.grad) < tolerance

"""The head against cross-entropy in float64, also for tokens of high probability, whose gradients are small."""

import pytest
import torch
import torch.nn.functional as F

from tests.models.llama.fused.reference_kernels import relative_error

VOCAB, WIDTH = 300, 128


def _run(hidden, weight, targets, token_weights, chunk_rows, **options):
    from stochastok_cli.models.llama.fused.head import FusedHead

    vocab, width = weight.shape
    head = FusedHead(vocab, width, chunk_rows, hidden.dtype, hidden.device, **options)
    padded = torch.zeros(head.padded_vocab_size, width, dtype=weight.dtype, device=weight.device)
    padded[:vocab] = weight
    grad, weight_grad = torch.full_like(hidden, torch.nan), torch.zeros(vocab, width, device=hidden.device)
    losses = head(hidden, padded, targets.int(), token_weights, grad, weight_grad)
    return losses.sum(), grad, weight_grad


def _expected(hidden, weight, targets, token_weights):
    hidden, weight = (t.double().clone().requires_grad_() for t in (hidden, weight))
    loss = (token_weights * F.cross_entropy(hidden @ weight.T, targets, reduction="none")).sum()
    loss.backward()
    return loss.detach(), hidden.grad, weight.grad


def _case(rows, device, dtype, sharpness, vocab=VOCAB, width=WIDTH):
    generator = torch.Generator().manual_seed(0)
    hidden = (sharpness * torch.randn(rows, width, generator=generator)).to(device, dtype)
    weight = (torch.randn(vocab, width, generator=generator) / width**0.5).to(device, dtype)
    targets = torch.randint(vocab, (rows,), generator=generator).to(device)
    token_weights = (torch.rand(rows, generator=generator) * (torch.arange(rows) % 3 > 0)).to(device)
    return hidden, weight, targets, token_weights


@pytest.mark.parametrize(("rows", "chunk_rows"), [(131, 131), (200, 90)])
@pytest.mark.parametrize("sharpness", [1.0, 6.0])
def test_loss_and_gradients(rows, chunk_rows, sharpness, device, dtype, tolerance):
    case = _case(rows, device, dtype, sharpness)
    for actual, expected in zip(_run(*case, chunk_rows), _expected(*case), strict=True):
        assert relative_error(actual, expected) < tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("width", [128, 192])
def test_several_tiles_a_program(width, device, dtype, tolerance):
    """More row tiles than go over the vocabulary together; a width of 192 has half a step of 8-bit floats."""
    from stochastok_cli.models.llama.fused.head import head_losses

    case = _case(4300, device, dtype, 1.0, vocab=1000, width=width)
    hidden, weight, targets, token_weights = case
    expected = _expected(*case)
    for actual, expected_part in zip(_run(*case, 4300), expected, strict=True):
        assert relative_error(actual, expected_part) < tolerance
    losses = head_losses(hidden, F.pad(weight, (0, 0, 0, 24)), targets.int(), token_weights, 1000)
    assert relative_error(losses.sum(), expected[0]) < tolerance
    loss, *gradients = _run(*case, 4300, fp8=True)
    assert relative_error(loss, expected[0]) < 0.01
    for actual, expected_part in zip(gradients, expected[1:], strict=True):
        assert relative_error(actual, expected_part) < 0.05


def test_small_losses_and_gradients_of_probable_tokens_are_exact(device, dtype, tolerance):
    hidden, weight, targets, token_weights = _case(64, device, dtype, 1.0)
    hidden = (12 * weight[targets].float() / weight[targets].float().square().mean(1, keepdim=True) / WIDTH).to(dtype)
    case = hidden, weight, targets, torch.ones_like(token_weights)
    expected = _expected(*case)
    assert expected[0] / 64 < 0.05
    for actual, expected_part in zip(_run(*case, 64), expected, strict=True):
        assert relative_error(actual, expected_part) < tolerance


def test_losses_are_finite_and_limited_to_64_nats_more_than_the_other_logits(device, dtype):
    hidden, weight, targets, token_weights = _case(64, device, dtype, 1.0)
    hidden = (-200 * weight[targets].float() / weight[targets].float().square().sum(1, keepdim=True)).to(dtype)
    loss, grad, weight_grad = _run(hidden, weight, targets, torch.ones_like(token_weights), 64)
    assert all(torch.isfinite(t).all() for t in (loss, grad, weight_grad))
    assert 64 <= loss / 64 <= 64 + 6  # 64 and the logarithm of the number of entries that are so much larger
    assert grad.any()


@pytest.mark.parametrize("sharpness", [1.0, 6.0])
def test_the_loss_alone(sharpness, device, dtype, tolerance):
    from stochastok_cli.models.llama.fused.head import head_losses

    hidden, weight, targets, token_weights = _case(131, device, dtype, sharpness)
    padded = F.pad(weight, (0, 0, 0, -VOCAB % 128))
    expected = token_weights * F.cross_entropy(hidden.double() @ weight.double().T, targets, reduction="none")
    actual = head_losses(hidden, padded, targets.int(), token_weights, VOCAB)
    assert relative_error(actual, expected) < tolerance


@pytest.mark.parametrize(("rows", "chunk_rows"), [(131, 131), (200, 90)])
def test_logits_of_8_bit_floats(rows, chunk_rows, device, dtype, tolerance):
    """The loss is that of the rounded numbers, and the gradients are close to those without rounding."""
    hidden, weight, *rest = _case(rows, device, dtype, 1.0)
    loss, *gradients = _run(hidden, weight, *rest, chunk_rows, fp8=True)
    rounded, *_ = _expected(_rounded(hidden), _rounded(weight), *rest)
    assert relative_error(loss, rounded) < tolerance / 10
    if device.type == "cuda":  # the interpreter's numbers are up to twice off: a carry does not reach the exponent
        for x in (hidden, weight):
            scale = x.float().abs().amax(1, keepdim=True) / 448
            assert relative_error(_rounded(x), (x.float() / scale).to(torch.float8_e4m3fn).float() * scale) < 1e-3
        for actual, expected in zip(gradients, _expected(hidden, weight, *rest)[1:], strict=True):
            assert relative_error(actual, expected) < 0.05


def _rounded(x):
    """The values after rounding to 8-bit floats."""
    from stochastok_cli.models.llama.fused.head import _rows_to_fp8

    out, scale = _rows_to_fp8(x)
    return out.float() * scale[:, None]

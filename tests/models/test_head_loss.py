"""The chunked loss against PyTorch's own cross-entropy over whole logits."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli.models import head_loss as module
from stochastok_cli.models.head_loss import head_loss, token_log_likelihoods


def batch(n: int, vocab_size: int, seed: int = 0, width: int = 24, zeros: float = 0.0):
    """Hidden states and weight (which require gradients), targets, and token weights, some of them 0."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, width, generator=generator).requires_grad_()
    weight = torch.randn(vocab_size, width, generator=generator).requires_grad_()
    targets = torch.randint(vocab_size, (n,), generator=generator)
    token_weights = torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) >= zeros)
    return hidden, weight, targets, token_weights


def whole_loss(hidden, weight, targets, token_weights):
    nll = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    return (token_weights * nll).sum()


def value_and_gradients(loss_function, hidden, weight, *rest, scale=1.0, **options):
    loss = loss_function(hidden, weight, *rest, **options)
    return loss.detach(), *torch.autograd.grad(loss * scale, (hidden, weight))


@pytest.mark.parametrize("zeros", [0.0, 0.8])
@pytest.mark.parametrize("chunk_rows", [1, 7, 64, 1000, None])
@pytest.mark.parametrize("vocab_size", [128, 131])
def test_value_and_gradients_equal_cross_entropys(vocab_size, chunk_rows, zeros):
    arguments = batch(100, vocab_size, zeros=zeros)
    actual = value_and_gradients(head_loss, *arguments, scale=0.3, chunk_rows=chunk_rows)
    expected = value_and_gradients(whole_loss, *arguments, scale=0.3)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(0, 40),
    vocab_size=st.integers(2, 200),
    chunk_rows=st.integers(1, 50),
    zeros=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**20),
)
def test_any_sizes(n, vocab_size, chunk_rows, zeros, seed):
    arguments = batch(n, vocab_size, seed, zeros=zeros)
    actual = value_and_gradients(head_loss, *arguments, chunk_rows=chunk_rows)
    expected = value_and_gradients(whole_loss, *arguments)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chunk_rows", [7, None])
@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("with_bias", [False, True])
def test_bias_and_capped_logits(with_bias, softcap, chunk_rows):
    hidden, weight, targets, token_weights = batch(60, 131, zeros=0.3)
    bias = torch.randn(131, generator=torch.Generator().manual_seed(9)).requires_grad_() if with_bias else None
    logits = hidden @ weight.T + (bias if bias is not None else 0)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    expected = (token_weights * F.cross_entropy(logits, targets, reduction="none")).sum()
    options = {"bias": bias, "softcap": softcap, "chunk_rows": chunk_rows}
    actual = head_loss(hidden, weight, targets, token_weights, **options)
    inputs = [hidden, weight] + ([bias] if bias is not None else [])
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-5)
    gradients = torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(head_loss(hidden, weight, targets, token_weights, **options), expected)


def test_a_weight_that_is_not_trained_has_no_gradient():
    hidden, weight, *rest = batch(100, 131)
    expected, _ = torch.autograd.grad(head_loss(hidden, weight, *rest), (hidden, weight))
    head_loss(hidden, weight.detach(), *rest, bias=torch.zeros(131)).backward()
    torch.testing.assert_close(hidden.grad, expected)


def test_all_weights_zero_is_zero_with_zero_gradients():
    hidden, weight, targets, _ = batch(50, 131)
    for num_loss_tokens in (None, 0):
        loss, *gradients = value_and_gradients(
            head_loss, hidden, weight, targets, torch.zeros(50), num_loss_tokens=num_loss_tokens
        )
        assert loss == 0
        assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("zeros", [0.0, 0.8, 1.0])
def test_a_known_count_changes_nothing(zeros):
    arguments = batch(100, 131, zeros=zeros)
    num_loss_tokens = int(arguments[3].count_nonzero())
    known = value_and_gradients(head_loss, *arguments, num_loss_tokens=num_loss_tokens)
    assert all(map(torch.equal, known, value_and_gradients(head_loss, *arguments)))


def test_tokens_of_weight_zero_are_not_computed():
    hidden, weight, targets, token_weights = batch(60, 131, zeros=0.5)
    with_nans = hidden.detach().clone()
    with_nans[token_weights == 0] = float("nan")
    expected = value_and_gradients(head_loss, hidden, weight, targets, token_weights)
    actual = value_and_gradients(head_loss, with_nans.requires_grad_(), weight, targets, token_weights)
    assert all(map(torch.equal, actual, expected))


def test_without_gradients_the_value_is_the_same():
    arguments = batch(100, 131, zeros=0.3)
    with torch.no_grad():
        value = head_loss(*arguments, chunk_rows=9)
    torch.testing.assert_close(value, head_loss(*arguments).detach())
    assert not value.requires_grad


@pytest.mark.parametrize("chunk_rows", [1, 33, None])
def test_token_log_likelihoods(chunk_rows):
    hidden, weight, targets, _ = batch(100, 131)
    actual = token_log_likelihoods(hidden, weight, targets, chunk_rows=chunk_rows)
    expected = torch.log_softmax(hidden @ weight.T, dim=-1)[torch.arange(100), targets]
    torch.testing.assert_close(actual, expected.detach(), atol=1e-4, rtol=1e-5)
    assert not actual.requires_grad


def test_large_logits_stay_finite():
    hidden, weight, targets, token_weights = batch(20, 131)
    results = value_and_gradients(head_loss, (hidden * 1e4).detach().requires_grad_(), weight, targets, token_weights)
    assert all(result.isfinite().all() for result in results)


def test_bfloat16_autocast_multiplies_in_bfloat16_and_sums_in_float32():
    arguments = batch(300, 131, zeros=0.2)
    with torch.autocast("cpu", torch.bfloat16):
        actual = value_and_gradients(head_loss, *arguments, chunk_rows=64)
    exact = value_and_gradients(whole_loss, *arguments)
    for result, expected in zip(actual, exact, strict=True):
        assert result.dtype == torch.float32
        assert 0 < (result - expected).norm() / expected.norm() < 0.02


def test_logits_of_all_tokens_are_never_held(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 64 * 8192)
    shapes = []
    original = module._logits

    def recorded(*arguments):
        shapes.append((result := original(*arguments)).shape)
        return result

    monkeypatch.setattr(module, "_logits", recorded)
    head_loss(*batch(200, 8192))
    assert shapes == [(64, 8192)] * 3 + [(8, 8192)]


@pytest.mark.gpu
def test_cuda_memory_is_bounded_and_the_host_never_waits():
    hidden, weight, targets, token_weights = (x.detach().cuda() for x in batch(8192, 50257, width=64, zeros=0.5))
    num_loss_tokens = int(token_weights.count_nonzero())
    expected = value_and_gradients(whole_loss, hidden.requires_grad_(), weight.requires_grad_(), targets, token_weights)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss = head_loss(hidden, weight, targets, token_weights, num_loss_tokens=num_loss_tokens, chunk_rows=512)
        actual = (loss.detach(), *torch.autograd.grad(loss, (hidden, weight)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.max_memory_allocated() - before < 4 * 4 * 512 * 50304 + 4 * 4 * 64 * 50304 + 2**24
    for result, exact in zip(actual, expected, strict=True):
        assert (result - exact).norm() / exact.norm() < 0.02

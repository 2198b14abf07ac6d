"""The cross-entropy of an output head, computed without the logits of all tokens in memory at once.

At the shipped sizes, the float32 logits of one micro-batch would take 6 GB (30,720 tokens by 50,257 entries). Here
tokens are taken in chunks, and the gradients of a chunk are computed in the forward pass, while its probabilities are
at hand, so that nothing of that size is stored for the backward pass (as in Liger Kernel, Hsu et al. 2024). Under
autocast, products are computed in its 16-bit type; the softmax and all sums are float32.
"""

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 2**29  # of logits held at once; their gradient takes as many
ALIGNMENT = 64  # of tokens and vocabulary; an odd width such as 50,257 sends 16-bit products to slow GPU kernels


def head_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    token_weights: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    num_loss_tokens: int | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """The weighted sum of negative log-likelihoods, differentiable in `hidden`, `weight` and `bias`.

    Tokens of weight 0 are dropped before anything is computed.

    Args:
        hidden: `[N, D]`.
        weight: `[V, D]`.
        targets: int64 `[N]`.
        token_weights: float32 `[N]`.
        bias: `[V]`, or None.
        softcap: c of the logits `c * tanh(logits / c)` (Gemma Team 2024, section 2); None does not cap them.
        num_loss_tokens: The exact number of token weights that are not 0. Without it, the host has to wait for a GPU
            to learn which they are.
        chunk_rows: Tokens of a chunk; None: as many as `CHUNK_BYTES` allows.

    Returns:
        `sum(token_weights * nll)`, a float32 scalar, in nats.
    """
    if num_loss_tokens is None:
        index = token_weights.nonzero().squeeze(1)
    elif num_loss_tokens < len(token_weights):
        index = torch.nonzero_static(token_weights, size=num_loss_tokens).squeeze(1)
    else:
        index = None
    if index is not None and len(index) < len(token_weights):
        hidden, targets, token_weights = (x.index_select(0, index) for x in (hidden, targets, token_weights))
    if torch.is_grad_enabled():
        return _HeadLoss.apply(hidden, weight, bias, targets, token_weights, softcap, chunk_rows)
    log_likelihoods = token_log_likelihoods(hidden, weight, targets, bias=bias, softcap=softcap, chunk_rows=chunk_rows)
    return -(token_weights * log_likelihoods).sum()


@torch.no_grad()
def token_log_likelihoods(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """The log-likelihoods of targets in nats.

    Args:
        hidden: `[N, D]`.
        weight: `[V, D]`.
        targets: int64 `[N]`.
        bias: `[V]`, or None.
        softcap: As in `head_loss`.
        chunk_rows: Tokens of a chunk; None: as many as `CHUNK_BYTES` allows.

    Returns:
        float32 `[N]`.
    """
    log_likelihoods = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    hidden, padded_weight = _operands(hidden, weight)
    for chunk in _chunks(len(targets), padded_weight, chunk_rows):
        logits = _logits(hidden[chunk], padded_weight, len(weight), bias, softcap)
        log_p = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        log_likelihoods[chunk] = log_p.gather(1, targets[chunk, None]).squeeze(1)
    return log_likelihoods


class _HeadLoss(torch.autograd.Function):
    """The forward pass computes the loss and the gradients that are needed; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        token_weights: Tensor,
        softcap: float | None,
        chunk_rows: int | None,
    ) -> Tensor:
        x, padded_weight = _operands(hidden, weight)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden)
        _, weight_is_trained, bias_is_trained, *_ = ctx.needs_input_grad
        zeros = functools.partial(torch.zeros, dtype=torch.float32, device=hidden.device)
        weight_grad = zeros(padded_weight.shape) if weight_is_trained else None
        bias_grad = zeros(len(padded_weight)) if bias_is_trained else None
        softmax = _compiled_softmax() if hidden.is_cuda else _softmax
        for chunk in _chunks(len(targets), padded_weight, chunk_rows):
            target, token_weight = targets[chunk, None], token_weights[chunk, None]
            logits = _logits(x[chunk], padded_weight, len(weight), bias, softcap)
            log_p, logit_grad = softmax(logits, target, token_weight)
            loss -= (token_weight * log_p).sum()
            logit_grad.scatter_(1, target, (token_weight * log_p.expm1()).to(x.dtype))
            if softcap is not None:  # the derivative of c * tanh(x / c) is 1 - tanh(x / c)^2
                logit_grad[:, : len(weight)] *= 1 - (logits[:, : len(weight)] / softcap).square()
            if bias_grad is not None:
                bias_grad += logit_grad.sum(dim=0, dtype=torch.float32)
            hidden_grad[chunk] = logit_grad @ padded_weight
            if weight_grad is not None:
                _add_product(weight_grad, logit_grad.T, x[chunk])
        if bias is not None and bias_grad is not None:
            bias_grad = bias_grad[: len(weight)].to(bias.dtype)
        if weight_grad is not None:
            weight_grad = weight_grad[: len(weight)].to(weight.dtype)
        ctx.save_for_backward(hidden_grad, weight_grad, bias_grad)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (None if saved is None else saved * grad for saved in ctx.saved_tensors)
        return *gradients, None, None, None, None


def _softmax(logits: Tensor, target: Tensor, token_weight: Tensor) -> tuple[Tensor, Tensor]:
    """log P(target), float32 `[C, 1]`, and `token_weight * p` `[C, padded V]`.

    The latter is the gradient of the logits, `token_weight * (p - one_hot(target))`, except at the target. The caller
    overwrites it there, where `expm1` of the log-likelihood is more exact than the difference of rounded numbers.
    """
    log_p = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    return log_p.gather(1, target), log_p.exp_().mul_(token_weight).to(logits.dtype)


@functools.cache
def _compiled_softmax() -> Any:
    """`_softmax` with two passes over the logits on a GPU instead of six."""
    warnings.filterwarnings("ignore", message=r"\s*Online softmax is disabled", category=UserWarning)  # harmless
    return torch.compile(_softmax, dynamic=True)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds a matrix product to a float32 matrix; on a GPU without rounding it to the 16-bit type of its factors."""
    if total.is_cuda and left.dtype != torch.float32:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total += left @ right


def _operands(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors in the type of products here, and the weight padded with rows of zeros up to the alignment."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return hidden.to(dtype), F.pad(weight.to(dtype), (0, 0, 0, -len(weight) % ALIGNMENT))


def _chunks(rows: int, weight: Tensor, chunk_rows: int | None) -> Iterator[slice]:
    """Consecutive slices of `range(rows)`, as long as the limit on memory allows if no length is given."""
    if chunk_rows is None:
        chunk_rows = max(CHUNK_BYTES // (len(weight) * weight.element_size()) // ALIGNMENT, 1) * ALIGNMENT
    for start in range(0, rows, chunk_rows):
        yield slice(start, start + chunk_rows)


def _logits(
    hidden: Tensor, padded_weight: Tensor, vocab_size: int, bias: Tensor | None, softcap: float | None
) -> Tensor:
    """Logits `[C, padded V]`; those of the padding are -inf."""
    logits = hidden @ padded_weight.T
    if bias is not None:
        logits[:, :vocab_size] += bias
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits[:, vocab_size:] = -torch.inf
    return logits

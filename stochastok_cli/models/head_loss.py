"""The loss on the model's head, without ever holding the logits of all tokens.

At the shipped sizes the float32 logits of one micro-batch would take 6 GB (30,720 tokens by 50,257 entries). Here
rows are taken in chunks, and the gradients of a chunk are computed while its probabilities are at hand, so that
nothing of that size is kept for the backward pass. Under autocast the products run in its 16-bit type; the softmax
and all sums are float32.
"""

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 2**29  # of logits held at once, and as much for their gradient
ALIGNMENT = 64  # rows and vocabulary entries; an odd width such as 50,257 sends 16-bit products to slow GPU kernels


def head_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    token_weights: Tensor,
    *,
    num_loss_tokens: int | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """`sum(token_weights * nll)`, a float32 scalar, differentiable in `hidden` and `weight`.

    `hidden` `[N, D]`, `weight` `[V, D]`, `targets` int64 `[N]`, `token_weights` float32 `[N]`. Rows of weight 0 are
    dropped before anything is computed. To know them on a GPU the host must wait for it, unless the caller says how
    many others there are: `counted`, the exact number of token weights that are not 0.
    """
    if num_loss_tokens is None:
        rows = token_weights.nonzero().squeeze(1)
    elif num_loss_tokens < len(token_weights):
        rows = torch.nonzero_static(token_weights, size=num_loss_tokens).squeeze(1)
    else:
        rows = None
    if rows is not None and len(rows) < len(token_weights):
        hidden, targets, token_weights = (x.index_select(0, rows) for x in (hidden, targets, token_weights))
    if torch.is_grad_enabled():
        return _HeadLoss.apply(hidden, weight, targets, token_weights, chunk_rows)
    return -(token_weights * token_log_likelihoods(hidden, weight, targets, chunk_rows=chunk_rows)).sum()


@torch.no_grad()
def token_log_likelihoods(hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_rows: int | None = None) -> Tensor:
    """log P(target), natural, float32 `[N]`: of `hidden` `[N, D]`, `weight` `[V, D]`, int64 `targets` `[N]`."""
    found = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    hidden, padded = _operands(hidden, weight)
    for chunk in _chunks(len(targets), padded, chunk_rows):
        log_p = torch.log_softmax(_logits(hidden[chunk], padded, len(weight)), dim=-1, dtype=torch.float32)
        found[chunk] = log_p.gather(1, targets[chunk, None]).squeeze(1)
    return found


class _HeadLoss(torch.autograd.Function):
    """The loss and, in the same walk over the chunks, both gradients; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor, chunk_rows: int | None
    ) -> Tensor:
        x, padded = _operands(hidden, weight)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden)
        weight_grad = torch.zeros(padded.shape, dtype=torch.float32, device=hidden.device)
        softmax = _compiled_softmax() if hidden.is_cuda else _softmax
        for chunk in _chunks(len(targets), padded, chunk_rows):
            target, token_weight = targets[chunk, None], token_weights[chunk, None]
            likelihood, logit_grad = softmax(_logits(x[chunk], padded, len(weight)), target, token_weight)
            loss -= (token_weight * likelihood).sum()
            logit_grad.scatter_(1, target, (token_weight * likelihood.expm1()).to(x.dtype))
            hidden_grad[chunk] = logit_grad @ padded
            weight_grad += logit_grad.T @ x[chunk]
        ctx.save_for_backward(hidden_grad, weight_grad[: len(weight)].to(weight.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grad, weight_grad * grad, None, None, None


def _softmax(logits: Tensor, target: Tensor, token_weight: Tensor) -> tuple[Tensor, Tensor]:
    """log P(target), float32 `[C, 1]`, and `[C, padded V]` what is, but at the target, the gradient of the logits.

    That gradient is `token_weight * (p - one_hot(target))`. At the target it is left to the caller, who has a better
    way to 1 - p than the difference of rounded numbers.
    """
    log_p = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    return log_p.gather(1, target), log_p.exp_().mul_(token_weight).to(logits.dtype)


@functools.cache
def _compiled_softmax() -> Any:
    """On a GPU torch makes two passes over the logits of what are six."""
    warnings.filterwarnings("ignore", message=r"\s*Online softmax is disabled", category=UserWarning)  # nobody's error
    return torch.compile(_softmax, dynamic=True)


def _operands(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors in the type in which products run here, the weight with rows of zeros up to the alignment."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return hidden.to(dtype), F.pad(weight.to(dtype), (0, 0, 0, -len(weight) % ALIGNMENT))


def _chunks(rows: int, weight: Tensor, chunk_rows: int | None) -> Iterator[slice]:
    """Consecutive slices of `range(rows)`, as long as the bound on memory allows if no length is given."""
    if chunk_rows is None:
        chunk_rows = max(CHUNK_BYTES // (len(weight) * weight.element_size()) // ALIGNMENT, 1) * ALIGNMENT
    for first in range(0, rows, chunk_rows):
        yield slice(first, first + chunk_rows)


def _logits(hidden: Tensor, padded_weight: Tensor, vocab_size: int) -> Tensor:
    """`[C, padded V]`; the entries that pad the vocabulary are impossible."""
    logits = hidden @ padded_weight.T
    logits[:, vocab_size:] = -torch.inf
    return logits

"""The loss on the model's head, without ever holding the logits of all tokens.

At the shipped sizes the float32 logits of one micro-batch would take 6 GB (30,720 tokens by 50,257 entries). Here
rows are taken in chunks, and the gradients of a chunk are computed while its probabilities are at hand, so that
nothing of that size is kept for the backward pass. Under autocast the products run in its 16-bit type; the softmax
and all sums are float32.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 2**27  # float32 log-probabilities held at once: 512 MiB
ALIGNMENT = 64  # rows and vocabulary entries; an odd width such as 50,257 sends 16-bit products to slow GPU kernels


def head_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    token_weights: Tensor,
    *,
    counted: int | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    """`sum(token_weights * nll)`, a float32 scalar, differentiable in `hidden` and `weight`.

    `hidden` `[N, D]`, `weight` `[V, D]`, `targets` int64 `[N]`, `token_weights` float32 `[N]`. Rows of weight 0 are
    dropped before anything is computed. To know them on a GPU the host must wait for it, unless the caller says how
    many others there are: `counted`, the exact number of token weights that are not 0.
    """
    if counted is None:
        rows = token_weights.nonzero().squeeze(1)
    elif counted < len(token_weights):
        rows = torch.nonzero_static(token_weights, size=counted).squeeze(1)
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
    for chunk in _chunks(len(targets), len(padded), chunk_rows):
        log_p = _log_probabilities(hidden[chunk], padded, len(weight))
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
        for chunk in _chunks(len(targets), len(padded), chunk_rows):
            log_p = _log_probabilities(x[chunk], padded, len(weight))
            target, token_weight = targets[chunk, None], token_weights[chunk, None]
            loss -= (token_weight * log_p.gather(1, target)).sum()
            # d loss / d logits = token_weight * (p - one_hot(target))
            logit_grad = log_p.exp_().mul_(token_weight).scatter_add_(1, target, -token_weight).to(x.dtype)
            hidden_grad[chunk] = logit_grad @ padded
            weight_grad += logit_grad.T @ x[chunk]
        ctx.save_for_backward(hidden_grad, weight_grad[: len(weight)].to(weight.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grad, weight_grad * grad, None, None, None


def _operands(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both factors in the type in which products run here, the weight with rows of zeros up to the alignment."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    return hidden.to(dtype), F.pad(weight.to(dtype), (0, 0, 0, -len(weight) % ALIGNMENT))


def _chunks(rows: int, vocab_size: int, chunk_rows: int | None) -> Iterator[slice]:
    """Consecutive slices of `range(rows)`, as long as the bound on memory allows if no length is given."""
    if chunk_rows is None:
        chunk_rows = max(CHUNK_ELEMENTS // vocab_size // ALIGNMENT, 1) * ALIGNMENT
    for first in range(0, rows, chunk_rows):
        yield slice(first, first + chunk_rows)


def _log_probabilities(hidden: Tensor, padded_weight: Tensor, vocab_size: int) -> Tensor:
    """Log-softmax of the logits, float32 `[C, padded V]`; the entries that pad the vocabulary have probability 0."""
    logits = hidden @ padded_weight.T
    logits[:, vocab_size:] = -torch.inf
    return torch.log_softmax(logits, dim=-1, dtype=torch.float32)

"""The cross-entropy of the output head and its gradients, without a pass over the logits for their softmax.

The logits l of a token are shifted by that of its target, `l_y = h · W[y]`, instead of by their maximum. It is one
cheap product of rows and can be computed first, while the maximum needs all logits. So the epilogue of the matrix
product that computes the logits can write

    E = exp(l - l_y), 0 at the target and at the padding of the vocabulary, and s, the sums of its rows

from which, for a token of weight w,

    loss = w log(1 + s)        dh = w (E W / (1 + s) - s / (1 + s) W[y])        dW = Eᵀ (w h / (1 + s)) + target rows

take two more matrix products. Where only the loss is needed, E is not written. `l - l_y` is clamped at 64, where E, its
sum over the vocabulary and all products of them are still far from the end of bfloat16's range: a token whose
difference is larger counts as 64.

With `fp8`, the product that computes the logits (no other) takes rows of 8-bit floats (e4m3). Each row is divided by a
scale of its own that takes its largest entry to the end of their range. The target logits are computed from the same
numbers.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.exp_logits import ScaledMatrix, exp_logits
from stochastok_cli.models.llama.fused.matmul import add_matmul_
from stochastok_cli.models.llama.fused.norm import ROWS, rows_of_program
from stochastok_cli.models.llama.fused.pingpong import BLOCK_N

LN_2 = tl.constexpr(math.log(2))
FP8_MAX = tl.constexpr(448.0)
VOCAB_ALIGNMENT = BLOCK_N.value
"""The vocabulary is padded to a multiple of it."""


@triton.jit(do_not_specialize=["row_count"])
def _to_fp8(x_ptr, out_ptr, scale_ptr, row_count, width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr):
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    mask = (row < row_count)[:, None] & (column < width)[None, :]
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(x), 1) / FP8_MAX, 1e-30)
    tl.store(scale_ptr + row, scale, mask=row < row_count)
    tl.store(out_ptr + offset, (x / scale[:, None]).to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["row_count"])
def _target_logits(
    hidden_ptr, weight_ptr, hidden_scale_ptr, weight_scale_ptr, target_ptr, out_ptr, row_count, width: tl.constexpr,
    block: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    mask = (row < row_count)[:, None] & (column < width)[None, :]
    target = tl.load(target_ptr + row, mask=row < row_count, other=0).to(tl.int64)
    hidden = tl.load(hidden_ptr + row.to(tl.int64)[:, None] * width + column[None, :], mask=mask, other=0.0)
    weight = tl.load(weight_ptr + target[:, None] * width + column[None, :], mask=mask, other=0.0)
    logit = tl.sum(hidden.to(tl.float32) * weight.to(tl.float32), 1)
    if hidden_scale_ptr is not None:
        logit *= tl.load(hidden_scale_ptr + row, mask=row < row_count, other=0.0)
        logit *= tl.load(weight_scale_ptr + target, mask=row < row_count, other=0.0)
    tl.store(out_ptr + row, logit, mask=row < row_count)


@triton.jit(do_not_specialize=["row_count"])
def _loss_and_scaled_hidden(
    hidden_ptr, partial_ptr, token_weight_ptr, exp_sum_ptr, scaled_ptr, loss_ptr, row_count, num_partials,
    width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    mask = (row < row_count)[:, None] & (column < width)[None, :]
    exp_sum = tl.zeros([rows], tl.float32)
    for first in range(0, num_partials, 16):
        i = first + tl.arange(0, 16)
        partial_mask = (i < num_partials)[:, None] & (row < row_count)[None, :]
        offset = i.to(tl.int64)[:, None] * row_count + row[None, :]
        exp_sum += tl.sum(tl.load(partial_ptr + offset, mask=partial_mask, other=0.0), 0)
    token_weight = tl.load(token_weight_ptr + row, mask=row < row_count, other=0.0)
    nll = tl.where(exp_sum < 1e-3, exp_sum - 0.5 * exp_sum * exp_sum, tl.math.log2(1 + exp_sum) * LN_2)
    tl.store(loss_ptr + row, token_weight * nll, mask=row < row_count)
    tl.store(exp_sum_ptr + row, exp_sum, mask=row < row_count)
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    hidden = tl.load(hidden_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    scaled = hidden * (token_weight / (1 + exp_sum))[:, None]
    tl.store(scaled_ptr + offset, scaled.to(scaled_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["row_count"])
def _finish_gradients(
    hidden_ptr, weight_ptr, target_ptr, token_weight_ptr, exp_sum_ptr, grad_ptr, weight_grad_ptr, row_count,
    width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    mask = (row < row_count)[:, None] & (column < width)[None, :]
    target = tl.load(target_ptr + row, mask=row < row_count, other=0).to(tl.int64)
    token_weight = tl.load(token_weight_ptr + row, mask=row < row_count, other=0.0)
    exp_sum = tl.load(exp_sum_ptr + row, mask=row < row_count, other=0.0)
    exp_scale, target_scale = token_weight / (1 + exp_sum), token_weight * exp_sum / (1 + exp_sum)
    offset, target_offset = (
        row.to(tl.int64)[:, None] * width + column[None, :],
        target[:, None] * width + column[None, :],
    )
    exp_product = tl.load(grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + target_offset, mask=mask, other=0.0).to(tl.float32)
    grad = exp_product * exp_scale[:, None] - weight * target_scale[:, None]
    tl.store(grad_ptr + offset, grad.to(grad_ptr.dtype.element_ty), mask=mask)
    hidden = tl.load(hidden_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    tl.atomic_add(weight_grad_ptr + target_offset, -hidden * target_scale[:, None], mask=mask, sem="relaxed")


class FusedHead:
    """The losses of an output head and their gradients, for chunks of rows.

    Args:
        vocab_size: V.
        depth: D, the width of hidden states.
        chunk_rows: The most rows of which E is held at once.
        dtype: The type of hidden states and weight.
        device: Where to allocate buffers.
        fp8: Whether logits are products of 8-bit floats.
    """

    def __init__(
        self, vocab_size: int, depth: int, chunk_rows: int, dtype: torch.dtype, device: torch.device, *,
        fp8: bool = False,
    ) -> None:  # fmt: skip
        self.vocab_size, self.chunk_rows, self.fp8 = vocab_size, chunk_rows, fp8
        self.padded_vocab_size = triton.cdiv(vocab_size, VOCAB_ALIGNMENT) * VOCAB_ALIGNMENT
        self.exp = torch.empty(chunk_rows, self.padded_vocab_size, dtype=dtype, device=device)
        self.scaled = torch.empty(chunk_rows, depth, dtype=dtype, device=device)
        self.weight_grad = torch.empty(self.padded_vocab_size, depth, device=device)
        self.exp_sum = torch.empty(chunk_rows, device=device)

    def __call__(
        self, hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor, grad: Tensor, weight_grad: Tensor
    ) -> Tensor:
        """Computes losses and gradients.

        Args:
            hidden: `[M, D]`.
            weight: `[padded V, D]`, zeros in the padding.
            targets: int32 `[M]`.
            token_weights: float32 `[M]`.
            grad: Written, `[M, D]`: the gradient of `hidden`.
            weight_grad: Added to, float32 `[V, D]`.

        Returns:
            `token_weights * nll`, float32 `[M]`. The gradients are those of its sum.
        """
        losses = torch.empty_like(token_weights)
        self.weight_grad.zero_()
        scaled_weight = _rows_to_fp8(weight) if self.fp8 else (weight, None)
        for first in range(0, len(hidden), self.chunk_rows):
            rows = slice(first, first + self.chunk_rows)
            self._add_chunk(
                hidden[rows], weight, scaled_weight, targets[rows], token_weights[rows], grad[rows], losses[rows]
            )
        weight_grad += self.weight_grad[: self.vocab_size]
        return losses

    def _add_chunk(
        self, hidden: Tensor, weight: Tensor, scaled_weight: ScaledMatrix, targets: Tensor, token_weights: Tensor,
        grad: Tensor, losses: Tensor,
    ) -> None:  # fmt: skip
        rows, width = hidden.shape
        block, of_program, grid = _whole_rows(rows, width)
        exp, scaled = self.exp[:rows], self.scaled[:rows]
        partial = _exp_logits_and_sums(
            _rows_to_fp8(hidden) if self.fp8 else (hidden, None), scaled_weight, targets, self.vocab_size, exp
        )
        _loss_and_scaled_hidden[grid](
            hidden, partial, token_weights, self.exp_sum, scaled, losses, rows, len(partial), width, block, of_program,
            num_warps=4,
        )  # fmt: skip
        torch.mm(exp, weight, out=grad)
        # Into a buffer with rows for the padding: with an odd number of rows cuBLAS takes a kernel half as fast.
        add_matmul_(self.weight_grad, exp.T, scaled)
        _finish_gradients[grid](
            hidden, weight, targets, token_weights, self.exp_sum, grad, self.weight_grad, rows, width, block,
            of_program, num_warps=4,
        )  # fmt: skip


def head_losses(hidden: Tensor, weight: Tensor, targets: Tensor, token_weights: Tensor, vocab_size: int) -> Tensor:
    """The losses alone, float32 `[M]`, of arguments as `FusedHead` takes them. Logits are never stored."""
    partial = _exp_logits_and_sums((hidden, None), (weight, None), targets, vocab_size, None)
    return token_weights * partial.sum(0).log1p()


def _exp_logits_and_sums(
    hidden: ScaledMatrix, weight: ScaledMatrix, targets: Tensor, vocab_size: int, exp: Tensor | None
) -> Tensor:
    """`exp_logits`, arguments and result as there, with the target logits, which it needs first."""
    (left, left_scale), (right, right_scale) = hidden, weight
    (rows, width), device = left.shape, left.device
    target_logit = torch.empty(rows, device=device)
    block, of_program, grid = _whole_rows(rows, width)
    _target_logits[grid](
        left, right, left_scale, right_scale, targets, target_logit, rows, width, block, of_program, num_warps=4
    )  # fmt: skip
    return exp_logits(hidden, weight, targets, target_logit, vocab_size, exp)


def _rows_to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """`x` `[M, D]` as 8-bit floats, and the scales of its rows, float32 `[M]`."""
    (rows, width), scale = x.shape, torch.empty(len(x), device=x.device)
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    block, of_program, grid = _whole_rows(rows, width)
    _to_fp8[grid](x, out, scale, rows, width, block, of_program, num_warps=4)
    return out, scale


def _whole_rows(rows: int, width: int) -> tuple[int, int, tuple[int]]:
    """For a kernel that goes over whole rows: the block of a row, the rows of a program, and the grid."""
    block = triton.next_power_of_2(width)
    of_program = rows_of_program(block, ROWS)
    return block, of_program, (triton.cdiv(rows, of_program),)

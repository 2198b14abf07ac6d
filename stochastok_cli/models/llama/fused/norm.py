"""RMSNorm with the residual sum and the dropout that come before it, and their gradients.

All of it moves memory: each kernel reads and writes every row once, at 2.8 to 3 TB/s of an H100's 3.35. A program takes
some rows (of one window, because a window's length is a multiple of 64), which hides the latency of one row's reduction
behind the loads of the others: 8 on the way forward, where nothing depends on their number, 16 on the way back, which
is a fifth faster than 8.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.dropout import drop_threshold, keep, words
from stochastok_cli.models.llama.model import NORM_EPS

ROWS = 8
BACKWARD_ROWS = 16
PARTIAL_SUMS = 528  # programs of the backward kernel, four for each multiprocessor of an H100


@triton.jit
def normalize_rows(x, gain_ptr, row, normed_ptr, rstd_ptr, width: tl.constexpr, block: tl.constexpr, eps: tl.constexpr):
    """Writes `x / rms(x) * gain` and `1 / rms(x)` of float32 rows `x` `[rows, block]`, zero beyond `width`."""
    column = tl.arange(0, block)
    rstd = tl.math.rsqrt(tl.sum(x * x, 1) / width + eps)
    gain = tl.load(gain_ptr + column, mask=column < width, other=0.0)
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    normed = (x * rstd[:, None] * gain[None, :]).to(normed_ptr.dtype.element_ty)
    tl.store(normed_ptr + offset, normed, mask=(column < width)[None, :])
    tl.store(rstd_ptr + row, rstd)


@triton.jit(do_not_specialize=["stream"])
def _residual_norm(
    x_ptr, y_ptr, gain_ptr, keys_ptr, sum_ptr, normed_ptr, rstd_ptr, stream, length: tl.constexpr, width: tl.constexpr,
    block: tl.constexpr, rows: tl.constexpr, threshold: tl.constexpr, scale: tl.constexpr, eps: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, block)
    inside = (column < width)[None, :]
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    if threshold > 0:
        key = tl.load(keys_ptr + tl.program_id(0) * rows // length)
        kept = keep(words(key, stream, row % length), words(key, stream + 1, column), threshold)
        y = tl.where(kept, y * scale, 0.0)
    rounded = (x + y).to(sum_ptr.dtype.element_ty)
    tl.store(sum_ptr + offset, rounded, mask=inside)
    normalize_rows(rounded.to(tl.float32), gain_ptr, row, normed_ptr, rstd_ptr, width, block, eps)


def residual_norm(
    x: Tensor, y: Tensor, gain: Tensor, keys: Tensor, stream: int, dropout: float, length: int, total: Tensor,
    normed: Tensor, rstd: Tensor,
) -> None:  # fmt: skip
    """`total = x + dropout(y)`, `normed = RMSNorm(total) * gain`: `[N, D]`; `rstd` float32 `[N]` for the backward pass.

    `gain` float32 `[D]`, `keys` int64 `[N / length]`.
    """
    rows, width = x.shape
    _residual_norm[(rows // ROWS,)](
        x, y, gain, keys, total, normed, rstd, stream, length, width, triton.next_power_of_2(width), ROWS,
        drop_threshold(dropout), 1 / (1 - dropout), NORM_EPS, num_warps=4,
    )  # fmt: skip


@triton.jit(do_not_specialize=["stream", "row_count"])
def _residual_norm_backward(
    grad_ptr, x_ptr, rstd_ptr, gain_ptr, residual_ptr, keys_ptr, dx_ptr, dy_ptr, partial_ptr, stream, row_count,
    length: tl.constexpr, width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, threshold: tl.constexpr,
    scale: tl.constexpr, has_residual: tl.constexpr, writes_dy: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = tl.arange(0, block)
    inside = (column < width)[None, :]
    gain = tl.load(gain_ptr + column, mask=column < width, other=0.0)
    gain_grad = tl.zeros([block], tl.float32)
    for first in range(program * rows, row_count, tl.num_programs(0) * rows):
        row = first + tl.arange(0, rows)
        offset = row.to(tl.int64)[:, None] * width + column[None, :]
        grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        rstd = tl.load(rstd_ptr + row)[:, None]
        unit = x * rstd
        gain_grad += tl.sum(grad * unit, 0)
        grad = grad * gain[None, :]
        dx = (grad - unit * (tl.sum(grad * unit, 1) / width)[:, None]) * rstd
        if has_residual:
            dx += tl.load(residual_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_ptr + offset, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        if writes_dy:
            dy = dx
            if threshold > 0:
                key = tl.load(keys_ptr + first // length)
                kept = keep(words(key, stream, row % length), words(key, stream + 1, column), threshold)
                dy = tl.where(kept, dx * scale, 0.0)
            tl.store(dy_ptr + offset, dy.to(dy_ptr.dtype.element_ty), mask=inside)
    tl.store(partial_ptr + program * width + column, gain_grad, mask=column < width)


def residual_norm_backward(
    grad: Tensor, x: Tensor, rstd: Tensor, gain: Tensor, residual: Tensor | None, dx: Tensor, gain_grad: Tensor,
    partial: Tensor, *, dy: Tensor | None = None, keys: Tensor | None = None, stream: int = 0, dropout: float = 0.0,
    length: int = 64,
) -> None:  # fmt: skip
    """The gradient of RMSNorm plus that of the residual stream past it: `dx` `[N, D]`, all that reaches `x`.

    `grad` is the gradient of the normed rows, `residual` that of `x` from further on. `gain_grad` float32 `[D]` is
    added to, through the `partial` sums `[PARTIAL_SUMS, D]` of the programs. With `dy`, also the gradient of what the
    dropout was applied to. `dx` may be `residual`.
    """
    rows, width = x.shape
    _residual_norm_backward[(len(partial),)](
        grad, x, rstd, gain, residual, keys, dx, dy, partial, stream, rows, length, width,
        triton.next_power_of_2(width), BACKWARD_ROWS, drop_threshold(dropout), 1 / (1 - dropout), residual is not None,
        dy is not None, num_warps=4,
    )  # fmt: skip
    gain_grad.add_(torch.sum(partial, 0))

"""RMSNorm (Zhang & Sennrich 2019) with the dropout and the residual addition before it, and their gradients.

The kernels are bound by memory: each reads and writes every row once, at 2.8 to 3 TB/s of an H100's 3.35. A program
takes several rows (of one window, because the length of a window is a multiple of 64), so that the loads of some hide
the latency of the reductions of others: 8 in the forward pass, where their number makes no difference, and 16 in the
backward pass, which is a fifth faster than 8. That is for rows of 512 entries: of wider rows, a program takes fewer,
which its registers hold. (16 rows of 2,048 entries would be 6 KB of each thread in memory.)
"""

import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.dropout import drop_threshold, keep_mask, odd_hash
from stochastok_cli.models.llama_config import NORM_EPS

ROWS = 8  # of ROW_WIDTH entries
BACKWARD_ROWS = 16
ROW_WIDTH = 512
NUM_PARTIAL_SUMS = 528  # programs of the backward kernel, four for each multiprocessor of an H100
SUMMED_ROWS, SUMMED_COLUMNS = 128, 16  # of the tile in which a program adds up the partial sums of some columns


def rows_of_program(block: int, rows: int) -> int:
    """How many rows of `block` entries a program takes, if it takes `rows` rows of `ROW_WIDTH` entries or fewer."""
    return max(min(rows, rows * ROW_WIDTH // block), 1)


@triton.jit
def normalize_rows(x, gain_ptr, row, normed_ptr, rstd_ptr, width: tl.constexpr, block: tl.constexpr, eps: tl.constexpr):
    """Stores `x / rms(x) * gain` and `1 / rms(x)` of float32 rows `x` `[R, block]`, which are 0 beyond `width`."""
    column = tl.arange(0, block)
    rstd = tl.math.rsqrt(tl.sum(x * x, 1) / width + eps)
    gain = tl.load(gain_ptr + column, mask=column < width, other=0.0)
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    normed = (x * rstd[:, None] * gain[None, :]).to(normed_ptr.dtype.element_ty)
    tl.store(normed_ptr + offset, normed, mask=(column < width)[None, :])
    tl.store(rstd_ptr + row, rstd)


@triton.jit(do_not_specialize=["stream"])
def _residual_norm(
    x_ptr, y_ptr, gain_ptr, dropout_keys_ptr, sum_ptr, normed_ptr, rstd_ptr, stream, length: tl.constexpr,
    width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, threshold: tl.constexpr, scale: tl.constexpr,
    eps: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, block)
    mask = (column < width)[None, :]
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if y_ptr is not None:
        y = tl.load(y_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        if threshold > 0:
            dropout_key = tl.load(dropout_keys_ptr + tl.program_id(0) * rows // length)
            row_hash = odd_hash(dropout_key, stream, row % length)
            column_hash = odd_hash(dropout_key, stream + 1, column)
            y = tl.where(keep_mask(row_hash, column_hash, threshold), y * scale, 0.0)
        rounded = (x + y).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + offset, rounded, mask=mask)
        x = rounded.to(tl.float32)
    normalize_rows(x, gain_ptr, row, normed_ptr, rstd_ptr, width, block, eps)


def residual_norm(
    x: Tensor, y: Tensor, gain: Tensor, dropout_keys: Tensor, stream: int, dropout: float, length: int, total: Tensor,
    normed: Tensor, rstd: Tensor,
) -> None:  # fmt: skip
    """`total = x + dropout(y)` and `normed = RMSNorm(total) * gain`.

    Args:
        x: `[N, D]`, the residual stream.
        y: `[N, D]`, the output of attention or feed-forward.
        gain: float32 `[D]`, the weight of the norm.
        dropout_keys: int64 `[N / length]`, the keys of the windows.
        stream: The stream of the dropout mask.
        dropout: The probability with which elements of `y` are dropped.
        length: Tokens of a window.
        total: Written, `[N, D]`.
        normed: Written, `[N, D]`.
        rstd: Written for the backward pass, float32 `[N]`: 1 / RMS of the rows of `total`.
    """
    width, block = x.shape[1], triton.next_power_of_2(x.shape[1])
    rows = rows_of_program(block, ROWS)
    _residual_norm[(len(x) // rows,)](
        x, y, gain, dropout_keys, total, normed, rstd, stream, length, width, block, rows,
        drop_threshold(dropout), 1 / (1 - dropout), NORM_EPS, num_warps=4,
    )  # fmt: skip


def norm(x: Tensor, gain: Tensor, normed: Tensor, rstd: Tensor) -> None:
    """`normed` and `rstd` alone, of the sum `x` that `residual_norm` or `embed` has stored: the same bits as theirs."""
    width, block = x.shape[1], triton.next_power_of_2(x.shape[1])
    rows = rows_of_program(block, ROWS)
    _residual_norm[(len(x) // rows,)](
        x, None, gain, None, None, normed, rstd, 0, rows, width, block, rows, 0, 1.0, NORM_EPS, num_warps=4
    )  # fmt: skip


@triton.jit(do_not_specialize=["stream", "row_count"])
def _residual_norm_backward(
    grad_ptr, x_ptr, rstd_ptr, gain_ptr, residual_grad_ptr, dropout_keys_ptr, dx_ptr, dy_ptr, partial_ptr, stream,
    row_count, length: tl.constexpr, width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr,
    threshold: tl.constexpr, scale: tl.constexpr, has_residual: tl.constexpr, writes_dy: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    column = tl.arange(0, block)
    mask = (column < width)[None, :]
    gain = tl.load(gain_ptr + column, mask=column < width, other=0.0)
    gain_grad = tl.zeros([block], tl.float32)
    for row_start in range(program * rows, row_count, tl.num_programs(0) * rows):
        row = row_start + tl.arange(0, rows)
        offset = row.to(tl.int64)[:, None] * width + column[None, :]
        grad = tl.load(grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        rstd = tl.load(rstd_ptr + row)[:, None]
        normalized = x * rstd
        gain_grad += tl.sum(grad * normalized, 0)
        grad = grad * gain[None, :]
        dx = (grad - normalized * (tl.sum(grad * normalized, 1) / width)[:, None]) * rstd
        if has_residual:
            dx += tl.load(residual_grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_ptr + offset, dx.to(dx_ptr.dtype.element_ty), mask=mask)
        if writes_dy:
            dy = dx
            if threshold > 0:
                dropout_key = tl.load(dropout_keys_ptr + row_start // length)
                row_hash = odd_hash(dropout_key, stream, row % length)
                column_hash = odd_hash(dropout_key, stream + 1, column)
                dy = tl.where(keep_mask(row_hash, column_hash, threshold), dx * scale, 0.0)
            tl.store(dy_ptr + offset, dy.to(dy_ptr.dtype.element_ty), mask=mask)
    tl.store(partial_ptr + program * width + column, gain_grad, mask=column < width)


@triton.jit(do_not_specialize=["row_count"])
def _add_column_sums(partial_ptr, out_ptr, row_count, width: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr):
    column = tl.program_id(0) * columns + tl.arange(0, columns)
    total = tl.zeros([rows, columns], tl.float32)
    for row_start in range(0, row_count, rows):
        row = row_start + tl.arange(0, rows)
        mask = (row < row_count)[:, None] & (column < width)[None, :]
        total += tl.load(partial_ptr + row[:, None] * width + column[None, :], mask=mask, other=0.0)
    before = tl.load(out_ptr + column, mask=column < width, other=0.0)
    tl.store(out_ptr + column, before + tl.sum(total, 0), mask=column < width)


def residual_norm_backward(
    grad: Tensor, x: Tensor, rstd: Tensor, gain: Tensor, residual_grad: Tensor | None, dx: Tensor, gain_grad: Tensor,
    partial: Tensor, *, dy: Tensor | None = None, dropout_keys: Tensor | None = None, stream: int = 0,
    dropout: float = 0.0, length: int = 64,
) -> None:  # fmt: skip
    """The gradient of `residual_norm`, or of a norm that nothing is added before.

    Args:
        grad: `[N, D]`, the gradient of `normed`.
        x: `[N, D]`, what was normalized: `total`.
        rstd: float32 `[N]`, from the forward pass.
        gain: float32 `[D]`.
        residual_grad: `[N, D]`, the gradient of `x` from the layers that follow, past the norm; None: there is none.
        dx: Written, `[N, D]`: the whole gradient of `x`. It may be the tensor `residual_grad`.
        gain_grad: Added to, float32 `[D]`.
        partial: Overwritten, float32 `[P, D]`: the part of `gain_grad` of each of P programs.
        dy: Written, `[N, D]`: the gradient of `y`. None: there is no `y`.
        dropout_keys: int64 `[N / length]`, the keys of the windows; needed with `dy`, as is what follows.
        stream: The stream of the dropout mask.
        dropout: The probability with which elements of `y` were dropped.
        length: Tokens of a window.
    """
    (rows, width), block = x.shape, triton.next_power_of_2(x.shape[1])
    _residual_norm_backward[(len(partial),)](
        grad, x, rstd, gain, residual_grad, dropout_keys, dx, dy, partial, stream, rows, length, width,
        block, rows_of_program(block, BACKWARD_ROWS), drop_threshold(dropout), 1 / (1 - dropout),
        residual_grad is not None, dy is not None, num_warps=4,
    )  # fmt: skip
    _add_column_sums[(triton.cdiv(width, SUMMED_COLUMNS),)](
        partial, gain_grad, len(partial), width, SUMMED_ROWS, SUMMED_COLUMNS, num_warps=4
    )

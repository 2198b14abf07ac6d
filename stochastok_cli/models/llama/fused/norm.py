"""RMSNorm (Zhang & Sennrich 2019), which layers do not compute by itself, and its gradient.

With r = 1 / RMS(x), the norm's weight g and the weight W of the projection that follows,

    RMSNorm(x) Wᵀ = r x (W diag(g))ᵀ

so the products take the residual stream itself, and W with g multiplied into its columns, and multiply rows of the
result by r (FlashNorm, Graef et al. 2024). The kernel that adds to the residual stream sums its squares, and normalized
rows are never stored. Of the gradient d of the result, kernels store r d, and then, for W' = W diag(g):

    dW = ((r d)ᵀ x) diag(g)      dg = columnwise sums of W * ((r d)ᵀ x)      dx = u - r² x mean(u * x), u = (r d) W'

Only the last norm, before the output head, is computed as it is written.

The kernels that go over rows of hidden states are bound by memory: each reads and writes every row once. A program
takes several rows (of one window, because the length of a window is a multiple of 64), so that the loads of some hide
the latency of the reductions of others. Of rows wider than 512 entries it takes fewer, which its registers hold.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.dropout import drop_threshold, keep_mask, odd_hash
from stochastok_cli.models.llama_config import NORM_EPS

ROWS = 8  # of ROW_WIDTH entries
BACKWARD_ROWS = 16
ROW_WIDTH = 512
NUM_PARTIAL_SUMS = 528  # programs of kernels that sum over rows, four for each multiprocessor of an H100
SUMMED_ROWS, SUMMED_COLUMNS = 128, 16  # of the tile in which a program adds up the partial sums of some columns
SQUARE_SUM_ROWS = 256  # of a program that adds up sums of squares


def rows_of_program(block: int, rows: int) -> int:
    """How many rows of `block` entries a program takes, if it takes `rows` rows of `ROW_WIDTH` entries or fewer."""
    return max(min(rows, rows * ROW_WIDTH // block), 1)


@triton.jit
def rstd_of_rows(x, width: tl.constexpr, eps: tl.constexpr):
    """1 / RMS of float32 rows `x` `[R, block]`, which are 0 beyond `width`."""
    return tl.math.rsqrt(tl.sum(x * x, 1) / width + eps)


@triton.jit
def _rstd_of_square_sums(
    sums_ptr, rstd_ptr, row_count, parts: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, width: tl.constexpr,
    eps: tl.constexpr,
):  # fmt: skip
    row, part = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    mask = (row < row_count)[:, None] & (part < parts)[None, :]
    sums = tl.load(sums_ptr + row[:, None] * parts + part[None, :], mask=mask, other=0.0)
    tl.store(rstd_ptr + row, tl.math.rsqrt(tl.sum(sums, 1) / width + eps), mask=row < row_count)


def rstd_of_square_sums(square_sums: Tensor, width: int, rstd: Tensor) -> None:
    """1 / RMS of rows of `width` entries.

    Args:
        square_sums: float32 `[N, P]`: for each row, sums of the squares of P parts of it.
        width: D, entries of a row.
        rstd: Written, float32 `[N]`.
    """
    rows, parts = square_sums.shape
    _rstd_of_square_sums[(triton.cdiv(rows, SQUARE_SUM_ROWS),)](
        square_sums, rstd, rows, parts, triton.next_power_of_2(parts), SQUARE_SUM_ROWS, width, NORM_EPS, num_warps=4
    )


@triton.jit
def _norm(
    x_ptr, gain_ptr, normed_ptr, rstd_ptr, width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr,
    eps: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    mask = (column < width)[None, :]
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    gain = tl.load(gain_ptr + column, mask=column < width, other=0.0)
    rstd = rstd_of_rows(x, width, eps)
    tl.store(normed_ptr + offset, (x * rstd[:, None] * gain[None, :]).to(normed_ptr.dtype.element_ty), mask=mask)
    tl.store(rstd_ptr + row, rstd)


def norm(x: Tensor, gain: Tensor, normed: Tensor, rstd: Tensor) -> None:
    """The last norm: `normed = RMSNorm(x) * gain`.

    Args:
        x: `[N, D]`, the residual stream.
        gain: float32 `[D]`, the weight of the norm.
        normed: Written, `[N, D]`.
        rstd: Written for the backward pass, float32 `[N]`: 1 / RMS of the rows of `x`.
    """
    width, block = x.shape[1], triton.next_power_of_2(x.shape[1])
    rows = rows_of_program(block, ROWS)
    _norm[(len(x) // rows,)](x, gain, normed, rstd, width, block, rows, NORM_EPS, num_warps=4)


@triton.jit(do_not_specialize=["row_count"])
def _norm_backward(
    grad_ptr, x_ptr, rstd_ptr, gain_ptr, dx_ptr, partial_ptr, row_count, width: tl.constexpr, block: tl.constexpr,
    rows: tl.constexpr,
):  # fmt: skip
    program, column = tl.program_id(0), tl.arange(0, block)
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
        tl.store(dx_ptr + offset, dx.to(dx_ptr.dtype.element_ty), mask=mask)
    tl.store(partial_ptr + program * width + column, gain_grad, mask=column < width)


def norm_backward(
    grad: Tensor, x: Tensor, rstd: Tensor, gain: Tensor, dx: Tensor, gain_grad: Tensor, partial: Tensor
) -> None:
    """The gradient of `norm`.

    Args:
        grad: `[N, D]`, the gradient of `normed`.
        x: `[N, D]`, what was normalized.
        rstd: float32 `[N]`, from the forward pass.
        gain: float32 `[D]`.
        dx: Written, `[N, D]`: the gradient of `x`.
        gain_grad: Added to, float32 `[D]`.
        partial: Overwritten, float32 `[P, D]`: the part of `gain_grad` of each of P programs.
    """
    (rows, width), block = x.shape, triton.next_power_of_2(x.shape[1])
    _norm_backward[(len(partial),)](
        grad, x, rstd, gain, dx, partial, rows, width, block, rows_of_program(block, BACKWARD_ROWS), num_warps=4
    )
    _add_column_sums_(gain_grad, partial)


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


def _add_column_sums_(out: Tensor, partial: Tensor) -> None:
    """`out += partial.sum(0)`, both float32."""
    width = len(out)
    _add_column_sums[(triton.cdiv(width, SUMMED_COLUMNS),)](
        partial, out, len(partial), width, SUMMED_ROWS, SUMMED_COLUMNS, num_warps=4
    )


@triton.jit(do_not_specialize=["stream"])
def _scaled_norm_backward(
    grad_ptr, x_ptr, rstd_ptr, residual_grad_ptr, dropout_keys_ptr, dx_ptr, dy_ptr, stream, length: tl.constexpr,
    width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, threshold: tl.constexpr, scale: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    mask = (column < width)[None, :]
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    grad = tl.load(grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    residual_grad = tl.load(residual_grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    rstd = tl.load(rstd_ptr + row)
    dx = residual_grad + grad - x * (rstd * rstd * (tl.sum(grad * x, 1) / width))[:, None]
    tl.store(dx_ptr + offset, dx.to(dx_ptr.dtype.element_ty), mask=mask)
    if dy_ptr is not None:
        dy = dx
        if threshold > 0:
            dropout_key = tl.load(dropout_keys_ptr + tl.program_id(0) * rows // length)
            row_hash = odd_hash(dropout_key, stream, row % length)
            column_hash = odd_hash(dropout_key, stream + 1, column)
            dy = tl.where(keep_mask(row_hash, column_hash, threshold), dx * scale, 0.0)
        tl.store(dy_ptr + offset, dy.to(dy_ptr.dtype.element_ty), mask=mask)


def scaled_norm_backward(
    grad: Tensor, x: Tensor, rstd: Tensor, residual_grad: Tensor, dx: Tensor, *, dy: Tensor | None = None,
    dropout_keys: Tensor | None = None, stream: int = 0, dropout: float = 0.0, length: int = 64,
) -> None:  # fmt: skip
    """The gradient of the residual stream before a norm and its projection, and of what dropout has added to it.

    Args:
        grad: `[N, D]`, `u` above.
        x: `[N, D]`, the residual stream.
        rstd: float32 `[N]`: 1 / RMS of the rows of `x`.
        residual_grad: `[N, D]`, the gradient of `x` from the layers that follow, past the projection.
        dx: Written, `[N, D]`: the whole gradient of `x`. It may be the tensor `residual_grad`.
        dy: Written, `[N, D]`: the gradient of `y` in `x = … + dropout(y)`. None: there is no `y`.
        dropout_keys: int64 `[N / length]`, the keys of the windows; needed with `dy`, as is what follows.
        stream: The stream of the dropout mask.
        dropout: The probability with which elements of `y` were dropped.
        length: Tokens of a window.
    """
    width, block = x.shape[1], triton.next_power_of_2(x.shape[1])
    rows = rows_of_program(block, ROWS)
    _scaled_norm_backward[(len(x) // rows,)](
        grad, x, rstd, residual_grad, dropout_keys, dx, dy, stream, length, width, block, rows,
        drop_threshold(dropout), 1 / (1 - dropout), num_warps=4,
    )  # fmt: skip


@triton.jit(do_not_specialize=["row_count"])
def _copy_scaled_weight(
    weight_ptr, gain_ptr, out_ptr, row_count, width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr
):  # fmt: skip
    row, column = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, block)
    mask = (row < row_count)[:, None] & (column < width)[None, :]
    offset = row[:, None] * width + column[None, :]
    gain = tl.load(gain_ptr + column, mask=column < width, other=0.0)
    scaled = tl.load(weight_ptr + offset, mask=mask, other=0.0) * gain[None, :]
    tl.store(out_ptr + offset, scaled.to(out_ptr.dtype.element_ty), mask=mask)


def copy_scaled_weight(weight: Tensor, gain: Tensor, out: Tensor) -> None:
    """`out = weight diag(gain)`, rounded once.

    Args:
        weight: float32 `[M, D]`, of a projection.
        gain: float32 `[D]`, the weight of the norm before it.
        out: Written, `[M, D]`.
    """
    (rows, width), block = weight.shape, triton.next_power_of_2(weight.shape[1])
    taken = rows_of_program(block, ROWS)
    _copy_scaled_weight[(triton.cdiv(rows, taken),)](weight, gain, out, rows, width, block, taken, num_warps=4)


@triton.jit(do_not_specialize=["row_count"])
def _add_scaled_weight_grad(
    product_ptr, weight_ptr, gain_ptr, weight_grad_ptr, partial_ptr, row_count, width: tl.constexpr,
    block: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    program, column = tl.program_id(0), tl.arange(0, block)
    gain = tl.load(gain_ptr + column, mask=column < width, other=0.0)
    gain_grad = tl.zeros([block], tl.float32)
    for row_start in range(program * rows, row_count, tl.num_programs(0) * rows):
        row = row_start + tl.arange(0, rows)
        mask = (row < row_count)[:, None] & (column < width)[None, :]
        offset = row[:, None] * width + column[None, :]
        product = tl.load(product_ptr + offset, mask=mask, other=0.0)
        before = tl.load(weight_grad_ptr + offset, mask=mask, other=0.0)
        gain_grad += tl.sum(product * tl.load(weight_ptr + offset, mask=mask, other=0.0), 0)
        tl.store(weight_grad_ptr + offset, before + product * gain[None, :], mask=mask)
    tl.store(partial_ptr + program * width + column, gain_grad, mask=column < width)


def add_projection_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, gain: Tensor, weight_grad: Tensor, gain_grad: Tensor, product: Tensor,
    partial: Tensor,
) -> None:  # fmt: skip
    """Adds the gradients of a projection's weight and of the norm's before it.

    Args:
        grad: `[N, M]`, the gradient of the projection's result times `rstd`: `r d` above.
        x: `[N, D]`, the residual stream.
        weight: float32 `[M, D]`.
        gain: float32 `[D]`, the weight of the norm.
        weight_grad: Added to, float32 `[M, D]`.
        gain_grad: Added to, float32 `[D]`.
        product: Overwritten, float32, at least as large as `weight`.
        partial: Overwritten, float32 `[P, D]`: the part of `gain_grad` of each of P programs.
    """
    (rows, width), block = weight.shape, triton.next_power_of_2(weight.shape[1])
    product = product[:rows]
    if grad.dtype == torch.float32:
        torch.mm(grad.T, x, out=product)
    else:
        torch.ops.aten.mm.dtype_out(grad.T, x, torch.float32, out=product)
    taken = rows_of_program(block, ROWS)
    partial = partial[: triton.cdiv(rows, taken)]
    _add_scaled_weight_grad[(len(partial),)](
        product, weight, gain, weight_grad, partial, rows, width, block, taken, num_warps=4
    )
    _add_column_sums_(gain_grad, partial)

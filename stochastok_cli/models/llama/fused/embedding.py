"""The embedding with its dropout, and its gradient."""

import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.dropout import EMBEDDING_STREAM, drop_threshold, keep_mask, odd_hash
from stochastok_cli.models.llama.fused.norm import ROWS, rows_of_program, rstd_of_rows
from stochastok_cli.models.llama_config import NORM_EPS


@triton.jit
def _embed(
    ids_ptr, weight_ptr, dropout_keys_ptr, x_ptr, rstd_ptr, stream, length: tl.constexpr, width: tl.constexpr,
    block: tl.constexpr, rows: tl.constexpr, threshold: tl.constexpr, scale: tl.constexpr, eps: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, block)
    mask = (column < width)[None, :]
    ids = tl.load(ids_ptr + row).to(tl.int64)
    x = tl.load(weight_ptr + ids[:, None] * width + column[None, :], mask=mask, other=0.0).to(tl.float32)
    if threshold > 0:
        dropout_key = tl.load(dropout_keys_ptr + tl.program_id(0) * rows // length)
        row_hash, column_hash = odd_hash(dropout_key, stream, row % length), odd_hash(dropout_key, stream + 1, column)
        x = tl.where(keep_mask(row_hash, column_hash, threshold), x * scale, 0.0)
    rounded = x.to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + row.to(tl.int64)[:, None] * width + column[None, :], rounded, mask=mask)
    tl.store(rstd_ptr + row, rstd_of_rows(rounded.to(tl.float32), width, eps))


def embed(
    ids: Tensor, weight: Tensor, dropout_keys: Tensor, dropout: float, length: int, x: Tensor, rstd: Tensor
) -> None:
    """`x = dropout(weight[ids])`, and 1 / RMS of its rows.

    Args:
        ids: int32 `[N]`.
        weight: `[V, D]`.
        dropout_keys: int64 `[N / length]`, the keys of the windows.
        dropout: The probability with which elements are dropped.
        length: Tokens of a window.
        x: Written, `[N, D]`.
        rstd: Written, float32 `[N]`.
    """
    width, block = weight.shape[1], triton.next_power_of_2(weight.shape[1])
    rows = rows_of_program(block, ROWS)
    _embed[(len(ids) // rows,)](
        ids, weight, dropout_keys, x, rstd, EMBEDDING_STREAM, length, width, block, rows, drop_threshold(dropout),
        1 / (1 - dropout), NORM_EPS, num_warps=4,
    )  # fmt: skip


@triton.jit
def _embed_backward(
    ids_ptr, grad_ptr, dropout_keys_ptr, weight_grad_ptr, stream, length: tl.constexpr, width: tl.constexpr,
    block: tl.constexpr, rows: tl.constexpr, threshold: tl.constexpr, scale: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, block)
    mask = (column < width)[None, :]
    ids = tl.load(ids_ptr + row).to(tl.int64)
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    grad = tl.load(grad_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    if threshold > 0:
        dropout_key = tl.load(dropout_keys_ptr + tl.program_id(0) * rows // length)
        row_hash, column_hash = odd_hash(dropout_key, stream, row % length), odd_hash(dropout_key, stream + 1, column)
        grad = tl.where(keep_mask(row_hash, column_hash, threshold), grad * scale, 0.0)
    tl.atomic_add(weight_grad_ptr + ids[:, None] * width + column[None, :], grad, mask=mask, sem="relaxed")


def embed_backward(
    ids: Tensor, grad: Tensor, dropout_keys: Tensor, dropout: float, length: int, weight_grad: Tensor
) -> None:
    """Adds the gradient of the embedding.

    The additions are atomic, and their order differs from run to run. So do the last bits of this gradient.

    Args:
        ids: int32 `[N]`.
        grad: `[N, D]`, the gradient of `x` in `embed`.
        dropout_keys: int64 `[N / length]`.
        dropout: The probability with which elements were dropped.
        length: Tokens of a window.
        weight_grad: Added to, float32 `[V, D]`.
    """
    width, block = weight_grad.shape[1], triton.next_power_of_2(weight_grad.shape[1])
    rows = rows_of_program(block, ROWS)
    _embed_backward[(len(ids) // rows,)](
        ids, grad, dropout_keys, weight_grad, EMBEDDING_STREAM, length, width, block, rows,
        drop_threshold(dropout), 1 / (1 - dropout), num_warps=4,
    )  # fmt: skip

"""The embedding with its dropout and the first RMSNorm, and its gradient."""

import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.dropout import EMBEDDING, drop_threshold, keep, words
from stochastok_cli.models.llama.fused.norm import ROWS, normalize_rows
from stochastok_cli.models.llama.model import NORM_EPS


@triton.jit
def _embed(
    ids_ptr, weight_ptr, gain_ptr, keys_ptr, x_ptr, normed_ptr, rstd_ptr, stream, length: tl.constexpr,
    width: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, threshold: tl.constexpr, scale: tl.constexpr,
    eps: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, block)
    inside = (column < width)[None, :]
    ids = tl.load(ids_ptr + row).to(tl.int64)
    x = tl.load(weight_ptr + ids[:, None] * width + column[None, :], mask=inside, other=0.0).to(tl.float32)
    if threshold > 0:
        key = tl.load(keys_ptr + tl.program_id(0) * rows // length)
        kept = keep(words(key, stream, row % length), words(key, stream + 1, column), threshold)
        x = tl.where(kept, x * scale, 0.0)
    rounded = x.to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + row.to(tl.int64)[:, None] * width + column[None, :], rounded, mask=inside)
    normalize_rows(rounded.to(tl.float32), gain_ptr, row, normed_ptr, rstd_ptr, width, block, eps)


def embed(
    ids: Tensor, weight: Tensor, gain: Tensor, keys: Tensor, dropout: float, length: int, x: Tensor, normed: Tensor,
    rstd: Tensor,
) -> None:  # fmt: skip
    """`x = dropout(weight[ids])`, `normed = RMSNorm(x) * gain`: `[N, D]`; `rstd` float32 `[N]`.

    `ids` int32 `[N]`, `weight` `[V, D]`, `keys` int64 `[N / length]`.
    """
    width = weight.shape[1]
    _embed[(len(ids) // ROWS,)](
        ids, weight, gain, keys, x, normed, rstd, EMBEDDING, length, width, triton.next_power_of_2(width), ROWS,
        drop_threshold(dropout), 1 / (1 - dropout), NORM_EPS, num_warps=4,
    )  # fmt: skip


@triton.jit
def _embed_backward(
    ids_ptr, grad_ptr, keys_ptr, weight_grad_ptr, stream, length: tl.constexpr, width: tl.constexpr,
    block: tl.constexpr, rows: tl.constexpr, threshold: tl.constexpr, scale: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, block)
    inside = (column < width)[None, :]
    ids = tl.load(ids_ptr + row).to(tl.int64)
    offset = row.to(tl.int64)[:, None] * width + column[None, :]
    grad = tl.load(grad_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    if threshold > 0:
        key = tl.load(keys_ptr + tl.program_id(0) * rows // length)
        kept = keep(words(key, stream, row % length), words(key, stream + 1, column), threshold)
        grad = tl.where(kept, grad * scale, 0.0)
    tl.atomic_add(weight_grad_ptr + ids[:, None] * width + column[None, :], grad, mask=inside, sem="relaxed")


def embed_backward(ids: Tensor, grad: Tensor, keys: Tensor, dropout: float, length: int, weight_grad: Tensor) -> None:
    """Adds the gradient `grad` `[N, D]` of the embedded rows to `weight_grad` float32 `[V, D]`.

    By atomic additions, whose order differs from run to run: the last bits of this gradient do too.
    """
    width = weight_grad.shape[1]
    _embed_backward[(len(ids) // ROWS,)](
        ids, grad, keys, weight_grad, EMBEDDING, length, width, triton.next_power_of_2(width), ROWS,
        drop_threshold(dropout), 1 / (1 - dropout), num_warps=4,
    )  # fmt: skip

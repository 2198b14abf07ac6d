"""Causal attention with grouped heads, dropout on its weights and packed examples: the forward pass.

Names: B windows of T positions, H query heads, G key/value heads of width h. `qkv` is `[B T, (H + 2 G) h]` after
`rotary.rotate_`: queries scaled by log2(e) / sqrt(h).

64 queries by 64 keys: with h = 32 the products are so thin that a program lives off its exponentials and its hashing,
and more resident programs beat larger tiles. Hence the register limit: 96 lets five programs of 4 warps share a
multiprocessor. Programs start with the last queries, whose rows are the longest.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.dropout import drop_threshold, keep

TILE = {"block_q": 64, "block_k": 64, "num_warps": 4, "num_stages": 2}
REGISTERS = {32: 96}  # by head width; other widths are left to the compiler


@triton.jit
def visible(query, key, first, packed: tl.constexpr):
    """Which of `key` `[K]` each of `query` `[Q]` sees: from `first` `[Q]` to itself, bool `[Q, K]`."""
    seen = query[:, None] >= key[None, :]
    if packed:
        seen = seen & (key[None, :] >= first[:, None])
    return seen


@triton.jit
def _visit(
    q, top, total, out, query, first, row_words, key0, k_ptr, v_ptr, columns_ptr, stride: tl.constexpr,
    head_dim: tl.constexpr, block_k: tl.constexpr, threshold: tl.constexpr, masked: tl.constexpr, packed: tl.constexpr,
):  # fmt: skip
    """One block of keys: the running maximum, sum of weights and weighted sum of values, after it."""
    key = key0 + tl.arange(0, block_k)
    offset = key[:, None] * stride + tl.arange(0, head_dim)[None, :]
    k, v = tl.load(k_ptr + offset), tl.load(v_ptr + offset)
    s = tl.dot(q, k.T)
    if masked:
        s = tl.where(visible(query, key, first, packed), s, -1e30)
    new_top = tl.maximum(top, tl.max(s, 1))
    p = tl.math.exp2(s - new_top[:, None])
    shrink = tl.math.exp2(top - new_top)
    total = total * shrink + tl.sum(p, 1)
    if threshold > 0:
        p = tl.where(keep(row_words, tl.load(columns_ptr + key).to(tl.uint32), threshold), p, 0.0)
    out = tl.dot(p.to(v.dtype), v, out * shrink[:, None])
    return new_top, total, out


@triton.jit
def _attention(
    qkv_ptr, out_ptr, lse_ptr, rows_ptr, columns_ptr, first_ptr, length: tl.constexpr, heads: tl.constexpr,
    kv_heads: tl.constexpr, head_dim: tl.constexpr, block_q: tl.constexpr, block_k: tl.constexpr,
    threshold: tl.constexpr, scale: tl.constexpr, packed: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = (heads + 2 * kv_heads) * head_dim
    q0 = (length // block_q - 1 - tl.program_id(0)) * block_q
    head, window = tl.program_id(1), tl.program_id(2)
    kv_head = head // (heads // kv_heads)
    query, d = q0 + tl.arange(0, block_q), tl.arange(0, head_dim)
    base = qkv_ptr + window.to(tl.int64) * length * stride
    q = tl.load(base + query[:, None] * stride + head * head_dim + d[None, :])
    k_ptr = base + (heads + kv_head) * head_dim
    v_ptr = k_ptr + kv_heads * head_dim
    columns_ptr += (window * kv_heads + kv_head) * length
    row = (window * heads + head) * length + query
    row_words = query.to(tl.uint32)
    if threshold > 0:
        row_words = tl.load(rows_ptr + row).to(tl.uint32)
    top = tl.full([block_q], -1e30, tl.float32)
    total = tl.zeros([block_q], tl.float32)
    out = tl.zeros([block_q, head_dim], tl.float32)
    first = query
    diagonal = q0
    if packed:  # blocks before the first visible key are skipped, all others masked: there are few
        first = tl.load(first_ptr + window * length + query)
        diagonal = tl.min(first, 0) // block_k * block_k
    else:
        for key0 in range(0, q0, block_k):
            top, total, out = _visit(
                q, top, total, out, query, first, row_words, key0, k_ptr, v_ptr, columns_ptr, stride, head_dim,
                block_k, threshold, False, packed,
            )  # fmt: skip
    for key0 in range(diagonal, q0 + block_q, block_k):
        top, total, out = _visit(
            q, top, total, out, query, first, row_words, key0, k_ptr, v_ptr, columns_ptr, stride, head_dim, block_k,
            threshold, True, packed,
        )  # fmt: skip
    out = out * (scale / total)[:, None]
    out_offset = (window.to(tl.int64) * length + query)[:, None] * (heads * head_dim) + head * head_dim + d[None, :]
    tl.store(out_ptr + out_offset, out.to(out_ptr.dtype.element_ty))
    tl.store(lse_ptr + row, top + tl.math.log2(total))


def attention(
    qkv: Tensor, segment_start: Tensor | None, rows: Tensor, columns: Tensor, dropout: float, out: Tensor, lse: Tensor
) -> None:
    """`out` `[B T, H h]` and, for the backward pass, `lse` float32 `[B, H, T]`: log2 of the sum of exp2 of the scores.

    `segment_start` int32 `[B, T]`; `rows` `[B, H, T]` and `columns` `[B, G, T]` from `dropout.attention_words`.
    """
    windows, heads, length = rows.shape
    head_dim = out.shape[1] // heads
    tile: dict[str, Any] = TILE | {"maxnreg": REGISTERS.get(head_dim)}
    _attention[(length // TILE["block_q"], heads, windows)](
        qkv, out, lse, rows, columns, segment_start, length, heads, columns.shape[1], head_dim,
        threshold=drop_threshold(dropout), scale=1 / (1 - dropout), packed=segment_start is not None, **tile,
    )  # fmt: skip

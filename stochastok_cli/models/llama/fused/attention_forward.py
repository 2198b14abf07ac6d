"""Causal attention with grouped heads, dropout on the attention weights, and packed examples: the forward pass.

The algorithm is that of FlashAttention-2 (Dao 2023): a program takes a block of queries, goes over blocks of keys and
keeps a running maximum and sum of the softmax. B windows of T positions, H query heads, G key/value heads of width h.
`qkv` is `[B T, (H + 2 G) h]` from `rotary.rotated_qkv`, which scales queries by log2(e) / sqrt(h).

`attention_tiles` chooses the tiles, whose rows are queries of one or several heads of a group. Programs start with the
last queries, whose rows are the longest.
"""

import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.attention_tiles import FORWARD, choose, launch_options
from stochastok_cli.models.llama.fused.dropout import drop, drop_threshold


@triton.jit
def attention_mask(query, key, segment_start, packed: tl.constexpr):
    """Which of `key` `[K]` each of `query` `[Q]` attends to: from `segment_start` `[Q]` to itself, bool `[Q, K]`."""
    mask = query[:, None] >= key[None, :]
    if packed:
        mask = mask & (key[None, :] >= segment_start[:, None])
    return mask


@triton.jit
def _attend_block(
    q, row_max, row_sum, out, query, segment_start, query_hash, key_start, k_ptr, v_ptr, key_hash_ptr,
    stride: tl.constexpr, head_dim: tl.constexpr, block_k: tl.constexpr, threshold: tl.constexpr, masked: tl.constexpr,
    packed: tl.constexpr,
):  # fmt: skip
    """Updates the running maximum, sum of weights and weighted sum of values by one block of keys."""
    key = key_start + tl.arange(0, block_k)
    offset = key[:, None] * stride + tl.arange(0, head_dim)[None, :]
    k, v = tl.load(k_ptr + offset), tl.load(v_ptr + offset)
    s = tl.dot(q, k.T)
    if masked:
        s = tl.where(attention_mask(query, key, segment_start, packed), s, -1e30)
    new_max = tl.maximum(row_max, tl.max(s, 1))
    p = tl.math.exp2(s - new_max[:, None])
    rescale = tl.math.exp2(row_max - new_max)
    row_sum = row_sum * rescale + tl.sum(p, 1)
    if threshold > 0:
        p = drop(p, query_hash, tl.load(key_hash_ptr + key).to(tl.uint32), threshold)
    out = tl.dot(p.to(v.dtype), v, out * rescale[:, None])
    return new_max, row_sum, out


@triton.jit
def _attention_forward(
    qkv_ptr, out_ptr, lse_ptr, query_hash_ptr, key_hash_ptr, segment_start_ptr, length: tl.constexpr,
    heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr, num_heads: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, threshold: tl.constexpr, scale: tl.constexpr, packed: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = (heads + 2 * kv_heads) * head_dim
    query_start = (length // block_q - 1 - tl.program_id(0)) * block_q
    first_head, window = tl.program_id(1) * num_heads, tl.program_id(2)
    kv_head = first_head // (heads // kv_heads)
    row, d = tl.arange(0, num_heads * block_q), tl.arange(0, head_dim)
    head, query = first_head + row // block_q, query_start + row % block_q
    base = qkv_ptr + window.to(tl.int64) * length * stride
    q = tl.load(base + (query * stride + head * head_dim)[:, None] + d[None, :])
    k_ptr = base + (heads + kv_head) * head_dim
    v_ptr = k_ptr + kv_heads * head_dim
    key_hash_ptr += (window * kv_heads + kv_head) * length
    row_offset = (window * heads + head) * length + query
    query_hash = query.to(tl.uint32)
    if threshold > 0:
        query_hash = tl.load(query_hash_ptr + row_offset).to(tl.uint32)
    row_max = tl.full([num_heads * block_q], -1e30, tl.float32)
    row_sum = tl.zeros([num_heads * block_q], tl.float32)
    out = tl.zeros([num_heads * block_q, head_dim], tl.float32)
    segment_start = query
    masked_start = query_start // block_k * block_k
    if packed:  # blocks before the first segment are skipped, and the others are all masked: there are few
        segment_start = tl.load(segment_start_ptr + window * length + query)
        masked_start = tl.min(segment_start, 0) // block_k * block_k
    else:
        for key_start in range(0, masked_start, block_k):
            row_max, row_sum, out = _attend_block(
                q, row_max, row_sum, out, query, segment_start, query_hash, key_start, k_ptr, v_ptr, key_hash_ptr,
                stride, head_dim, block_k, threshold, False, packed,
            )  # fmt: skip
    for key_start in range(masked_start, query_start + block_q, block_k):
        row_max, row_sum, out = _attend_block(
            q, row_max, row_sum, out, query, segment_start, query_hash, key_start, k_ptr, v_ptr, key_hash_ptr, stride,
            head_dim, block_k, threshold, True, packed,
        )  # fmt: skip
    out = out * (scale / row_sum)[:, None]
    out_offset = (window.to(tl.int64) * length + query) * (heads * head_dim) + head * head_dim
    tl.store(out_ptr + out_offset[:, None] + d[None, :], out.to(out_ptr.dtype.element_ty))
    tl.store(lse_ptr + row_offset, row_max + tl.math.log2(row_sum))


def attention_forward(
    qkv: Tensor, segment_start: Tensor | None, query_hash: Tensor, key_hash: Tensor, dropout: float, out: Tensor,
    lse: Tensor,
) -> None:  # fmt: skip
    """Causal attention, within segments where examples are packed.

    Args:
        qkv: `[B T, (H + 2 G) h]`, rotated queries and keys, and values.
        segment_start: int32 `[B, T]`, the first position that each query attends to; None: position 0.
        query_hash: int32 `[B, H, T]`, from `dropout.attention_hashes`.
        key_hash: int32 `[B, G, T]`, from the same function.
        dropout: The probability with which attention weights are dropped.
        out: Written, `[B T, H h]`.
        lse: Written for the backward pass, float32 `[B, H, T]`: log2 of the sum of exp2 of the scores.
    """
    windows, heads, length = query_hash.shape
    head_dim = out.shape[1] // heads
    num_heads, tile = choose(FORWARD[head_dim], length, heads // key_hash.shape[1])
    _attention_forward[(length // tile.block_q, heads // num_heads, windows)](
        qkv, out, lse, query_hash, key_hash, segment_start, length, heads, key_hash.shape[1], head_dim, num_heads,
        threshold=drop_threshold(dropout), scale=1 / (1 - dropout), packed=segment_start is not None,
        **launch_options(tile),
    )  # fmt: skip

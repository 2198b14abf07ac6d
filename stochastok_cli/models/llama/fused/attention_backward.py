"""The gradient of `attention_forward`, in two kernels that together write the gradient of the unrotated `qkv`.

With weights p (before dropout), dropout mask m, gradient `grad` of the output o, and keep probability r:

    ds = p (m (grad vᵀ) - r rowsum(grad o)) / r        dq = ds k        dk = dsᵀ q        dv = (m p)ᵀ grad / r

As in FlashAttention-2 (Dao 2023), the weights are recomputed from `lse`. One kernel goes over the keys for a block of
queries (dq). The other goes over the queries for a block of keys (dk, dv) and takes those of all heads of a group in
each step: unrolled, the overhead of a step is paid once for four heads. Where shared memory has no room for so many, it
goes over the queries several times, each time for some of the heads. It works on transposed scores, so that nothing
passes through shared memory to be transposed. The scores are computed twice, which costs less than atomic additions of
dq in global memory. `attention_tiles` chooses the tiles.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.attention_forward import attention_mask
from stochastok_cli.models.llama.fused.attention_tiles import DKDV, DQ, fit_window, heads_at_once, launch_options
from stochastok_cli.models.llama.fused.dropout import drop_threshold, keep_mask
from stochastok_cli.models.llama.fused.rotary import store_inverse_rotated


@triton.jit
def _add_key_block(
    q, grad, lse, delta, dq, query, segment_start, query_hash, key_start, k_ptr, v_ptr, key_hash_ptr,
    stride: tl.constexpr, head_dim: tl.constexpr, block_k: tl.constexpr, threshold: tl.constexpr, masked: tl.constexpr,
    packed: tl.constexpr,
):  # fmt: skip
    """Adds one block of keys to `dq` `[Q, h]`."""
    key = key_start + tl.arange(0, block_k)
    offset = key[:, None] * stride + tl.arange(0, head_dim)[None, :]
    k, v = tl.load(k_ptr + offset), tl.load(v_ptr + offset)
    p = tl.math.exp2(tl.dot(q, k.T) - lse[:, None])
    if masked:
        p = tl.where(attention_mask(query, key, segment_start, packed), p, 0.0)
    dp = tl.dot(grad, v.T)
    if threshold > 0:
        dp = tl.where(keep_mask(query_hash, tl.load(key_hash_ptr + key).to(tl.uint32), threshold), dp, 0.0)
    return tl.dot((p * (dp - delta[:, None])).to(k.dtype), k, dq)


@triton.jit
def _attention_backward_dq(
    qkv_ptr, out_ptr, grad_ptr, lse_ptr, delta_ptr, query_hash_ptr, key_hash_ptr, segment_start_ptr, dqkv_ptr, cos_ptr,
    sin_ptr, length: tl.constexpr, heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, threshold: tl.constexpr, keep_prob: tl.constexpr,
    dq_scale: tl.constexpr, packed: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = (heads + 2 * kv_heads) * head_dim
    query_start = (length // block_q - 1 - tl.program_id(0)) * block_q
    head, window = tl.program_id(1), tl.program_id(2)
    kv_head = head // (heads // kv_heads)
    query, d = query_start + tl.arange(0, block_q), tl.arange(0, head_dim)
    window_row = window.to(tl.int64) * length
    base = qkv_ptr + window_row * stride
    q = tl.load(base + query[:, None] * stride + head * head_dim + d[None, :])
    offset = (window_row + query)[:, None] * (heads * head_dim) + head * head_dim + d[None, :]
    grad = tl.load(grad_ptr + offset)
    row = (window * heads + head) * length + query
    delta = tl.sum(tl.load(out_ptr + offset).to(tl.float32) * grad.to(tl.float32), 1) * keep_prob
    tl.store(delta_ptr + row, delta)
    lse = tl.load(lse_ptr + row)
    query_hash = query.to(tl.uint32)
    if threshold > 0:
        query_hash = tl.load(query_hash_ptr + row).to(tl.uint32)
    k_ptr = base + (heads + kv_head) * head_dim
    v_ptr = k_ptr + kv_heads * head_dim
    key_hash_ptr += (window * kv_heads + kv_head) * length
    dq = tl.zeros([block_q, head_dim], tl.float32)
    segment_start = query
    masked_start = query_start
    if packed:
        segment_start = tl.load(segment_start_ptr + window * length + query)
        masked_start = tl.min(segment_start, 0) // block_k * block_k
    else:
        for key_start in range(0, query_start, block_k):
            dq = _add_key_block(
                q, grad, lse, delta, dq, query, segment_start, query_hash, key_start, k_ptr, v_ptr, key_hash_ptr,
                stride, head_dim, block_k, threshold, False, packed,
            )  # fmt: skip
    for key_start in range(masked_start, query_start + block_q, block_k):
        dq = _add_key_block(
            q, grad, lse, delta, dq, query, segment_start, query_hash, key_start, k_ptr, v_ptr, key_hash_ptr, stride,
            head_dim, block_k, threshold, True, packed,
        )  # fmt: skip
    dq_ptr = dqkv_ptr + window_row * stride + head * head_dim
    store_inverse_rotated(dq * dq_scale, cos_ptr, sin_ptr, query, dq_ptr, stride, head_dim)


@triton.jit
def _add_query_block(
    k, v, dk, dv, key, key_hash, query_start, first_head, window, base, grad_base, lse_ptr, delta_ptr, query_hash_ptr,
    segment_start_ptr, length: tl.constexpr, heads: tl.constexpr, num_heads: tl.constexpr, stride: tl.constexpr,
    head_dim: tl.constexpr, block_q: tl.constexpr, threshold: tl.constexpr, masked: tl.constexpr, packed: tl.constexpr,
):  # fmt: skip
    """Adds one block of queries, of each of `num_heads` heads from `first_head`, to `dk` and `dv` `[K, h]`."""
    query, d = query_start + tl.arange(0, block_q), tl.arange(0, head_dim)
    if masked:
        mask = query[None, :] >= key[:, None]
        if packed:
            mask = mask & (key[:, None] >= tl.load(segment_start_ptr + window * length + query)[None, :])
    for i in tl.static_range(num_heads):
        head = first_head + i
        q = tl.load(base + query[:, None] * stride + head * head_dim + d[None, :])
        grad = tl.load(grad_base + query[:, None] * (heads * head_dim) + head * head_dim + d[None, :])
        row = (window * heads + head) * length + query
        lse, delta = tl.load(lse_ptr + row), tl.load(delta_ptr + row)
        p = tl.math.exp2(tl.dot(k, q.T) - lse[None, :])
        if masked:
            p = tl.where(mask, p, 0.0)
        dropped_p = p
        if threshold > 0:
            kept = keep_mask(key_hash, tl.load(query_hash_ptr + row).to(tl.uint32), threshold)
            # A factor, because a `where` on p would be done in 16 bits, with more instructions.
            dropped_p *= tl.where(kept, 1.0, 0.0)
        dv = tl.dot(dropped_p.to(grad.dtype), grad, dv)
        ds = dropped_p * tl.dot(v, grad.T) - p * delta[None, :]
        dk = tl.dot(ds.to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def _attention_backward_dkdv(
    qkv_ptr, grad_ptr, lse_ptr, delta_ptr, query_hash_ptr, key_hash_ptr, segment_start_ptr, dqkv_ptr, cos_ptr, sin_ptr,
    length: tl.constexpr, heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr, block_q: tl.constexpr,
    block_k: tl.constexpr, stages: tl.constexpr, threshold: tl.constexpr, dk_scale: tl.constexpr,
    dv_scale: tl.constexpr, packed: tl.constexpr, length_block: tl.constexpr, num_heads: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = (heads + 2 * kv_heads) * head_dim
    group: tl.constexpr = heads // kv_heads
    key_start = tl.program_id(0) * block_k
    kv_head, window = tl.program_id(1), tl.program_id(2)
    key, d = key_start + tl.arange(0, block_k), tl.arange(0, head_dim)
    window_row = window.to(tl.int64) * length
    base = qkv_ptr + window_row * stride
    grad_base = grad_ptr + window_row * (heads * head_dim)
    k_ptr = base + (heads + kv_head) * head_dim + key[:, None] * stride + d[None, :]
    k, v = tl.load(k_ptr), tl.load(k_ptr + kv_heads * head_dim)
    key_hash = key.to(tl.uint32)
    if threshold > 0:
        key_hash = tl.load(key_hash_ptr + (window * kv_heads + kv_head) * length + key).to(tl.uint32)
    dk = tl.zeros([block_k, head_dim], tl.float32)
    dv = tl.zeros([block_k, head_dim], tl.float32)
    masked_end = key_start + block_k
    if packed:  # up to the last query that attends to one of these keys, all blocks are masked
        position = tl.arange(0, length_block)
        segment_start = tl.load(segment_start_ptr + window * length + position, mask=position < length, other=length)
        masked_end = tl.max(tl.where(segment_start < key_start + block_k, position, 0), 0) + 1
    for part in tl.static_range(group // num_heads):
        first_head = kv_head * group + part * num_heads
        for query_start in tl.range(key_start, masked_end, block_q, num_stages=stages):
            dk, dv = _add_query_block(
                k, v, dk, dv, key, key_hash, query_start, first_head, window, base, grad_base, lse_ptr, delta_ptr,
                query_hash_ptr, segment_start_ptr, length, heads, num_heads, stride, head_dim, block_q, threshold, True,
                packed,
            )  # fmt: skip
        if not packed:
            for query_start in tl.range(masked_end, length, block_q, num_stages=stages):
                dk, dv = _add_query_block(
                    k, v, dk, dv, key, key_hash, query_start, first_head, window, base, grad_base, lse_ptr, delta_ptr,
                    query_hash_ptr, segment_start_ptr, length, heads, num_heads, stride, head_dim, block_q, threshold,
                    False, packed,
                )  # fmt: skip
    out = dqkv_ptr + window_row * stride + (heads + kv_head) * head_dim
    store_inverse_rotated(dk * dk_scale, cos_ptr, sin_ptr, key, out, stride, head_dim)
    dv_ptr = out + kv_heads * head_dim + key[:, None] * stride + d[None, :]
    tl.store(dv_ptr, (dv * dv_scale).to(dqkv_ptr.dtype.element_ty))


def attention_backward(
    qkv: Tensor, out: Tensor, grad: Tensor, lse: Tensor, segment_start: Tensor | None, query_hash: Tensor,
    key_hash: Tensor, rotation: Tensor, dropout: float, delta: Tensor, dqkv: Tensor,
) -> None:  # fmt: skip
    """The gradient of attention and of the rotation before it.

    Args:
        qkv: `[B T, (H + 2 G) h]`, as in the forward pass; so are `out`, `lse`, `segment_start`, `query_hash`,
            `key_hash` and `dropout`.
        out: `[B T, H h]`.
        grad: The gradient of `out`.
        lse: float32 `[B, H, T]`.
        segment_start: int32 `[B, T]`, or None.
        query_hash: int32 `[B, H, T]`.
        key_hash: int32 `[B, G, T]`.
        rotation: float32 `[2, T, h]`.
        dropout: The probability with which attention weights were dropped.
        delta: Written by the first kernel for the second, float32 `[B, H, T]`.
        dqkv: Written, `[B T, (H + 2 G) h]`: the gradient of `qkv` before `rotary.rotate_`.
    """
    windows, heads, length = query_hash.shape
    kv_heads, head_dim, keep_prob = key_hash.shape[1], out.shape[1] // heads, 1 - dropout
    threshold, packed = drop_threshold(dropout), segment_start is not None
    tile = fit_window(DQ[head_dim], length)
    _attention_backward_dq[(length // tile.block_q, heads, windows)](
        qkv, out, grad, lse, delta, query_hash, key_hash, segment_start, dqkv, rotation[0], rotation[1], length, heads,
        kv_heads, head_dim, threshold=threshold, keep_prob=keep_prob, dq_scale=1 / (keep_prob * math.sqrt(head_dim)),
        packed=packed, **launch_options(tile),
    )  # fmt: skip
    tile = fit_window(DKDV[head_dim], length)
    _attention_backward_dkdv[(length // tile.block_k, kv_heads, windows)](
        qkv, grad, lse, delta, query_hash, key_hash, segment_start, dqkv, rotation[0], rotation[1], length, heads,
        kv_heads, head_dim, tile.block_q, tile.block_k, tile.num_stages, threshold=threshold,
        dk_scale=math.log(2) / keep_prob, dv_scale=1 / keep_prob, packed=packed,
        length_block=triton.next_power_of_2(length), num_heads=heads_at_once(tile, head_dim, heads // kv_heads),
        num_warps=tile.num_warps, maxnreg=tile.max_registers,
    )  # fmt: skip

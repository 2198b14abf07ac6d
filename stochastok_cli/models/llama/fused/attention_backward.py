"""The gradient of `attention_forward`, in two kernels that together write the gradient of the unrotated `qkv`, with
rows multiplied by numbers that `fused.norm` explains.

With weights p (before dropout), dropout mask m, gradient `grad` of the output o, and keep probability r:

    ds = p (m (grad vᵀ) - r rowsum(grad o)) / r        dq = ds k        dk = dsᵀ q        dv = (m p)ᵀ grad / r

As in FlashAttention-2 (Dao 2023), the weights are recomputed from `lse`. One kernel goes over the keys for a block of
queries (dq). The other goes over the queries for a block of keys (dk, dv), and takes those of several heads of a group
in each step: unrolled, the overhead of a step is paid once for all of them. It goes over the queries again for the
heads that are left. It works on transposed scores, so that nothing passes through shared memory to be transposed. The
scores are computed twice, which costs less than atomic additions of dq in global memory. `attention_tiles` chooses the
tiles. Where examples are not packed and heads are narrow, a GPU has another kernel for dk and dv: `attention_dkdv`.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused import attention_dkdv
from stochastok_cli.models.llama.fused.attention_forward import attention_mask
from stochastok_cli.models.llama.fused.attention_tiles import DKDV, DQ, choose, heads_of_step, launch_options
from stochastok_cli.models.llama.fused.dropout import drop, drop_threshold
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
        dp = drop(dp, query_hash, tl.load(key_hash_ptr + key).to(tl.uint32), threshold)
    return tl.dot((p * (dp - delta[:, None])).to(k.dtype), k, dq)


@triton.jit
def _attention_backward_dq(
    qkv_ptr, out_ptr, grad_ptr, lse_ptr, delta_ptr, query_hash_ptr, key_hash_ptr, segment_start_ptr, rstd_ptr, dqkv_ptr,
    cos_ptr, sin_ptr, length: tl.constexpr, heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr,
    num_heads: tl.constexpr, block_q: tl.constexpr, block_k: tl.constexpr, threshold: tl.constexpr,
    keep_prob: tl.constexpr, dq_scale: tl.constexpr, packed: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = (heads + 2 * kv_heads) * head_dim
    query_start = (length // block_q - 1 - tl.program_id(0)) * block_q
    first_head, window = tl.program_id(1) * num_heads, tl.program_id(2)
    kv_head = first_head // (heads // kv_heads)
    row, d = tl.arange(0, num_heads * block_q), tl.arange(0, head_dim)
    head, query = first_head + row // block_q, query_start + row % block_q
    window_row = window.to(tl.int64) * length
    base = qkv_ptr + window_row * stride
    q = tl.load(base + (query * stride + head * head_dim)[:, None] + d[None, :])
    offset = ((window_row + query) * (heads * head_dim) + head * head_dim)[:, None] + d[None, :]
    grad = tl.load(grad_ptr + offset)
    row_offset = (window * heads + head) * length + query
    delta = tl.sum(tl.load(out_ptr + offset).to(tl.float32) * grad.to(tl.float32), 1) * keep_prob
    tl.store(delta_ptr + row_offset, delta)
    lse = tl.load(lse_ptr + row_offset)
    query_hash = query.to(tl.uint32)
    if threshold > 0:
        query_hash = tl.load(query_hash_ptr + row_offset).to(tl.uint32)
    k_ptr = base + (heads + kv_head) * head_dim
    v_ptr = k_ptr + kv_heads * head_dim
    key_hash_ptr += (window * kv_heads + kv_head) * length
    dq = tl.zeros([num_heads * block_q, head_dim], tl.float32)
    segment_start = query
    masked_start = query_start // block_k * block_k
    if packed:
        segment_start = tl.load(segment_start_ptr + window * length + query)
        masked_start = tl.min(segment_start, 0) // block_k * block_k
    else:
        for key_start in range(0, masked_start, block_k):
            dq = _add_key_block(
                q, grad, lse, delta, dq, query, segment_start, query_hash, key_start, k_ptr, v_ptr, key_hash_ptr,
                stride, head_dim, block_k, threshold, False, packed,
            )  # fmt: skip
    for key_start in range(masked_start, query_start + block_q, block_k):
        dq = _add_key_block(
            q, grad, lse, delta, dq, query, segment_start, query_hash, key_start, k_ptr, v_ptr, key_hash_ptr, stride,
            head_dim, block_k, threshold, True, packed,
        )  # fmt: skip
    out_offset = query * stride + head * head_dim
    dq *= (tl.load(rstd_ptr + window_row + query) * dq_scale)[:, None]
    store_inverse_rotated(dq, cos_ptr, sin_ptr, query, dqkv_ptr + window_row * stride, out_offset, head_dim)


@triton.jit
def _add_query_block(
    k, v, dk, dv, key, key_hash, query_start, first_head, window, base, grad_base, lse_ptr, delta_ptr, query_hash_ptr,
    segment_start_ptr, length: tl.constexpr, heads: tl.constexpr, heads_of_step: tl.constexpr,
    num_heads: tl.constexpr, stride: tl.constexpr, head_dim: tl.constexpr, block_q: tl.constexpr,
    threshold: tl.constexpr, masked: tl.constexpr, packed: tl.constexpr,
):  # fmt: skip
    """Adds one block of queries, of each of `heads_of_step` heads from `first_head`, to `dk` and `dv` `[K, h]`."""
    column, d = tl.arange(0, num_heads * block_q), tl.arange(0, head_dim)
    query = query_start + column % block_q
    if masked:
        mask = query[None, :] >= key[:, None]
        if packed:
            mask = mask & (key[:, None] >= tl.load(segment_start_ptr + window * length + query)[None, :])
    for i in tl.static_range(heads_of_step // num_heads):
        head = first_head + i * num_heads + column // block_q
        q = tl.load(base + (query * stride + head * head_dim)[:, None] + d[None, :])
        grad = tl.load(grad_base + (query * (heads * head_dim) + head * head_dim)[:, None] + d[None, :])
        offset = (window * heads + head) * length + query
        lse, delta = tl.load(lse_ptr + offset), tl.load(delta_ptr + offset)
        p = tl.math.exp2(tl.dot(k, q.T) - lse[None, :])
        if masked:
            p = tl.where(mask, p, 0.0)
        dropped_p = p
        if threshold > 0:
            dropped_p = drop(p, key_hash, tl.load(query_hash_ptr + offset).to(tl.uint32), threshold)
        dv = tl.dot(dropped_p.to(grad.dtype), grad, dv)
        ds = dropped_p * tl.dot(v, grad.T) - p * delta[None, :]
        dk = tl.dot(ds.to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def _attention_backward_dkdv(
    qkv_ptr, grad_ptr, lse_ptr, delta_ptr, query_hash_ptr, key_hash_ptr, segment_start_ptr, rstd_ptr, dqkv_ptr, cos_ptr,
    sin_ptr, length: tl.constexpr, heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr,
    block_q: tl.constexpr, block_k: tl.constexpr, stages: tl.constexpr, threshold: tl.constexpr, dk_scale: tl.constexpr,
    dv_scale: tl.constexpr, packed: tl.constexpr, length_block: tl.constexpr, heads_of_step: tl.constexpr,
    num_heads: tl.constexpr,
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
    for part in tl.static_range(group // heads_of_step):
        first_head = kv_head * group + part * heads_of_step
        for query_start in tl.range(key_start, masked_end, block_q, num_stages=stages):
            dk, dv = _add_query_block(
                k, v, dk, dv, key, key_hash, query_start, first_head, window, base, grad_base, lse_ptr, delta_ptr,
                query_hash_ptr, segment_start_ptr, length, heads, heads_of_step, num_heads, stride, head_dim, block_q,
                threshold, True, packed,
            )  # fmt: skip
        if not packed:
            for query_start in tl.range(masked_end, length, block_q, num_stages=stages):
                dk, dv = _add_query_block(
                    k, v, dk, dv, key, key_hash, query_start, first_head, window, base, grad_base, lse_ptr, delta_ptr,
                    query_hash_ptr, segment_start_ptr, length, heads, heads_of_step, num_heads, stride, head_dim,
                    block_q, threshold, False, packed,
                )  # fmt: skip
    out = dqkv_ptr + window_row * stride + (heads + kv_head) * head_dim
    rstd = tl.load(rstd_ptr + window_row + key)[:, None]
    store_inverse_rotated(dk * (rstd * dk_scale), cos_ptr, sin_ptr, key, out, key * stride, head_dim)
    dv_ptr = out + kv_heads * head_dim + key[:, None] * stride + d[None, :]
    tl.store(dv_ptr, (dv * (rstd * dv_scale)).to(dqkv_ptr.dtype.element_ty))


def attention_backward(
    qkv: Tensor, out: Tensor, grad: Tensor, lse: Tensor, segment_start: Tensor | None, query_hash: Tensor,
    key_hash: Tensor, rstd: Tensor, rotation: Tensor, dropout: float, delta: Tensor, dqkv: Tensor,
) -> None:  # fmt: skip
    """The gradient of attention and of the rotation before it, times `rstd`.

    Args:
        qkv: `[B T, (H + 2 G) h]`, as in the forward pass; so are `out`, `lse`, `segment_start`, `query_hash`,
            `key_hash` and `dropout`.
        out: `[B T, H h]`.
        grad: The gradient of `out`.
        lse: float32 `[B, H, T]`.
        segment_start: int32 `[B, T]`, or None.
        query_hash: int32 `[B, H, T]`.
        key_hash: int32 `[B, G, T]`.
        rstd: float32 `[B T]`, which multiplies the rows.
        rotation: float32 `[2, T, h]`.
        dropout: The probability with which attention weights were dropped.
        delta: Written by the first kernel for the second, float32 `[B, H, T]`.
        dqkv: Written, `[B T, (H + 2 G) h]`: `rstd` times the gradient of `qkv` before the rotation.
    """
    windows, heads, length = query_hash.shape
    kv_heads, head_dim, keep_prob = key_hash.shape[1], out.shape[1] // heads, 1 - dropout
    threshold, packed = drop_threshold(dropout), segment_start is not None
    group = heads // kv_heads
    num_heads, tile = choose(DQ[head_dim], length, group)
    _attention_backward_dq[(length // tile.block_q, heads // num_heads, windows)](
        qkv, out, grad, lse, delta, query_hash, key_hash, segment_start, rstd, dqkv, rotation[0], rotation[1], length,
        heads, kv_heads, head_dim, num_heads, threshold=threshold, keep_prob=keep_prob,
        dq_scale=1 / (keep_prob * math.sqrt(head_dim)), packed=packed, **launch_options(tile),
    )  # fmt: skip
    if qkv.device.type == "cuda" and segment_start is None and head_dim in attention_dkdv.HEAD_DIMS:
        attention_dkdv.attention_dkdv(qkv, grad, lse, delta, query_hash, key_hash, rstd, rotation, dropout, dqkv)
        return
    num_heads, tile = choose(DKDV[head_dim], length, group)
    _attention_backward_dkdv[(length // tile.block_k, kv_heads, windows)](
        qkv, grad, lse, delta, query_hash, key_hash, segment_start, rstd, dqkv, rotation[0], rotation[1], length, heads,
        kv_heads, head_dim, tile.block_q, tile.block_k, tile.num_stages, threshold=threshold,
        dk_scale=math.log(2) / keep_prob, dv_scale=1 / keep_prob, packed=packed,
        length_block=triton.next_power_of_2(length), num_heads=num_heads,
        heads_of_step=heads_of_step(tile, head_dim, num_heads, group),
        num_warps=tile.num_warps, maxnreg=tile.max_registers,
    )  # fmt: skip

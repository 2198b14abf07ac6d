"""The gradient of `attention_forward`, in two kernels that write the gradient of the unturned `qkv` between them.

With weights p (before dropout), mask m, gradient `grad` of the output o, and r = the share that is kept:

    ds = p (m (grad vᵀ) - r rowsum(grad o)) / r        dq = ds k        dk = dsᵀ q        dv = (m p)ᵀ grad / r

One kernel walks over the keys for a block of queries (dq), one over the queries for a block of keys (dk, dv), taking
those of all heads of a group at each step: unrolled, what a step costs besides its products is paid once for four.
It works on transposed scores so that nothing passes through shared memory to be transposed. Scores are computed twice,
which costs less than adding dq up in global memory. Tiles and register limits were measured together: the limits let 6
and 4 programs of 4 warps share a multiprocessor.
"""

import math
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.models.llama.fused.attention_forward import visible
from stochastok_cli.models.llama.fused.dropout import drop_threshold, keep
from stochastok_cli.models.llama.fused.rotary import store_turned_back

QUERY_TILE = {"block_q": 64, "block_k": 32, "num_warps": 4, "num_stages": 3}
QUERY_REGISTERS = {32: 80}  # by head width; other widths are left to the compiler
KEY_TILE = {"block_q": 32, "block_k": 64, "stages": 2, "num_warps": 4}
KEY_REGISTERS = {32: 128}


@triton.jit
def _visit_keys(
    q, grad, lse, delta, dq, query, first, row_words, key0, k_ptr, v_ptr, columns_ptr, stride: tl.constexpr,
    head_dim: tl.constexpr, block_k: tl.constexpr, threshold: tl.constexpr, masked: tl.constexpr, packed: tl.constexpr,
):  # fmt: skip
    """Adds one block of keys to `dq` `[Q, h]`."""
    key = key0 + tl.arange(0, block_k)
    offset = key[:, None] * stride + tl.arange(0, head_dim)[None, :]
    k, v = tl.load(k_ptr + offset), tl.load(v_ptr + offset)
    p = tl.math.exp2(tl.dot(q, k.T) - lse[:, None])
    if masked:
        p = tl.where(visible(query, key, first, packed), p, 0.0)
    dp = tl.dot(grad, v.T)
    if threshold > 0:
        dp = tl.where(keep(row_words, tl.load(columns_ptr + key).to(tl.uint32), threshold), dp, 0.0)
    return tl.dot((p * (dp - delta[:, None])).to(k.dtype), k, dq)


@triton.jit
def _query_gradient(
    qkv_ptr, out_ptr, grad_ptr, lse_ptr, delta_ptr, rows_ptr, columns_ptr, first_ptr, dqkv_ptr, cos_ptr, sin_ptr,
    length: tl.constexpr, heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr, block_q: tl.constexpr,
    block_k: tl.constexpr, threshold: tl.constexpr, kept_share: tl.constexpr, factor: tl.constexpr,
    packed: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = (heads + 2 * kv_heads) * head_dim
    q0 = (length // block_q - 1 - tl.program_id(0)) * block_q
    head, window = tl.program_id(1), tl.program_id(2)
    kv_head = head // (heads // kv_heads)
    query, d = q0 + tl.arange(0, block_q), tl.arange(0, head_dim)
    window_row = window.to(tl.int64) * length
    base = qkv_ptr + window_row * stride
    q = tl.load(base + query[:, None] * stride + head * head_dim + d[None, :])
    offset = (window_row + query)[:, None] * (heads * head_dim) + head * head_dim + d[None, :]
    grad = tl.load(grad_ptr + offset)
    row = (window * heads + head) * length + query
    delta = tl.sum(tl.load(out_ptr + offset).to(tl.float32) * grad.to(tl.float32), 1) * kept_share
    tl.store(delta_ptr + row, delta)
    lse = tl.load(lse_ptr + row)
    row_words = query.to(tl.uint32)
    if threshold > 0:
        row_words = tl.load(rows_ptr + row).to(tl.uint32)
    k_ptr = base + (heads + kv_head) * head_dim
    v_ptr = k_ptr + kv_heads * head_dim
    columns_ptr += (window * kv_heads + kv_head) * length
    dq = tl.zeros([block_q, head_dim], tl.float32)
    first = query
    first_masked_key = q0
    if packed:
        first = tl.load(first_ptr + window * length + query)
        first_masked_key = tl.min(first, 0) // block_k * block_k
    else:
        for key0 in range(0, q0, block_k):
            dq = _visit_keys(
                q, grad, lse, delta, dq, query, first, row_words, key0, k_ptr, v_ptr, columns_ptr, stride, head_dim,
                block_k, threshold, False, packed,
            )  # fmt: skip
    for key0 in range(first_masked_key, q0 + block_q, block_k):
        dq = _visit_keys(
            q, grad, lse, delta, dq, query, first, row_words, key0, k_ptr, v_ptr, columns_ptr, stride, head_dim,
            block_k, threshold, True, packed,
        )  # fmt: skip
    out = dqkv_ptr + window_row * stride + head * head_dim
    store_turned_back(dq * factor, cos_ptr, sin_ptr, query, out, stride, head_dim)


@triton.jit
def _visit_queries(
    k, v, dk, dv, key, column_words, q0, head0, window, base, grad_base, lse_ptr, delta_ptr, rows_ptr, first_ptr,
    length: tl.constexpr, heads: tl.constexpr, group: tl.constexpr, stride: tl.constexpr, head_dim: tl.constexpr,
    block_q: tl.constexpr, threshold: tl.constexpr, masked: tl.constexpr, packed: tl.constexpr,
):  # fmt: skip
    """Adds the block of queries from `q0`, of each head of the group from `head0`, to `dk` and `dv` `[K, h]`."""
    query, d = q0 + tl.arange(0, block_q), tl.arange(0, head_dim)
    if masked:
        seen = query[None, :] >= key[:, None]
        if packed:
            seen = seen & (key[:, None] >= tl.load(first_ptr + window * length + query)[None, :])
    for i in tl.static_range(group):
        head = head0 + i
        q = tl.load(base + query[:, None] * stride + head * head_dim + d[None, :])
        grad = tl.load(grad_base + query[:, None] * (heads * head_dim) + head * head_dim + d[None, :])
        row = (window * heads + head) * length + query
        lse, delta = tl.load(lse_ptr + row), tl.load(delta_ptr + row)
        p = tl.math.exp2(tl.dot(k, q.T) - lse[None, :])
        if masked:
            p = tl.where(seen, p, 0.0)
        kept_p = p
        if threshold > 0:
            kept = keep(column_words, tl.load(rows_ptr + row).to(tl.uint32), threshold)
            kept_p *= tl.where(kept, 1.0, 0.0)  # a factor: a choice of p would be made in 16 bits, by more instructions
        dv = tl.dot(kept_p.to(grad.dtype), grad, dv)
        ds = kept_p * tl.dot(v, grad.T) - p * delta[None, :]
        dk = tl.dot(ds.to(q.dtype), q, dk)
    return dk, dv


@triton.jit
def _key_gradient(
    qkv_ptr, grad_ptr, lse_ptr, delta_ptr, rows_ptr, columns_ptr, first_ptr, dqkv_ptr, cos_ptr, sin_ptr,
    length: tl.constexpr, heads: tl.constexpr, kv_heads: tl.constexpr, head_dim: tl.constexpr, block_q: tl.constexpr,
    block_k: tl.constexpr, stages: tl.constexpr, threshold: tl.constexpr, k_factor: tl.constexpr,
    v_factor: tl.constexpr, packed: tl.constexpr, length_block: tl.constexpr,
):  # fmt: skip
    stride: tl.constexpr = (heads + 2 * kv_heads) * head_dim
    group: tl.constexpr = heads // kv_heads
    key0 = tl.program_id(0) * block_k
    kv_head, window = tl.program_id(1), tl.program_id(2)
    key, d = key0 + tl.arange(0, block_k), tl.arange(0, head_dim)
    window_row = window.to(tl.int64) * length
    base = qkv_ptr + window_row * stride
    grad_base = grad_ptr + window_row * (heads * head_dim)
    k_ptr = base + (heads + kv_head) * head_dim + key[:, None] * stride + d[None, :]
    k, v = tl.load(k_ptr), tl.load(k_ptr + kv_heads * head_dim)
    column_words = key.to(tl.uint32)
    if threshold > 0:
        column_words = tl.load(columns_ptr + (window * kv_heads + kv_head) * length + key).to(tl.uint32)
    dk = tl.zeros([block_k, head_dim], tl.float32)
    dv = tl.zeros([block_k, head_dim], tl.float32)
    first_unmasked = key0 + block_k
    if packed:  # queries up to the last that sees one of these keys, all masked
        position = tl.arange(0, length_block)
        first = tl.load(first_ptr + window * length + position, mask=position < length, other=length)
        first_unmasked = tl.max(tl.where(first < key0 + block_k, position, 0), 0) + 1
    for q0 in tl.range(key0, first_unmasked, block_q, num_stages=stages):
        dk, dv = _visit_queries(
            k, v, dk, dv, key, column_words, q0, kv_head * group, window, base, grad_base, lse_ptr, delta_ptr,
            rows_ptr, first_ptr, length, heads, group, stride, head_dim, block_q, threshold, True, packed,
        )  # fmt: skip
    if not packed:
        for q0 in tl.range(first_unmasked, length, block_q, num_stages=stages):
            dk, dv = _visit_queries(
                k, v, dk, dv, key, column_words, q0, kv_head * group, window, base, grad_base, lse_ptr, delta_ptr,
                rows_ptr, first_ptr, length, heads, group, stride, head_dim, block_q, threshold, False, packed,
            )  # fmt: skip
    out = dqkv_ptr + window_row * stride + (heads + kv_head) * head_dim
    store_turned_back(dk * k_factor, cos_ptr, sin_ptr, key, out, stride, head_dim)
    v_out = out + kv_heads * head_dim + key[:, None] * stride + d[None, :]
    tl.store(v_out, (dv * v_factor).to(dqkv_ptr.dtype.element_ty))


def attention_backward(
    qkv: Tensor, out: Tensor, grad: Tensor, lse: Tensor, segment_start: Tensor | None, rows: Tensor, columns: Tensor,
    rotation: Tensor, dropout: float, delta: Tensor, dqkv: Tensor,
) -> None:  # fmt: skip
    """`dqkv` `[B T, (H + 2 G) h]`, the gradient of the product before `rotary.rotate_`, from `grad` `[B T, H h]`.

    `qkv`, `out`, `lse`, `rows`, `columns` as the forward pass left them; `delta` float32 `[B, H, T]` is written by the
    first kernel for the second; `rotation` float32 `[2, T, h]`.
    """
    windows, heads, length = rows.shape
    kv_heads, head_dim, kept = columns.shape[1], out.shape[1] // heads, 1 - dropout
    threshold, packed = drop_threshold(dropout), segment_start is not None
    tile: dict[str, Any] = QUERY_TILE | {"maxnreg": QUERY_REGISTERS.get(head_dim)}
    _query_gradient[(length // QUERY_TILE["block_q"], heads, windows)](
        qkv, out, grad, lse, delta, rows, columns, segment_start, dqkv, rotation[0], rotation[1], length, heads,
        kv_heads, head_dim, threshold=threshold, kept_share=kept, factor=1 / (kept * math.sqrt(head_dim)),
        packed=packed, **tile,
    )  # fmt: skip
    tile = KEY_TILE | {"maxnreg": KEY_REGISTERS.get(head_dim)}
    _key_gradient[(length // KEY_TILE["block_k"], kv_heads, windows)](
        qkv, grad, lse, delta, rows, columns, segment_start, dqkv, rotation[0], rotation[1], length, heads, kv_heads,
        head_dim, threshold=threshold, k_factor=math.log(2) / kept, v_factor=1 / kept, packed=packed,
        length_block=triton.next_power_of_2(length), **tile,
    )  # fmt: skip

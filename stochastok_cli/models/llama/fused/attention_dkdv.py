"""The gradients of keys and values of causal attention, for H100 and H200, in Gluon. Formulas: `attention_backward`.

A program takes 128 keys of a head. A warp loads queries and the gradients of outputs, 64 positions of each head of the
group after the other, with the three numbers that each position has besides, through a ring of stages in shared memory.
Two groups of four warps take half of the keys each: while one computes exponentials, the other can multiply. Triton's
own pipeline of `attention_backward` loads those numbers once for each warp, and takes 16 instructions an element where
this takes 11.
"""

import math

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from stochastok_cli.models.llama.fused.dropout import DROP_ASSEMBLY, drop_threshold
from stochastok_cli.models.llama.fused.pingpong import (
    LAUNCH_OPTIONS,
    WORKER_REGISTERS,
    WORKER_WARPS,
    allocate,
    async_load,
    following_stage,
    in_blocks,
    product_layout,
)

BLOCK = gl.constexpr(64)
"""Keys of a group, and queries of a stage."""
STAGES = 2
HEAD_DIMS = (32, 64)
"""Widths of heads for which the registers of a group are enough."""


@gluon.jit
def _load(
    qkv_desc, grad_desc, lse_desc, delta_desc, hash_desc, keys, values, kv_loaded, ring, place, steps,
    length: gl.constexpr, heads: gl.constexpr, kv_heads: gl.constexpr, head_dim: gl.constexpr, stages: gl.constexpr,
    threshold: gl.constexpr,
):  # fmt: skip
    """What the loading warp does: keys and values, and `steps` stages for each head."""
    queries, grads, lses, deltas, hashes, loaded, free = ring
    window, kv_head, first_block = place
    group: gl.constexpr = heads // kv_heads
    row = window * length
    matrix_bytes: gl.constexpr = BLOCK * head_dim * 2
    mbarrier.expect(kv_loaded, 4 * matrix_bytes)
    for part in gl.static_range(2):
        key_row = row + (first_block + part) * BLOCK
        async_load(qkv_desc, [key_row, (heads + kv_head) * head_dim], kv_loaded, keys.index(part))
        async_load(qkv_desc, [key_row, (heads + kv_heads + kv_head) * head_dim], kv_loaded, values.index(part))
    stage_bytes: gl.constexpr = 2 * matrix_bytes + (3 if threshold > 0 else 2) * BLOCK * 4
    stage, phase = 0, 1
    for h in range(group):
        head = kv_head * group + h
        for i in range(steps):
            query = (first_block + i) * BLOCK
            mbarrier.wait(free.index(stage), phase)
            bar = loaded.index(stage)
            mbarrier.expect(bar, stage_bytes)
            async_load(qkv_desc, [row + query, head * head_dim], bar, queries.index(stage))
            async_load(grad_desc, [row + query, head * head_dim], bar, grads.index(stage))
            async_load(lse_desc, [window * heads + head, query], bar, lses.index(stage))
            async_load(delta_desc, [window * heads + head, query], bar, deltas.index(stage))
            if threshold > 0:
                async_load(hash_desc, [window * heads + head, query], bar, hashes.index(stage))
            stage, phase = following_stage(stage, phase, stages)


@gluon.jit
def _drop(x, key_hash, query_hash, threshold: gl.constexpr):
    """`dropout.drop` in Gluon, with the hashes of keys `[R, 1]` and of queries `[1, C]`."""
    limit = gl.full([1, 1], threshold, gl.uint32, x.type.layout)
    return gl.inline_asm_elementwise(
        DROP_ASSEMBLY,
        "=f,f,r,r,r",
        [x, key_hash, query_hash, limit],
        dtype=gl.float32,
        is_pure=True,
        pack=1,
    )


@gluon.jit
def _add_queries(dk, dv, k, v, key_hash, ring, stage, phase, masked: gl.constexpr, threshold: gl.constexpr):
    """Adds what the queries of a stage contribute to the gradients of 64 keys and values."""
    queries, grads, lses, deltas, hashes, loaded, free = ring
    layout: gl.constexpr = product_layout(BLOCK)
    operand_layout: gl.constexpr = gl.DotOperandLayout(0, dk.type.layout, 2)
    mbarrier.wait(loaded.index(stage), phase)
    q, grad = queries.index(stage), grads.index(stage)
    zeros = gl.zeros([BLOCK, BLOCK], gl.float32, layout)
    s = warpgroup_mma(k, q.permute((1, 0)), zeros, use_acc=False, is_async=True)
    dp = warpgroup_mma(v, grad.permute((1, 0)), zeros, use_acc=False, is_async=True)
    lse = lses.index(stage).load(layout)
    s = warpgroup_mma_wait(1, deps=[s])
    p = gl.exp2(s - lse)
    if masked:
        key = gl.arange(0, BLOCK, layout=gl.SliceLayout(1, layout))
        query = gl.arange(0, BLOCK, layout=gl.SliceLayout(0, layout))
        p = gl.where(query[None, :] >= key[:, None], p, 0.0)
    dropped = p
    if threshold > 0:
        dropped = _drop(p, key_hash, hashes.index(stage).load(layout).to(gl.uint32), threshold)
    dp = warpgroup_mma_wait(0, deps=[dp])
    dv = warpgroup_mma(gl.convert_layout(dropped.to(gl.bfloat16), operand_layout), grad, dv, is_async=True)
    ds = dropped * dp - p * deltas.index(stage).load(layout)
    dk = warpgroup_mma(gl.convert_layout(ds.to(gl.bfloat16), operand_layout), q, dk, is_async=True)
    dv, dk = warpgroup_mma_wait(0, deps=[dv, dk])
    mbarrier.arrive(free.index(stage))
    return dk, dv


@gluon.jit
def _accumulate(
    dqkv_ptr, key_hash_ptr, rstd_ptr, cos_ptr, sin_ptr, dk_scale, dv_scale, keys, values, kv_loaded, ring, place, steps,
    length: gl.constexpr, heads: gl.constexpr, kv_heads: gl.constexpr, head_dim: gl.constexpr, stages: gl.constexpr,
    threshold: gl.constexpr, which: gl.constexpr,
):  # fmt: skip
    """What group `which` (0 or 1) does: the gradients of its 64 keys and values."""
    loaded, free = ring[5], ring[6]
    window, kv_head, first_block = place
    key_block = first_block + which
    i = gl.arange(0, BLOCK, layout=gl.SliceLayout(1, product_layout(BLOCK)))
    key = gl.minimum(key_block * BLOCK + i, length - 1)
    key_hash = key.to(gl.uint32)[:, None]
    if threshold > 0:
        key_hash = gl.load(key_hash_ptr + (window * kv_heads + kv_head) * length + key).to(gl.uint32)[:, None]
    k, v = keys.index(which), values.index(which)
    dk = gl.zeros([BLOCK, head_dim], gl.float32, product_layout(head_dim))
    dv = gl.zeros([BLOCK, head_dim], gl.float32, product_layout(head_dim))
    mbarrier.wait(kv_loaded, 0)
    stage, phase = 0, 0
    for _head in range(heads // kv_heads):
        if which == 1:  # these queries come before all of this group's keys
            mbarrier.wait(loaded.index(stage), phase)
            mbarrier.arrive(free.index(stage))
            stage, phase = following_stage(stage, phase, stages)
        if which < steps:
            dk, dv = _add_queries(dk, dv, k, v, key_hash, ring, stage, phase, True, threshold)
            stage, phase = following_stage(stage, phase, stages)
        for _step in range(which + 1, steps):
            dk, dv = _add_queries(dk, dv, k, v, key_hash, ring, stage, phase, False, threshold)
            stage, phase = following_stage(stage, phase, stages)
    if key_block * BLOCK < length:
        _store(
            dk, dv, dqkv_ptr, rstd_ptr, cos_ptr, sin_ptr, dk_scale, dv_scale, window, kv_head, key_block, length,
            heads, kv_heads, head_dim,
        )  # fmt: skip


@gluon.jit
def _store(
    dk, dv, dqkv_ptr, rstd_ptr, cos_ptr, sin_ptr, dk_scale, dv_scale, window, kv_head, key_block, length: gl.constexpr,
    heads: gl.constexpr, kv_heads: gl.constexpr, head_dim: gl.constexpr,
):  # fmt: skip
    """Stores the two, of which dk is rotated back."""
    stride: gl.constexpr = (heads + 2 * kv_heads) * head_dim
    half: gl.constexpr = head_dim // 2
    dtype: gl.constexpr = dqkv_ptr.dtype.element_ty
    first, second = dk.reshape([BLOCK, 2, half]).permute((0, 2, 1)).split()
    layout: gl.constexpr = first.type.layout
    key = key_block * BLOCK + gl.arange(0, BLOCK, layout=gl.SliceLayout(1, layout))
    column = gl.arange(0, half, layout=gl.SliceLayout(0, layout))
    angle = key[:, None] * head_dim + column[None, :]
    cos, sin = gl.load(cos_ptr + angle), gl.load(sin_ptr + angle)
    scale = (gl.load(rstd_ptr + window * length + key) * dk_scale)[:, None]
    first, second = first * scale, second * scale
    base = dqkv_ptr + window.to(gl.int64) * length * stride + (heads + kv_head) * head_dim
    offset = key[:, None] * stride + column[None, :]
    gl.store(base + offset, (first * cos + second * sin).to(dtype))
    gl.store(base + offset + half, (second * cos - first * sin).to(dtype))

    wide: gl.constexpr = dv.type.layout
    key = key_block * BLOCK + gl.arange(0, BLOCK, layout=gl.SliceLayout(1, wide))
    column = gl.arange(0, head_dim, layout=gl.SliceLayout(0, wide))
    scale = (gl.load(rstd_ptr + window * length + key) * dv_scale)[:, None]
    offset = key[:, None] * stride + column[None, :] + kv_heads * head_dim
    gl.store(base + offset, (dv * scale).to(dtype))


@gluon.jit
def _attention_dkdv(
    qkv_desc, grad_desc, lse_desc, delta_desc, hash_desc, key_hash_ptr, rstd_ptr, dqkv_ptr, cos_ptr, sin_ptr, dk_scale,
    dv_scale, length: gl.constexpr, heads: gl.constexpr, kv_heads: gl.constexpr, head_dim: gl.constexpr,
    threshold: gl.constexpr, stages: gl.constexpr,
):  # fmt: skip
    first_block = gl.program_id(0) * 2
    place = gl.program_id(2), gl.program_id(1), first_block
    steps = length // BLOCK - first_block
    keys, values = allocate(qkv_desc, 2), allocate(qkv_desc, 2)
    queries, grads = allocate(qkv_desc, stages), allocate(grad_desc, stages)
    lses, deltas, hashes = allocate(lse_desc, stages), allocate(delta_desc, stages), allocate(hash_desc, stages)
    kv_loaded = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    loaded = gl.allocate_shared_memory(gl.int64, [stages, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [stages, 1], mbarrier.MBarrierLayout())
    mbarrier.init(kv_loaded, count=1)
    for s in gl.static_range(stages):
        mbarrier.init(loaded.index(s), count=1)
        mbarrier.init(free.index(s), count=2)
    fence_async_shared()
    ring = queries, grads, lses, deltas, hashes, loaded, free
    gl.warp_specialize(
        [
            (_accumulate, (
                dqkv_ptr, key_hash_ptr, rstd_ptr, cos_ptr, sin_ptr, dk_scale, dv_scale, keys, values, kv_loaded, ring,
                place, steps, length, heads, kv_heads, head_dim, stages, threshold, 0,
            )),
            (_accumulate, (
                dqkv_ptr, key_hash_ptr, rstd_ptr, cos_ptr, sin_ptr, dk_scale, dv_scale, keys, values, kv_loaded, ring,
                place, steps, length, heads, kv_heads, head_dim, stages, threshold, 1,
            )),
            (_load, (
                qkv_desc, grad_desc, lse_desc, delta_desc, hash_desc, keys, values, kv_loaded, ring, place, steps,
                length, heads, kv_heads, head_dim, stages, threshold,
            )),
        ],
        WORKER_WARPS,
        WORKER_REGISTERS,
    )  # fmt: skip


def _by_position(numbers: Tensor) -> TensorDescriptor:
    """float32 or int32 `[B, H, T]` in blocks of the positions of a stage."""
    dtype = {torch.float32: gl.float32, torch.int32: gl.int32}[numbers.dtype]
    layout = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=dtype.primitive_bitwidth, rank=2)
    return TensorDescriptor.from_tensor(numbers.flatten(0, 1), [1, BLOCK.value], layout)


def attention_dkdv(
    qkv: Tensor, grad: Tensor, lse: Tensor, delta: Tensor, query_hash: Tensor, key_hash: Tensor, rstd: Tensor,
    rotation: Tensor, dropout: float, dqkv: Tensor,
) -> None:  # fmt: skip
    """Writes the parts of `dqkv` that belong to keys and values; arguments as of `attention_backward`."""
    windows, heads, length = query_hash.shape
    kv_heads, head_dim, keep_prob = key_hash.shape[1], rotation.shape[2], 1 - dropout
    blocks = length // BLOCK.value
    _attention_dkdv[((blocks + 1) // 2, kv_heads, windows)](
        in_blocks(qkv, BLOCK.value, head_dim), in_blocks(grad, BLOCK.value, head_dim), _by_position(lse),
        _by_position(delta), _by_position(query_hash), key_hash, rstd, dqkv, rotation[0], rotation[1],
        math.log(2) / keep_prob, 1 / keep_prob, length, heads, kv_heads, head_dim, drop_threshold(dropout), STAGES,
        **LAUNCH_OPTIONS,
    )  # fmt: skip

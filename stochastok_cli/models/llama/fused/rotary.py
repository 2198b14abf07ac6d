"""The projections to queries, keys and values with rotary position embeddings (Su et al. 2021), in one kernel; and the
inverse rotation, which the backward kernels of attention apply.

The entries `i` and `i + h/2` of a head form a pair, as in `models/llama/attention.py`. On a GPU the projection is a
product of `pingpong`, whose epilogue rotates; on a CPU, torch computes the same.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma

from stochastok_cli.models.llama.attention import rotate
from stochastok_cli.models.llama.fused.pingpong import (
    BLOCK_M,
    BLOCK_N,
    HALF,
    HALF_LAYOUT,
    LAUNCH_OPTIONS,
    WORKER_REGISTERS,
    WORKER_WARPS,
    allocate,
    grid,
    load_of_rows,
    load_operands,
    make_ring,
    multiply,
    num_steps,
    operand,
    result,
    store,
    tile_of_program,
    tiles_of_program,
)

LOG2_E = math.log2(math.e)
STAGES = 6  # that leave room for half a tile of results for each group
GROUP = 8  # row tiles that go over the columns together


@gluon.jit
def _split_pairs(x, head_dim: gl.constexpr):
    """The first and the second entries `[BLOCK_M, HALF / 2]` of all pairs in half a tile of whole heads."""
    split = x.reshape([BLOCK_M, HALF // head_dim, 2, head_dim // 2]).permute((0, 1, 3, 2)).split()
    return split[0].reshape([BLOCK_M, HALF // 2]), split[1].reshape([BLOCK_M, HALF // 2])


@gluon.jit
def _join_pairs(first, second, head_dim: gl.constexpr):
    joined = gl.join(first, second).reshape([BLOCK_M, HALF // head_dim, head_dim // 2, 2]).permute((0, 1, 3, 2))
    return gl.convert_layout(joined.reshape([BLOCK_M, HALF]), HALF_LAYOUT)


@gluon.jit
def _load_angles(
    cos_ptr, sin_ptr, row, length: gl.constexpr, head_dim: gl.constexpr, pairs: gl.constexpr, layout: gl.constexpr
):  # fmt: skip
    """Cosines and sines `[BLOCK_M, C]` of rows from `row`. Columns are `pairs` entries of one head after the other."""
    width: gl.constexpr = HALF if head_dim == BLOCK_N else HALF // 2
    position = (row + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, layout))) % length
    column = gl.arange(0, width, layout=gl.SliceLayout(0, layout))
    angle = position[:, None] * head_dim + (column % pairs)[None, :]
    return gl.load(cos_ptr + angle), gl.load(sin_ptr + angle)


@gluon.jit
def _rotate(
    first, second, cos, sin, first_column, q_scale, heads: gl.constexpr, rotated_heads: gl.constexpr,
    head_dim: gl.constexpr, pairs: gl.constexpr,
):  # fmt: skip
    """Rotates pairs of entries; those of values, which come after `rotated_heads`, stay as they are."""
    column = gl.arange(0, first.shape[1], layout=gl.SliceLayout(0, first.type.layout))
    head = first_column // head_dim + column // pairs
    is_rotated = (head < rotated_heads)[None, :]
    scale = gl.where(head < heads, q_scale, 1.0)[None, :]
    cos, sin = gl.where(is_rotated, cos, 1.0) * scale, gl.where(is_rotated, sin, 0.0) * scale
    return first * cos - second * sin, second * cos + first * sin


@gluon.jit
def _apply_rotation(
    qkv_desc, rstd_ptr, cos_ptr, sin_ptr, q_scale, row_count, ring, buffers, order, steps: gl.constexpr,
    length: gl.constexpr, heads: gl.constexpr, rotated_heads: gl.constexpr, head_dim: gl.constexpr,
    which: gl.constexpr,
):  # fmt: skip
    buffer = buffers.index(which)
    pairs: gl.constexpr = head_dim // 2
    for t in range(which, tiles_of_program(order), 2):
        m, n = tile_of_program(t, order)
        row, column = m * BLOCK_M, n * BLOCK_N
        rstd = load_of_rows(rstd_ptr, m, row_count)[:, None]
        if head_dim == BLOCK_N:  # the halves of a head are those of the tile
            left, right = multiply(ring, t, which, steps)
            left, right = left * rstd, right * rstd
            if column < rotated_heads * head_dim:
                cos, sin = _load_angles(cos_ptr, sin_ptr, row, length, head_dim, pairs, HALF_LAYOUT)
                left, right = _rotate(
                    left, right, cos, sin, column, q_scale, heads, rotated_heads, head_dim, pairs
                )  # fmt: skip
            store(left, buffer, qkv_desc, row, column)
            store(right, buffer, qkv_desc, row, column + HALF)
        else:
            unused = _split_pairs(gl.zeros([BLOCK_M, HALF], gl.float32, HALF_LAYOUT), head_dim)[0]
            layout: gl.constexpr = unused.type.layout  # that of the pairs below
            # Both halves have the same angles, which arrive while this group waits for its turn and multiplies.
            cos, sin = _load_angles(cos_ptr, sin_ptr, row, length, head_dim, pairs, layout)
            products = multiply(ring, t, which, steps)
            for half in gl.static_range(2):
                x = products[half] * rstd
                first_column = column + half * HALF
                if first_column < rotated_heads * head_dim:
                    first, second = _split_pairs(x, head_dim)
                    first, second = _rotate(
                        first, second, cos, sin, first_column, q_scale, heads, rotated_heads, head_dim, pairs
                    )
                    x = _join_pairs(first, second, head_dim)
                store(x, buffer, qkv_desc, row, first_column)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["row_count"])
def _rotated_qkv(
    x_desc, weight_desc, qkv_desc, rstd_ptr, cos_ptr, sin_ptr, q_scale, row_count, steps: gl.constexpr,
    length: gl.constexpr, heads: gl.constexpr, kv_heads: gl.constexpr, head_dim: gl.constexpr, group: gl.constexpr,
    stages: gl.constexpr,
):  # fmt: skip
    order = gl.cdiv(row_count, BLOCK_M), gl.cdiv((heads + 2 * kv_heads) * head_dim, BLOCK_N), group
    rotated: gl.constexpr = heads + kv_heads
    ring, buffers = make_ring(x_desc, weight_desc, stages), allocate(qkv_desc, 2)
    gl.warp_specialize(
        [
            (_apply_rotation, (
                qkv_desc, rstd_ptr, cos_ptr, sin_ptr, q_scale, row_count, ring, buffers, order, steps, length, heads,
                rotated, head_dim, 0,
            )),
            (_apply_rotation, (
                qkv_desc, rstd_ptr, cos_ptr, sin_ptr, q_scale, row_count, ring, buffers, order, steps, length, heads,
                rotated, head_dim, 1,
            )),
            (load_operands, (x_desc, weight_desc, ring, order, steps)),
        ],
        WORKER_WARPS,
        WORKER_REGISTERS,
    )  # fmt: skip


def rotated_qkv(
    x: Tensor, weight: Tensor, rstd: Tensor, rotation: Tensor, heads: int, kv_heads: int, length: int, qkv: Tensor
) -> None:
    """Queries, keys and values, `rstd x weightᵀ`, with queries and keys rotated by their positions.

    Queries are scaled by log2(e) / sqrt(h) besides: softmax is then exp2 of q·k.

    Args:
        x: `[N, D]`, the residual stream.
        weight: `[(H + 2 G) h, D]`, times the norm's.
        rstd: float32 `[N]`: 1 / RMS of the rows of `x`. See `fused.norm`.
        rotation: float32 `[2, T, h]`, cosines and sines, from `rotary_table`.
        heads: H, query heads.
        kv_heads: G, key/value heads.
        length: T, tokens of a window.
        qkv: Written, `[N, (H + 2 G) h]`.
    """
    head_dim = rotation.shape[2]
    q_scale = LOG2_E / math.sqrt(head_dim)
    if x.device.type == "cpu":
        torch.mul(x @ weight.T, rstd[:, None], out=qkv)
        by_head = qkv.view(-1, length, heads + 2 * kv_heads, head_dim).transpose(1, 2)
        by_head[:, : heads + kv_heads] = rotate(by_head[:, : heads + kv_heads], rotation[:, :length])
        by_head[:, :heads] *= q_scale
        return
    _rotated_qkv[grid(len(x), len(weight), x.device)](
        operand(x), operand(weight), result(qkv), rstd, rotation[0], rotation[1], q_scale, len(x), num_steps(x),
        length, heads, kv_heads, head_dim, GROUP, STAGES, **LAUNCH_OPTIONS,
    )  # fmt: skip


@triton.jit
def store_inverse_rotated(x, cos_ptr, sin_ptr, position, out_ptr, offset, head_dim: tl.constexpr):
    """Rotates float32 `x` `[R, h]` back by `position` `[R]`; stores row r at `out_ptr + offset[r]`."""
    half: tl.constexpr = head_dim // 2
    first, second = tl.split(tl.permute(tl.reshape(x, (x.shape[0], 2, half)), (0, 2, 1)))
    i = tl.arange(0, half)
    angle = position[:, None] * head_dim + i[None, :]
    cos, sin = tl.load(cos_ptr + angle), tl.load(sin_ptr + angle)
    first_ptr = out_ptr + offset[:, None] + i[None, :]
    dtype = out_ptr.dtype.element_ty
    tl.store(first_ptr, (first * cos + second * sin).to(dtype))
    tl.store(first_ptr + half, (second * cos - first * sin).to(dtype))

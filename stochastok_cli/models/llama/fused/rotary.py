"""Rotary positions: turned once, in place, before the attention, and turned back in its backward kernels' registers.

Pairs are the entries `i` and `i + h/2` of a head, as in `model.attention`.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

ROWS = 8
LOG2_E = math.log2(math.e)


@triton.jit
def _rotate(
    qkv_ptr, cos_ptr, sin_ptr, q_scale, length: tl.constexpr, heads: tl.constexpr, stride: tl.constexpr,
    head_dim: tl.constexpr, head_block: tl.constexpr, rows: tl.constexpr, rotated: tl.constexpr,
):  # fmt: skip
    half: tl.constexpr = head_dim // 2
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    lane = tl.arange(0, head_block * half)
    head, i = tl.program_id(1) * head_block + lane // half, lane % half
    inside = (head < rotated)[None, :]
    angle = (row % length)[:, None] * head_dim + i[None, :]
    cos, sin = tl.load(cos_ptr + angle), tl.load(sin_ptr + angle)
    first_ptr = qkv_ptr + row.to(tl.int64)[:, None] * stride + (head * head_dim + i)[None, :]
    first = tl.load(first_ptr, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(first_ptr + half, mask=inside, other=0.0).to(tl.float32)
    scale = tl.where(head < heads, q_scale, 1.0)[None, :]
    dtype = qkv_ptr.dtype.element_ty
    tl.store(first_ptr, ((first * cos - second * sin) * scale).to(dtype), mask=inside)
    tl.store(first_ptr + half, ((second * cos + first * sin) * scale).to(dtype), mask=inside)


def rotate_(qkv: Tensor, rotation: Tensor, heads: int, kv_heads: int, length: int) -> None:
    """Turns queries and keys of `qkv` `[N, (H + 2 G) h]` in place; `rotation` float32 `[2, T, h]`.

    Queries are scaled by log2(e) / sqrt(h) as well, so that the attention's softmax is a bare exp2 of their products.
    A program turns 4 heads of 8 rows: 16-byte accesses, and both halves of a head in one thread.
    """
    head_dim = rotation.shape[2]
    rotated, head_block = heads + kv_heads, 4
    _rotate[(len(qkv) // ROWS, triton.cdiv(rotated, head_block))](
        qkv, rotation[0], rotation[1], LOG2_E / math.sqrt(head_dim), length, heads, qkv.shape[1], head_dim, head_block,
        ROWS, rotated, num_warps=4,
    )  # fmt: skip


@triton.jit
def store_turned_back(x, cos_ptr, sin_ptr, position, out_ptr, stride: tl.constexpr, head_dim: tl.constexpr):
    """Stores float32 `x` `[rows, h]`, turned back from `position` `[rows]`, at rows of `stride` from `out_ptr`."""
    half: tl.constexpr = head_dim // 2
    first, second = tl.split(tl.permute(tl.reshape(x, (x.shape[0], 2, half)), (0, 2, 1)))
    i = tl.arange(0, half)
    angle = position[:, None] * head_dim + i[None, :]
    cos, sin = tl.load(cos_ptr + angle), tl.load(sin_ptr + angle)
    first_ptr = out_ptr + position[:, None] * stride + i[None, :]
    dtype = out_ptr.dtype.element_ty
    tl.store(first_ptr, (first * cos + second * sin).to(dtype))
    tl.store(first_ptr + half, (second * cos - first * sin).to(dtype))

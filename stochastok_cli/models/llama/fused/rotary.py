"""Rotary position embeddings (Su et al. 2021), applied in place before attention and inverted in its backward kernels.

The entries `i` and `i + h/2` of a head form a pair, as in `models/llama/attention.py`.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

ROWS = 8  # of a program
LOG2_E = math.log2(math.e)


@triton.jit
def _rotate(
    qkv_ptr, cos_ptr, sin_ptr, q_scale, length: tl.constexpr, heads: tl.constexpr, stride: tl.constexpr,
    head_dim: tl.constexpr, head_block: tl.constexpr, rows: tl.constexpr, rotated_heads: tl.constexpr,
):  # fmt: skip
    half: tl.constexpr = head_dim // 2
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    lane = tl.arange(0, head_block * half)
    head, i = tl.program_id(1) * head_block + lane // half, lane % half
    mask = (head < rotated_heads)[None, :]
    angle = (row % length)[:, None] * head_dim + i[None, :]
    cos, sin = tl.load(cos_ptr + angle), tl.load(sin_ptr + angle)
    first_ptr = qkv_ptr + row.to(tl.int64)[:, None] * stride + (head * head_dim + i)[None, :]
    first = tl.load(first_ptr, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(first_ptr + half, mask=mask, other=0.0).to(tl.float32)
    scale = tl.where(head < heads, q_scale, 1.0)[None, :]
    dtype = qkv_ptr.dtype.element_ty
    tl.store(first_ptr, ((first * cos - second * sin) * scale).to(dtype), mask=mask)
    tl.store(first_ptr + half, ((second * cos + first * sin) * scale).to(dtype), mask=mask)


def rotate_(qkv: Tensor, rotation: Tensor, heads: int, kv_heads: int, length: int) -> None:
    """Rotates queries and keys in place, and scales queries by log2(e) / sqrt(h): softmax is then exp2 of q·k.

    A program rotates 4 heads of 8 rows: its accesses have 16 bytes, and a thread has both halves of a head.

    Args:
        qkv: `[N, (H + 2 G) h]`.
        rotation: float32 `[2, T, h]`, cosines and sines, from `rotary_table`.
        heads: H, query heads.
        kv_heads: G, key/value heads.
        length: T, tokens of a window.
    """
    head_dim = rotation.shape[2]
    rotated_heads, head_block = heads + kv_heads, 4
    _rotate[(len(qkv) // ROWS, triton.cdiv(rotated_heads, head_block))](
        qkv, rotation[0], rotation[1], LOG2_E / math.sqrt(head_dim), length, heads, qkv.shape[1], head_dim, head_block,
        ROWS, rotated_heads, num_warps=4,
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

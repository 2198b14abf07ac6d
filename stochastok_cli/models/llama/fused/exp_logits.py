"""The product of hidden states and the output head's weight, with the exponential and its sums in the epilogue.

On a GPU it is a product of `pingpong`; on a CPU, torch computes the same.
"""

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma

from stochastok_cli.models.llama.fused.pingpong import (
    BLOCK_M,
    BLOCK_N,
    COLUMN_LAYOUT,
    HALF,
    LAUNCH_OPTIONS,
    LOG2_E,
    ROW_LAYOUT,
    WORKER_REGISTERS,
    WORKER_WARPS,
    allocate,
    grid,
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

MAX_SHIFTED_LOGIT = gl.constexpr(64.0)
STAGES = 6  # that leave room for half a tile of results for each group
GROUP = 32  # row tiles that go over the vocabulary together: their rows stay in the L2 cache

ScaledMatrix = tuple[Tensor, Tensor | None]
"""A matrix, and the scales of its rows if it is one of 8-bit floats."""


@gluon.jit
def _shifted_exp(logits, target_logit, target, num_columns):
    """exp(logits - target's) `[R, C]`, but 0 at column `target` `[R]` and at all columns from `num_columns`."""
    width: gl.constexpr = logits.shape[1]
    e = gl.exp2(gl.minimum(logits * LOG2_E - (target_logit * LOG2_E)[:, None], MAX_SHIFTED_LOGIT * LOG2_E))
    has_target = gl.max(((target >= 0) & (target < width)).to(gl.int32), 0)
    if (has_target > 0) | (num_columns < width):  # few tiles have a target or padding
        column = gl.arange(0, width, layout=COLUMN_LAYOUT)
        e = gl.where((column[None, :] == target[:, None]) | (column[None, :] >= num_columns), 0.0, e)
    return e


@gluon.jit
def _scaled(logits, hidden_scale, weight_scale_ptr, first_column):
    """Products of 8-bit floats times the scales of their rows and columns."""
    column = first_column + gl.arange(0, HALF, layout=COLUMN_LAYOUT)
    return logits * hidden_scale[:, None] * gl.load(weight_scale_ptr + column)[None, :]


@gluon.jit
def _apply_exp(
    exp_desc, hidden_scale_ptr, weight_scale_ptr, target_ptr, target_logit_ptr, partial_ptr, ring, buffers, row_count,
    order, steps: gl.constexpr, vocab_size: gl.constexpr, which: gl.constexpr,
):  # fmt: skip
    for t in range(which, tiles_of_program(order), 2):
        m, n = tile_of_program(t, order)
        row = m * BLOCK_M + gl.arange(0, BLOCK_M, layout=ROW_LAYOUT)
        mask = row < row_count
        target_logit = gl.load(target_logit_ptr + row, mask=mask, other=0.0)
        target = gl.load(target_ptr + row, mask=mask, other=0) - n * BLOCK_N
        num_columns = vocab_size - n * BLOCK_N
        left, right = multiply(ring, t, which, steps)
        if hidden_scale_ptr is not None:
            hidden_scale = gl.load(hidden_scale_ptr + row, mask=mask, other=0.0)
            left = _scaled(left, hidden_scale, weight_scale_ptr, n * BLOCK_N)
            right = _scaled(right, hidden_scale, weight_scale_ptr, n * BLOCK_N + HALF)
        left = _shifted_exp(left, target_logit, target, num_columns)
        if exp_desc is not None:
            store(left, buffers.index(which), exp_desc, m * BLOCK_M, n * BLOCK_N)
        total = gl.sum(left, 1)
        right = _shifted_exp(right, target_logit, target - HALF, num_columns - HALF)
        if exp_desc is not None:
            store(right, buffers.index(which), exp_desc, m * BLOCK_M, n * BLOCK_N + HALF)
        gl.store(partial_ptr + n.to(gl.int64) * row_count + row, total + gl.sum(right, 1), mask=mask)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["row_count"])
def _exp_logits(
    hidden_desc, weight_desc, exp_desc, hidden_scale_ptr, weight_scale_ptr, target_ptr, target_logit_ptr, partial_ptr,
    row_count, vocab_size: gl.constexpr, column_tiles: gl.constexpr, steps: gl.constexpr, group: gl.constexpr,
    stages: gl.constexpr,
):  # fmt: skip
    order = gl.cdiv(row_count, BLOCK_M), column_tiles, group
    ring = make_ring(hidden_desc, weight_desc, stages)
    buffers = ring[0] if exp_desc is None else allocate(exp_desc, 2)
    gl.warp_specialize(
        [
            (_apply_exp, (
                exp_desc, hidden_scale_ptr, weight_scale_ptr, target_ptr, target_logit_ptr, partial_ptr, ring, buffers,
                row_count, order, steps, vocab_size, 0,
            )),
            (_apply_exp, (
                exp_desc, hidden_scale_ptr, weight_scale_ptr, target_ptr, target_logit_ptr, partial_ptr, ring, buffers,
                row_count, order, steps, vocab_size, 1,
            )),
            (load_operands, (hidden_desc, weight_desc, ring, order, steps)),
        ],
        WORKER_WARPS,
        WORKER_REGISTERS,
    )  # fmt: skip


def exp_logits(
    hidden: ScaledMatrix, weight: ScaledMatrix, targets: Tensor, target_logits: Tensor, vocab_size: int,
    exp: Tensor | None,
) -> Tensor:  # fmt: skip
    """E of `fused.head`, and its sums over each tile of the vocabulary.

    Args:
        hidden: `[M, D]`.
        weight: `[padded V, D]`; both have scales, or neither does.
        targets: int32 `[M]`.
        target_logits: float32 `[M]`.
        vocab_size: V.
        exp: Written, `[M, padded V]`: E. None: it is not needed.

    Returns:
        float32 `[tiles, M]`.
    """
    (left, left_scale), (right, right_scale) = hidden, weight
    if left.device.type == "cpu":
        return _exp_logits_on_cpu(hidden, weight, targets, target_logits, vocab_size, exp)
    rows, padded_vocab_size = len(left), len(right)
    tiles = triton.cdiv(padded_vocab_size, BLOCK_N.value)
    partial = torch.empty(tiles, rows, device=left.device)
    _exp_logits[grid(rows, padded_vocab_size, left.device)](
        operand(left), operand(right), None if exp is None else result(exp), left_scale, right_scale, targets,
        target_logits, partial, rows, vocab_size, tiles, num_steps(left), GROUP, STAGES, **LAUNCH_OPTIONS,
    )  # fmt: skip
    return partial


def _exp_logits_on_cpu(
    hidden: ScaledMatrix, weight: ScaledMatrix, targets: Tensor, target_logits: Tensor, vocab_size: int,
    exp: Tensor | None,
) -> Tensor:  # fmt: skip
    left, right = (x if scale is None else x.float() * scale[:, None] for x, scale in (hidden, weight))
    e = (left @ right.T - target_logits[:, None]).clamp(max=MAX_SHIFTED_LOGIT.value).exp()
    e[:, vocab_size:] = 0
    e.scatter_(1, targets[:, None].long(), 0)
    if exp is not None:
        exp.copy_(e)
    return e.unflatten(1, (-1, BLOCK_N.value)).sum(2).T.contiguous()

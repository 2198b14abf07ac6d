"""The projections that end attention and feed-forward, with dropout and the addition to the residual stream.

On a GPU they are products of `pingpong`. While a group multiplies, its tile of the residual stream is loaded into
shared memory; the epilogue adds to it there, and sums the squares, from which the following norm is computed (see
`fused.norm`). On a CPU, torch computes the same.
"""

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma

from stochastok_cli.models.llama.fused.dropout import drop_threshold, keep_mask, odd_hash, residual_mask_on_cpu
from stochastok_cli.models.llama.fused.pingpong import (
    BLOCK_M,
    BLOCK_N,
    COLUMN_LAYOUT,
    HALF,
    HALF_LAYOUT,
    LAUNCH_OPTIONS,
    ROW_LAYOUT,
    WORKER_REGISTERS,
    WORKER_WARPS,
    allocate,
    async_load,
    async_store,
    grid,
    load_operands,
    make_ring,
    multiply,
    num_steps,
    operand,
    result,
    tile_of_program,
    tiles_of_program,
)

STAGES = 5  # that leave room for a tile of the residual stream for each group
GROUP = 1  # row tiles that go over the columns together


@gluon.jit
def _load_half(desc, slots, slot, tile, half: gl.constexpr):
    """Starts to load half a tile of the residual stream."""
    buffers, loaded = slots
    m, n = tile
    mbarrier.expect(loaded.index(slot), BLOCK_M * HALF * desc.dtype.primitive_bitwidth // 8)
    async_load(desc, [m * BLOCK_M, n * BLOCK_N + half * HALF], loaded.index(slot), buffers.index(slot))


@gluon.jit
def _keep_mask(dropout_keys_ptr, stream, tile, half: gl.constexpr, row_count, length: gl.constexpr, threshold):
    """Which elements of half a tile are kept, bool `[BLOCK_M, HALF]`."""
    m, n = tile
    row = m * BLOCK_M + gl.arange(0, BLOCK_M, layout=ROW_LAYOUT)
    column = n * BLOCK_N + half * HALF + gl.arange(0, HALF, layout=COLUMN_LAYOUT)
    keys = gl.load(dropout_keys_ptr + row // length, mask=row < row_count, other=0)
    row_hash = odd_hash(keys, stream, row % length)
    if length % BLOCK_M == 0:  # all rows are of one window
        key = gl.load(dropout_keys_ptr + m * BLOCK_M // length)
        mask = keep_mask(row_hash, odd_hash(key, stream + 1, column), threshold)
    else:
        mask = row_hash[:, None] * odd_hash(keys[:, None], stream + 1, column[None, :]) >= threshold
    return mask


@gluon.jit
def _add_to_residual(
    residual_desc, total_desc, square_sums_ptr, dropout_keys_ptr, stream, row_count, ring, slots, order,
    steps: gl.constexpr, length: gl.constexpr, column_tiles: gl.constexpr, threshold: gl.constexpr, scale: gl.constexpr,
    which: gl.constexpr,
):  # fmt: skip
    buffers, loaded = slots
    tiles = tiles_of_program(order)
    tile = tile_of_program(which, order)
    if which < tiles:
        for half in gl.static_range(2):
            _load_half(residual_desc, slots, 2 * which + half, tile, half)
    for t in range(which, tiles, 2):
        following = tile_of_program(t + 2, order)
        m, n = tile
        row = m * BLOCK_M + gl.arange(0, BLOCK_M, layout=ROW_LAYOUT)
        products = multiply(ring, t, which, steps)
        square_sum = gl.zeros([BLOCK_M], gl.float32, ROW_LAYOUT)
        for half in gl.static_range(2):
            y = products[half]
            if threshold > 0:
                mask = _keep_mask(dropout_keys_ptr, stream, tile, half, row_count, length, threshold)
                y = gl.where(mask, y * scale, 0.0)
            slot = 2 * which + half
            buffer = buffers.index(slot)
            mbarrier.wait(loaded.index(slot), (t // 2) & 1)
            total = (buffer.load(HALF_LAYOUT).to(gl.float32) + y).to(total_desc.dtype)
            buffer.store(total)
            fence_async_shared()
            async_store(total_desc, [m * BLOCK_M, n * BLOCK_N + half * HALF], buffer)
            rounded = total.to(gl.float32)
            square_sum += gl.sum(rounded * rounded, 1)
            tma.store_wait(0)
            if t + 2 < tiles:  # is loaded while this group waits for its turn and multiplies
                _load_half(residual_desc, slots, slot, following, half)
        gl.store(square_sums_ptr + row * column_tiles + n, square_sum, mask=row < row_count)
        tile = following


@gluon.jit(do_not_specialize=["row_count", "stream"])
def _add_projection(
    x_desc, weight_desc, residual_desc, total_desc, square_sums_ptr, dropout_keys_ptr, stream, row_count,
    steps: gl.constexpr, length: gl.constexpr, column_tiles: gl.constexpr, threshold: gl.constexpr, scale: gl.constexpr,
    group: gl.constexpr, stages: gl.constexpr,
):  # fmt: skip
    order = gl.cdiv(row_count, BLOCK_M), column_tiles, group
    ring = make_ring(x_desc, weight_desc, stages)
    loaded = gl.allocate_shared_memory(gl.int64, [4, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(4):
        mbarrier.init(loaded.index(slot), count=1)
    fence_async_shared()
    slots = allocate(residual_desc, 4), loaded
    gl.warp_specialize(
        [
            (_add_to_residual, (
                residual_desc, total_desc, square_sums_ptr, dropout_keys_ptr, stream, row_count, ring, slots, order,
                steps, length, column_tiles, threshold, scale, 0,
            )),
            (_add_to_residual, (
                residual_desc, total_desc, square_sums_ptr, dropout_keys_ptr, stream, row_count, ring, slots, order,
                steps, length, column_tiles, threshold, scale, 1,
            )),
            (load_operands, (x_desc, weight_desc, ring, order, steps)),
        ],
        WORKER_WARPS,
        WORKER_REGISTERS,
    )  # fmt: skip


def square_sum_parts(width: int) -> int:
    """The parts of rows of `width` entries of which `add_projection` sums the squares."""
    return triton.cdiv(width, BLOCK_N.value)


def add_projection(
    x: Tensor, weight: Tensor, residual: Tensor, dropout_keys: Tensor, stream: int, dropout: float, length: int,
    total: Tensor, square_sums: Tensor,
) -> None:  # fmt: skip
    """`total = residual + dropout(x weightᵀ)`, and sums of its squares.

    Args:
        x: `[N, K]`, the output of attention before its projection, or the hidden activations of feed-forward.
        weight: `[D, K]`.
        residual: `[N, D]`, the residual stream.
        dropout_keys: int64 `[N / length]`, the keys of the windows.
        stream: The stream of the dropout mask.
        dropout: The probability with which elements of the product are dropped.
        length: Tokens of a window.
        total: Written, `[N, D]`.
        square_sums: Written, float32 `[N, square_sum_parts(D)]`: of the rounded entries of parts of the rows of
            `total`.
    """
    rows, parts = square_sums.shape
    threshold, scale = drop_threshold(dropout), 1 / (1 - dropout)
    if x.device.type == "cpu":
        product = x @ weight.T
        if threshold > 0:
            product *= residual_mask_on_cpu(dropout_keys, stream, length, product.shape[1], threshold) * scale
        torch.add(residual, product, out=total)
        for part, columns in enumerate(total.float().square().split(BLOCK_N.value, 1)):
            square_sums[:, part] = columns.sum(1)
        return
    _add_projection[grid(rows, len(weight), x.device)](
        operand(x), operand(weight), result(residual), result(total), square_sums, dropout_keys, stream, rows,
        num_steps(x), length, parts, threshold, scale, GROUP, STAGES, **LAUNCH_OPTIONS,
    )  # fmt: skip

"""Matrix products that do more with a tile than store it, while the tensor cores go on: for H100 and H200, in Gluon.

A program has a warp that loads operands and two groups of four warps that compute. Each group computes whole tiles, in
turn: while one multiplies, the other does what follows the product (its epilogue) and stores the result. CUTLASS calls
this schedule "ping-pong" (`KernelTmaWarpSpecializedPingpong`). In a kernel whose warps all work on one tile, the tensor
cores stand still during each epilogue.

There is one program a multiprocessor. Operands go through a ring of stages in shared memory. A kernel consists of
`make_ring`, `load_operands` for the loading warp, and a function of its own for the two groups, which calls `multiply`
for each of their tiles.

Gluon is the part of Triton in which layouts, barriers and asynchronous copies are written out. Triton's interpreter
does not run it; on a CPU, callers compute the same by torch operations.
"""

import math

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

# Triton 3.8 renamed the two, and 3.9 removed the first names.
async_load = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
async_store = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global

BLOCK_M, BLOCK_N = gl.constexpr(128), gl.constexpr(128)
"""Rows and columns of a tile, whose float32 sums are in 128 registers of each thread of a group."""
HALF = gl.constexpr(64)
"""Columns of half a tile. An epilogue takes one half after the other, since both would not fit the registers."""
LOG2_E = gl.constexpr(math.log2(math.e))
DEPTH_BYTES = 128
"""Bytes of a row in a stage: 64 numbers of 16 bits, or 128 of 8."""


@gluon.constexpr_function
def product_layout(columns, operand_bits=16):
    """How the threads of a group hold a product `[BLOCK_M, columns]` of operands of so many bits."""
    return gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, columns, 256 // operand_bits]
    )


HALF_LAYOUT = gl.constexpr(product_layout(HALF.value))
ROW_LAYOUT = gl.constexpr(gl.SliceLayout(1, HALF_LAYOUT.value))
COLUMN_LAYOUT = gl.constexpr(gl.SliceLayout(0, HALF_LAYOUT.value))

# Warps of the second group, and the one that loads, with the registers of their threads. The first group is the
# kernel's own 4 warps. Registers are given out for 12 warps, 168 a thread: the warp that loads counts as 4, and the
# first group has what the others leave.
WORKER_WARPS = gl.constexpr([4, 1])
WORKER_REGISTERS = gl.constexpr([232, 24])
LAUNCH_OPTIONS = {"num_warps": 4, "maxnreg": 168}


@gluon.jit
def tiles_of_program(order):
    """How many tiles this program computes. `order`: row tiles, column tiles, and the `group` of `tile_of_program`."""
    row_tiles, column_tiles, _ = order
    return (row_tiles * column_tiles - gl.program_id(0) + gl.num_programs(0) - 1) // gl.num_programs(0)


@gluon.jit
def tile_of_program(t, order):
    """The (row, column) tile that this program computes as its `t`-th: every n-th of all, for n programs.

    All go down `group` row tiles, then to the next column tile. This reuses operands in the L2 cache, as in Triton's
    tutorial on matrix multiplication.
    """
    row_tiles, column_tiles, group = order
    index = gl.program_id(0) + t * gl.num_programs(0)
    first = index // (group * column_tiles) * group
    size = gl.maximum(gl.minimum(row_tiles - first, group), 1)  # 1 for tiles after the last, which nobody computes
    rest = index % (group * column_tiles)
    return first + rest % size, rest // size


@gluon.jit
def allocate(desc, count: gl.constexpr):
    """Shared memory for `count` blocks of a descriptor."""
    return gl.allocate_shared_memory(desc.dtype, [count] + desc.block_shape, desc.layout)  # noqa: RUF005


@gluon.jit
def make_ring(a_desc, b_desc, stages: gl.constexpr):
    """The stages, and their barriers: when a stage is loaded, when it can be overwritten, and whose turn it is."""
    gl.static_assert(stages > 1, "a stage is free when the next one is loaded")
    a, b = allocate(a_desc, stages), allocate(b_desc, stages)
    loaded = gl.allocate_shared_memory(gl.int64, [stages, 1], mbarrier.MBarrierLayout())
    free = gl.allocate_shared_memory(gl.int64, [stages, 1], mbarrier.MBarrierLayout())
    turn = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for s in gl.static_range(stages):
        mbarrier.init(loaded.index(s), count=1)
        mbarrier.init(free.index(s), count=1)
    for g in gl.static_range(2):
        mbarrier.init(turn.index(g), count=1)
    fence_async_shared()
    return a, b, loaded, free, turn


@gluon.jit
def load_operands(a_desc, b_desc, ring, order, steps: gl.constexpr):
    """What the loading warp does: `steps` stages of every tile of this program.

    The blocks of `b_desc` say how the second operand lies in memory: `[columns, depth]`, `[depth, columns]`, or
    `[2, columns / 2, depth]` for two matrices side by side.
    """
    a, b, loaded, free, _ = ring
    depth: gl.constexpr = a.shape[2]
    stage_bytes: gl.constexpr = (a.shape[1] * depth + BLOCK_N * depth) * a_desc.dtype.primitive_bitwidth // 8
    stage, phase = 0, 1
    for t in range(tiles_of_program(order)):
        m, n = tile_of_program(t, order)
        for k in range(steps):
            mbarrier.wait(free.index(stage), phase)
            mbarrier.expect(loaded.index(stage), stage_bytes)
            async_load(a_desc, [m * BLOCK_M, k * depth], loaded.index(stage), a.index(stage))
            if len(b_desc.block_shape) == 3:
                coordinates = [0, n * HALF, k * depth]
            elif b_desc.block_shape[1] == depth:
                coordinates = [n * BLOCK_N, k * depth]
            else:
                coordinates = [k * depth, n * BLOCK_N]
            async_load(b_desc, coordinates, loaded.index(stage), b.index(stage))
            stage, phase = following_stage(stage, phase, a.shape[0])


@gluon.jit
def following_stage(stage, phase, stages: gl.constexpr):
    """The stage after this one, and its phase, which changes with each turn of the ring."""
    is_last = stage == stages - 1
    return gl.where(is_last, 0, stage + 1), gl.where(is_last, phase ^ 1, phase)


@gluon.jit
def _before(stage, stages: gl.constexpr):
    return gl.where(stage == 0, stages - 1, stage - 1)


@gluon.jit
def multiply(ring, t, which: gl.constexpr, steps: gl.constexpr):
    """The product of the `t`-th tile of this program, of group `which` (0 or 1), as two halves `[BLOCK_M, HALF]`.

    A group waits for its turn, which the other one gives it with its last step. So the tensor cores always have work,
    and no group waits for a stage whose barrier is more than one phase behind, where its parity would mislead.
    """
    a, b, loaded, free, turn = ring
    stages: gl.constexpr = a.shape[0]
    depth: gl.constexpr = a.shape[2]
    layout: gl.constexpr = product_layout(BLOCK_N, a.dtype.primitive_bitwidth)
    acc = gl.zeros([BLOCK_M, BLOCK_N], gl.float32, layout)
    stage, phase = t * steps % stages, (t * steps // stages) & 1
    mbarrier.wait(turn.index(which), ((t // 2) & 1) ^ (1 - which))
    for k in range(steps):
        mbarrier.wait(loaded.index(stage), phase)
        if len(b.shape) == 3 and b.shape[2] != depth:
            right = b.index(stage)
        else:
            right = b.index(stage).reshape([BLOCK_N, depth]).permute((1, 0))
        acc = warpgroup_mma(a.index(stage), right, acc, use_acc=k > 0, is_async=True)
        acc = warpgroup_mma_wait(1, deps=[acc])  # the step before is done, so its stage is free
        mbarrier.arrive(free.index(_before(stage, stages)), pred=k > 0)
        stage, phase = following_stage(stage, phase, stages)
    mbarrier.arrive(turn.index(1 - which))
    acc = warpgroup_mma_wait(0, deps=[acc])
    mbarrier.arrive(free.index(_before(stage, stages)))
    return halves(acc)


@gluon.jit
def halves(x):
    """The left and the right half of a tile, or of a half, in the layouts of products of that width."""
    width: gl.constexpr = x.shape[1] // 2
    layout: gl.constexpr = product_layout(width)
    left, right = x.reshape([x.shape[0], 2, width]).permute((0, 2, 1)).split()
    return gl.convert_layout(left, layout), gl.convert_layout(right, layout)


@gluon.jit
def load_of_rows(ptr, m, row_count, layout: gl.constexpr = HALF_LAYOUT):
    """The numbers of the rows of the `m`-th row tile, as threads hold the rows of a part of a tile in this layout."""
    row = m * BLOCK_M + gl.arange(0, BLOCK_M, layout=gl.SliceLayout(1, layout))
    return gl.load(ptr + row, mask=row < row_count, other=0.0)


@gluon.jit
def store(x, buffer, desc, row, column):
    """Starts to store half a tile by way of `buffer` in shared memory, once what was there before is stored."""
    tma.store_wait(0)
    buffer.store(x.to(desc.dtype))
    fence_async_shared()
    async_store(desc, [row, column], buffer)


def operand(matrix: Tensor) -> TensorDescriptor:
    """A matrix `[rows, depth]` of 16-bit or 8-bit numbers as the first or the second operand of a product."""
    return in_blocks(matrix, BLOCK_M.value, DEPTH_BYTES // matrix.element_size())


def result(matrix: Tensor, columns: int = HALF.value) -> TensorDescriptor:
    """A matrix `[rows, columns]` that is read or written by halves of tiles, or by parts of them of another width."""
    return in_blocks(matrix, BLOCK_M.value, columns)


def in_blocks(matrix: Tensor, *shape: int) -> TensorDescriptor:
    """A matrix as the copy engine reads or writes it, in blocks of this shape."""
    dtype = {torch.bfloat16: gl.bfloat16, torch.float8_e4m3fn: gl.float8e4nv}[matrix.dtype]
    layout = gl.NVMMASharedLayout.get_default_for(list(shape), dtype)
    return TensorDescriptor.from_tensor(matrix, list(shape), layout)


def num_steps(matrix: Tensor) -> int:
    """The stages of each tile of a product whose first operand is this `[rows, depth]`."""
    return triton.cdiv(matrix.shape[1] * matrix.element_size(), DEPTH_BYTES)


def grid(rows: int, columns: int, device: torch.device) -> tuple[int]:
    """One program a multiprocessor, or one a tile where there are fewer."""
    tiles = triton.cdiv(rows, BLOCK_M.value) * triton.cdiv(columns, BLOCK_N.value)
    return (min(torch.cuda.get_device_properties(device).multi_processor_count, tiles),)

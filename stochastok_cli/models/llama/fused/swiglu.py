"""The feed-forward layer around SwiGLU (Shazeer 2020): gate and up projections with SwiGLU in one kernel, and its
gradient with that of the down projection in another.

On a GPU these are products of `pingpong`, so that neither the hidden activations nor their gradient is read again from
memory before SwiGLU has been applied to them. On a CPU, torch computes the same.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, tma

from stochastok_cli.models.llama.fused.pingpong import (
    BLOCK_M,
    BLOCK_N,
    HALF,
    LAUNCH_OPTIONS,
    LOG2_E,
    WORKER_REGISTERS,
    WORKER_WARPS,
    allocate,
    async_load,
    async_store,
    grid,
    halves,
    in_blocks,
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

STAGES = 6  # that leave room for half a tile of results for each group
GROUP = 1  # row tiles that go over the columns together


@dataclass(frozen=True)
class BackwardOptions:
    """How the backward kernel divides shared memory, and its tiles.

    Attributes:
        columns: Columns of the parts of a tile, of which gate and up are loaded, and replaced by their gradients.
        slots: Such parts that have room in shared memory.
        stages: Stages of the operands that have room besides.
        group: Row tiles that go over the columns together.
    """

    columns: int
    slots: int
    stages: int
    group: int


def backward_options(depth: int) -> BackwardOptions:
    """What was fastest on an H200. The less a tile has to multiply, the more of gate and up has to be on its way."""
    if depth <= 512:
        return BackwardOptions(columns=64, slots=4, stages=3, group=1)
    return BackwardOptions(columns=32, slots=4, stages=5, group=1 if depth <= 1024 else 8)


@gluon.jit
def _sigmoid(x):
    # `1 / y` would take five instructions, which scale `y` for the whole range of float32. Here it is 1 or more.
    y = 1 + gl.exp2(x * -LOG2_E)
    return gl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [y], dtype=gl.float32, is_pure=True, pack=1)


@gluon.jit
def _apply_swiglu(
    gate_desc, up_desc, hidden_desc, rstd_ptr, row_count, ring, buffers, order, steps: gl.constexpr,
    which: gl.constexpr,
):  # fmt: skip
    buffer = buffers.index(which)
    for t in range(which, tiles_of_program(order), 2):
        m, n = tile_of_program(t, order)
        rstd = load_of_rows(rstd_ptr, m, row_count)[:, None]
        gate, up = multiply(ring, t, which, steps)
        gate, up = gate * rstd, up * rstd
        store(gate, buffer, gate_desc, m * BLOCK_M, n * HALF)
        hidden = gate * _sigmoid(gate) * up
        store(up, buffer, up_desc, m * BLOCK_M, n * HALF)
        store(hidden, buffer, hidden_desc, m * BLOCK_M, n * HALF)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["row_count"])
def _gate_up_swiglu(
    x_desc, weight_desc, gate_desc, up_desc, hidden_desc, rstd_ptr, row_count, steps: gl.constexpr,
    width: gl.constexpr, group: gl.constexpr, stages: gl.constexpr,
):  # fmt: skip
    order = gl.cdiv(row_count, BLOCK_M), gl.cdiv(width, HALF), group
    ring, buffers = make_ring(x_desc, weight_desc, stages), allocate(hidden_desc, 2)
    gl.warp_specialize(
        [
            (_apply_swiglu, (
                gate_desc, up_desc, hidden_desc, rstd_ptr, row_count, ring, buffers, order, steps, 0
            )),
            (_apply_swiglu, (
                gate_desc, up_desc, hidden_desc, rstd_ptr, row_count, ring, buffers, order, steps, 1
            )),
            (load_operands, (x_desc, weight_desc, ring, order, steps)),
        ],
        WORKER_WARPS,
        WORKER_REGISTERS,
    )  # fmt: skip


def gate_up_swiglu(x: Tensor, weight: Tensor, rstd: Tensor, gate_up: Tensor, hidden: Tensor) -> None:
    """`gate_up = rstd x weightᵀ` and `hidden = silu(gate) * up`.

    Args:
        x: `[N, D]`, the residual stream.
        weight: `[2 F, D]`, times the norm's.
        rstd: float32 `[N]`: 1 / RMS of the rows of `x`. See `fused.norm`.
        gate_up: Written, `[N, 2 F]`.
        hidden: Written, `[N, F]`.
    """
    (rows, depth), width = x.shape, hidden.shape[1]
    if x.device.type == "cpu":
        torch.mul(x @ weight.T, rstd[:, None], out=gate_up)
        gate, up = gate_up.chunk(2, 1)
        torch.mul(F.silu(gate), up, out=hidden)
        return
    x_desc, half = operand(x), HALF.value
    weight_desc = in_blocks(weight.view(2, width, depth), 2, half, x_desc.block_shape[1])
    _gate_up_swiglu[grid(rows, 2 * width, x.device)](
        x_desc, weight_desc, result(gate_up[:, :width]), result(gate_up[:, width:]), result(hidden), rstd, rows,
        num_steps(x), width, GROUP, STAGES, **LAUNCH_OPTIONS,
    )  # fmt: skip


@gluon.jit
def _load_part(gate_desc, up_desc, slots, slot, tile, part: gl.constexpr):
    """Starts to load a part of a tile of gate and of up."""
    gates, ups, loaded = slots
    width: gl.constexpr = gate_desc.block_shape[1]
    m, n = tile
    mbarrier.expect(loaded.index(slot), 2 * BLOCK_M * width * gate_desc.dtype.primitive_bitwidth // 8)
    coordinates = [m * BLOCK_M, n * BLOCK_N + part * width]
    async_load(gate_desc, coordinates, loaded.index(slot), gates.index(slot))
    async_load(up_desc, coordinates, loaded.index(slot), ups.index(slot))


@gluon.jit
def _store_part(
    grad, gate_grad_desc, up_grad_desc, rstd_ptr, row_count, slots, slot, phase, tile, part: gl.constexpr
):  # fmt: skip
    """Replaces gate and up in shared memory by their gradients, and stores these."""
    gates, ups, loaded = slots
    m, n = tile
    layout: gl.constexpr = grad.type.layout
    grad *= load_of_rows(rstd_ptr, m, row_count, layout)[:, None]
    mbarrier.wait(loaded.index(slot), phase)
    gate, up = gates.index(slot).load(layout).to(gl.float32), ups.index(slot).load(layout).to(gl.float32)
    sigmoid = _sigmoid(gate)
    silu = gate * sigmoid
    gates.index(slot).store((grad * up * (sigmoid + silu * (1 - sigmoid))).to(gate_grad_desc.dtype))
    ups.index(slot).store((grad * silu).to(up_grad_desc.dtype))
    fence_async_shared()
    coordinates = [m * BLOCK_M, n * BLOCK_N + part * grad.shape[1]]
    async_store(gate_grad_desc, coordinates, gates.index(slot))
    async_store(up_grad_desc, coordinates, ups.index(slot))
    tma.store_wait(0)


@gluon.jit
def _apply_swiglu_backward(
    gate_desc, up_desc, gate_grad_desc, up_grad_desc, rstd_ptr, row_count, ring, slots, order, steps: gl.constexpr,
    which: gl.constexpr,
):  # fmt: skip
    own: gl.constexpr = slots[0].shape[0] // 2  # slots of each group
    parts: gl.constexpr = BLOCK_N // gate_desc.block_shape[1]  # of a tile
    gl.static_assert(own <= parts, "a slot is loaded for a part of this tile or the next")
    tiles = tiles_of_program(order)
    tile = tile_of_program(which, order)
    if which < tiles:
        for part in gl.static_range(own):
            _load_part(gate_desc, up_desc, slots, which * own + part, tile, part)
    for t in range(which, tiles, 2):
        following = tile_of_program(t + 2, order)
        grads = multiply(ring, t, which, steps)
        if parts == 4:  # parts are quarters of a tile
            grads = halves(grads[0]) + halves(grads[1])
        for part in gl.static_range(parts):
            index = t // 2 * parts + part  # of all parts of this group
            slot = which * own + index % own
            phase = (index // own) & 1
            _store_part(grads[part], gate_grad_desc, up_grad_desc, rstd_ptr, row_count, slots, slot, phase, tile, part)
            if part + own < parts:
                _load_part(gate_desc, up_desc, slots, slot, tile, part + own)
            elif t + 2 < tiles:  # is loaded while this group waits for its turn and multiplies
                _load_part(gate_desc, up_desc, slots, slot, following, part + own - parts)
        tile = following


@gluon.jit(do_not_specialize=["row_count"])
def _swiglu_backward(
    grad_desc, weight_desc, gate_desc, up_desc, gate_grad_desc, up_grad_desc, rstd_ptr, row_count, steps: gl.constexpr,
    width: gl.constexpr, group: gl.constexpr, stages: gl.constexpr, num_slots: gl.constexpr,
):  # fmt: skip
    order = gl.cdiv(row_count, BLOCK_M), gl.cdiv(width, BLOCK_N), group
    ring = make_ring(grad_desc, weight_desc, stages)
    loaded = gl.allocate_shared_memory(gl.int64, [num_slots, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(num_slots):
        mbarrier.init(loaded.index(slot), count=1)
    fence_async_shared()
    slots = allocate(gate_desc, num_slots), allocate(up_desc, num_slots), loaded
    gl.warp_specialize(
        [
            (_apply_swiglu_backward, (
                gate_desc, up_desc, gate_grad_desc, up_grad_desc, rstd_ptr, row_count, ring, slots, order, steps, 0
            )),
            (_apply_swiglu_backward, (
                gate_desc, up_desc, gate_grad_desc, up_grad_desc, rstd_ptr, row_count, ring, slots, order, steps, 1
            )),
            (load_operands, (grad_desc, weight_desc, ring, order, steps)),
        ],
        WORKER_WARPS,
        WORKER_REGISTERS,
    )  # fmt: skip


def swiglu_backward(grad: Tensor, weight: Tensor, gate_up: Tensor, rstd: Tensor, gate_up_grad: Tensor) -> None:
    """The gradient of gate and up, through SwiGLU and the down projection, times `rstd`.

    Args:
        grad: `[N, D]`, the gradient of the layer's output.
        weight: `[D, F]`, of the down projection.
        gate_up: `[N, 2 F]`, from `gate_up_swiglu`, as is `rstd`.
        rstd: float32 `[N]`.
        gate_up_grad: Written, `[N, 2 F]`.
    """
    rows, width = len(grad), weight.shape[1]
    if grad.device.type == "cpu":
        (gate, up), hidden_grad = gate_up.chunk(2, 1), grad @ weight * rstd[:, None]
        sigmoid = torch.sigmoid(gate)
        gate_up_grad[:, :width] = hidden_grad * up * sigmoid * (1 + gate * (1 - sigmoid))
        gate_up_grad[:, width:] = hidden_grad * gate * sigmoid
        return
    grad_desc = operand(grad)
    weight_desc = in_blocks(weight, grad_desc.block_shape[1], BLOCK_N.value)
    options = backward_options(grad.shape[1])
    parts = [result(x, options.columns) for m in (gate_up, gate_up_grad) for x in (m[:, :width], m[:, width:])]
    _swiglu_backward[grid(rows, width, grad.device)](
        grad_desc, weight_desc, *parts, rstd, rows, num_steps(grad), width, options.group, options.stages,
        options.slots, **LAUNCH_OPTIONS,
    )  # fmt: skip

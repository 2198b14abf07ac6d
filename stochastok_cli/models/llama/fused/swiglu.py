"""The feed-forward's first half: both products and SwiGLU in one kernel, and SwiGLU's gradient."""

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

# 128 rows by 64 columns of gate and the same of up, side by side in one product (two products of 64 columns each would
# wait for shared memory). 8 warps hold it in 64 registers a thread, so that two programs share a multiprocessor and
# the product of one runs while the other computes and stores its epilogue. Six blocks of rows walk over the columns
# together, so that a weight tile is read from L2.
TILE = {"block_m": 128, "block_n": 64, "block_k": 64, "group": 6}


@triton.jit
def tile_of(program, row_tiles, column_tiles, group: tl.constexpr):
    """The (row, column) tile of a program: down `group` row tiles, then on to the next column tile."""
    first = program // (group * column_tiles) * group
    size = tl.minimum(row_tiles - first, group)
    inside = program % (group * column_tiles)
    return first + inside % size, inside // size


@triton.jit(do_not_specialize=["row_count"])
def _gate_up_swiglu(
    x_desc, weight_desc, gate_up_ptr, act_ptr, row_count, depth: tl.constexpr, width: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, group: tl.constexpr,
):  # fmt: skip
    column_tiles: tl.constexpr = (width + block_n - 1) // block_n
    m, n = tile_of(tl.program_id(0), tl.cdiv(row_count, block_m), column_tiles, group)
    both = tl.zeros([block_m, 2 * block_n], tl.float32)
    for k in range(0, depth, block_k):
        weight = tl.reshape(weight_desc.load([0, n * block_n, k]), (2 * block_n, block_k))
        both = tl.dot(x_desc.load([m * block_m, k]), weight.T, both)
    gate, up = tl.split(tl.permute(tl.reshape(both, (block_m, 2, block_n)), (0, 2, 1)))
    row, column = (m * block_m + tl.arange(0, block_m)).to(tl.int64), n * block_n + tl.arange(0, block_n)
    inside = (row < row_count)[:, None] & (column < width)[None, :]
    out = gate_up_ptr + row[:, None] * (2 * width) + column[None, :]
    dtype = act_ptr.dtype.element_ty
    tl.store(out, gate.to(dtype), mask=inside)
    tl.store(out + width, up.to(dtype), mask=inside)
    act = gate * tl.sigmoid(gate) * up
    tl.store(act_ptr + row[:, None] * width + column[None, :], act.to(dtype), mask=inside)


def gate_up_swiglu(x: Tensor, weight: Tensor, gate_up: Tensor, act: Tensor) -> None:
    """`gate_up = x weightᵀ` `[N, 2 F]` and `act = silu(gate) * up` `[N, F]`; `x` `[N, D]`, `weight` `[2 F, D]`."""
    (rows, depth), width, tile = x.shape, act.shape[1], TILE
    x_desc = TensorDescriptor.from_tensor(x, [tile["block_m"], tile["block_k"]])
    weight_desc = TensorDescriptor.from_tensor(weight.view(2, width, depth), [2, tile["block_n"], tile["block_k"]])
    programs = triton.cdiv(rows, tile["block_m"]) * triton.cdiv(width, tile["block_n"])
    _gate_up_swiglu[(programs,)](
        x_desc, weight_desc, gate_up, act, rows, depth, width, **tile, num_warps=8, num_stages=3
    )


@triton.jit
def _swiglu_backward(gate_up_ptr, grad_ptr, dgate_up_ptr, width: tl.constexpr, block: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    inside = column < width
    offset = row * (2 * width) + column
    gate = tl.load(gate_up_ptr + offset, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + offset + width, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + row * width + column, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    dtype = dgate_up_ptr.dtype.element_ty
    tl.store(dgate_up_ptr + offset, (grad * up * (sigmoid + silu * (1 - sigmoid))).to(dtype), mask=inside)
    tl.store(dgate_up_ptr + offset + width, (grad * silu).to(dtype), mask=inside)


def swiglu_backward(gate_up: Tensor, grad: Tensor, dgate_up: Tensor) -> None:
    """`dgate_up` `[N, 2 F]` from `gate_up` and the gradient `grad` `[N, F]` of `act`. One row a program."""
    rows, width = grad.shape
    _swiglu_backward[(rows,)](gate_up, grad, dgate_up, width, triton.next_power_of_2(width), num_warps=4)

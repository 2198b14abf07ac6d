"""The first half of the feed-forward layer, gate and up projections and SwiGLU (Shazeer 2020), in one kernel; and the
gradient of SwiGLU."""

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

# A tile has 128 rows by 64 columns of gate and of up, side by side in one product: two products of 64 columns would
# wait for shared memory. 8 warps hold it in 64 registers a thread, so that two programs share a multiprocessor, and
# the product of one runs while the other computes and stores its epilogue. Six blocks of rows go over the columns
# together, so that a tile of the weight is read from the L2 cache.
TILE = {"block_m": 128, "block_n": 64, "block_k": 64, "group": 6}

MAX_BACKWARD_BLOCK = 4096  # entries of a row in a program of the backward kernel


@triton.jit
def grouped_tile(program, row_tiles, column_tiles, group: tl.constexpr):
    """The (row, column) tile of a program: down `group` row tiles, then to the next column tile.

    The order reuses tiles in the L2 cache, as in Triton's tutorial on matrix multiplication.
    """
    first = program // (group * column_tiles) * group
    size = tl.minimum(row_tiles - first, group)
    index = program % (group * column_tiles)
    return first + index % size, index // size


@triton.jit(do_not_specialize=["row_count"])
def _gate_up_swiglu(
    x_desc, weight_desc, gate_up_ptr, hidden_ptr, row_count, depth: tl.constexpr, width: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, group: tl.constexpr,
):  # fmt: skip
    column_tiles: tl.constexpr = (width + block_n - 1) // block_n
    m, n = grouped_tile(tl.program_id(0), tl.cdiv(row_count, block_m), column_tiles, group)
    gate_up = tl.zeros([block_m, 2 * block_n], tl.float32)
    for k in range(0, depth, block_k):
        weight = tl.reshape(weight_desc.load([0, n * block_n, k]), (2 * block_n, block_k))
        gate_up = tl.dot(x_desc.load([m * block_m, k]), weight.T, gate_up)
    gate, up = tl.split(tl.permute(tl.reshape(gate_up, (block_m, 2, block_n)), (0, 2, 1)))
    row, column = (m * block_m + tl.arange(0, block_m)).to(tl.int64), n * block_n + tl.arange(0, block_n)
    mask = (row < row_count)[:, None] & (column < width)[None, :]
    out = gate_up_ptr + row[:, None] * (2 * width) + column[None, :]
    dtype = hidden_ptr.dtype.element_ty
    tl.store(out, gate.to(dtype), mask=mask)
    tl.store(out + width, up.to(dtype), mask=mask)
    hidden = gate * tl.sigmoid(gate) * up
    tl.store(hidden_ptr + row[:, None] * width + column[None, :], hidden.to(dtype), mask=mask)


def gate_up_swiglu(x: Tensor, weight: Tensor, gate_up: Tensor, hidden: Tensor) -> None:
    """`gate_up = x weightᵀ` and `hidden = silu(gate) * up`.

    Args:
        x: `[N, D]`.
        weight: `[2 F, D]`.
        gate_up: Written, `[N, 2 F]`.
        hidden: Written, `[N, F]`.
    """
    (rows, depth), width, tile = x.shape, hidden.shape[1], TILE
    x_desc = TensorDescriptor.from_tensor(x, [tile["block_m"], tile["block_k"]])
    weight_desc = TensorDescriptor.from_tensor(weight.view(2, width, depth), [2, tile["block_n"], tile["block_k"]])
    programs = triton.cdiv(rows, tile["block_m"]) * triton.cdiv(width, tile["block_n"])
    _gate_up_swiglu[(programs,)](
        x_desc, weight_desc, gate_up, hidden, rows, depth, width, **tile, num_warps=8, num_stages=3
    )


@triton.jit
def _swiglu_backward(gate_up_ptr, grad_ptr, gate_up_grad_ptr, width: tl.constexpr, block: tl.constexpr):
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    mask = column < width
    offset = row * (2 * width) + column
    gate = tl.load(gate_up_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(gate_up_ptr + offset + width, mask=mask, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + row * width + column, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    dtype = gate_up_grad_ptr.dtype.element_ty
    tl.store(gate_up_grad_ptr + offset, (grad * up * (sigmoid + silu * (1 - sigmoid))).to(dtype), mask=mask)
    tl.store(gate_up_grad_ptr + offset + width, (grad * silu).to(dtype), mask=mask)


def swiglu_backward(gate_up: Tensor, grad: Tensor, gate_up_grad: Tensor) -> None:
    """The gradient of SwiGLU. A program takes a row, or of a wide one as much as its registers hold.

    Args:
        gate_up: `[N, 2 F]`, from `gate_up_swiglu`.
        grad: `[N, F]`, the gradient of `hidden`.
        gate_up_grad: Written, `[N, 2 F]`.
    """
    rows, width = grad.shape
    block = min(triton.next_power_of_2(width), MAX_BACKWARD_BLOCK)
    _swiglu_backward[(rows, triton.cdiv(width, block))](gate_up, grad, gate_up_grad, width, block, num_warps=4)

"""What Muon does besides orthogonalizing, in two kernels that read and write each number once.

They compute what `muon.add_to_momenta` and `muon.move` do by a dozen passes over all matrices, which take about as long
as the orthogonalization itself. They take the addresses of matrices from a tensor, so that one launch serves all
matrices of a shape.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
NUM_WARPS = 8


@triton.jit(do_not_specialize=["numel"])
def _add_to_momenta(
    address_ptr, scale_ptr, skip_ptr, out_ptr, momentum, numel, nesterov: tl.constexpr, block: tl.constexpr
):
    matrix, index = tl.program_id(1), tl.program_id(0) * block + tl.arange(0, block)
    mask = index < numel
    gradient_ptr = tl.load(address_ptr + 2 * matrix).to(tl.pointer_type(tl.float32))
    average_ptr = tl.load(address_ptr + 2 * matrix + 1).to(tl.pointer_type(tl.float32))
    gradient = tl.load(gradient_ptr + index, mask=mask, other=0.0)
    average = tl.load(average_ptr + index, mask=mask, other=0.0)
    if scale_ptr is not None:
        gradient /= tl.load(scale_ptr)
    # A momentum that moves toward itself stays, and what is not finite goes no further.
    gradient = tl.where(tl.load(skip_ptr) != 0, average, gradient)
    average += (1 - momentum) * (gradient - average)
    tl.store(average_ptr + index, average, mask=mask)
    update = average
    if nesterov:
        update = average - (1 - momentum) * (average - gradient)
    tl.store(out_ptr + matrix.to(tl.int64) * numel + index, update.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["numel"])
def _move(address_ptr, direction_ptr, skip_ptr, decay, step, numel, block: tl.constexpr):
    matrix, index = tl.program_id(1), tl.program_id(0) * block + tl.arange(0, block)
    mask = index < numel
    weight_ptr = tl.load(address_ptr + matrix).to(tl.pointer_type(tl.float32))
    weight = tl.load(weight_ptr + index, mask=mask, other=0.0)
    direction = tl.load(direction_ptr + matrix.to(tl.int64) * numel + index, mask=mask, other=0.0).to(tl.float32)
    kept = 1 - tl.load(skip_ptr)
    weight = weight * (1 - decay * kept) - step * kept * direction
    tl.store(weight_ptr + index, weight, mask=mask)


def can_take(matrices: Sequence[Sequence[Tensor]]) -> bool:
    """Whether the kernels can take these matrices, each with its gradient and its momentum."""
    return all(
        tensor.is_cuda and tensor.dtype == torch.float32 and tensor.is_contiguous()
        for matrix in matrices
        for tensor in matrix
    )


def add_to_momenta(
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor],
    out: Tensor,
    group: Mapping[str, Any],
    scale: Tensor | None,
    skip: Tensor,
) -> None:
    """`muon.add_to_momenta` for float32 matrices that are contiguous.

    Args:
        gradients: The gradients `[A, B]`.
        momenta: Their averages, updated.
        out: Written, `[N, A, B]`: what is to be orthogonalized.
        group: The options of Muon.
        scale: What gradients are divided by, a float32 scalar; None is 1.
        skip: A float32 scalar. Nothing changes where it is 1.
    """
    numel = gradients[0].numel()
    pairs = zip(gradients, momenta, strict=True)
    addresses = _on_device(tuple(tensor.data_ptr() for pair in pairs for tensor in pair), out.device)
    _add_to_momenta[(triton.cdiv(numel, BLOCK), len(gradients))](
        addresses, scale, skip, out, group["momentum"], numel, nesterov=group["nesterov"], block=BLOCK,
        num_warps=NUM_WARPS,
    )  # fmt: skip


def move(weights: Sequence[Tensor], direction: Tensor, decay: float, step: float, skip: Tensor) -> None:
    """`weight = (1 - decay) weight - step direction` for float32 matrices that are contiguous.

    Args:
        weights: The matrices `[A, B]`.
        direction: `[N, A, B]`, contiguous.
        decay: The part of a weight that is lost.
        step: The factor of the direction.
        skip: A float32 scalar. Nothing changes where it is 1.
    """
    numel = weights[0].numel()
    addresses = _on_device(tuple(weight.data_ptr() for weight in weights), direction.device)
    _move[(triton.cdiv(numel, BLOCK), len(weights))](
        addresses, direction, skip, decay, step, numel, block=BLOCK, num_warps=NUM_WARPS
    )


@functools.lru_cache(maxsize=256)
def _on_device(addresses: tuple[int, ...], device: torch.device) -> Tensor:
    tensor = torch.tensor(addresses, dtype=torch.int64)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

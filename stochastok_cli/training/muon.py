"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for matrices, with AdamW for all other weights.

Muon replaces the momentum of each matrix by the nearest matrix with orthogonal rows or columns, approximately, and
takes a step in this direction. The arithmetic is that of `torch.optim.Muon`, which launches more than twenty kernels
for each matrix; here matrices of one shape are updated together, and an update can be skipped on the device, as the
fused AdamW can skip it.
"""

import importlib.util
import itertools
import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stochastok_cli.models.cuda_graphs import CapturedKernels, unless_out_of_memory
from stochastok_cli.models.linear_weights import LinearWeight
from stochastok_cli.training.distributed import DistributedContext

MOST_ELEMENTS = 2**25
"""Of the matrices that are updated together, if they are more than one for each rank: an update takes a few copies of
them, and more are not faster. The graph of more would hold too much memory."""
LEAST_CAPABILITY = (8, 0)  # of the GPUs for which Triton's kernels are used
_EPS = 1e-7  # of torch.optim.Muon


class MuonWithAuxAdamW(torch.optim.Optimizer):
    """Muon for some weights and AdamW for others, as one optimizer whose groups are those of both.

    Every rank orthogonalizes its part of the matrices of each shape, and they exchange the results; all the rest each
    rank computes for all weights. Ranks have equal gradients and launch the same kernels, so their weights stay equal
    bit for bit.

    Args:
        adamw: The fused AdamW of all other weights.
        weights: The weights for Muon, each with the matrices in it. A weight that holds several projections is updated
            as several matrices, as in the papers: orthogonalized together, the queries, keys and values of a layer
            would share one budget of directions, and the factor for their shape would be that of a taller matrix.
        options: The options of the group of Muon: `lr`, `weight_decay`, `momentum`, `nesterov`, `ns_coefficients`,
            `ns_steps` and `adjust_lr_fn` of `torch.optim.Muon`, and whatever else a group should have.
        world: The ranks that share the work; None: this process alone.

    Attributes:
        uses_cuda_graphs: Whether the iteration of Newton and Schulz is captured and replayed on a GPU, unless the
            matrices have more than `MOST_ELEMENTS`. May be changed between steps, to compare the two.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None
    uses_cuda_graphs = True

    def __init__(
        self,
        adamw: torch.optim.AdamW,
        weights: Mapping[Tensor, LinearWeight],
        options: Mapping[str, Any],
        world: DistributedContext | None = None,
    ) -> None:
        self.adamw, self.weights, self.world = adamw, weights, world
        self.muon_group: dict[str, Any] = {"params": list(weights), **options}
        super().__init__([*adamw.param_groups, self.muon_group], {})  # the dictionaries themselves, not copies
        self.state = adamw.state
        self._captured: _CapturedIteration | None = None
        self._steps = 0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all weights. It never waits for the device; see `optimizers.clip_or_skip_update`."""
        self.adamw.grad_scale, self.adamw.found_inf = self.grad_scale, self.found_inf  # type: ignore[attr-defined]
        self.adamw.step()
        group = self.muon_group
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        skip = torch.zeros((), device=weights[0].device) if self.found_inf is None else self.found_inf
        by_shape: dict[Any, list[_Matrix]] = defaultdict(list)
        for weight in weights:
            tensors = weight, weight.grad, self.momentum_buffer(weight)
            for matrix in itertools.starmap(_Matrix, zip(*map(self.weights[weight].matrices, tensors), strict=True)):
                by_shape[matrix.weight.shape, weight.dtype].append(matrix)
        stacks = []
        for matrices in by_shape.values():
            size = stack_size(matrices[0].weight.numel(), 1 if self.world is None else self.world.world_size)
            stacks += [matrices[start : start + size] for start in range(0, len(matrices), size)]
        are_few = sum(weight.numel() for weight in weights) <= MOST_ELEMENTS
        for together in [stacks] if are_few else [[stack] for stack in stacks]:
            updates = [add_to_momenta(stack, group, self.grad_scale, skip) for stack in together]
            for stack, direction in zip(together, self._orthogonalize(updates, capture=are_few), strict=True):
                move(stack, direction, group, skip)
        self._steps += 1

    def _orthogonalize(self, updates: list[Tensor], *, capture: bool) -> list[Tensor]:
        """Orthogonalizes stacks of matrices, this rank some of each and the other ranks the rest."""
        world = self.world
        if world is None or world.world_size == 1:
            return self._newton_schulz(updates, capture=capture)
        parts = [_part_of_rank(update, world.rank, world.world_size) for update in updates]
        gathered = map(world.all_gather, self._newton_schulz(parts, capture=capture))
        return [direction[: len(update)] for direction, update in zip(gathered, updates, strict=True)]

    def _newton_schulz(self, stacks: list[Tensor], *, capture: bool) -> list[Tensor]:
        """`newton_schulz` of stacks of matrices, by a CUDA graph if it may be captured and there is memory for it."""
        arguments = self.muon_group["ns_coefficients"], self.muon_group["ns_steps"]
        if self.uses_cuda_graphs and capture and self._steps and stacks[0].is_cuda:  # the first step loads the kernels
            key = tuple(stack.shape for stack in stacks), *arguments
            if self._captured is None or self._captured.key != key:
                self._captured = None  # frees the memory of another one
                self._captured = unless_out_of_memory(lambda: _CapturedIteration(key, stacks, *arguments))
                self.uses_cuda_graphs = self._captured is not None
            if self._captured is not None:
                return self._captured(stacks)
        return [newton_schulz(stack, *arguments) for stack in stacks]

    def momentum_buffer(self, weight: Tensor) -> Tensor:
        """The momentum of a weight of Muon; zeros before its first update."""
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]


class _CapturedIteration:
    """`newton_schulz` of stacks of some shapes, as one CUDA graph."""

    def __init__(self, key: Hashable, matrices: list[Tensor], coefficients: Sequence[float], steps: int) -> None:
        self.key = key
        self.matrices = [torch.empty_like(stack, dtype=torch.bfloat16) for stack in matrices]
        self.directions: list[Tensor] = []

        def launch() -> Iterator[int]:
            self.directions += [newton_schulz(stack, coefficients, steps) for stack in self.matrices]
            yield from ()

        self.kernels = CapturedKernels(launch())

    def __call__(self, matrices: list[Tensor]) -> list[Tensor]:
        torch._foreach_copy_(self.matrices, matrices)
        self.kernels.replay(lambda part: None)
        return self.directions


class _Matrix(NamedTuple):
    """Views `[A, B]` of a weight, of its gradient and of its momentum."""

    weight: Tensor
    gradient: Tensor
    momentum: Tensor


def add_to_momenta(matrices: Sequence[_Matrix], group: Mapping[str, Any], scale: Tensor | None, skip: Tensor) -> Tensor:
    """Adds the gradients of matrices of one shape and type to their momenta.

    Args:
        matrices: The matrices. Their gradients stay as they are.
        group: The options of Muon.
        scale: What gradients are divided by, a float32 scalar; None is 1.
        skip: A float32 scalar. Nothing changes where it is 1, whatever the gradients are.

    Returns:
        bfloat16 `[N, A, B]`, what is to be orthogonalized.
    """
    _, gradients, momenta = map(list, zip(*matrices, strict=True))
    momentum = group["momentum"]
    if kernels := _kernels_for(matrices):
        out = torch.empty((len(matrices), *gradients[0].shape), dtype=torch.bfloat16, device=skip.device)
        kernels.add_to_momenta(gradients, momenta, out, group, scale, skip)
        return out
    average, gradient = torch.stack(momenta), torch.stack(gradients)
    if scale is not None:
        gradient /= scale
    # A momentum that moves toward itself stays, and what is not finite goes no further.
    gradient = torch.where(skip.bool(), average, gradient)
    average.lerp_(gradient, 1 - momentum)
    torch._foreach_copy_(momenta, average.unbind())
    return (gradient.lerp_(average, momentum) if group["nesterov"] else average).bfloat16()


def move(matrices: Sequence[_Matrix], direction: Tensor, group: Mapping[str, Any], skip: Tensor) -> None:
    """Makes matrices of one shape smaller by the weight decay, and moves them against `direction` `[N, A, B]`; does
    nothing where `skip` is 1."""
    weights = [matrix.weight for matrix in matrices]
    decay = group["lr"] * group["weight_decay"]
    rows, columns = weights[0].shape
    step = group["lr"] * _shape_factor(rows, columns, group["adjust_lr_fn"])
    if kernels := _kernels_for(matrices):
        kernels.move(weights, direction.contiguous(), decay, step, skip)
        return
    torch._foreach_mul_(weights, 1 - decay * (1 - skip))
    # As weights are, in type and layout: one kernel for all.
    direction = direction.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    torch._foreach_add_(weights, direction.mul_(-step * (1 - skip)).unbind())


def _kernels_for(matrices: Sequence[_Matrix]) -> ModuleType | None:
    """The module of Triton kernels, if there is Triton for this device and they can take these matrices."""
    device = matrices[0].weight.device
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return None
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return None
    from stochastok_cli.training import muon_kernels

    return muon_kernels if muon_kernels.can_take(matrices) else None


def stack_size(numel: int, ranks: int) -> int:
    """How many matrices of `numel` entries are updated together: a multiple of the ranks, which share them."""
    return max(1, MOST_ELEMENTS // numel // ranks) * ranks


def _part_of_rank(stack: Tensor, rank: int, ranks: int) -> Tensor:
    """A rank's part of a stack `[N, A, B]`: as many matrices on all ranks, zeros where there are not enough."""
    count = -(-len(stack) // ranks)
    part = stack[rank * count : (rank + 1) * count]
    return nn.functional.pad(part, (0, 0, 0, 0, 0, count - len(part)))


def newton_schulz(matrices: Tensor, coefficients: Sequence[float], steps: int) -> Tensor:
    """Approximates U Vᵀ of the singular value decomposition U S Vᵀ of each matrix, by the quintic iteration of Muon.

    Args:
        matrices: `[N, A, B]` of any type.
        coefficients: a, b and c of the polynomial a x + b x³ + c x⁵ of the singular values.
        steps: How many times it is applied.

    Returns:
        bfloat16 `[N, A, B]`, whose singular values are near 1: with the default coefficients between about 0.7 and 1.2.
    """
    a, b, c = coefficients
    x = matrices.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x  # the products of rows are then the smaller matrix
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_EPS)
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


def _shape_factor(rows: int, columns: int, adjust_lr_fn: str) -> float:
    """What the learning rate is multiplied by: "original" as in Muon's first implementation, "match_rms_adamw" so that
    updates are about as large as those of AdamW (Liu et al. 2025, section 2.2)."""
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))

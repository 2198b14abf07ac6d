"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for matrices, with AdamW for all other weights.

Muon replaces the momentum of each matrix by the nearest matrix with orthogonal rows or columns, approximately, and
takes a step in this direction. The arithmetic is that of `torch.optim.Muon`, which launches more than twenty kernels
for each matrix; here matrices of one shape are updated together, and an update can be skipped on the device, as the
fused AdamW can skip it.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stochastok_cli.models.linear_weights import LinearWeight

MOST_ELEMENTS = 2**25
"""Of the matrices that are updated together: an update takes a few copies of them, and more are not faster."""
_EPS = 1e-7  # of torch.optim.Muon


class MuonWithAuxAdamW(torch.optim.Optimizer):
    """Muon for some weights and AdamW for others, as one optimizer whose groups are those of both.

    Every rank computes the whole update. Ranks have equal gradients and launch the same kernels, so their weights stay
    equal bit for bit.

    Args:
        adamw: The fused AdamW of all other weights.
        weights: The weights for Muon, each with the matrices in it. A weight that holds several projections is updated
            as several matrices, as in the papers: orthogonalized together, the queries, keys and values of a layer
            would share one budget of directions, and the factor for their shape would be that of a taller matrix.
        options: The options of the group of Muon: `lr`, `weight_decay`, `momentum`, `nesterov`, `ns_coefficients`,
            `ns_steps` and `adjust_lr_fn` of `torch.optim.Muon`, and whatever else a group should have.
    """

    grad_scale: Tensor | None = None
    found_inf: Tensor | None = None

    def __init__(
        self, adamw: torch.optim.AdamW, weights: Mapping[Tensor, LinearWeight], options: Mapping[str, Any]
    ) -> None:
        self.adamw, self.weights = adamw, weights
        self.muon_group: dict[str, Any] = {"params": list(weights), **options}
        super().__init__([*adamw.param_groups, self.muon_group], {})  # the dictionaries themselves, not copies
        self.state = adamw.state

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
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"] * (1 - skip))
        by_shape: dict[Any, list[_Matrix]] = defaultdict(list)
        for weight in weights:
            tensors = weight, weight.grad, self.momentum_buffer(weight)
            for matrix in itertools.starmap(_Matrix, zip(*map(self.weights[weight].matrices, tensors), strict=True)):
                by_shape[matrix.weight.shape, weight.dtype].append(matrix)
        for matrices in by_shape.values():
            size = max(1, MOST_ELEMENTS // matrices[0].weight.numel())
            for start in range(0, len(matrices), size):
                _update(matrices[start : start + size], group, self.grad_scale, skip)

    def momentum_buffer(self, weight: Tensor) -> Tensor:
        """The momentum of a weight of Muon; zeros before its first update."""
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state["momentum_buffer"]


class _Matrix(NamedTuple):
    """Views `[A, B]` of a weight, of its gradient and of its momentum."""

    weight: Tensor
    gradient: Tensor
    momentum: Tensor


def _update(matrices: Sequence[_Matrix], group: Mapping[str, Any], scale: Tensor | None, skip: Tensor) -> None:
    """Updates matrices of one shape and type, and their momenta, without the weight decay.

    Args:
        matrices: The matrices. Their gradients stay as they are.
        group: The options of Muon.
        scale: What gradients are divided by, a float32 scalar; None is 1.
        skip: A float32 scalar. Nothing changes where it is 1, whatever the gradients are.
    """
    weights, gradients, momenta = map(list, zip(*matrices, strict=True))
    momentum = group["momentum"]
    average, gradient = torch.stack(momenta), torch.stack(gradients)
    if scale is not None:
        gradient /= scale
    # A momentum that moves toward itself stays, and what is not finite goes no further.
    gradient = torch.where(skip.bool(), average, gradient)
    average.lerp_(gradient, 1 - momentum)
    torch._foreach_copy_(momenta, average.unbind())
    update = gradient.lerp_(average, momentum) if group["nesterov"] else average
    direction = newton_schulz(update, group["ns_coefficients"], group["ns_steps"])
    direction = direction.to(torch.float32, memory_format=torch.contiguous_format)  # as weights are: one kernel for all
    rows, columns = weights[0].shape
    step = group["lr"] * _shape_factor(rows, columns, group["adjust_lr_fn"])
    torch._foreach_add_(weights, direction.mul_(-step * (1 - skip)).unbind())


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

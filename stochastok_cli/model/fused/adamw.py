"""AdamW with clipping by the global norm, in one pass that also rounds the new weights to `FusedStep`'s copies.

The law is that of `torch.nn.utils.clip_grad_norm_` and `torch.optim.AdamW` (Loshchilov and Hutter 2019), with decay on
tensors of two or more dimensions. An update whose gradient is not finite is skipped on the device: nothing waits.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from stochastok_cli.model.fused.step import FusedStep, gradient_of

BLOCK = 1024  # elements a program; the 28 bytes of each are read and written once


@triton.jit(do_not_specialize=["size"])
def _adamw(
    weight_ptr, grad_ptr, mean_ptr, square_ptr, copy_ptr, scalars_ptr, size, beta1, beta2, eps, decay,
    block: tl.constexpr,
):  # fmt: skip
    factor = tl.load(scalars_ptr)  # of the gradient: its clipping
    if factor >= 0:  # or the update is skipped
        rate, correction1, correction2 = tl.load(scalars_ptr + 1), tl.load(scalars_ptr + 2), tl.load(scalars_ptr + 3)
        i = tl.program_id(0) * block + tl.arange(0, block)
        inside = i < size
        grad = tl.load(grad_ptr + i, mask=inside) * factor
        weight = tl.load(weight_ptr + i, mask=inside)
        mean = tl.load(mean_ptr + i, mask=inside) * beta1 + grad * (1 - beta1)
        square = tl.load(square_ptr + i, mask=inside) * beta2 + grad * grad * (1 - beta2)
        weight = weight * (1 - rate * decay) - rate * (mean / correction1) / (tl.sqrt(square / correction2) + eps)
        tl.store(weight_ptr + i, weight, mask=inside)
        tl.store(mean_ptr + i, mean, mask=inside)
        tl.store(square_ptr + i, square, mask=inside)
        if copy_ptr is not None:
            tl.store(copy_ptr + i, weight.to(copy_ptr.dtype.element_ty), mask=inside)


class FusedAdamW:
    """Updates the parameters of `step` from their gradients. `exp_avg`, `exp_avg_sq` and `updates` are its state.

    From its making on it keeps the copies of the weights itself; after any other change of the weights, or of
    its state, call `step.copy_weights`.
    """

    def __init__(
        self, step: FusedStep, *, betas: tuple[float, float], eps: float, weight_decay: float, grad_clip: float
    ) -> None:
        self.fused_step, self.betas, self.eps, self.weight_decay = step, betas, eps, weight_decay
        self.grad_clip = grad_clip or math.inf
        self.exp_avg = [torch.zeros_like(p) for p in step.parameters]
        self.exp_avg_sq = [torch.zeros_like(p) for p in step.parameters]
        self.updates = torch.zeros((), device=step.device)  # those not skipped, on the device
        step.copy_weights()
        step.weights_current = True

    @torch.no_grad()
    def update(self, rate: float, skip: Tensor | None = None) -> Tensor:
        """One update at learning rate `rate`, unless the gradient is not finite or `skip`, a bool scalar, is true.

        Returns the norm that the whole gradient had, a scalar on the device.
        """
        parameters, (beta1, beta2) = self.fused_step.parameters, self.betas
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm([gradient_of(p) for p in parameters])))
        good = torch.isfinite(norm)
        if skip is not None:
            good = good & ~skip
        self.updates += good
        factor = torch.where(good, (self.grad_clip / (norm + 1e-6)).clamp(max=1.0), -1.0)
        scalars = torch.stack((factor, torch.full_like(norm, rate), 1 - beta1**self.updates, 1 - beta2**self.updates))
        for parameter, mean, square in zip(parameters, self.exp_avg, self.exp_avg_sq, strict=True):
            decay = self.weight_decay if parameter.dim() > 1 else 0.0
            size = parameter.numel()
            _adamw[(triton.cdiv(size, BLOCK),)](
                parameter, gradient_of(parameter), mean, square, self.fused_step.weights.get(parameter), scalars, size,
                beta1, beta2, self.eps, decay, BLOCK, num_warps=4,
            )  # fmt: skip
        return norm

"""AdamW over two groups of parameters, clipped or skipped on the device, and its state by name."""

import torch
from torch import Tensor, nn

from stochastok_cli.config import OptimizerConfig

ADAM_EPS = 1e-8
MASTER_WEIGHT = ".master_weight"
"""The end of the name of a float32 weight that a checkpoint's model has in another type."""


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on every tensor of two or more dimensions, the embedding included.

    The fused implementation is used on every device because it can skip an update there: see `clip_or_skip_update`.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=ADAM_EPS, fused=True)


def clip_or_skip_update(
    optimizer: torch.optim.Optimizer, gradient_norm: Tensor, max_norm: float, *, skip: Tensor
) -> None:
    """Prepares the next `optimizer.step()`, without waiting for the device.

    The step scales the gradient to a norm of at most `max_norm` while it reads it, which saves a pass over gradients.
    It gets both through the tensors in which `torch.amp.GradScaler` tells fused optimizers the scale of the loss, and
    that a gradient overflowed.

    Args:
        optimizer: A fused optimizer.
        gradient_norm: Of the whole gradient, a float32 scalar on its device.
        max_norm: As of `torch.nn.utils.clip_grad_norm_`; 0 does not clip.
        skip: A bool scalar. The step changes nothing where it is true.
    """
    scale = ((gradient_norm + 1e-6) / max_norm).clamp(min=1.0) if max_norm > 0 else None
    optimizer.grad_scale = scale  # type: ignore[attr-defined]
    optimizer.found_inf = skip.float()  # type: ignore[attr-defined]


def optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, with_weights: bool = False
) -> dict[str, Tensor]:
    """The whole state of AdamW by name: `<parameter>.exp_avg`, `.exp_avg_sq` and `.step`, a float32 scalar.

    `with_weights` adds the trained parameters themselves, as `<parameter>.master_weight`.

    The tensors are the optimizer's own, so copying into them restores a state. Before the first step they are zeros.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if not optimizer.state[parameter]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        state |= {f"{name}.{key}": tensor for key, tensor in optimizer.state[parameter].items()}
        if with_weights:
            state[name + MASTER_WEIGHT] = parameter
    return state

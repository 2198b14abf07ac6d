"""The optimizer, AdamW or Muon with AdamW, clipped or skipped on the device, and its state by name."""

import torch
from torch import Tensor, nn

from stochastok_cli.config import OptimizerConfig
from stochastok_cli.models.base import CausalLM
from stochastok_cli.models.linear_weights import LinearWeight
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.muon import MuonWithAuxAdamW

ADAM_EPS = 1e-8
MASTER_WEIGHT = ".master_weight"
"""The end of the name of a float32 weight that a checkpoint's model has in another type."""


def make_optimizer(
    model: CausalLM, config: OptimizerConfig, world: DistributedContext | None = None
) -> torch.optim.Optimizer:
    """AdamW with weight decay on every tensor of two or more dimensions, the embedding included; with
    `trainer.optimizer.name=muon`, Muon for the matrices of the layers instead.

    The learning rate of a group is `lr_scale` times the scheduled one. The fused implementation of AdamW is used on
    every device because it can skip an update there: see `clip_or_skip_update`. Ranks that have equal gradients, all
    of `world` (None: this process alone), share the work of Muon.
    """
    matrices = muon_weights(model) if config.name == "muon" else {}
    parameters = [parameter for parameter in model.trained_parameters() if parameter not in matrices]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay, "lr_scale": 1.0},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0, "lr_scale": 1.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=ADAM_EPS, fused=True)
    if config.name == "adamw":
        return adamw
    options = {
        "lr": config.muon_lr,
        "lr_scale": config.muon_lr / config.lr,
        "weight_decay": config.muon_weight_decay,
        "momentum": config.momentum,
        "nesterov": config.nesterov,
        "ns_coefficients": config.ns_coefficients,
        "ns_steps": config.ns_steps,
        "adjust_lr_fn": config.adjust_lr_fn,
    }
    return MuonWithAuxAdamW(adamw, matrices, options, world)


def muon_weights(model: CausalLM) -> dict[Tensor, LinearWeight]:
    """The weights that Muon trains: those of linear layers in the model's blocks."""
    weights: dict[Tensor, LinearWeight] = {}
    for block in model.blocks:
        weights |= {weight: held for weight, held in model.linear_weights(block).items() if weight.requires_grad}
    return weights


def clip_or_skip_update(
    optimizer: torch.optim.Optimizer, gradient_norm: Tensor, max_norm: float, *, skip: Tensor
) -> None:
    """Prepares the next `optimizer.step()`, without waiting for the device.

    The step scales the gradient to a norm of at most `max_norm` while it reads it, which saves a pass over gradients.
    It gets both through the tensors in which `torch.amp.GradScaler` tells fused optimizers the scale of the loss, and
    that a gradient overflowed.

    Args:
        optimizer: The result of `make_optimizer`.
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
    """The whole state by name: `<parameter>.exp_avg`, `.exp_avg_sq` and `.step`, a float32 scalar, of AdamW, and
    `<parameter>.momentum_buffer` of Muon.

    `with_weights` adds the trained parameters themselves, as `<parameter>.master_weight`.

    The tensors are the optimizer's own, so copying into them restores a state. Before the first step they are zeros.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if isinstance(optimizer, MuonWithAuxAdamW) and parameter in optimizer.weights:
            optimizer.momentum_buffer(parameter)
        elif not optimizer.state[parameter]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        state |= {f"{name}.{key}": tensor for key, tensor in optimizer.state[parameter].items()}
        if with_weights:
            state[name + MASTER_WEIGHT] = parameter
    return state

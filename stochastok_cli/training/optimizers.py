"""AdamW over two groups of parameters, and the gradients of all of them in one flat buffer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stochastok_cli.config import OptimizerConfig
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.distributed import DistributedContext

ADAM_EPS = 1e-8


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW with weight decay on every tensor of two or more dimensions, the embedding included.

    The fused kernels are used everywhere, because they can skip an update on the device: `skip_update_where`.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=ADAM_EPS, fused=True)


def skip_update_where(bad: Tensor, optimizer: torch.optim.AdamW) -> None:
    """Makes the next `step` leave weights and moments alone where the bool scalar `bad` is true, without a sync.

    This is the flag through which `torch.amp.GradScaler` tells fused optimizers that a gradient overflowed.
    """
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = bad.float()  # type: ignore[attr-defined]


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The optimizer's whole state by name: `<parameter>.exp_avg`, `.exp_avg_sq` (float32) and `.step` (a scalar).

    The tensors are the optimizer's own, so copying into them restores a state.
    """
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if not optimizer.state[parameter]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        state |= {f"{name}.{key}": tensor for key, tensor in optimizer.state[parameter].items()}
    return state


class FlatGradients:
    """One float32 buffer that every parameter's `.grad` is a view of, with one more place for the loss.

    So an iteration is zeroed, measured and clipped by one kernel each, and summed over the ranks in a few large pieces:
    a layer's as soon as it is complete, while the backward pass goes on to the layers below, and the rest at the end.
    """

    def __init__(self, model: Llama, world: DistributedContext):
        parameters = list(model.parameters())
        self.world = world
        self.flat = torch.zeros(sum(p.numel() for p in parameters) + 1, device=parameters[0].device)
        self.gradient, self.loss = self.flat[:-1], self.flat[-1]
        start, starts = 0, {}
        for parameter in parameters:
            starts[parameter] = start
            parameter.grad = self.flat[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()
        self._layers = []
        for layer in model.layers:
            first, *_, last = layer.parameters()
            self._layers.append(slice(starts[first], starts[last] + last.numel()))
        self._summed: dict[int, Callable[[], None]] = {}  # by layer, how to wait for it

    def layer_is_complete(self, layer: int) -> None:
        """To be called when nothing will be added to a layer's gradients any more: sends them on their way."""
        self._summed[layer] = self.world.all_reduce_async(self.flat[self._layers[layer]])

    def sum_over_ranks(self) -> None:
        """Sums what is not on its way yet, the loss included, and waits for what is."""
        end = 0
        for layer in sorted(self._summed):
            self.world.all_reduce_(self.flat[end : self._layers[layer].start])
            end = self._layers[layer].stop
        self.world.all_reduce_(self.flat[end:])
        for wait in self._summed.values():
            wait()
        self._summed.clear()

    def clip_(self, largest: float) -> Tensor:
        """Scales the gradient to a norm of at most `largest` (0: not at all); returns the norm that it had."""
        norm = torch.linalg.vector_norm(self.gradient)
        if largest > 0:
            self.gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
        return norm

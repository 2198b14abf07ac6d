"""One iteration of training, and the loss that training and validation share."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stochastok_cli.config import Config
from stochastok_cli.model.head_loss import head_loss
from stochastok_cli.model.transformer import Transformer
from stochastok_cli.randomness import key64
from stochastok_cli.training.distributed import World
from stochastok_cli.training.feed import DeviceBatch
from stochastok_cli.training.optimizer import FlatGradients, make_optimizer, skip_update_where
from stochastok_cli.training.schedule import learning_rate

Forward = Callable[[Tensor, Tensor | None], Tensor]
"""The model, compiled or not: ids `[B, T]` and first visible positions `[B, T]` to hidden states `[B, T, D]`."""


def sum_of_window_losses(forward: Forward, head_weight: Tensor, batch: DeviceBatch) -> Tensor:
    """The sum over a batch's windows of the weighted mean negative log-likelihood of their tokens, in nats.

    A float32 scalar; in bfloat16 products on CUDA, in float32 throughout on a CPU.
    """
    inputs, targets = batch.ids[:, :-1], batch.ids[:, 1:]
    device = head_weight.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        hidden = forward(inputs, batch.first_visible)
        return head_loss(
            hidden.flatten(0, 1),
            head_weight,
            targets.flatten(),
            batch.token_weights.flatten(),
            counted=batch.counted,
        )


class Figures(NamedTuple):
    """What an iteration was like: loss (nats, the mean over all windows of all ranks), norm of the gradient."""

    loss: float
    gradient_norm: float


class TrainingStep:
    """The weights, the optimizer, and what one iteration does to them. Nothing in it waits for the device."""

    def __init__(self, model: Transformer, config: Config, world: World):
        self.model, self.config, self.world = model, config, world
        self.forward: Any = torch.compile(model) if world.device.type == "cuda" else model
        self.optimizer = make_optimizer(model, config.trainer.optimizer)
        self.gradients = FlatGradients(model)
        self.norm = torch.zeros((), device=world.device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=world.device)

    def __call__(self, iteration: int, batches: Iterator[DeviceBatch]) -> None:
        """Iteration `iteration` (from 0): this rank's micro-batches, then one update, the same on every rank."""
        training, optimizer = self.config.trainer.training, self.config.trainer.optimizer
        self.gradients.flat.zero_()
        for micro_step in self.world.share(training.gradient_accumulation_steps):
            self._accumulate(iteration, micro_step, next(batches))
        self.world.sum_(self.gradients.flat)  # the gradient and, in its last place, the loss
        self.norm = self.gradients.clip_(optimizer.grad_clip)

        # From the first number that is not finite on, no update happens any more; the next log stops the run.
        bad = ~torch.isfinite(self.norm + self.gradients.loss)
        self.first_bad = torch.where(bad & (self.first_bad < 0), iteration, self.first_bad)
        skip_update_where(self.first_bad >= 0, self.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(iteration, optimizer, training)
        self.optimizer.step()

    def _accumulate(self, iteration: int, micro_step: int, batch: DeviceBatch) -> None:
        """Adds a micro-batch's part to the gradient and the loss. Its dropout depends on its place, not on the rank."""
        training = self.config.trainer.training
        torch.manual_seed(key64(self.config.general.seed, "dropout", iteration, micro_step))
        windows = training.gradient_accumulation_steps * training.batch_size
        loss = sum_of_window_losses(self.forward, self.model.head_weight, batch) / windows
        loss.backward()
        self.gradients.loss.add_(loss.detach())

    def compile(self, iteration: int, batch: DeviceBatch) -> None:
        """Makes torch compile forward and backward pass now, and leaves no trace of it."""
        self._accumulate(iteration, 0, batch)
        self.gradients.flat.zero_()
        self.world.synchronize()

    def figures(self) -> Figures:
        """Of the iteration done last. Waits for the device."""
        loss, norm = torch.stack([self.gradients.loss, self.norm]).tolist()
        return Figures(loss, norm)

    def first_bad_iteration(self) -> int | None:
        """The iteration (from 0) whose loss or gradient was the first not to be finite. Waits for the device."""
        first = int(self.first_bad.item())
        return first if first >= 0 else None

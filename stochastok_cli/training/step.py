"""One iteration of training."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from stochastok_cli.config import Config, TrainingConfig
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.training.backends import Backend, Share, choose_kernels
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.optimizers import FlatGradients, make_optimizer, skip_update_where
from stochastok_cli.training.prefetch import DeviceBatch
from stochastok_cli.training.schedules import learning_rate


class StepMetrics(NamedTuple):
    """What an iteration was like: loss (nats, the mean over all windows of all ranks), norm of the gradient."""

    loss: float
    gradient_norm: float


class TrainingStep:
    """The weights, the optimizer, and what one iteration does to them. An iteration never waits for the device."""

    def __init__(self, model: Llama, config: Config, world: DistributedContext):
        self.model, self.config, self.world = model, config, world
        self.kernels = choose_kernels(model, config, world.device)
        self.optimizer = make_optimizer(model, config.trainer.optimizer)
        self.gradients = FlatGradients(model, world)
        self.norm = torch.zeros((), device=world.device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=world.device)

    def __call__(self, iteration: int, batches: Iterator[DeviceBatch]) -> None:
        """Iteration `iteration` (from 0): this rank's micro-batches, then one update, the same on every rank."""
        training, optimizer = self.config.trainer.training, self.config.trainer.optimizer
        self.gradients.flat.zero_()
        self._accumulate(iteration, batches, self.gradients.layer_is_complete)
        self.gradients.sum_over_ranks()
        self.norm = self.gradients.clip_(optimizer.grad_clip)

        # From the first number that is not finite on, no update happens any more; the next log stops the run.
        bad = ~torch.isfinite(self.norm + self.gradients.loss)
        self.first_bad = torch.where(bad & (self.first_bad < 0), iteration, self.first_bad)
        skip_update_where(self.first_bad >= 0, self.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(iteration, optimizer, training)
        self.optimizer.step()

    def _accumulate(
        self, iteration: int, batches: Iterator[DeviceBatch], layer_is_complete: Callable[[int], None]
    ) -> None:
        """Adds this rank's micro-batches of an iteration to the gradient and the loss."""
        micro_steps = self.world.share(self.config.trainer.training.gradient_accumulation_steps)
        share = Share(iteration, micro_steps, batches, layer_is_complete)
        self.gradients.loss.add_(self.kernels.add_gradients(share))

    def compile(self, iteration: int, batches: Iterator[DeviceBatch]) -> None:
        """Makes the kernels compile now, on an iteration's batches, and leaves no trace of it."""
        self._accumulate(iteration, batches, lambda layer: None)
        self.gradients.flat.zero_()
        self.world.synchronize()

    def figures(self) -> StepMetrics:
        """Of the iteration done last. Waits for the device."""
        loss, norm = torch.stack([self.gradients.loss, self.norm]).tolist()
        return StepMetrics(loss, norm)

    def first_bad_iteration(self) -> int | None:
        """The iteration (from 0) whose loss or gradient was the first not to be finite. Waits for the device."""
        first = int(self.first_bad.item())
        return first if first >= 0 else None


@contextmanager
def memory_enough_for(kernels: Backend, training: TrainingConfig) -> Iterator[None]:
    """Around iterations and evaluations: when the device has no memory left, says with what, and what to lower."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(
            f"out of memory with micro-batches of {training.batch_size} windows and {kernels.name} kernels",
            fix=kernels.to_save_memory,
            exit_code=FAILED,
        ) from None

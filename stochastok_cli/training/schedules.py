"""What happens at an iteration, as pure functions of it: the learning rate, and what is due.

Iterations are counted from 0; "after iteration n" and the folder `step_<n>` mean that n of them are done.
"""

import math

from stochastok_cli.config import OptimizerConfig, TrainingConfig


def learning_rate(iteration: int, optimizer: OptimizerConfig, training: TrainingConfig) -> float:
    """The learning rate of an iteration: linear warm-up, then a cosine down to `min_lr`.

    The cosine is counted from the end of the warm-up, as in the published runs: a run of `lr_decay_iters` iterations
    ends before it has reached `min_lr`.
    """
    if iteration < training.warmup_iters:
        return optimizer.lr * iteration / training.warmup_iters
    if not optimizer.decay_lr:
        return optimizer.lr
    progress = min((iteration - training.warmup_iters) / training.lr_decay_iters, 1.0)
    return optimizer.min_lr + 0.5 * (optimizer.lr - optimizer.min_lr) * (1 + math.cos(math.pi * progress))


def log_is_due(done: int, training: TrainingConfig) -> bool:
    return done > 0 and (done % training.log_interval == 0 or done == training.max_iters)


def evaluation_is_due(done: int, training: TrainingConfig) -> bool:
    return done % training.eval_interval == 0 or done == training.max_iters


def checkpoint_is_due(done: int, training: TrainingConfig) -> bool:
    return done > 0 and (done % training.checkpoint_interval == 0 or done == training.max_iters)


def times(interval: int, first: int, last: int) -> int:
    """How many numbers from `first` to `last` are multiples of `interval`, or `last` itself: when something is due.

    >>> times(3, 0, 10), times(3, 1, 9), times(3, 5, 4)
    (5, 3, 0)
    """
    if last < first:
        return 0
    return last // interval - (first - 1) // interval + (last % interval != 0)


def checkpoints_to_delete(losses: dict[int, float | None], keep: int | None) -> list[int]:
    """The checkpoints to delete: all but the latest `keep` and the one of the lowest validation loss.

    `losses` has the validation loss of each checkpoint by its iteration, None where there was no validation.
    """
    if keep is None:
        return []
    rated = {iteration: loss for iteration, loss in losses.items() if loss is not None}
    kept = sorted(losses)[-keep:] + ([min(rated, key=lambda i: (rated[i], i))] if rated else [])
    return sorted(set(losses) - set(kept))

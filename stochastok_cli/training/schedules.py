"""Pure functions of the iteration: the learning rate, p of the expansion, when to log, evaluate and save.

`checkpoints_to_delete` says which checkpoints go.

Iterations are counted from 0. `done` is the number of iterations that are done, as in the folder name `step_<done>`.
"""

import math
from collections.abc import Collection

from stochastok_cli.config import DatasetConfig, OptimizerConfig, TrainingConfig


def learning_rate(iteration: int, optimizer: OptimizerConfig, training: TrainingConfig) -> float:
    """The learning rate of an iteration: linear warm-up, then the configured schedule down to `min_lr`.

    The cosine is counted from the end of the warm-up, as in the published runs. A run of `lr_decay_iters` iterations
    therefore ends before it has reached `min_lr`. The schedule "wsd" (warm-up, stable, decay; Hu et al. 2024, MiniCPM,
    section 4) is constant up to its last `wsd_decay_iters`, and reaches `min_lr` after the last iteration.
    """
    if iteration < training.warmup_iters:
        return optimizer.lr * iteration / training.warmup_iters
    if not optimizer.decay_lr:
        return optimizer.lr
    if optimizer.schedule == "wsd":
        left = max(training.max_iters - iteration, 0) / optimizer.wsd_decay_iters
        return optimizer.min_lr + (optimizer.lr - optimizer.min_lr) * min(left, 1.0)
    progress = min((iteration - training.warmup_iters) / training.lr_decay_iters, 1.0)
    return optimizer.min_lr + 0.5 * (optimizer.lr - optimizer.min_lr) * (1 + math.cos(math.pi * progress))


def expand_prop(iteration: int, dataset: DatasetConfig, training: TrainingConfig) -> float:
    """p of the expansion of an iteration's windows: `expand_prop` throughout, or falling to 0 after the last iteration.

    >>> linear = DatasetConfig(expand_prop=0.2, expand_schedule="linear")
    >>> [expand_prop(i, linear, TrainingConfig(max_iters=10)) for i in (0, 5, 10)]
    [0.2, 0.1, 0.0]
    """
    if dataset.expand_schedule == "constant":
        return dataset.expand_prop
    progress = min(iteration / training.max_iters, 1.0)
    if dataset.expand_schedule == "linear":
        return dataset.expand_prop * (1 - progress)
    return dataset.expand_prop * 0.5 * (1 + math.cos(math.pi * progress))


def log_is_due(done: int, training: TrainingConfig) -> bool:
    """Whether to log after `done` iterations."""
    return done > 0 and (done % training.log_interval == 0 or done == training.max_iters)


def evaluation_is_due(done: int, training: TrainingConfig) -> bool:
    """Whether to evaluate after `done` iterations."""
    return done % training.eval_interval == 0 or done == training.max_iters


def checkpoint_is_due(done: int, training: TrainingConfig) -> bool:
    """Whether to save after `done` iterations."""
    if done == training.max_iters:
        return done > 0
    return done > 0 and (done % training.checkpoint_interval == 0 or permanent_checkpoint_is_due(done, training))


def next_checkpoint(done: int, training: TrainingConfig) -> int:
    """How many iterations are done when the next checkpoint after `done` is saved; at most `max_iters`."""
    intervals = [training.checkpoint_interval, training.permanent_checkpoint_interval or training.checkpoint_interval]
    return min(training.max_iters, *((done // interval + 1) * interval for interval in intervals))


def permanent_checkpoint_is_due(done: int, training: TrainingConfig) -> bool:
    """Whether the checkpoint after `done` iterations is never removed."""
    interval = training.permanent_checkpoint_interval
    return interval is not None and done > 0 and done % interval == 0


def count_checkpoints(first: int, last: int, training: TrainingConfig) -> tuple[int, int]:
    """How many checkpoints are saved from iteration `first` to the last one, and how many of them are permanent.

    >>> count_checkpoints(1, 25, TrainingConfig(checkpoint_interval=4, permanent_checkpoint_interval=10))
    (8, 2)
    """
    saved = count_due(training.checkpoint_interval, first, last)
    interval = training.permanent_checkpoint_interval
    if interval is None or last < first:
        return saved, 0

    def multiples(of: int) -> int:
        return last // of - (first - 1) // of

    permanent, both = multiples(interval), multiples(math.lcm(interval, training.checkpoint_interval))
    last_is_permanent = last % interval == 0 and last % training.checkpoint_interval != 0
    return saved + permanent - both - last_is_permanent, permanent


def count_due(interval: int, first: int, last: int) -> int:
    """How many numbers from `first` to `last` are multiples of `interval`, or `last` itself.

    >>> count_due(3, 0, 10), count_due(3, 1, 9), count_due(3, 5, 4)
    (5, 3, 0)
    """
    if last < first:
        return 0
    return last // interval - (first - 1) // interval + (last % interval != 0)


def checkpoints_to_delete(
    losses: dict[int, float | None], keep: int | None, permanent: Collection[int] = ()
) -> list[int]:
    """The iterations of the checkpoints to delete: all but the latest `keep`, the best and the permanent ones.

    Args:
        losses: The validation loss of each checkpoint by its iteration; None where there was no validation.
        keep: None keeps all.
        permanent: The iterations of permanent checkpoints.

    >>> checkpoints_to_delete({10: 3.0, 20: 1.0, 30: None, 40: 2.0}, keep=1)
    [10, 30]
    """
    if keep is None:
        return []
    measured = {iteration: loss for iteration, loss in losses.items() if loss is not None and math.isfinite(loss)}
    best = [min(measured, key=lambda iteration: (measured[iteration], iteration))] if measured else []
    return sorted(set(losses) - {*sorted(losses)[-keep:], *best, *permanent})

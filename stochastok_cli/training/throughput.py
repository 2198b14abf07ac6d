"""The speed of a run, and the time that it will still take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from stochastok_cli.config import Config


def tokens_per_iteration(config: Config) -> int:
    """The number of tokens that all ranks together train on in one iteration."""
    training = config.trainer.training
    return training.gradient_accumulation_steps * training.batch_size * config.model.context_window


class ThroughputTimer:
    """Measures iterations per second, without the time in `pause` (evaluating, saving).

    Args:
        start: The number of iterations done when the clock starts.
    """

    def __init__(self, start: int):
        self._start = self._last = start
        self._started_at = self._last_at = time.monotonic()
        self._paused = 0.0  # seconds since `_last_at`

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the block from the speed of iterations."""
        before = time.monotonic()
        yield
        self._paused += time.monotonic() - before

    def iterations_per_second(self, done: int) -> float:
        """The speed since the last call, when `done` iterations are done."""
        now = time.monotonic()
        speed = (done - self._last) / (now - self._last_at - self._paused)
        self._last, self._last_at, self._paused = done, now, 0.0
        return speed

    def seconds_left(self, done: int, max_iters: int) -> float:
        """The time for the remaining iterations at the average speed since the start, pauses included."""
        return (time.monotonic() - self._started_at) / (done - self._start) * (max_iters - done)

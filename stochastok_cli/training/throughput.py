"""How fast a run goes, and how long it has left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class ThroughputTimer:
    """Counts iterations against time, with and without what happens between them (evaluating, saving).

    `start` is the number of iterations done when the clock starts.
    """

    def __init__(self, start: int):
        self._start = self._mark = start
        self._began = self._marked = time.monotonic()
        self._between = 0.0  # seconds since the mark in which no iteration ran

    @contextmanager
    def between(self) -> Iterator[None]:
        """Time spent in this block is no iteration's."""
        before = time.monotonic()
        yield
        self._between += time.monotonic() - before

    def speed(self, done: int) -> float:
        """Iterations a second since this was last asked."""
        now = time.monotonic()
        speed = (done - self._mark) / (now - self._marked - self._between)
        self._mark, self._marked, self._between = done, now, 0.0
        return speed

    def seconds_left(self, done: int, until: int) -> float:
        """If the rest goes as all has gone since the start, what happens between iterations included."""
        return (time.monotonic() - self._began) / (done - self._start) * (until - done)

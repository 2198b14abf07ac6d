"""Signals that stop training: it finishes the iteration, saves and exits."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def stopping_signals() -> list[signal.Signals]:
    """The signals that stop training. SLURM sends SIGUSR1 before it preempts a job, and a terminal SIGHUP when it is
    closed, unless that is ignored: under `nohup`, training goes on."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, *([signal.SIGHUP] if hangs_up else [])]


class StopRequest:
    """The signal that has requested a stop, if any.

    Before `armed` is set there is nothing to save, and a signal raises KeyboardInterrupt at once; so does a second
    SIGINT.
    """

    def __init__(self) -> None:
        self.armed = False
        self.signal: str | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if not self.armed or (self.signal is not None and number == signal.SIGINT):
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number).name


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Handles the stopping signals until the block ends. Python allows that in the main thread only."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in stopping_signals()}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

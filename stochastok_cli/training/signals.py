"""Signals that ask training to stop: finish the iteration, save, leave."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # SLURM sends the last before it pre-empts a job


class StopRequest:
    """Which signal has asked for a stop, if any.

    Before `armed` is set there is nothing to save, and a signal interrupts at once; so does a second SIGINT.
    """

    def __init__(self) -> None:
        self.armed = False
        self.signal: str | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self.armed or (self.signal is not None and number == signal.SIGINT):
            raise KeyboardInterrupt
        self.signal = self.signal or signal.Signals(number).name


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Handles the stopping signals until the block ends. Outside the main thread Python can't, and leaves them."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in STOPPING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

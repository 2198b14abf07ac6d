"""Progress of a run on stderr: a live line in a terminal, occasional lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stochastok_cli.training.events import (
    Evaluated,
    Evaluating,
    Event,
    Listener,
    Logged,
    Stopped,
    describe,
    format_duration,
    format_loss,
    format_speed,
)

if TYPE_CHECKING:
    from rich.status import Status

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def console_logger(*, quiet: bool = False) -> Iterator[Listener]:
    """A listener that shows events on stderr, or nothing if `quiet`.

    It omits `Stopped`, because the exception that follows says the same.
    """
    if quiet:
        yield lambda event: None
    elif not sys.stderr.isatty():
        yield _Lines()
    else:
        from rich.console import Console
        from rich.status import Status

        with Status("starting", console=Console(stderr=True)) as status:
            yield _LiveLine(status)


class _Lines:
    """A line per event. Logged iterations have one every `SECONDS_BETWEEN_LINES`, and the last has one."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Logged):
            if time.monotonic() < self._next and event.iteration < event.max_iters:
                return
            self._next = time.monotonic() + SECONDS_BETWEEN_LINES
        if not isinstance(event, Stopped) and (text := describe(event)):
            print(text, file=sys.stderr, flush=True)


class _LiveLine:
    """The last logged iteration in a line that is updated in place. Other events scroll by above it."""

    def __init__(self, status: "Status") -> None:
        self._status = status
        self._text = "training"

    def __call__(self, event: Event) -> None:
        if isinstance(event, Logged):
            self._text = _live_text(event)
        elif not isinstance(event, Stopped) and (text := describe(event)):
            self._status.console.print(text, highlight=False, markup=False)
        if isinstance(event, Evaluating):
            self._status.update(f"{self._text}  evaluating")
        elif isinstance(event, Logged | Evaluated):
            self._status.update(self._text)


def _live_text(event: Logged) -> str:
    return (
        f"{event.iteration:,}/{event.max_iters:,}  {format_loss(event)}  lr {event.learning_rate:.2e}  "
        f"{format_speed(event)}  {format_duration(event.seconds_left)} left"
    )

"""Ctrl-C while the command line starts and while it ends, when nothing catches a KeyboardInterrupt.

SIGUSR1, with which SLURM announces the end of a job, is treated in the same way.

This module imports as little as possible: whatever is imported before it can still be interrupted with a traceback.
"""

import os
import signal
from typing import Any

from stochastok_cli.errors import INTERRUPTED


def end_at_once() -> None:
    """Ctrl-C ends this process from now on, with one line. Nothing is changed where it is ignored (`nohup`)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
        if hasattr(signal, "SIGUSR1"):  # not on Windows
            signal.signal(signal.SIGUSR1, _end)


def raise_keyboard_interrupt() -> bool:
    """Ctrl-C raises KeyboardInterrupt again; whether `end_at_once` was called before."""
    if signal.getsignal(signal.SIGINT) is not _end:
        return False
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.default_int_handler)
    return True


def is_cause(error: BaseException) -> bool:
    """Whether an interruption led to an exception, as where Python wraps what ends the creation of a class."""
    links: list[BaseException | None] = [error]
    seen: set[int] = set()
    while links:
        link = links.pop()
        if isinstance(link, KeyboardInterrupt):
            return True
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            links += [link.__cause__, link.__context__]
    return False


def _end(number: int, frame: Any) -> None:
    try:
        if "RANK" not in os.environ:  # the launcher of several processes says it
            os.write(2, b"error: interrupted\n")
    finally:
        os._exit(INTERRUPTED)

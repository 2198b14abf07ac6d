"""What happens to the processes of a run when one of them dies: the others end, with one message.

A collective operation on the host fails at once when another process has ended. One on GPUs never ends, and then the
main thread waits for its GPU for good, where no signal reaches it. So each process has a thread that only waits for
another process.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from stochastok_cli.errors import FAILED, UserError, first_line, shorten
from stochastok_cli.training.launch import leave_exit_code

GRACE_SECONDS = 2.0
"""For the main thread to find out by itself, and to end as after any error."""
_ALL_IS_WELL, _A_RANK_IS_LOST = 0, 1

_writing = threading.RLock()


@contextmanager
def finish_first() -> Iterator[None]:
    """A block that a process finishes before it ends because another one has died, as a checkpoint is written."""
    with _writing:
        yield


@contextmanager
def report_lost_ranks() -> Iterator[None]:
    """Around collective operations, which fail with a RuntimeError when another rank has ended."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise _lost(error) from error


def _lost(error: RuntimeError) -> UserError:
    # "[where in torch] What happened. What it may mean …"
    reason = re.sub(r"^\[[^]]*\] *", "", first_line(error)).split(". ")[0]
    return UserError(
        f"another process of this run has died ({shorten(reason, 120)})",
        fix="if it said nothing it was killed, perhaps for memory; the same command goes on from the checkpoint",
        exit_code=FAILED,
    )


class RankWatcher:
    """A thread that ends this process `GRACE_SECONDS` after another process of the run has died, if there are others.

    It waits for a message of the next rank, which comes when that one closes its own watcher. Where the connection ends
    without one, it passes that on to the rank before, which waits for this one.

    Args:
        is_first_to_fail: Whether this rank is the first that fails. It alone prints an error.
    """

    def __init__(self, is_first_to_fail: Callable[[], bool]) -> None:
        self._is_first_to_fail = is_first_to_fail
        self._group = dist.new_group(backend="gloo", timeout=timedelta(days=365))
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        self._thread = threading.Thread(target=self._watch, name="rank watcher", daemon=True)
        if self._ranks > 1:  # torchrun may start a single one
            self._thread.start()

    def close(self) -> None:
        """Waits until all ranks have come here. Afterwards they may end."""
        if self._ranks > 1:
            self._tell(_ALL_IS_WELL)
            self._thread.join()

    def _tell(self, message: int) -> None:
        with suppress(RuntimeError):  # the rank before has ended, and the one before that finds out as this one does
            dist.send(torch.tensor([message]), dst=(self._rank - 1) % self._ranks, group=self._group)

    def _watch(self) -> None:
        message = torch.tensor([_A_RANK_IS_LOST])
        error = RuntimeError("its connection was closed")
        try:
            dist.recv(message, src=(self._rank + 1) % self._ranks, group=self._group)
        except RuntimeError as raised:
            error = raised
        if message.item() == _ALL_IS_WELL:
            return
        self._tell(_A_RANK_IS_LOST)
        time.sleep(GRACE_SECONDS)
        with finish_first():
            if self._is_first_to_fail():
                leave_exit_code(FAILED)
                print(f"error: {_lost(error)}", file=sys.stderr, flush=True)
            os._exit(FAILED)

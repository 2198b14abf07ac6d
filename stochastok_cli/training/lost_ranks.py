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

from stochastok_cli.errors import FAILED, UserError, first_line, leave_exit_code, shorten

GRACE_SECONDS = 2.0
"""For the main thread to find out by itself, and to start to end as after any error."""
LOSS_SECONDS = 1.0
"""Between an error of the main thread that another rank's end has caused and the end of the connection to that rank."""
STORE_SECONDS = 5.0
"""For the store to say whether another rank has failed before. The main thread may be waiting for it, too."""
_ALL_IS_WELL, _A_RANK_IS_LOST = 0, 1

_writing = threading.RLock()
_ending = threading.Event()


@contextmanager
def finish_first() -> Iterator[None]:
    """A block that a process finishes before it ends because another one has died, as a checkpoint is written."""
    with _writing:
        yield


def end_by_itself() -> None:
    """From now on, this process ends by an error of its own: its loggers are closed first, however long that takes."""
    _ending.set()


@contextmanager
def report_lost_ranks() -> Iterator[None]:
    """Around collective operations, which fail with a RuntimeError when another rank has ended."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise lost_rank(error) from error


def lost_rank(error: RuntimeError) -> UserError:
    """The error for the user where a collective operation has failed because another rank has ended."""
    # "[where in torch] What happened. What it may mean …"
    reason = re.sub(r"^\[[^]]*\] *", "", first_line(error)).split(". ")[0]
    return UserError(
        f"another process of this run has died ({shorten(reason, 120)})",
        fix="if it said nothing it was killed, perhaps for memory; the same command goes on from the checkpoint",
        exit_code=FAILED,
    )


class RankWatcher:
    """A thread that ends this process soon after another process of the run has died, if there are others.

    It waits for a message of the next rank, which comes when all ranks have closed their watchers. Where the connection
    ends without one, it passes that on to the rank before, which waits for this one. Then it ends the process, unless
    the main thread is about to: `GRACE_SECONDS` later, or after what has to be finished first.

    Args:
        is_first_to_fail: Whether this rank is the first that fails. It alone prints an error.
    """

    def __init__(self, is_first_to_fail: Callable[[], bool]) -> None:
        _ending.clear()
        self._is_first_to_fail, self._loss_seen = is_first_to_fail, threading.Event()
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        if self._ranks == 1:  # torchrun may start a single one
            return
        self._ring, self._all = (dist.new_group(backend="gloo", timeout=timedelta(days=365)) for _ in range(2))
        self._thread = threading.Thread(target=self._watch, name="rank watcher", daemon=True)
        self._thread.start()

    def sees_a_loss(self) -> bool:
        """Whether another rank has ended, which an error of the main thread may come from."""
        return self._ranks > 1 and self._loss_seen.wait(LOSS_SECONDS)

    def close(self) -> None:
        """Waits until all ranks have come here. Afterwards they may end."""
        if self._ranks > 1:
            with report_lost_ranks():
                dist.all_reduce(torch.zeros(1), group=self._all)
                self._send(_ALL_IS_WELL).wait()
            self._thread.join()

    def _send(self, message: int) -> dist.Work:
        self._message = torch.tensor([message])  # is kept until it is sent
        work = dist.isend(self._message, dst=(self._rank - 1) % self._ranks, group=self._ring)
        assert work is not None
        return work

    def _watch(self) -> None:
        message = torch.tensor([_A_RANK_IS_LOST])
        error = RuntimeError("its connection was closed")
        try:
            dist.recv(message, src=(self._rank + 1) % self._ranks, group=self._ring)
        except RuntimeError as raised:
            error = raised
        if message.item() == _ALL_IS_WELL:
            return
        self._loss_seen.set()
        with suppress(RuntimeError):  # the rank before has ended, and the one before that finds out as this one does
            self._send(_A_RANK_IS_LOST)
        time.sleep(GRACE_SECONDS)
        while not _ending.is_set():
            if _writing.acquire(blocking=False):
                self._end(error)
                return
            with finish_first():
                pass
            time.sleep(GRACE_SECONDS)  # what was written may be reported

    def _end(self, error: RuntimeError) -> None:
        """Ends the process, unless the main thread has begun to; says why if no other rank has failed before."""
        answers: list[bool] = []
        asking = threading.Thread(target=lambda: answers.append(self._is_first_to_fail()), daemon=True)
        asking.start()
        asking.join(STORE_SECONDS)
        if answers == [True] or not answers:
            leave_exit_code(FAILED)
            print(f"error: {lost_rank(error)}", file=sys.stderr, flush=True)
        if not _ending.is_set():
            os._exit(FAILED)
        _writing.release()

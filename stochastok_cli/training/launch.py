"""One process per GPU, started by `torch.distributed.run`; and how their end becomes this process's exit code."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stochastok_cli.errors import FAILED, INTERRUPTED, STOPPED_WITH_CHECKPOINT, StoppedBySignal, UserError
from stochastok_cli.training.distributed import launched

SIGNALS = "SIGTERM,SIGINT,SIGUSR1"  # passed on to the processes; see signals.py
GRACE = 600  # seconds that they have to finish an iteration and save after a signal
_OUTCOME = "STOCHASTOK_OUTCOME"  # the file in which the rank that speaks leaves its exit code


def processes_to_start(device: str) -> int:
    """How many processes `stochastok train` has to start: one per visible GPU, or 1 if this one is enough."""
    if device == "cpu" or launched():
        return 1
    return max(torch.cuda.device_count(), 1)


def launch(arguments: list[str], processes: int) -> int:
    """Runs `python -m stochastok_cli <arguments>` in so many processes that form one world; returns the exit code."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # of this process, which only waits: a failing rank says itself what is wrong
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory() as folder:
        outcome = Path(folder) / "exit_code"
        os.environ[_OUTCOME] = str(outcome)
        options = ["--standalone", "--nproc-per-node", str(processes), "--signals-to-handle", SIGNALS]
        options += ["--shutdown-timeout", str(GRACE), "-m", "stochastok_cli"]
        try:
            run.run(run.parse_args([*options, *arguments]))
        except ChildFailedError:
            return _read(outcome, FAILED)
        except (SignalException, KeyboardInterrupt):
            return _read(outcome, INTERRUPTED)
    return 0


@contextmanager
def exit_code_left() -> Iterator[None]:
    """Tells the launching process, if there is one, how the block failed: the code that the command line exits with."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if _OUTCOME in os.environ:
            Path(os.environ[_OUTCOME]).write_text(str(_code_of(error)), encoding="utf-8")
        raise


def _code_of(error: BaseException) -> int:
    if isinstance(error, StoppedBySignal):
        return STOPPED_WITH_CHECKPOINT
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, UserError) else FAILED


def _read(outcome: Path, absent: int) -> int:
    return int(outcome.read_text(encoding="utf-8")) if outcome.is_file() else absent

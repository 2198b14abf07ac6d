"""One process per GPU, started by `torch.distributed.run`, and the exit code of the whole."""

import argparse
import ctypes
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from stochastok_cli.errors import (
    EXIT_CODE_FILE,
    FAILED,
    INTERRUPTED,
    STOPPED_WITH_CHECKPOINT,
    StoppedBySignal,
    UserError,
    leave_exit_code,
)
from stochastok_cli.training.process_rank import is_distributed
from stochastok_cli.training.signals import stopping_signals

SHUTDOWN_SECONDS = 600  # for finishing an iteration and saving after a signal
_LAUNCHER = "STOCHASTOK_LAUNCHER"  # environment variable: the id of the launching process
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def processes_to_start(device: str) -> int:
    """How many processes `stochastok train` has to start: one per visible GPU, or 1 if this process is enough."""
    if device == "cpu" or is_distributed():
        return 1
    return max(torch.cuda.device_count(), 1)


def launch(arguments: list[str], processes: int) -> int:
    """Runs `python -m stochastok_cli <arguments>` in several processes, one rank each; returns the exit code."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.CRITICAL)  # in this process, which only waits: a failing rank prints its own error
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # else a rank reports that another one has ended
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "exit_code"
        os.environ[EXIT_CODE_FILE] = str(file)
        os.environ[_LAUNCHER] = str(os.getpid())
        options = launcher_options(processes, run.get_args_parser())
        try:
            run.run(run.parse_args([*options, "-m", "stochastok_cli", *arguments]))
        except ChildFailedError:
            return _read_exit_code(file, default=FAILED)
        except (SignalException, KeyboardInterrupt):
            return _read_exit_code(file, default=INTERRUPTED)
    return 0


def launcher_options(processes: int, parser: argparse.ArgumentParser) -> list[str]:
    """The options of torch's launcher, given its parser: older versions of torch lack some of them.

    PyTorch 2.11 has no `--shutdown-timeout`. There the processes have 30 seconds after a signal.
    """
    options = {
        "--nproc-per-node": str(processes),
        "--signals-to-handle": ",".join(number.name for number in stopping_signals()),  # passed on to the processes
        "--shutdown-timeout": str(SHUTDOWN_SECONDS),
    }
    known = parser.format_help()
    return ["--standalone", *(part for pair in options.items() if pair[0] in known for part in pair)]


@contextmanager
def record_exit_code() -> Iterator[None]:
    """Passes the exit code of an error in the block to the launching process, if there is one, and ends with it."""
    _end_with_launcher()
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        leave_exit_code(_exit_code(error))
        raise


def _end_with_launcher() -> None:
    """Has Linux send this process a SIGTERM when the process that launched it ends, also by SIGKILL.

    Training then stops as after any SIGTERM. Other systems have nothing of the kind.
    """
    if _LAUNCHER not in os.environ or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(os.environ[_LAUNCHER]):  # it has ended before
        os.kill(os.getpid(), signal.SIGTERM)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, StoppedBySignal):
        return STOPPED_WITH_CHECKPOINT
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_code if isinstance(error, UserError) else FAILED


def _read_exit_code(file: Path, default: int) -> int:
    return int(file.read_text(encoding="utf-8")) if file.is_file() else default

"""datatrove's executors, set up for the stages of `stochastok tokenize` and `stochastok expand`."""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import dill
import multiprocess
import multiprocess.util
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger

from stochastok_cli.argument_checks import optional, whole_number
from stochastok_cli.atomic_writes import write_atomically
from stochastok_cli.data.memmap import num_threads
from stochastok_cli.errors import FAILED, UserError, cannot_import, first_line
from stochastok_cli.progress import ProgressCallback, no_progress

EXECUTORS = ("local", "slurm", "ray")
"""The executors of datatrove that run pipelines here."""
_POLL_SECONDS = 0.5
_NOWHERE = open(os.devnull, "w")  # noqa: SIM115 - datatrove's logger keeps it for the life of the process


@dataclass(frozen=True)
class Tasks:
    """Where the tasks of a pipeline run, and how many there are.

    Args:
        executor: "local", "slurm" or "ray".
        tasks: the number of tasks, which never changes the result.
        num_proc: local: how many processors to use, by default all. slurm, ray: how many each task uses, by default 1.
        partition: the Slurm partition.
        time: the time limit of a Slurm job, as sbatch takes it.
        slurm_args: further options of sbatch, without the dashes: `{"account": "nlp", "mem-per-cpu": "8G"}`.
    """

    executor: str = "local"
    tasks: int = 1
    num_proc: int | None = None
    partition: str | None = None
    time: str | None = None
    slurm_args: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.executor not in EXECUTORS:
            raise UserError(f"--executor {self.executor!r} is not known", fix=f"give {', '.join(EXECUTORS)}")
        whole_number("the number of tasks", self.tasks, minimum=1)
        optional(whole_number)("num_proc", self.num_proc, minimum=1)
        if self.executor == "slurm" and not (self.partition and self.time):
            raise UserError("Slurm needs a partition and a time limit", fix="give --partition and --time")
        if self.executor != "slurm" and (self.partition or self.time or self.slurm_args):
            raise UserError("--partition, --time and --slurm-args are for --executor slurm", fix="drop them")

    @property
    def workers(self) -> int:
        """How many tasks run at the same time on this machine."""
        return min(self.tasks, num_threads(self.num_proc))

    @property
    def threads(self) -> int:
        """How many threads a task has."""
        if self.executor == "local":
            return max(num_threads(self.num_proc) // self.workers, 1)
        return self.num_proc or 1


@dataclass(frozen=True)
class Stage:
    """Steps that run after those of the stage before it: in all tasks, or in a number of its own."""

    name: str
    steps: Sequence[Any]
    tasks: int | None = None


class TaskFailed(UserError):
    """A task ended in a way that only its log explains."""


class _SavedSteps(PipelineStep):
    """Steps in a file, which a process loads once for all of its tasks.

    datatrove pickles its executor anew for each task. With a vocabulary in it, that would fill the pipe to the
    processes, and the pool of a local executor can't be ended while that pipe is full.
    """

    type = "stochastok"
    _loaded: ClassVar[dict[tuple[str, int], list[Any]]] = {}

    def __init__(self, steps: Sequence[Any], file: Path):
        super().__init__()
        self.name = ", ".join(step.name for step in steps)
        self.file = str(file.absolute())
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, dill.dumps([*steps], fmode=dill.CONTENTS_FMODE))

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Runs the steps; see `PipelineStep`."""
        key = self.file, Path(self.file).stat().st_mtime_ns
        if key not in self._loaded:
            self._loaded[key] = dill.loads(Path(self.file).read_bytes())
        for step in self._loaded[key]:
            step.stats = self.stats
            data = step(data, rank, world_size)
        return data


class _RecordsErrors:
    """An executor whose tasks say in files beside their logs which process runs them and why they failed.

    stderr is left to the command: datatrove's messages are in the logs.
    """

    logging_dir: Any

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        folder = Path(self.logging_dir.path)
        running, failed = folder / "running" / str(rank), folder / "errors" / str(rank)
        for file in (running, failed):
            file.parent.mkdir(parents=True, exist_ok=True)
        if multiprocess.parent_process() is not None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends its processes
            _end_with_parent()
        running.write_text(str(os.getpid()))
        failed.unlink(missing_ok=True)
        try:
            with contextlib.redirect_stderr(_NOWHERE):
                return super()._run_for_rank(rank, local_rank, node_rank)  # type: ignore[misc]
        except Exception as error:
            message, exit_code = f"{type(error).__name__}: {first_line(error)}", None
            if isinstance(error, UserError):
                message, exit_code = str(error), error.exit_code
            failed.write_text(json.dumps([message, exit_code]), encoding="utf-8")
            # A pool of processes waits forever for an exception that can't be unpickled.
            raise RuntimeError(message) from None
        finally:
            running.unlink(missing_ok=True)


class _LocalExecutor(_RecordsErrors, LocalPipelineExecutor):
    def run(self) -> Any:
        # For the process of datatrove's queue, which would serve it forever after this one was killed.
        multiprocess.util.register_after_fork(self, lambda _: _end_with_parent())
        return super().run()


@functools.cache
def _end_with_parent() -> None:
    """Ends this process when the one that started it does, however that ends."""
    parent = multiprocess.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(FAILED)

    threading.Thread(target=wait, daemon=True).start()


class _RayExecutor(_RecordsErrors, RayPipelineExecutor):
    pass


def run_stage(stage: Stage, tasks: Tasks, folder: Path, progress: ProgressCallback = no_progress) -> None:
    """Runs a stage on this machine or on Ray, and waits for its end. Tasks completed by an earlier run are left out.

    Args:
        stage: the stage.
        tasks: where and in how many tasks it runs; not on Slurm.
        folder: where the logs and marks of completed tasks are kept, in a folder for each stage.
        progress: called with the number of tasks that are completed.

    Raises:
        UserError: a task failed or was killed.
    """
    logs = folder / "logs" / stage.name
    tasks = dataclasses.replace(tasks, tasks=stage.tasks or tasks.tasks)
    logger.remove()  # datatrove logs to stderr otherwise
    shared = {"tasks": tasks.tasks, "workers": tasks.workers, "logging_dir": str(logs)}
    steps = [_SavedSteps(stage.steps, folder / f"{stage.name}.pik")]
    executor: Any
    started: contextlib.AbstractContextManager[None]
    if tasks.executor == "local":
        executor = _LocalExecutor(steps, **shared)
        started = contextlib.nullcontext()
    else:
        shared["workers"] = -1
        executor = _RayExecutor(steps, **shared, cpus_per_task=tasks.threads, mem_per_cpu_gb=0)
        started = _ray()
    failure: BaseException | None = None
    with started, _watch(logs, tasks, stage.name, progress) as killed:
        try:
            executor.run()
        except KeyboardInterrupt as error:
            if not killed:
                raise
            failure = error
        except Exception as error:
            failure = error
    incomplete = executor.get_incomplete_ranks(skip_completed=True)
    if incomplete or failure:
        raise _failure(logs, tasks, incomplete, killed, failure) from failure


def _failure(
    logs: Path, tasks: Tasks, incomplete: list[int], killed: list[int], failure: BaseException | None
) -> UserError:
    """The error of the first task that failed."""
    for rank in incomplete:
        file = logs / "errors" / str(rank)
        if file.is_file():
            message, exit_code = json.loads(file.read_text(encoding="utf-8"))
            if exit_code is not None:
                return UserError(message, exit_code=exit_code)  # as on one machine
            return TaskFailed(f"task {rank} of {tasks.tasks} failed: {message}", fix=_fix(logs, rank), exit_code=FAILED)
    rank = (killed or incomplete or [0])[0]
    why = "was killed, perhaps for its memory" if rank in killed or failure is None else f"failed: {failure!r}"
    return TaskFailed(f"task {rank} of {tasks.tasks} {why}", fix=_fix(logs, rank), exit_code=FAILED)


def _fix(logs: Path, rank: int) -> str:
    return f"its log is {logs / 'logs' / f'task_{rank:05d}.log'}; run it again, and completed tasks are left out"


@contextlib.contextmanager
def _watch(logs: Path, tasks: Tasks, name: str, progress: ProgressCallback) -> Iterator[list[int]]:
    """A context that reports completed tasks, and interrupts the main thread when the process of a task was killed.

    The pool of processes of a local executor would wait forever for the result of a killed one.

    Yields:
        The tasks that were killed.
    """
    killed: list[int] = []
    done = threading.Event()
    interrupts = tasks.executor == "local" and threading.current_thread() is threading.main_thread()

    def look() -> None:
        while not done.wait(_POLL_SECONDS):
            progress(name, len([*(logs / "completions").glob("*")]), tasks.tasks)
            for file in (logs / "running").glob("*") if interrupts else ():
                with contextlib.suppress(OSError, ValueError):
                    if not _is_alive(int(file.read_text())) and file.exists():
                        killed.append(int(file.name))
            if killed:
                os.kill(os.getpid(), signal.SIGINT)
                return

    def interrupt(number: int, frame: Any) -> None:
        if killed:
            raise KeyboardInterrupt

    for leftover in (logs / "running").glob("*"):
        leftover.unlink()
    # Commands that a shell script starts with `&` ignore SIGINT, and go on doing so unless a task was killed.
    ignores = interrupts and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignores:
        signal.signal(signal.SIGINT, interrupt)
    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield killed
    finally:
        done.set()
        watcher.join()
        if ignores:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    """A context with a connection to Ray: the cluster that RAY_ADDRESS or `ray start` names, else this machine."""
    try:
        import ray
    except ImportError as error:
        raise cannot_import("--executor ray", "ray", "ray", error) from None
    if ray.is_initialized():
        yield
        return
    ray.init(log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def submit_stages(stages: Sequence[Stage], tasks: Tasks, folder: Path, job_name: str) -> Iterator[str]:
    """Submits stages to Slurm, each to begin when the one before it has ended well.

    Args:
        stages: the stages; the last one is run again if it has been before.
        tasks: the options of Slurm.
        folder: where the logs and marks of completed tasks are kept, on a file system that all nodes see.
        job_name: the name of the jobs.

    Yields:
        The id of the job of each stage that has tasks to run, when it is submitted.

    Raises:
        UserError: sbatch refuses a job.
    """
    import subprocess

    logger.remove()
    executor: SlurmPipelineExecutor | None = None
    for stage in stages:
        executor = SlurmPipelineExecutor(
            [*stage.steps],
            tasks=stage.tasks or tasks.tasks,
            time=tasks.time,
            partition=tasks.partition,
            cpus_per_task=tasks.threads,
            job_name=f"{job_name}-{stage.name}",
            qos=None,
            # The interpreter and the tools of this environment, whatever a login shell of the node sets up.
            env_command=f'export PATH="{Path(sys.executable).parent}:$PATH"',
            sbatch_args={"kill-on-invalid-dep": "yes", **tasks.slurm_args},
            logging_dir=str(folder / "logs" / stage.name),
            skip_completed=stage is not stages[-1],
            depends=executor,
        )
        try:
            executor.launch_job()
        except subprocess.CalledProcessError as error:
            raise UserError(
                f"sbatch ended with exit code {error.returncode}", fix="see its message above", exit_code=FAILED
            ) from None
        if executor.job_id != -1:
            yield str(executor.job_id)


def jobs_in_queue(jobs: Sequence[str]) -> list[str]:
    """Those of some jobs of Slurm that have not ended; none where squeue is not installed."""
    import subprocess

    if not jobs or shutil.which("squeue") is None:
        return []
    # %F is the id of the whole array. squeue fails where it knows none of the jobs any more.
    command = ["squeue", "--noheader", "--format=%F", f"--jobs={','.join(jobs)}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return [job for job in jobs if job in listed]

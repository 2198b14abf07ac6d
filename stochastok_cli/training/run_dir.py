"""The folder of a run: its name, what it holds, and whether a command may continue it.

    <checkpoint_dir>/<run name>/
      config.yaml  metrics.jsonl  starts.jsonl  train.log  step_<N>/
    <checkpoint_dir>/.<run name>.lock

Only rank 0 reads and writes here.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from stochastok_cli.atomic_writes import write_atomically
from stochastok_cli.config import Config, config_from_dict, config_from_file
from stochastok_cli.data.folders import short_dataset_name
from stochastok_cli.errors import FAILED, UserError, one_line
from stochastok_cli.models.checkpoint_reader import TrainingState, incomplete_checkpoints, latest_progress
from stochastok_cli.paths import folder_name, nearest_existing_path
from stochastok_cli.training.checkpoint_cleanup import (
    leftovers,
    obsolete_checkpoints,
    remove_leftovers,
    remove_obsolete,
)
from stochastok_cli.training.loggers.jsonl import (
    beginning,
    damaged_lines_note,
    parse_record,
    parse_records,
    read_metrics,
    read_starts,
)
from stochastok_cli.training.same_run import differing_values, require_same_config, require_same_decay
from stochastok_cli.training.schedules import next_checkpoint
from stochastok_cli.training.write_failures import explain_write_failure

CONFIG, METRICS, STARTS, LOG = "config.yaml", "metrics.jsonl", "starts.jsonl", "train.log"

SET_ASIDE = "give another --run-name, or --force to set the old run aside"
"""What to do about a folder that holds another run than the one that a command would train."""

PROBE_SECONDS = 0.2
"""How long `run_lock` waits: `is_running` holds the lock for an instant."""


@dataclass(frozen=True)
class RunProgress:
    """The latest complete checkpoint of a run and its state; None where there is none yet.

    `config_problem` says why the run's configuration is that of the checkpoint, where its file can't be read. `changed`
    has the keys in which a command's configuration differs from the run's, with the values of the run and the command.
    """

    checkpoint: Path | None = None
    state: TrainingState | None = None
    config_problem: str = ""
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def iteration(self) -> int:
        """How many iterations are done."""
        return self.state.iteration if self.state else 0

    def is_complete(self, config: Config) -> bool:
        """Whether the run has nothing left to do."""
        done = self.state is not None and not self.state.evaluation_pending
        return done and self.iteration >= config.trainer.training.max_iters


def default_run_name(config: Config, parent: str | None) -> str:
    """`<prefix>-<dataset>`, followed by `-from-<parent>` where training starts from a run or another model."""
    name = f"{config.general.logging.run_name_prefix}-{short_dataset_name(config.trainer.dataset.name)}"
    return f"{name}-from-{parent}" if parent else name


def run_folder(config: Config, parent: str | None, run_name: str | None) -> Path:
    """The folder of a run, by the name that is given or else by the default one. Raises UserError if it can't be a
    name."""
    name = folder_name(run_name, default_run_name(config, parent), "--run-name")
    return Path(config.general.paths.checkpoint_dir) / name


def read_progress(folder: Path, config: Config) -> RunProgress:
    """The progress of the run in a folder, which may not exist. Changes nothing.

    Raises:
        UserError: The folder holds a run of another configuration, or something that is not a run.
    """
    existing = nearest_existing_path(folder)
    if not existing.is_dir():
        raise UserError(f"{existing} is a file, where a run's folder should be", fix="set general.paths.checkpoint_dir")
    if existing != folder or all(_is_leftover(file) for file in folder.iterdir()):
        return RunProgress()
    checkpoint, state = latest_progress(folder)
    before, problem = read_config(folder, state)
    if before is None:
        if not (folder / CONFIG).exists():
            raise UserError(f"{folder} exists and is no run", fix="give another --run-name, or --force to set it aside")
        fix = "mend it, give another --run-name, or --force to set the run aside"
        raise UserError(problem, fix=fix, exit_code=FAILED)
    require_same_config(folder, before, config, beginning(read_starts(folder / STARTS)[0]))
    if checkpoint is None or state is None:
        if lost := lost_checkpoints(folder, before, [record["iteration"] for record in read_metrics(folder / METRICS)]):
            raise UserError(
                f"{lost}; training would begin again and remove its metrics",
                fix=f"bring a checkpoint back, {SET_ASIDE}",
                exit_code=FAILED,
            )
        return RunProgress()
    require_same_decay(state.iteration, before, config)
    changed = differing_values(before.to_dict(), config.to_dict())
    changed = {key: values for key, values in changed.items() if not _is_one_path(key, *values)}
    return RunProgress(checkpoint, state, problem, changed)


def _is_one_path(key: str, first: Any, second: Any) -> bool:
    """Whether a key has two spellings of one path."""
    is_path = key.startswith("general.paths.") and isinstance(first, str) and isinstance(second, str)
    return is_path and Path(first).resolve() == Path(second).resolve()


def _is_leftover(file: Path) -> bool:
    """Whether a process that was killed, or found no room, has left a file half-written."""
    return file.name.startswith(".") and file.name.endswith(".partial")


def read_config(folder: Path, state: TrainingState | None) -> tuple[Config | None, str]:
    """The configuration of a run's file, or of its latest checkpoint where the file can't be read, and why it can't.

    The configuration is None where there is no checkpoint, either, or one of another version of this program.
    """
    file = folder / CONFIG
    try:
        return config_from_file(file), ""
    except FileNotFoundError:
        problem = f"{file} is missing"
    except OSError as error:
        problem = f"{file} can't be read: {error.strerror}"
    except UserError as error:
        problem = one_line(str(error))
    if state is None:
        return None, problem
    try:
        return config_from_dict(state.config, str(folder)), problem
    except UserError as error:
        return None, f"{problem}; {one_line(str(error))}"


def lost_checkpoints(folder: Path, config: Config, iterations: Sequence[int]) -> str:
    """How a run without a complete checkpoint has lost those that it had; "" for one that had none yet.

    Args:
        folder: Its folder.
        config: Its configuration.
        iterations: Those of the records of its metrics.
    """
    settings = config.trainer.training
    if damaged := incomplete_checkpoints(folder):
        return f"{folder} holds no complete checkpoint: {damaged[-1].name} is incomplete"
    # A process that is killed while it saves its first checkpoint leaves records up to that iteration, and up to the
    # next save, which waits for the first one, where that is made in the background.
    reached = max(iterations, default=0)
    saves_until = next_checkpoint(0, settings)
    if settings.async_save:
        saves_until = next_checkpoint(saves_until, settings)
    if reached > saves_until:
        return f"{folder} holds no checkpoint, though its metrics reach iteration {reached:,}"
    return ""


def require_same_data(progress: RunProgress, data: dict[str, Any]) -> None:
    """Raises UserError if a run was trained on another dataset, or on other bytes than the dataset has now."""
    if progress.state and progress.state.data != data:
        raise UserError(
            f"{progress.checkpoint} was trained on other data: {data['name']} had the fingerprint "
            f"{progress.state.data['fingerprint']}, now {data['fingerprint']}",
            fix=f"make the dataset as it was, {SET_ASIDE}",
        )


def _lock_file(folder: Path) -> Path:
    """Beside a run's folder, or beside the folder that a link leads to."""
    folder = folder.resolve()
    return folder.parent / f".{folder.name}.lock"


def is_running(folder: Path) -> bool:
    """Whether a process trains in a run's folder. Changes nothing, and needs no right to write there."""
    try:
        import fcntl
    except ImportError:  # Windows
        return _is_locked(_lock_file(folder))
    try:
        file = os.open(_lock_file(folder), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(file)  # which releases the lock


def _is_locked(lock_file: Path) -> bool:
    if not lock_file.is_file():
        return False
    try:
        with filelock.FileLock(lock_file).acquire(timeout=0):
            return False
    except filelock.Timeout:
        return True


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a run's folder. Raises UserError (exit code 1) if another process holds it, or it can't be
    written."""
    lock_file = _lock_file(folder)
    lock = filelock.FileLock(lock_file)
    with explain_write_failure(lock_file.parent), suppress(filelock.Timeout):  # which is an OSError, too
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=PROBE_SECONDS, poll_interval=0.02)
    if not lock.is_locked:
        raise UserError(
            f"another process is training in {folder}", fix="wait for it, or give another --run-name", exit_code=FAILED
        )
    try:
        yield
    finally:
        lock.release()


def set_aside(folder: Path) -> Path | None:
    """Renames a folder to `<name>-old-<k>` with the first free k. Returns the new path, None if there is no folder."""
    if not folder.exists():
        return None
    k = 1
    while (renamed := folder.with_name(f"{folder.name}-old-{k}")).exists():
        k += 1
    return folder.rename(renamed)


def start_or_resume(folder: Path, config: Config, progress: RunProgress) -> int:
    """Makes the folder ready for training: removes whatever was written after the last checkpoint.

    A new run gets its configuration here; that of a run which goes on is replaced later (see `jsonl.config_logger`).

    Returns how many lines of `metrics.jsonl` were removed because they are no records.
    """
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    if not (folder / CONFIG).exists():
        write_atomically(folder / CONFIG, config.to_yaml().encode())
    metrics = folder / METRICS
    if not metrics.is_file():
        return 0
    records = [(line, parse_record(line)) for line in metrics.read_bytes().splitlines()]
    kept = [line + b"\n" for line, record in records if record is not None and _precedes(record, progress)]
    write_atomically(metrics, b"".join(kept))
    return sum(record is None for _, record in records)


def lost_metrics(folder: Path, progress: RunProgress) -> str:
    """Says so where a run with a checkpoint has no file of metrics, or one that a power cut has emptied; else ""."""
    file = folder / METRICS
    state = "is missing" if not file.is_file() else "is empty" if file.stat().st_size == 0 else ""
    if not state or progress.checkpoint is None:
        return ""
    return f"{file} {state}: the records up to iteration {progress.iteration:,} are lost"


def problems_of_metrics(folder: Path, progress: RunProgress) -> list[str]:
    """What a run that is complete has lost of its metrics."""
    if lost := lost_metrics(folder, progress):
        return [lost]
    file = folder / METRICS
    records, damaged = parse_records(file.read_bytes())
    return [damaged_lines_note(file, damaged, len(records))] if damaged else []


def tidy_complete_run(folder: Path) -> None:
    """Removes what a run that was killed after its last checkpoint has left: partial and obsolete checkpoints.

    Another process that trains in the folder, and a folder that can't be written to, are left alone.
    """
    with suppress(OSError, UserError):
        keep = config_from_file(folder / CONFIG).trainer.training.keep_checkpoints
        if leftovers(folder) or obsolete_checkpoints(folder, keep):
            with run_lock(folder):
                remove_obsolete(folder, keep)


def _precedes(record: dict[str, Any], progress: RunProgress) -> bool:
    """Whether a record of `metrics.jsonl` was written before the checkpoint."""
    if progress.state is None or record["iteration"] > progress.iteration:
        return False
    # A pending evaluation may have been recorded already, by a run that was killed before it could note that.
    return record["iteration"] < progress.iteration or not progress.state.evaluation_pending or "train/loss" in record


def last_evaluation(folder: Path) -> dict[str, float | None]:
    """The metrics of a run's last evaluation, from its `metrics.jsonl`; empty where there is none."""
    for record in reversed(read_metrics(folder / METRICS)):
        if "validation/loss" in record:
            return {name: value for name, value in record.items() if name != "iteration"}
    return {}

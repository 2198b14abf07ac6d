"""A run's folder: its name, whether the command at hand may go on in it, and what is made of what it holds.

    <checkpoint_dir>/<run name>/
      config.yaml  metrics.jsonl  train.log  step_<N>/
    <checkpoint_dir>/.<run name>.lock

Only rank 0 writes here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from stochastok_cli.artifacts import nearest_existing_path, write_atomically
from stochastok_cli.config import Config, config_from_dict, flatten, read_yaml
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.checkpoint_folders import TrainingState, latest_checkpoint, read_state, run_of
from stochastok_cli.training.checkpoints import remove_leftovers
from stochastok_cli.training.events import metrics_line, read_metrics

CONFIG, METRICS, LOG = "config.yaml", "metrics.jsonl", "train.log"

# What may change while a run goes on: nothing here decides what is computed from which numbers.
_FREE = (
    "trainer.training.eval_interval",
    "trainer.training.log_interval",
    "trainer.training.checkpoint_interval",
    "trainer.training.keep_checkpoints",
    "trainer.training.eval_iters",
    "trainer.training.run_profiler",
    "trainer.eval",
    "general.logging.",
    "general.paths.",
    "general.device",
    "general.kernels",
)
_LENGTH = "trainer.training.max_iters"  # may grow


@dataclass(frozen=True)
class RunProgress:
    """How far a run has come: its latest complete checkpoint, if there is one."""

    checkpoint: Path | None = None
    state: TrainingState | None = None

    def is_complete(self, config: Config) -> bool:
        """Whether nothing is left to do."""
        state = self.state
        done = state is not None and state.iteration >= config.trainer.training.max_iters
        return done and state is not None and not state.evaluation_pending


def run_name(config: Config, parent: Path | None) -> str:
    """The name of a run that was given none: `<prefix>-<dataset>[-from-<run of the checkpoint it starts from>]`."""
    name = f"{config.general.logging.run_name_prefix}-{config.trainer.dataset.name}"
    return f"{name}-from-{run_of(parent)}" if parent else name


def inspect(folder: Path, config: Config) -> RunProgress:
    """Looks at a run's folder without touching it.

    Raises UserError if it is another run's: one of another configuration, or no run at all.
    """
    there = nearest_existing_path(folder)
    if not there.is_dir():
        raise UserError(f"{there} is a file, where a run's folder should be", fix="set general.paths.checkpoint_dir")
    if there != folder or not any(folder.iterdir()):
        return RunProgress()
    file = folder / CONFIG
    if not file.is_file():
        raise UserError(f"{folder} exists and is no run", fix="give another --run-name, or --force to set it aside")
    before = config_from_dict(read_yaml(file), str(file))
    differing = _differing(before.to_dict(), config.to_dict())
    if differing:
        raise UserError(
            f"{folder} is a run of another configuration: {', '.join(differing)}",
            fix="give another --run-name, or --force to set the old run aside",
        )
    checkpoint = latest_checkpoint(folder)
    return RunProgress(checkpoint, read_state(checkpoint)) if checkpoint else RunProgress()


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    old, new = flatten(before), flatten(now)
    return [
        f"{key} (there {old.get(key)!r}, now {new.get(key)!r})"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not key.startswith(_FREE) and not (key == _LENGTH and new[key] > old[key])
    ]


def require_same_data(found: RunProgress, data: dict[str, Any]) -> None:
    """Raises UserError if a run has been trained on other bytes than the dataset now has."""
    if found.state and found.state.data != data:
        raise UserError(
            f"{found.checkpoint} was trained on other data: {data['name']} had the fingerprint "
            f"{found.state.data['fingerprint']}, now {data['fingerprint']}",
            fix="make the dataset as it was, or give another --run-name",
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder. Raises UserError (exit code 1) if one is in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f"another process is training in {folder}", fix="wait for it, or give another --run-name", exit_code=FAILED
        ) from None
    try:
        yield
    finally:
        lock.release()


def set_aside(folder: Path) -> Path | None:
    """Renames a folder to `<name>-old-<k>`, the first free k; returns where it is now, or None if there was none."""
    if not folder.exists():
        return None
    k = 1
    while (aside := folder.with_name(f"{folder.name}-old-{k}")).exists():
        k += 1
    return folder.rename(aside)


def begin(folder: Path, config: Config, found: RunProgress) -> None:
    """Makes the folder ready to go on from `found`: what a killed run did after its last checkpoint is taken back."""
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    write_atomically(folder / CONFIG, config.to_yaml().encode())
    metrics = folder / METRICS
    if metrics.is_file():
        kept = [f"{line}\n" for line in metrics.read_text(encoding="utf-8").splitlines() if _kept(line, found)]
        write_atomically(metrics, "".join(kept).encode())


def _kept(line: str, found: RunProgress) -> bool:
    """Whether a line of `metrics.jsonl` was written before the checkpoint (and not torn in the writing)."""
    record = metrics_line(line)
    if record is None or found.state is None or record["iteration"] > found.state.iteration:
        return False
    # An evaluation that is still to be made may have been made before, by a run that was killed after it.
    return record["iteration"] < found.state.iteration or not found.state.evaluation_pending or "train/loss" in record


def last_evaluation(folder: Path) -> dict[str, float]:
    """The metrics of a run's last evaluation, as its `metrics.jsonl` has them; nothing where there is none."""
    for record in reversed(read_metrics(folder / METRICS)):
        if "validation/loss" in record:
            return {name: value for name, value in record.items() if name != "iteration"}
    return {}

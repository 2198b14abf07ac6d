"""Which folders of a run may be deleted, and deleting them: old checkpoints, and what a killed process has left."""

import shutil
from pathlib import Path

from stochastok_cli.models.checkpoint_reader import TrainingState, checkpoints
from stochastok_cli.training.schedules import checkpoints_to_delete


def obsolete_checkpoints(run_folder: Path, keep: int | None) -> list[Path]:
    """The complete checkpoints of a run that `keep_checkpoints` does not keep (see `checkpoints_to_delete`).

    A checkpoint is permanent by the configuration that it was saved with, or by that of the latest one. Losses on
    another number of windows (`eval_iters`) don't compare, so the best checkpoint by each of these stays.
    """
    if keep is None:
        return []
    complete = checkpoints(run_folder)
    losses = {iteration: state.validation_loss for iteration, (_, state) in complete.items()}
    intervals = {n: _training_key(state, "permanent_checkpoint_interval") for n, (_, state) in complete.items()}
    latest = intervals[max(intervals)] if intervals else None
    permanent = [n for n, own in intervals.items() if any(interval and n % interval == 0 for interval in (own, latest))]
    sizes = {n: _training_key(state, "eval_iters") for n, (_, state) in complete.items()}
    obsolete = set(complete)
    for size in set(sizes.values()):
        comparable = {n: loss if sizes[n] == size else None for n, loss in losses.items()}
        obsolete &= set(checkpoints_to_delete(comparable, keep, permanent))
    return [complete[iteration][0] for iteration in sorted(obsolete)]


def _training_key(state: TrainingState, name: str) -> int | None:
    """A number of `trainer.training` in a checkpoint's configuration; None where an older version did not have it."""
    try:
        value = state.config["trainer"]["training"][name]
    except (KeyError, TypeError):
        return None
    return value if isinstance(value, int) else None


def delete_obsolete(run_folder: Path, keep: int | None) -> None:
    """Deletes the checkpoints of a run that `keep_checkpoints` does not keep."""
    for folder in obsolete_checkpoints(run_folder, keep):
        _delete(folder)


def leftovers(run_folder: Path) -> list[Path]:
    """The half-written and half-deleted checkpoints of a run that was killed."""
    return sorted(run_folder.glob(".step_*"))


def remove_leftovers(run_folder: Path) -> None:
    """Removes half-written and half-deleted checkpoints of a run that was killed."""
    for folder in leftovers(run_folder):
        shutil.rmtree(folder, ignore_errors=True)


def remove_obsolete(run_folder: Path, keep: int | None) -> None:
    """Deletes what `save_checkpoint` would have deleted, had it not been killed after it had written a checkpoint."""
    remove_leftovers(run_folder)
    delete_obsolete(run_folder, keep)


def _delete(folder: Path) -> None:
    """Renames the folder first, so that a half-deleted one does not match `step_*`."""
    renamed = folder.with_name(f".{folder.name}.deleted")
    shutil.rmtree(renamed, ignore_errors=True)  # what a process that was killed has left of one of the same name
    shutil.rmtree(folder.rename(renamed))

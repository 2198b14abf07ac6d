"""Which folders of a run may be deleted, and deleting them: old checkpoints, and what a killed process has left."""

import shutil
from pathlib import Path

from stochastok_cli.models.checkpoint_reader import checkpoints, read_state
from stochastok_cli.training.schedules import checkpoints_to_delete


def obsolete_checkpoints(run_folder: Path, keep: int | None) -> list[Path]:
    """The complete checkpoints of a run that `keep_checkpoints` does not keep (see `checkpoints_to_delete`)."""
    folders = checkpoints(run_folder)
    losses = {iteration: read_state(folder).validation_loss for iteration, folder in folders.items()}
    return [folders[iteration] for iteration in checkpoints_to_delete(losses, keep)]


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
    shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.deleted")))

"""Writing checkpoints. `models/checkpoint_reader.py` describes and reads them.

A folder is built under a temporary name, synced and renamed, and old ones are renamed before they are deleted, so that
`step_<N>` is complete or absent. Nothing is ever pickled.
"""

import dataclasses
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from stochastok_cli.artifacts import FileInfo, file_checksum, json_bytes, rename_into_place, write_atomically
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.base import CausalLM, spec_of
from stochastok_cli.models.checkpoint_reader import (
    OPTIMIZER,
    STATE,
    TrainingState,
    checkpoints,
    read_state,
    recorded_files,
)
from stochastok_cli.models.companion_files import write_companion_files
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training.data_parallel import FullState
from stochastok_cli.training.schedules import checkpoints_to_delete


def save_checkpoint(
    run_folder: Path,
    state: TrainingState,
    model: CausalLM,
    tensors: FullState,
    vocabulary: Vocabulary,
    keep: int | None,
) -> Path:
    """Writes `step_<N>`, then deletes old checkpoints (see `checkpoints_to_delete`).

    Args:
        run_folder: The run's folder.
        state: What is recorded besides the tensors.
        model: The model, for its architecture.
        tensors: Weights and optimizer state, from `Parallel.full_state_dict`.
        vocabulary: The tokenizer that is saved with the model.
        keep: How many of the latest checkpoints to keep; None keeps all.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: It can't be written (exit code 1). Earlier checkpoints stay.
    """
    final = run_folder / f"step_{state.iteration}"
    temporary = run_folder / f".{final.name}.partial"
    try:
        temporary.mkdir()
        spec_of(model).save(model, temporary, vocabulary, tensors.weights)
        write_companion_files(model.companion_files, temporary)
        save_file({name: tensor.cpu() for name, tensor in tensors.optimizer.items()}, temporary / OPTIMIZER)
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        sums = {file.relative_to(temporary).as_posix(): file_checksum(file) for file in files}
        _write_state(temporary, state, sums)
        rename_into_place(temporary, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"{final} can't be written: {getattr(error, 'strerror', None) or error}",
            fix="make room and run the same command again: it goes on from the checkpoint before",
            exit_code=FAILED,
        ) from None
    for folder in obsolete_checkpoints(run_folder, keep):
        _delete(folder)
    return final


def obsolete_checkpoints(run_folder: Path, keep: int | None) -> list[Path]:
    """The complete checkpoints of a run that `keep_checkpoints` does not keep (see `checkpoints_to_delete`)."""
    folders = checkpoints(run_folder)
    losses = {iteration: read_state(folder).validation_loss for iteration, folder in folders.items()}
    return [folders[iteration] for iteration in checkpoints_to_delete(losses, keep)]


def amend_state(folder: Path, state: TrainingState) -> None:
    """Replaces the state of a checkpoint, after the evaluation that was pending."""
    _write_state(folder, state, recorded_files(folder))


def _write_state(folder: Path, state: TrainingState, files: dict[str, FileInfo]) -> None:
    sums = {name: file.to_json() for name, file in files.items()}
    tree = {"format": 1, **dataclasses.asdict(state), "files": sums}
    write_atomically(folder / STATE, json_bytes(tree))


def _delete(folder: Path) -> None:
    """Renames the folder first, so that a half-deleted one does not match `step_*`."""
    shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.deleted")))


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
    for folder in obsolete_checkpoints(run_folder, keep):
        _delete(folder)

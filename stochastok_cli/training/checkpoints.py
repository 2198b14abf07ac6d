"""Checkpoints: a model folder as `transformers` opens it, and beside it what training needs to go on.

    step_<N>/
      config.json, model.safetensors, tokenizer files   see model/weights.py
      optimizer.safetensors                             AdamW's moments and step counts
      training_state.json                               the iteration, the data, the configuration, the files' checksums

A folder is built under a temporary name, synced and renamed. It is complete if `training_state.json` is there and
every file has the size written in it; anything else is not seen. Before it is gone on from, its bytes are compared
with their checksums. Nothing is ever unpickled.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stochastok_cli.artifacts import FileInfo, file_checksum, rename_into_place, write_atomically
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.checkpoint_folders import (
    OPTIMIZER,
    STATE,
    TrainingState,
    checkpoints,
    read_state,
    recorded_files,
)
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama.state_dict import load_weights, save_model
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training.optimizers import optimizer_tensors
from stochastok_cli.training.schedules import checkpoints_to_delete

# ------------------------------------------------------------------------------------------------ writing


def save_checkpoint(
    run_folder: Path,
    state: TrainingState,
    model: Llama,
    optimizer: torch.optim.AdamW,
    vocabulary: Vocabulary,
    keep: int | None,
) -> Path:
    """Writes `step_<N>`, then deletes the checkpoints that are not to be kept (see `schedule.superseded`).

    Raises UserError (exit code 1) if it can't be written; those that are there already stay.
    """
    final = run_folder / f"step_{state.iteration}"
    temporary = run_folder / f".{final.name}.partial"
    try:
        temporary.mkdir()
        save_model(model, temporary, vocabulary)
        tensors = {name: tensor.cpu() for name, tensor in optimizer_tensors(model, optimizer).items()}
        save_file(tensors, temporary / OPTIMIZER)
        _write_state(temporary, state, {file.name: file_checksum(file) for file in sorted(temporary.iterdir())})
        rename_into_place(temporary, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"{final} can't be written: {getattr(error, 'strerror', None) or error}",
            fix="make room and run the same command again: it goes on from the checkpoint before",
            exit_code=FAILED,
        ) from None
    losses = {iteration: read_state(folder).validation_loss for iteration, folder in checkpoints(run_folder).items()}
    for iteration in checkpoints_to_delete(losses, keep):
        _delete(run_folder / f"step_{iteration}")
    return final


def amend_state(folder: Path, state: TrainingState) -> None:
    """Writes the state of a checkpoint anew, after the evaluation that was pending."""
    _write_state(folder, state, recorded_files(folder))


def _write_state(folder: Path, state: TrainingState, files: dict[str, FileInfo]) -> None:
    sums = {name: file.to_json() for name, file in files.items()}
    tree = {"format": 1, **dataclasses.asdict(state), "files": sums}
    write_atomically(folder / STATE, (json.dumps(tree, indent=2, ensure_ascii=False) + "\n").encode())


def _delete(folder: Path) -> None:
    """Takes the name away first, so that a half-deleted folder is no `step_*`."""
    shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.superseded")))


def remove_leftovers(run_folder: Path) -> None:
    """Removes what a killed run has left half-written."""
    for folder in run_folder.glob(".step_*"):
        shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ reading


def load_checkpoint(folder: Path, model: Llama, optimizer: torch.optim.AdamW) -> None:
    """Copies an intact checkpoint's weights and moments into a model and its optimizer."""
    load_weights(model, folder)
    with safe_open(folder / OPTIMIZER, framework="pt") as stream:
        for name, tensor in optimizer_tensors(model, optimizer).items():
            _copy(stream.get_tensor(name), tensor)


@torch.no_grad()
def _copy(source: Tensor, target: Tensor) -> None:
    target.copy_(source)

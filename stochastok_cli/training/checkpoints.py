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
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stochastok_cli.artifacts import file_checksum, find_damage, rename_into_place, write_atomically
from stochastok_cli.errors import FAILED, UserError, did_you_mean
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama.state_dict import WEIGHTS, load_weights, save_model
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training.optimizers import optimizer_tensors
from stochastok_cli.training.schedules import checkpoints_to_delete

STATE = "training_state.json"
OPTIMIZER = "optimizer.safetensors"
_STEP = re.compile(r"step_(\d+)")


@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint says of the run besides its tensors."""

    iteration: int  # done
    evaluation_pending: bool  # an evaluation was due here and has not been made: a signal was in a hurry
    validation_loss: float | None  # measured on exactly these weights
    data: dict[str, Any]  # name and fingerprint of the dataset
    config: dict[str, Any]


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
    _write_state(folder, state, _files(folder))


def _write_state(folder: Path, state: TrainingState, files: dict[str, Any]) -> None:
    tree = {"format": 1, **dataclasses.asdict(state), "files": files}
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


def require_intact(folder: Path, *, to_go_on: bool, fix: str) -> None:
    """Raises UserError (exit code 1) if the bytes of a checkpoint of a run are not those that were written.

    Of AdamW's moments it wants to know only if the run is `to_go_on`: nobody else reads them, and who wants room may
    delete them. A folder without a training state is a model from elsewhere, of which nothing is known.
    """
    if (folder / STATE).is_file():
        try:
            files = _files(folder)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{folder / STATE} is damaged", fix=fix, exit_code=FAILED) from None
        if not to_go_on:
            files.pop(OPTIMIZER, None)
        for name, written in files.items():
            if not (folder / name).is_file() or not written.items() <= file_checksum(folder / name).items():
                raise UserError(
                    f"{folder / name} is damaged: its bytes are not those that were written", fix=fix, exit_code=FAILED
                )


@torch.no_grad()
def _copy(source: Tensor, target: Tensor) -> None:
    target.copy_(source)


def read_state(folder: Path) -> TrainingState:
    """The training state of a checkpoint. Raises ValueError, KeyError or TypeError for what can't be one."""
    tree = json.loads((folder / STATE).read_text(encoding="utf-8"))
    state = TrainingState(**{field.name: tree[field.name] for field in dataclasses.fields(TrainingState)})
    loss = state.validation_loss
    right = [
        tree.get("format") == 1,
        type(state.iteration) is int and state.iteration > 0,
        type(state.evaluation_pending) is bool,
        loss is None or isinstance(loss, int | float),
        isinstance(state.config, dict),
        isinstance(state.data, dict) and {"name", "fingerprint"} <= state.data.keys(),
    ]
    if not all(right):
        raise ValueError(f"{folder / STATE} is no training state")
    return state


def _files(folder: Path) -> dict[str, Any]:
    """The files of a checkpoint by name, with length and checksum; the first version wrote lengths alone."""
    files = json.loads((folder / STATE).read_text(encoding="utf-8"))["files"]
    return {name: entry if isinstance(entry, dict) else {"bytes": entry} for name, entry in files.items()}


def is_complete(folder: Path) -> bool:
    """Whether everything that a checkpoint of a run consists of is there in full length."""
    try:
        state, files = read_state(folder), _files(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    named = _STEP.fullmatch(folder.name)
    return (
        {WEIGHTS, OPTIMIZER} <= files.keys()
        and find_damage(folder, {"files": files}) is None
        and (named is None or int(named[1]) == state.iteration)
    )


def checkpoints(run_folder: Path) -> dict[int, Path]:
    """The complete checkpoints of a run by their iteration, in ascending order."""
    found = {int(m[1]): folder for folder in run_folder.glob("step_*") if (m := _STEP.fullmatch(folder.name))}
    return {iteration: found[iteration] for iteration in sorted(found) if is_complete(found[iteration])}


def incomplete_checkpoints(run_folder: Path) -> list[Path]:
    """What has a checkpoint's name and is none: torn by something else than this program, which renames last."""
    return sorted(f for f in run_folder.glob("step_*") if _STEP.fullmatch(f.name) and not is_complete(f))


def latest_checkpoint(run_folder: Path) -> Path | None:
    return next(reversed(checkpoints(run_folder).values()), None)


def iteration_of(checkpoint: Path) -> int | None:
    """How many iterations made a checkpoint; None for a model from elsewhere."""
    try:
        return int(json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["iteration"])
    except (OSError, ValueError, KeyError):
        return None


def run_of(checkpoint: Path) -> str:
    """The name of the run that a checkpoint belongs to; for a model from elsewhere its folder's name."""
    checkpoint = checkpoint.resolve()
    return checkpoint.parent.name if _STEP.fullmatch(checkpoint.name) else checkpoint.name


def resolve_checkpoint(name: str, checkpoint_dir: Path) -> Path:
    """The model folder that a user means: an existing path, else a name under `checkpoint_dir`.

    A run's folder means its latest complete checkpoint. Raises UserError if there is none.
    """
    folder = next((f for f in (Path(name), checkpoint_dir / name) if f.is_dir()), None)
    if folder is None:
        known = sorted(f.name for f in checkpoint_dir.glob("*") if f.is_dir() and not f.name.startswith("."))
        listed = f"there are {', '.join(known)}" if known else "there are none yet"
        raise UserError(
            f"no checkpoint {name!r}: neither a folder nor a run in {checkpoint_dir}{did_you_mean(name, known)}",
            fix=listed,
        )
    if _STEP.fullmatch(folder.name) or (folder / "config.json").is_file():
        return folder
    latest = latest_checkpoint(folder)
    if latest is None:
        raise UserError(f"{folder} holds no complete checkpoint", fix="name a folder with config.json, or a run")
    return latest

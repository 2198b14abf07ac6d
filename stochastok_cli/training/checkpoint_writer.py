"""Writing checkpoints. `models/checkpoint_reader.py` describes and reads them.

A folder is built under a temporary name, synced and renamed, and old ones are renamed before they are deleted, so that
`step_<N>` is complete or absent. Nothing is ever pickled.
"""

import dataclasses
import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from stochastok_cli.atomic_writes import rename_into_place, write_atomically
from stochastok_cli.errors import FAILED, Notice, UserError
from stochastok_cli.json_files import json_bytes
from stochastok_cli.manifest import FileInfo, file_checksum
from stochastok_cli.models.base import CausalLM, spec_of, unwrap
from stochastok_cli.models.checkpoint_reader import STATE, TrainingState, latest_checkpoint, recorded_files
from stochastok_cli.models.companion_files import write_companion_files
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training.background_writer import BackgroundWriter
from stochastok_cli.training.checkpoint_cleanup import delete_obsolete
from stochastok_cli.training.data_parallel import Parallel
from stochastok_cli.training.lost_ranks import finish_first


def save_checkpoint(
    run_folder: Path,
    state: TrainingState,
    parallel: Parallel,
    optimizer: torch.optim.Optimizer,
    vocabulary: Vocabulary,
    *,
    keep: int | None,
    dtype: torch.dtype = torch.float32,
    background: BackgroundWriter | None = None,
) -> Path:
    """Writes `step_<N>`, then deletes old checkpoints (see `checkpoints_to_delete`). All ranks must call it.

    Args:
        run_folder: The run's folder.
        state: What is recorded besides the tensors.
        parallel: Has the model.
        optimizer: The optimizer.
        vocabulary: The tokenizer that is saved with the model.
        keep: How many of the latest checkpoints to keep; None keeps all.
        dtype: The type of the weights in the model's file, where it is narrower than their own. The optimizer's file
            then has the weights as they are, too.
        background: Where rank 0 writes after this function has returned. Its write before must have been collected.

    Returns:
        The checkpoint's folder. With `background`, it is not there before the write has ended.

    Raises:
        UserError: It can't be written (exit code 1). Earlier checkpoints stay.
    """
    world, model = parallel.world, parallel.model
    final = run_folder / f"step_{state.iteration}"
    temporary = run_folder / f".{final.name}.partial"
    rounds = any(parameter.itemsize > dtype.itemsize for parameter in model.trained_parameters())
    names = _names_of_parameters(model) if rounds else []

    @contextmanager
    def explain_failure() -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            before = latest_checkpoint(run_folder)
            then = f"goes on from {before.name}" if before else "begins again, because there is no checkpoint before"
            raise UserError(
                f"{final} can't be written: {getattr(error, 'strerror', None) or error}",
                fix=f"make room and run the same command again: it {then}",
                exit_code=FAILED,
            ) from None

    def write() -> None:
        with explain_failure(), finish_first():
            write_optimizer_state()
            saved = _rounded(weights, names, dtype) if rounds else weights
            spec_of(model).save(model, temporary, vocabulary, saved)
            write_companion_files(unwrap(model).companion_files, temporary)
            files = sorted(file for file in temporary.rglob("*") if file.is_file())
            sums = {file.relative_to(temporary).as_posix(): file_checksum(file) for file in files}
            _write_state(temporary, state, sums)
            rename_into_place(temporary, final)
        try:
            delete_obsolete(run_folder, keep)
        except OSError as error:  # the new checkpoint is there, and the next one deletes them
            reason = f"{error.filename}: {error.strerror}" if error.filename else error
            warnings.warn(f"old checkpoints can't be deleted ({reason})", Notice, stacklevel=1)

    with explain_failure():
        weights = parallel.full_state_dict()
        if background is not None and world.is_main:
            weights = background.weights.copy(weights)
        world.broadcast_from_rank_0(temporary.mkdir)
        write_optimizer_state = parallel.optimizer_state_writer(
            optimizer,
            temporary,
            with_weights=rounds,
            copy=None if background is None else background.optimizer_state.copy,
        )
    if background is None:
        world.broadcast_from_rank_0(write)
    elif world.is_main:
        background.start(write)
    return final


def _names_of_parameters(model: CausalLM) -> list[list[str]]:
    """The names of each parameter: several where it is shared."""
    names: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[parameter].append(name)
    return list(names.values())


def _rounded(weights: Mapping[str, Tensor], names: list[list[str]], dtype: torch.dtype) -> dict[str, Tensor]:
    """A state dict on the CPU whose parameters have another type. Names of one parameter keep one tensor."""
    rounded = dict(weights)
    for aliases in names:
        present = [name for name in aliases if name in weights]
        if present:
            rounded |= dict.fromkeys(present, weights[present[0]].detach().to(dtype).cpu())
    return rounded


def amend_state(folder: Path, state: TrainingState) -> None:
    """Replaces the state of a checkpoint, after the evaluation that was pending."""
    _write_state(folder, state, recorded_files(folder))


def _write_state(folder: Path, state: TrainingState, files: dict[str, FileInfo]) -> None:
    sums = {name: file.to_json() for name, file in files.items()}
    tree = {"format": 1, **dataclasses.asdict(state), "files": sums}
    write_atomically(folder / STATE, json_bytes(tree))

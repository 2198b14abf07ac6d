"""Reading checkpoint folders: the checkpoints of a run, whether they are complete, and their training state.

    step_<N>/
      config.json, model.safetensors, tokenizer files   a model that `transformers` opens
      adapter_config.json, adapter_model.safetensors    instead of a model, an adapter of one (see `adapters.py`); with
                                                        a merged model, they are in adapter/
      optimizer.safetensors                             moments, and AdamW's step counts; in parts, the files of ranks
                                                        in optimizer/ (see `training/optimizer_state.py`)
      training_state.json                               iteration, data, configuration, checksums of the files

A checkpoint is complete if `training_state.json` is there and every file has the size that is recorded in it. Training
writes these folders (`training/checkpoint_writer.py`); evaluation reads them.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stochastok_cli.artifacts import find_damage
from stochastok_cli.errors import Notice, UserError, did_you_mean, short_name
from stochastok_cli.json_files import checked, read_json
from stochastok_cli.manifest import FileInfo
from stochastok_cli.models.weight_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, INDEX, WEIGHTS

STATE = "training_state.json"
OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_PARTS = "optimizer"
STEP = re.compile(r"step_(\d+)")
DEEPEST = 3  # folders below that of all runs in which runs are looked for by name
MOST_FOLDERS = 5_000
MOST_LISTED = 20  # runs in a message


@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint records of its run besides tensors.

    Attributes:
        iteration: How many iterations are done.
        evaluation_pending: Whether an evaluation was due here and was skipped, because a signal had requested a stop.
        validation_loss: The loss measured on exactly these weights, where it was.
        data: Name and fingerprint of the dataset.
        config: The run's configuration.
    """

    iteration: int
    evaluation_pending: bool
    validation_loss: float | None
    data: dict[str, Any]
    config: dict[str, Any]

    def __post_init__(self) -> None:
        if self.iteration < 1:
            raise ValueError("iteration must be at least 1")
        if not all(isinstance(self.data.get(name), str) for name in ("name", "fingerprint")):
            raise ValueError("data has no name or no fingerprint")


@dataclass(frozen=True)
class _StateFile:
    """What a training state's file has besides the fields of `TrainingState`."""

    format: Literal[1]
    files: dict[str, Any]


def read_state(folder: Path) -> TrainingState:
    """The training state of a checkpoint. Raises UserError (exit code 1) if the file is not valid."""
    return _read_state(folder)[0]


def recorded_files(folder: Path) -> dict[str, FileInfo]:
    """The files of a checkpoint by name, with length and checksum; the first version recorded lengths alone.

    Raises UserError (exit code 1) if the training state is not valid.
    """
    return _read_state(folder)[1]


def _read_state(folder: Path) -> tuple[TrainingState, dict[str, FileInfo]]:
    file = folder / STATE
    tree = read_json(file, dict[str, Any])
    checked(tree, _StateFile, file)
    files = {}
    for name, entry in tree["files"].items():
        entry = entry if isinstance(entry, dict) else {"bytes": entry}
        files[name] = FileInfo.from_json(entry, file, f"files.{short_name(name)}")
    return checked(tree, TrainingState, file), files


def recorded_weights(folder: Path) -> str | None:
    """The SHA-256 of the checksums of a checkpoint's files of weights, in the order of their names, as its training
    state has them. None for a model of another program, and for a checkpoint whose state has none or is damaged."""
    try:
        files = recorded_files(folder)
    except (OSError, UserError):
        return None
    sums = [
        files[name].sha256
        for name in sorted(files)
        if Path(name).suffix == ".safetensors" and not is_optimizer_file(name)
    ]
    return hashlib.sha256("".join(map(str, sums)).encode()).hexdigest() if sums and None not in sums else None


def is_optimizer_file(name: str) -> bool:
    """Whether a file of a checkpoint, by its path there, is of the optimizer's state."""
    return name == OPTIMIZER or name.startswith(f"{OPTIMIZER_PARTS}/")


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint has all of its files in full length."""
    return _state_if_complete(folder) is not None


def _state_if_complete(folder: Path) -> TrainingState | None:
    try:
        state, files = _read_state(folder)
        has_weights = not files.keys().isdisjoint({WEIGHTS, INDEX, ADAPTER_WEIGHTS})
        has_optimizer = any(map(is_optimizer_file, files))
        undamaged = has_weights and has_optimizer and find_damage(folder, files) is None
    except (OSError, UserError):
        return None
    step = STEP.fullmatch(folder.name)
    return state if undamaged and (step is None or int(step[1]) == state.iteration) else None


def checkpoints(run_folder: Path) -> dict[int, tuple[Path, TrainingState]]:
    """The complete checkpoints of a run and their states by their iteration, in ascending order."""
    folders = (run_folder / name for _, name in sorted(_step_names(run_folder)))
    with_states = ((folder, _state_if_complete(folder)) for folder in folders)
    return {state.iteration: (folder, state) for folder, state in with_states if state is not None}


def incomplete_checkpoints(run_folder: Path, after: int = 0) -> list[Path]:
    """Folders that are named as checkpoints and are not complete. Something else damaged them, since training renames
    a checkpoint only when it is complete.

    Args:
        run_folder: The folder of the run.
        after: Only those of later iterations; the latest complete checkpoint's gives those that it stands in for.
    """
    later = sorted((step, name) for step, name in _step_names(run_folder) if step > after)
    return [folder for _, name in later if not is_complete(folder := run_folder / name)]


def incomplete_note(folder: Path) -> str:
    """What users are told about an incomplete checkpoint."""
    return f"{folder} is incomplete and ignored"


def _step_names(run_folder: Path) -> list[tuple[int, str]]:
    """Iteration and name of whatever is named as a checkpoint in a run's folder."""
    try:
        names = os.listdir(run_folder)
    except OSError:  # no folder, or none that may be read
        return []
    return [(int(m[1]), name) for name in names if (m := STEP.fullmatch(name))]


def latest_checkpoint(run_folder: Path) -> Path | None:
    """The complete checkpoint of the highest iteration, if there is one."""
    return latest_progress(run_folder)[0]


def latest_progress(run_folder: Path) -> tuple[Path, TrainingState] | tuple[None, None]:
    """The complete checkpoint of the highest iteration and its training state, if there is one."""
    for _, name in sorted(_step_names(run_folder), reverse=True):
        folder = run_folder / name
        if (state := _state_if_complete(folder)) is not None:
            return folder, state
    return None, None


def iteration_of(checkpoint: Path) -> int | None:
    """How many iterations made a checkpoint; None for a model from another program."""
    try:
        return read_state(checkpoint).iteration
    except (OSError, UserError):
        return None


def run_of(checkpoint: Path) -> str:
    """The name of the run that a checkpoint belongs to; for a model from another program, its folder's name."""
    checkpoint = checkpoint.resolve()
    return checkpoint.parent.name if STEP.fullmatch(checkpoint.name) else checkpoint.name


def locate_checkpoint(name: str, checkpoint_dir: Path) -> Path | None:
    """The folder of a checkpoint on this machine, or None where `name` can only be a model on the Hub.

    The files of weights are not read: `intact_checkpoints.find_local_checkpoint` does that.

    Args:
        name: A path, a run under `checkpoint_dir`, or `OWNER/MODEL[@REVISION]`.
        checkpoint_dir: The folder of all runs.

    Raises:
        UserError: It is neither a checkpoint nor the id of a model.
    """
    try:
        return resolve_checkpoint(name, checkpoint_dir)
    except UserError:
        from stochastok_cli import hub  # imports numpy

        repo, _ = hub.parse_repo_id(name)
        owner = repo.partition("/")[0]
        # A name in the folder of runs, in a folder of it that holds some, or in a run is no model on the Hub.
        folders = (Path(name), checkpoint_dir / name, checkpoint_dir / owner)
        of_runs = os.path.abspath(owner) == os.path.abspath(checkpoint_dir) or is_run(Path(owner))
        if any(map(os.path.isdir, folders)) or of_runs or "/" not in repo or not hub.is_repo_id(repo):
            raise
        return None


def resolve_checkpoint(name: str, checkpoint_dir: Path) -> Path:
    """The model folder of an existing path, else of a name under `checkpoint_dir`.

    A run's folder resolves to its latest complete checkpoint, with a `Notice` for each later one that is incomplete.
    Raises UserError if there is none.
    """
    if not name:
        raise UserError("the name of the checkpoint is empty", fix="name a folder, or a run")
    folder = find_folder(name, checkpoint_dir)
    if folder is None:
        run = find_folder(str(Path(name).parent), checkpoint_dir) if "/" in name else None
        if run is not None and is_run(run):
            steps = [step.name for step, _ in checkpoints(run).values()]
            raise UserError(f"no checkpoint {name!r}", fix=f"{run} has {', '.join(steps[-MOST_LISTED:]) or 'none yet'}")
        models = (f.name for f in checkpoint_dir.glob("*") if _is_model(f) and not f.name.startswith("."))
        known = sorted({*run_names(checkpoint_dir), *models})
        more = f" and {len(known) - MOST_LISTED:,} more" if len(known) > MOST_LISTED else ""
        similar = did_you_mean(name, [*known, *(str(checkpoint_dir / run) for run in known)])
        fix = f"there are {', '.join(known[:MOST_LISTED])}{more}" if known else "there are none yet"
        if not similar and "/" not in name:
            fix += "; the name of a model on the Hub has two parts, as in openai-community/gpt2"
        raise UserError(f"no checkpoint {name!r}: neither a folder nor a run in {checkpoint_dir}{similar}", fix=fix)
    if _is_model(folder):
        return folder
    latest, state = latest_progress(folder)
    if latest is None or state is None:
        raise _without_checkpoint(folder)
    for incomplete in incomplete_checkpoints(folder, after=state.iteration):
        # All have one place in the code, so that a command which looks twice says it once.
        warnings.warn(incomplete_note(incomplete), Notice, stacklevel=1)
    return latest


def _without_checkpoint(folder: Path) -> UserError:
    """The error for a folder that is no model and has no complete checkpoint."""
    if incomplete := incomplete_checkpoints(folder):
        return UserError(
            f"{folder} holds no complete checkpoint: {incomplete[-1].name} is incomplete",
            fix="bring its files back, or name another run or checkpoint",
        )
    if (folder / "config.yaml").is_file():
        return UserError(
            f"the run {folder} has no checkpoint yet",
            fix="train it until it saves one (trainer.training.checkpoint_interval), or name another run or checkpoint",
        )
    return UserError(f"{folder} holds no complete checkpoint", fix="name a folder with config.json, or a run")


def run_names(folder: Path, depth: int = DEEPEST) -> Iterator[str]:
    """The runs below a folder by their paths there."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return
    for name in names[:MOST_FOLDERS]:
        run = folder / name
        if is_run(run):
            yield name
        elif depth > 1:
            yield from (f"{name}/{below}" for below in run_names(run, depth - 1))


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: it has a configuration or checkpoints."""
    return (folder / "config.yaml").is_file() or bool(_step_names(folder))


def find_folder(name: str, checkpoint_dir: Path) -> Path | None:
    """The folder of an existing path, else of a name under `checkpoint_dir`; None where there is neither.

    A path that holds no checkpoint gives way to a run of that name.
    """
    folders = [folder for folder in (Path(name), checkpoint_dir / name) if os.path.isdir(folder)]
    with_checkpoints = [folder for folder in folders if _is_model(folder) or _step_names(folder)]
    return next(iter(with_checkpoints + folders), None)


def _is_model(folder: Path) -> bool:
    """Whether a folder is one checkpoint or model, and not a run with several."""
    return bool(STEP.fullmatch(folder.name)) or any((folder / name).is_file() for name in (CONFIG, ADAPTER_CONFIG))

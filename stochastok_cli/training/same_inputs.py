"""Whether the dataset of a run, and the checkpoint that it started from, are still those that it was trained on.

This imports NumPy only for a dataset without a manifest, and never PyTorch. It reads no weights: the training state of
a checkpoint has their checksums.
"""

from pathlib import Path

from stochastok_cli.config import Config
from stochastok_cli.data.folders import find_dataset, holds_ids
from stochastok_cli.errors import UserError
from stochastok_cli.manifest import read_manifest
from stochastok_cli.models.checkpoint_reader import STEP, recorded_weights
from stochastok_cli.training.loggers.jsonl import RunStart, beginning, read_starts
from stochastok_cli.training.run_dir import SET_ASIDE, STARTS, RunProgress, require_same_data


def compare_inputs(folder: Path, config: Config, progress: RunProgress, parent: Path | None) -> list[str]:
    """Compares what a run was trained on with what is there now. What is not there any more is no error.

    Args:
        folder: The run's folder.
        config: Its configuration.
        progress: What the folder holds.
        parent: The checkpoint that `config` names; None where there is none on this machine.

    Returns:
        Notes for the user: on what can't be compared, and on a replaced parent of a run that goes on, which has weights
        of its own. (The data of such a run are compared when they are opened.)

    Raises:
        UserError: The run is complete, and the same command would train something else if it began now.
    """
    if progress.state is None:
        return []
    start = beginning(read_starts(folder / STARTS)[0])
    if not progress.is_complete(config):
        replaced = "" if parent is None or start is None else _replaced(parent, start)
        return [f"{replaced}; the run goes on from its own checkpoint"] if replaced else []
    notes = _compare_data(config, progress)
    if start is None or start.parent is None or start.parent_weights is None:
        return notes  # fresh weights, or a model whose checksums are not known
    if parent is None:
        return [*notes, f"{start.parent}, which {folder} started from, is not there any more"]
    if replaced := _replaced(parent, start):
        is_there = recorded_weights(_at_start(parent, start)) is not None
        others = "name the checkpoint that it started from (trainer.checkpoint_name), " if is_there else ""
        raise UserError(f"{folder} is complete, and {replaced}", fix=others + SET_ASIDE)
    if _has_started_from(parent, start):
        return notes
    return [*notes, f"{folder} started from {start.parent}, which can't be compared with {parent}"]


def _compare_data(config: Config, progress: RunProgress) -> list[str]:
    """Raises UserError if the dataset of a complete run is there with other content; a note where it is not there."""
    dataset = find_dataset(config.trainer.dataset.name, config.general.paths.data_dir)
    if not holds_ids(dataset):
        return [f"{dataset} is not there, so that it can't be compared with what {progress.checkpoint} was trained on"]
    manifest = read_manifest(dataset)
    if manifest is None:
        from stochastok_cli.data.memmap import MemmapDataset

        fingerprint = MemmapDataset(dataset).fingerprint
    else:
        fingerprint = manifest.fingerprint
    require_same_data(progress, {"name": dataset.name, "fingerprint": fingerprint})
    return []


def _has_started_from(parent: Path, start: RunStart) -> bool:
    """Whether a checkpoint, or that of the same run at which another one started, has the weights of that start."""
    return start.parent_weights in map(recorded_weights, {parent, _at_start(parent, start)})


def _at_start(parent: Path, start: RunStart) -> Path:
    """The checkpoint of the parent's run that has as many iterations as that which a run started from."""
    step = Path(start.parent or "").name
    return parent.with_name(step) if STEP.fullmatch(parent.name) and STEP.fullmatch(step) else parent


def _replaced(parent: Path, start: RunStart) -> str:
    """How the checkpoint that a run started from has been replaced, as a sentence; "" where it has not, or where that
    can't be told: a parent that has gone on may have removed it."""
    if start.parent_weights is None or _has_started_from(parent, start):
        return ""
    if recorded_weights(at_start := _at_start(parent, start)) is not None:
        return f"{at_start} has other weights now than those that it started from"
    begun = beginning(read_starts(parent.parent / STARTS)[0]) if STEP.fullmatch(parent.name) else None
    if begun is not None and begun.time > start.time:  # both in UTC, in one format
        return f"{parent.parent}, which it started from, has been trained anew since, and those weights are gone"
    return ""

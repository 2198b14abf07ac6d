"""Whether a configuration is that of a run: which keys may differ, and whether two names mean one parent.

The parent of a run is the checkpoint that it starts from.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stochastok_cli.config import Config, as_written, flatten
from stochastok_cli.data.folders import short_dataset_name
from stochastok_cli.errors import UserError
from stochastok_cli.models.checkpoint_reader import STEP, find_folder, latest_checkpoint, recorded_weights
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.training.loggers.jsonl import RunStart

# Keys that may change while a run goes on, because no weight depends on them. `eval_iters` and `trainer.eval` are among
# them by design: what is evaluated may change, and a run that goes on is never refused for it. `starts.jsonl` and
# `train.log` say what was changed, and from which iteration on.
_FREE_KEYS = (
    "trainer.training.eval_interval",
    "trainer.training.log_interval",
    "trainer.training.checkpoint_interval",
    "trainer.training.keep_checkpoints",
    "trainer.training.permanent_checkpoint_interval",
    "trainer.training.async_save",
    "trainer.training.eval_iters",
    "trainer.training.run_profiler",
    "trainer.training.checkpoint_dtype",
    "trainer.training.activation_checkpointing",
    "trainer.parallel",
    "trainer.lora.merge",
    "trainer.eval",
    "general.logging.",
    "general.paths.",
    "general.device",
    "general.kernels",
)
_EVAL_ITERS = "trainer.training.eval_iters"
_PARENT_KEYS = {"trainer.checkpoint_name", "model.checkpoint_name"}
_GROWING_KEY = "trainer.training.max_iters"
_METHOD_KEY, _DATASET_KEY = "trainer.dataset.expand_method", "trainer.dataset.name"


def require_same_config(folder: Path, before: Config, now: Config, start: RunStart | None) -> None:
    """Raises UserError if a configuration is not that of a run, in the keys that its weights depend on.

    Args:
        folder: The run's folder.
        before: The configuration that the run has.
        now: Another one.
        start: The start at which its weights began (see `jsonl.beginning`), where it is known.
    """
    differing = {
        key: (old, new)
        for key, (old, new) in sorted(differing_values(before.to_dict(), now.to_dict()).items())
        if not key.startswith(_FREE_KEYS) and not (key == _GROWING_KEY and new > old)
    }
    fix = "give another --run-name, or --force to set the old run aside"
    if not differing.keys().isdisjoint(_PARENT_KEYS):
        if is_same_parent(before, now, start):
            differing = {key: values for key, values in differing.items() if key not in _PARENT_KEYS}
        elif differing.keys() <= _PARENT_KEYS and before.checkpoint_name is not None:
            fix = f"name the checkpoint that it started from ({before.checkpoint_name}), {fix}"
    if differing:
        raise UserError(f"{folder} is a run of another configuration: {_listed(differing)}", fix=fix)


def _listed(differing: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} (there {as_written(old)}, now {as_written(new)})" for key, (old, new) in differing.items())


def note_on_changes(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """What users are told about the keys that may change in a run that goes on; "" where none has changed."""
    if not changed:
        return ""
    windows = f"; validation losses before and after {_EVAL_ITERS} was changed are over other windows"
    return f"changed from here on: {_listed(changed)}{windows if _EVAL_ITERS in changed else ''}"


def is_same_parent(before: Config, now: Config, start: RunStart | None) -> bool:
    """Whether two configurations of a run start from the same weights: by name, by path, or by their checksums.

    Args:
        before: The configuration that the run has.
        now: Another one.
        start: The start at which the run's weights began, with the checksum of those that it has started from, where it
            is known.
    """
    old, new = before.checkpoint_name, now.checkpoint_name
    if old == new:
        return True
    if old is None or new is None:
        return False
    folder = find_folder(new, Path(now.general.paths.checkpoint_dir))
    if folder is None:
        return False
    folder_before = find_folder(old, Path(before.general.paths.checkpoint_dir))
    if folder_before is not None and folder_before.resolve() == folder.resolve():
        return True
    recorded = None if start is None else start.parent_weights
    step = "" if start is None or start.parent is None else Path(start.parent).name
    if recorded is None and folder_before is not None:  # earlier versions did not record it
        recorded = next(filter(None, map(recorded_weights, _checkpoints(folder_before, step))), None)
    return recorded is not None and recorded in map(recorded_weights, _checkpoints(folder, step))


def _checkpoints(folder: Path, step: str) -> Iterator[Path]:
    """The checkpoints that a folder may stand for: that of one step, the latest one, or the folder itself."""
    if STEP.fullmatch(step) and (folder / step).is_dir():
        yield folder / step
    yield latest_checkpoint(folder) or folder


def require_same_decay(done: int, before: Config, now: Config) -> None:
    """Raises UserError if a run is made longer whose learning rate or p falls toward its former end already."""
    former_end = before.trainer.training.max_iters
    schedule = before.trainer.dataset.expand_schedule
    if schedule != "constant" and now.trainer.training.max_iters != former_end and done > 0:
        raise UserError(
            f"trainer.dataset.expand_schedule={schedule} lowers p toward iteration {former_end:,}, and {done:,} are "
            "done",
            fix=f"keep trainer.training.max_iters={former_end}, or start a new run from a checkpoint "
            "(trainer.checkpoint_name)",
        )
    if (
        before.trainer.optimizer.schedule == "wsd"
        and now.trainer.training.max_iters != former_end
        and done > former_end - before.trainer.optimizer.wsd_decay_iters
    ):
        raise UserError(
            f"the learning rate of this run decays toward iteration {former_end:,} since iteration "
            f"{former_end - before.trainer.optimizer.wsd_decay_iters:,}, and {done:,} are done",
            fix="start a new run from a checkpoint before the decay (trainer.checkpoint_name)",
        )


def differing_values(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which two configurations differ, in the order of the first, with both values.

    Two spellings of one expansion method do not differ, nor do a dataset's name and a path of it. What its bytes are is
    another question (see `run_dir.require_same_data`).
    """
    old, new = flatten(first), flatten(second)
    for values in (old, new):
        with suppress(UserError):  # a method that is no longer there differs by its name
            values[_METHOD_KEY] = require_method(values[_METHOD_KEY]).name
        values[_DATASET_KEY] = short_dataset_name(values[_DATASET_KEY])
    return {key: (old.get(key), new.get(key)) for key in {**old, **new} if old.get(key) != new.get(key)}

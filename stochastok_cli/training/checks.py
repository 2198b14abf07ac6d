"""Checks of a run that need no PyTorch: `train` makes them before it begins, `train --show-config` before it shows.

NumPy is imported only to open a dataset that is there.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stochastok_cli.config import Config, DatasetConfig
from stochastok_cli.data.folders import find_dataset, similar_dataset
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import Evaluator
from stochastok_cli.evaluation.registry import find_invalid_values, make_evaluator, options_of
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.training import run_dir
from stochastok_cli.training.run_dir import RunProgress


@dataclass(frozen=True)
class RunState:
    """What a command would find in the folder of its run.

    Attributes:
        action: What the command would do: begin, go on, nothing because the run is complete, or be refused.
        progress: The latest checkpoint there.
        reason: Why it would be refused.
    """

    action: Literal["begin", "continue", "complete", "refused"]
    progress: RunProgress
    reason: str = ""


def find_run_state(folder: Path, config: Config, *, force: bool = False) -> RunState:
    """What a command with a configuration would do in a folder, or with `force` in its place. Changes nothing.

    Raises UserError if a run can't have that folder.
    """
    try:
        progress = RunProgress() if force else run_dir.read_progress(folder, config)
    except UserError as error:
        if not folder.is_dir():
            raise
        return RunState("refused", RunProgress(), str(error))
    if progress.is_complete(config):
        return RunState("complete", progress)
    if run_dir.is_running(folder):
        return RunState("refused", progress, f"another process is training in {folder}")
    return RunState("begin" if progress.checkpoint is None else "continue", progress)


def check_inputs(config: Config, progress: RunProgress, parent: Path | None) -> list[str]:
    """The checks of what a run reads, as far as they need neither PyTorch nor the questions of benchmarks.

    Args:
        config: The configuration, with the model section of `parent` or the vocabulary size of the data.
        progress: What the run's folder holds.
        parent: The checkpoint that training starts from.

    Returns:
        A note on each folder that evaluators read and that is not there, no error: like the dataset itself it can be
        made after a configuration is looked at. Notes on the dataset, if it is there.

    Raises:
        UserError: The packages of loggers, the expansion, the evaluators, or a dataset that is there do not fit.
    """
    require_logger_packages(config)
    resolve_expand_prop(config.trainer.dataset)
    data_dir = Path(config.general.paths.data_dir)
    notes = [
        f"{path} does not exist{similar_dataset(path)}; the evaluator {evaluator.name} of trainer.eval reads it"
        for evaluator in checked_evaluators(config)
        for path in evaluator.absent_data(data_dir)
    ]
    folder = find_dataset(config.trainer.dataset.name, data_dir)
    if not folder.is_dir():
        return notes
    from stochastok_cli.training.data import open_data, require_same_vocabulary

    data = open_data(config)
    run_dir.require_same_data(progress, data.identity)
    if parent is not None:
        require_same_vocabulary(parent, data.vocabulary)
    return notes + data.notes


def resolve_expand_prop(dataset: DatasetConfig) -> float | None:
    """The p of the expansion: 0 for none, and None for a fixed rule, which has no p.

    Raises UserError for an unknown method, and for a p that it can't have.
    """
    try:
        method = require_method(dataset.expand_method)
    except UserError as error:
        raise UserError(f"trainer.dataset.expand_method = {dataset.expand_method!r}: {error}") from None
    p = None if not method.takes_p and dataset.expand_prop == 0 else dataset.expand_prop
    try:
        if p != 0:
            method.resolve_p(p)
    except UserError as error:
        raise expansion_error(dataset, error) from None
    return p


def expansion_error(dataset: DatasetConfig, error: UserError) -> UserError:
    """An error of the expansion with the keys that it comes from."""
    keys = f"trainer.dataset.expand_prop = {dataset.expand_prop}, expand_method = {dataset.expand_method!r}"
    return UserError(f"{keys}: {error}")


def checked_evaluators(config: Config) -> list[Evaluator]:
    """The evaluators of `trainer.eval`. Raises UserError for wrong options, and for unknown benchmarks."""
    if invalid := [f"{key} = {value!r} {must}" for key, value, must in find_invalid_values(config)]:
        raise UserError("\n  ".join(["the configuration is not valid:", *invalid]))
    evaluators = [make_evaluator(entry.evaluator, options_of(entry)) for entry in config.trainer.eval]
    for evaluator in evaluators:
        try:
            evaluator.absent_data(Path(config.general.paths.data_dir))
        except UserError as error:
            raise evaluators_error(error) from None
    return evaluators


def evaluators_error(error: UserError) -> UserError:
    """An error of an evaluator that names the override with which to train without it."""
    return UserError(str(error), fix="or train without it: trainer.eval=[]", exit_code=error.exit_code)


def require_logger_packages(config: Config) -> None:
    """Raises UserError if the package of a logger that is wanted is not installed."""
    logging = config.general.logging
    wanted: list[tuple[Any, str]] = [(logging.wandb_log, "wandb"), (logging.tensorboard_log, "tensorboard")]
    for enabled, package in wanted:
        if enabled and importlib.util.find_spec(package) is None:
            raise UserError(
                f"general.logging.{package}_log is true, and {package} is not installed",
                fix=f"pip install 'stochastok[{package}]', or set it to false",
            )

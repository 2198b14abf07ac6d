"""The checkpoint that training starts from, and the model section that it brings."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from stochastok_cli import hub
from stochastok_cli.config import Config, ModelConfig, flatten
from stochastok_cli.errors import UserError
from stochastok_cli.models import adapters
from stochastok_cli.models.base import (
    DEFAULT_MODEL_TYPE,
    WRAPPER_MODEL_TYPE,
    ArchitectureConfig,
    ModelSpec,
    model_specs,
    spec_for,
)
from stochastok_cli.models.checkpoint_reader import find_local_checkpoint, run_of
from stochastok_cli.training.effective_config import CONTEXT_WINDOW, is_overridden, take_vocab_size_of_data


class StartingPoint(NamedTuple):
    """The model that a configuration describes.

    Attributes:
        config: The configuration, with the model section of `parent`.
        spec: The model's architecture.
        hyperparameters: What the architecture builds the model from.
        parent: The checkpoint that training starts from; None for fresh weights.
        parent_name: Its run, or the last part of its name; None for fresh weights.
        notes: One for each value of the model section that `parent` has replaced.
    """

    config: Config
    spec: ModelSpec
    hyperparameters: ArchitectureConfig
    parent: Path | None
    parent_name: str | None
    notes: list[str]


def resolve_starting_point(config: Config, *, with_weights: bool = True) -> StartingPoint:
    """Finds the checkpoint that training starts from, if the configuration names one, and takes its model section.

    A model that is not on this machine is downloaded from the Hub. Where the architecture has no section in the
    configuration, the vocabulary size is taken, and the context window where the model's is shorter. An override may
    make the context window smaller than the checkpoint's, if no weight depends on it.

    Args:
        config: The configuration as it was loaded.
        with_weights: Whether a model on the Hub is downloaded whole, or its configuration alone.

    Raises:
        UserError: There is no such checkpoint, it is damaged or can't be trained, or a `model.*` override on the
            command line contradicts it.
    """
    if config.checkpoint_name is None:
        config, notes = take_vocab_size_of_data(config)
        return StartingPoint(config, model_specs()[DEFAULT_MODEL_TYPE], config.model, None, None, notes)
    folder = find_local_checkpoint(config.checkpoint_name, Path(config.general.paths.checkpoint_dir))
    if folder is None:
        repo, revision = hub.parse_repo_id(config.checkpoint_name)
        folder = hub.model_folder(repo, revision) if with_weights else hub.config_folder(repo, revision)
        parent_name = repo.rpartition("/")[2]
    else:
        parent_name = run_of(folder)
    spec = model_specs()[WRAPPER_MODEL_TYPE] if config.trainer.lora.rank else spec_for(folder)
    if config.trainer.lora.rank and adapters.is_adapter(folder):
        raise UserError(
            f"{folder} is an adapter itself, and trainer.lora needs a whole model",
            fix="save it merged (trainer.lora.merge=true), or train all weights (trainer.lora.rank=0)",
        )
    hyperparameters = spec.read_config(folder)
    longest = hyperparameters.context_window
    wanted = config.model.context_window if is_overridden(CONTEXT_WINDOW, config.overridden) else longest
    if spec.shorten is not None and wanted < longest:
        hyperparameters = spec.shorten(hyperparameters, wanted)
    if isinstance(hyperparameters, ModelConfig):
        model = dataclasses.replace(hyperparameters, checkpoint_name=config.model.checkpoint_name)
    else:
        context_window = min(config.model.context_window, hyperparameters.context_window)
        vocab_size = hyperparameters.vocab_size
        model = dataclasses.replace(config.model, context_window=context_window, vocab_size=vocab_size)
        _require_no_overrides(config, spec, folder, applicable={"context_window", "vocab_size", "checkpoint_name"})
    configured, actual = _flat_model(config.model), _flat_model(model)
    differing = [key for key in configured if configured[key] != actual[key]]
    overridden = [key for key in differing if is_overridden(key, config.overridden)]
    if overridden:
        raise UserError(
            f"the checkpoint {folder} has "
            + ", ".join(f"{key} = {actual[key]!r}, not {configured[key]!r}" for key in overridden),
            fix="it can be lowered, not raised: drop the override"
            if overridden == [CONTEXT_WINDOW] and spec.shorten is not None
            else "its weights fit no other model: drop the override",
        )
    notes = [
        f"{key} = {actual[key]!r} as in {folder}, not {configured[key]!r} as in the configuration"
        + (" (an override lowers it)" if key == CONTEXT_WINDOW and spec.shorten and configured[key] < longest else "")
        for key in differing
    ]
    return StartingPoint(dataclasses.replace(config, model=model), spec, hyperparameters, folder, parent_name, notes)


def _require_no_overrides(config: Config, spec: ModelSpec, folder: Path, applicable: set[str]) -> None:
    """Raises UserError if the command line sets a key of the model section that an architecture doesn't have."""
    for key in _flat_model(config.model):
        if key.removeprefix("model.") not in applicable and is_overridden(key, config.overridden):
            raise UserError(
                f"{key} does not apply to {folder}, whose model_type is {spec.name!r}", fix="drop the override"
            )


def _flat_model(model: ModelConfig) -> dict[str, Any]:
    return flatten(dataclasses.asdict(model), "model.")

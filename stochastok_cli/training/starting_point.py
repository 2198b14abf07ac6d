"""The checkpoint that training starts from, and the model section that it brings."""

from pathlib import Path
from typing import NamedTuple

from stochastok_cli import hub
from stochastok_cli.config import Config
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
from stochastok_cli.training.effective_config import take_model_section, take_vocab_size_of_data


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

    A model that is not on this machine is downloaded from the Hub.

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
    section = take_model_section(config, spec.read_config(folder), spec.shorten, spec.name, folder)
    return StartingPoint(section.config, spec, section.hyperparameters, folder, parent_name, section.notes)

"""The model that a run trains: its architecture and hyperparameters, and the model section that a checkpoint brings."""

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
from stochastok_cli.training.effective_config import take_model_section, take_vocab_size_of_data
from stochastok_cli.training.locate import LocatedRun


class StartingPoint(NamedTuple):
    """The model that a configuration describes.

    Attributes:
        config: The configuration, with the model section of `folder`.
        spec: The model's architecture.
        hyperparameters: What the architecture builds the model from.
        folder: The checkpoint that model section, companion files and weights come from: the run's own where it has
            one, or its parent; with `trainer.lora`, the base model. None for fresh weights.
        notes: One for each value of the model section that `folder` has replaced, and one on questions that fresh
            weights are trained on.
    """

    config: Config
    spec: ModelSpec
    hyperparameters: ArchitectureConfig
    folder: Path | None
    notes: list[str]


def resolve_starting_point(config: Config, located: LocatedRun, *, with_weights: bool = True) -> StartingPoint:
    """The model of a run that starts from the checkpoint which its configuration names, or goes on from its own.

    A model that is not on this machine is downloaded from the Hub.

    Args:
        config: The configuration as it was loaded.
        located: The run's checkpoint and its parent.
        with_weights: Whether a model on the Hub is downloaded whole, or its configuration alone.

    Raises:
        UserError: A checkpoint can't be read or trained, the base model of an adapter is not there, or a `model.*`
            override on the command line contradicts the checkpoint.
    """
    if config.checkpoint_name is None:
        config, notes = take_vocab_size_of_data(config)
        if config.trainer.dataset.is_instruction and located.checkpoint is None:
            notes = [*notes, "the model starts from new weights: trainer.checkpoint_name is not set"]
        return StartingPoint(config, model_specs()[DEFAULT_MODEL_TYPE], config.model, None, notes)
    has_adapters = config.trainer.lora.rank > 0
    folder = located.checkpoint or located.parent
    if located.checkpoint is not None and has_adapters:
        folder = adapters.find_base(adapters.find_adapter(located.checkpoint), with_weights=with_weights)
    if folder is None:
        repo, revision = hub.parse_repo_id(config.checkpoint_name)
        with hub.no_path(config.checkpoint_name, "checkpoint"):
            folder = hub.model_folder(repo, revision) if with_weights else hub.config_folder(repo, revision)
    spec = model_specs()[WRAPPER_MODEL_TYPE] if has_adapters else spec_for(folder)
    if has_adapters and adapters.is_adapter(folder):
        raise UserError(
            f"{folder} is an adapter itself, and trainer.lora needs a whole model",
            fix="save it merged (trainer.lora.merge=true), or train all weights (trainer.lora.rank=0)",
        )
    section = take_model_section(config, spec.read_config(folder), spec.shorten, spec.name, folder)
    return StartingPoint(section.config, spec, section.hyperparameters, folder, section.notes)

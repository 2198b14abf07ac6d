"""The configuration that a run uses, and where each value comes from.

Without a checkpoint to start from, and with one of a Llama on this machine, this imports neither torch nor numpy.
"""

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stochastok_cli.config import (
    MUON_KEYS,
    Config,
    DatasetConfig,
    ModelConfig,
    OptimizerConfig,
    Source,
    as_written,
    flatten,
    values_by_key,
)
from stochastok_cli.data.folders import find_dataset, similar_dataset
from stochastok_cli.errors import UserError
from stochastok_cli.manifest import read_manifest
from stochastok_cli.models import llama_config
from stochastok_cli.models.weight_files import ADAPTER_CONFIG
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.training.checks import RunState, check_inputs, find_run_state
from stochastok_cli.training.locate import LocatedRun, locate_run
from stochastok_cli.training.same_inputs import compare_inputs
from stochastok_cli.training.schedules import learning_rate

if TYPE_CHECKING:
    from stochastok_cli.models.base import ArchitectureConfig

CONTEXT_WINDOW, VOCAB_SIZE, CHECKPOINT_NAME = "model.context_window", "model.vocab_size", "model.checkpoint_name"
_OF_EVERY_MODEL = {CONTEXT_WINDOW, VOCAB_SIZE, CHECKPOINT_NAME}


class EffectiveConfig(NamedTuple):
    """The configuration that a run uses, which it writes to its `config.yaml`.

    Attributes:
        config: The configuration.
        sources: Where each value comes from, by the keys of `values_by_key`.
        unused: The keys of values that have no effect, because the checkpoint's architecture doesn't have them.
        run_folder: The folder of the run.
        state: What a command would do there: begin, go on, nothing, or be refused.
        notes: Messages for the user.
    """

    config: Config
    sources: dict[str, Source]
    unused: frozenset[str]
    run_folder: Path
    state: RunState
    notes: list[str]


def effective_config(
    config: Config, sources: Mapping[str, Source], run_name: str | None = None, *, force: bool = False
) -> EffectiveConfig:
    """The configuration that a run of `config` uses: with the model section of the checkpoint that it starts from, or
    with the size of the data's vocabulary. Changes nothing on disk, but a model's `config.json` on the Hub is kept in
    the cache.

    Args:
        config: From `load_config_and_sources`.
        sources: From there, too.
        run_name: As for `train`.
        force: As for `train`: what the run's folder holds is passed over.

    Raises:
        UserError: As `starting_point.resolve_starting_point`, `same_inputs.compare_inputs` and `checks.check_inputs`
            do.
    """
    notes = notes_on_ineffective_values(config)
    dataset = dataset_folder(config)
    new_sources, unused = dict(sources), frozenset[str]()
    located, model_folder = locate_run(config, run_name, force=force), None
    folder = located.folder
    if config.checkpoint_name is not None:
        section, model_folder = _section_of_checkpoint(config, located)
        resolved, unused = section.config, _take_sources(new_sources, config, section, model_folder)
    else:
        resolved, replaced = take_vocab_size_of_data(config)
        if replaced:
            new_sources[VOCAB_SIZE] = Source("dataset", str(dataset))
    state = find_run_state(folder, resolved, force=force)
    if force and folder.exists() and not state.reason:
        notes.append(f"the command would rename {folder} and begin anew")
    if state.reason:
        notes.append(f"the command would be refused: {state.reason}")
    if not dataset.is_dir():
        takes_size = config.checkpoint_name is None and not is_overridden(VOCAB_SIZE, config.overridden)
        then = f"; once it does, {VOCAB_SIZE} is the size of its tokenizer's vocabulary" if takes_size else ""
        notes.append(f"{dataset} does not exist{similar_dataset(dataset)}{then}")
    notes += compare_inputs(folder, resolved, state.progress, located.parent)
    if state.action != "complete":
        notes += check_inputs(resolved, state.progress, model_folder)
    return EffectiveConfig(resolved, new_sources, unused, folder, state, notes)


def _take_sources(
    sources: dict[str, Source], config: Config, section: "ModelSection", folder: Path | None
) -> frozenset[str]:
    """Notes in `sources` what comes from a checkpoint. Returns the keys that its architecture doesn't have."""
    checkpoint = Source("checkpoint", str(folder))
    before, after = values_by_key(config), values_by_key(section.config)
    keys = {key for key in after if key.startswith("model.")} - {CHECKPOINT_NAME}
    unused: set[str] = set()
    if isinstance(section.hyperparameters, ModelConfig):
        lowered = {CONTEXT_WINDOW} if is_overridden(CONTEXT_WINDOW, config.overridden) else set()
        taken = keys - lowered
    else:
        unused = keys - _OF_EVERY_MODEL
        taken = {VOCAB_SIZE, *(key for key in [CONTEXT_WINDOW] if before[key] != after[key])}
    sources |= dict.fromkeys(taken, checkpoint)
    return frozenset(unused)


def _section_of_checkpoint(config: Config, located: LocatedRun) -> "tuple[ModelSection, Path | None]":
    """The model section of the checkpoint that training starts from or goes on from, and its folder."""
    if (llama := _local_llama(config, located)) is not None:
        hyperparameters, folder = llama
        shorten, model_type = llama_config.shorten, llama_config.MODEL_TYPE
        return take_model_section(config, hyperparameters, shorten, model_type, folder), folder
    from stochastok_cli.training.starting_point import resolve_starting_point  # imports torch

    located.require_intact_parent()
    start = resolve_starting_point(config, located, with_weights=False)
    return ModelSection(start.config, start.hyperparameters, start.notes), start.folder


def _local_llama(config: Config, located: LocatedRun) -> tuple[ModelConfig, Path] | None:
    """The hyperparameters and the folder of the checkpoint, if it is a Llama on this machine which a run opens as one.

    Raises UserError if the parent of a new run is damaged.
    """
    folder = located.checkpoint or located.parent
    if folder is None or config.trainer.lora.rank or (folder / ADAPTER_CONFIG).is_file():
        return None
    try:
        hyperparameters = llama_config.read_model_config(folder)
    except UserError:  # another model
        return None
    located.require_intact_parent()
    return hyperparameters, folder


def dataset_folder(config: Config) -> Path:
    """The folder of the dataset that a run trains on."""
    return find_dataset(config.trainer.dataset.name, config.general.paths.data_dir)


class ModelSection(NamedTuple):
    """What `take_model_section` has taken.

    Attributes:
        config: The configuration with the model section of a checkpoint.
        hyperparameters: What the architecture builds the model from.
        notes: One for each value of the section that the checkpoint has replaced.
    """

    config: Config
    hyperparameters: Any
    notes: list[str]


def take_model_section(
    config: Config,
    hyperparameters: "ArchitectureConfig",
    shorten: "Callable[[Any, int], ArchitectureConfig] | None",
    model_type: str,
    folder: Path,
) -> ModelSection:
    """The configuration with the model section of the checkpoint that training starts from.

    Where the architecture has no section in the configuration, the vocabulary size is taken, and the context window
    where the model's is shorter. An override may make the context window smaller than the checkpoint's, if no weight
    depends on it.

    Args:
        config: The configuration as it was loaded.
        hyperparameters: Those of the checkpoint.
        shorten: See `ModelSpec`.
        model_type: The name of the architecture.
        folder: The checkpoint.

    Raises:
        UserError: A `model.*` override contradicts the checkpoint.
    """
    longest = hyperparameters.context_window
    wanted = config.model.context_window if is_overridden(CONTEXT_WINDOW, config.overridden) else longest
    if shorten is not None and wanted < longest:
        hyperparameters = shorten(hyperparameters, wanted)
    if isinstance(hyperparameters, ModelConfig):
        model = dataclasses.replace(hyperparameters, checkpoint_name=config.model.checkpoint_name)
    else:
        context_window = min(config.model.context_window, hyperparameters.context_window)
        vocab_size = hyperparameters.vocab_size
        model = dataclasses.replace(config.model, context_window=context_window, vocab_size=vocab_size)
        _require_no_overrides(config, model_type, folder)
    configured, actual = _flat_model(config.model), _flat_model(model)
    differing = [key for key in configured if configured[key] != actual[key]]
    overridden = [key for key in differing if is_overridden(key, config.overridden)]
    if overridden:
        raise UserError(
            f"the checkpoint {folder} has "
            + ", ".join(f"{key} = {as_written(actual[key])}, not {as_written(configured[key])}" for key in overridden),
            fix="it can be lowered, not raised: drop the override"
            if overridden == [CONTEXT_WINDOW] and shorten is not None
            else "its weights fit no other model: drop the override",
        )
    notes = [
        f"{key} = {as_written(actual[key])} as in {folder}, not {as_written(configured[key])} as in the configuration"
        + (" (an override lowers it)" if key == CONTEXT_WINDOW and shorten and configured[key] < longest else "")
        for key in differing
    ]
    return ModelSection(dataclasses.replace(config, model=model), hyperparameters, notes)


def _require_no_overrides(config: Config, model_type: str, folder: Path) -> None:
    """Raises UserError if the command line sets a key of the model section that an architecture doesn't have."""
    for key in _flat_model(config.model):
        if key not in _OF_EVERY_MODEL and is_overridden(key, config.overridden):
            raise UserError(
                f"{key} does not apply to {folder}, whose model_type is {model_type!r}", fix="drop the override"
            )


def _flat_model(model: ModelConfig) -> dict[str, Any]:
    return flatten(dataclasses.asdict(model), "model.")


def take_vocab_size_of_data(config: Config) -> tuple[Config, list[str]]:
    """The configuration with the size of the data's vocabulary, where a manifest records it, and a note if it differs.

    An override is left alone: `open_data` compares it with the data.
    """
    folder = dataset_folder(config)
    manifest = None if is_overridden(VOCAB_SIZE, config.overridden) else read_manifest(folder)
    if manifest is None or manifest.tokenizer is None or manifest.tokenizer.size == config.model.vocab_size:
        return config, []
    size, before = manifest.tokenizer.size, config.model.vocab_size
    note = f"{VOCAB_SIZE} = {size} as in {folder}, not {before} as in the configuration"
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size)), [note]


def is_overridden(key: str, overridden: frozenset[str]) -> bool:
    """Whether the command line sets a key, or a section that holds it."""
    return any(f"{key}.".startswith(f"{name}.") for name in overridden)


def notes_on_ineffective_values(config: Config) -> list[str]:
    """Notes on a key of the reference implementation that has no effect, on a warm-up that the run doesn't reach the
    end of, on options of Muon without Muon, and on a method of expansion that nothing is expanded by."""
    output_dir, training = config.general.paths.output_dir, config.trainer.training
    notes = [] if output_dir is None else [f"general.paths.output_dir ({output_dir}) has no effect: nothing goes there"]
    if training.warmup_iters >= training.max_iters and config.trainer.optimizer.lr > 0:
        reached = learning_rate(training.max_iters - 1, config.trainer.optimizer, training)
        notes.append(
            f"trainer.training.warmup_iters = {training.warmup_iters:,} is as long as the run or longer: the learning "
            f"rate rises to {reached:.3g} and never reaches {config.trainer.optimizer.lr:.3g}"
        )
    notes += _notes_on_muon(config.trainer.optimizer)
    dataset = config.trainer.dataset
    is_default = dataset.expand_method == DatasetConfig().expand_method
    with suppress(UserError):  # an unknown method is refused with the data
        if dataset.expand_prop == 0 and not is_default and require_method(dataset.expand_method).takes_p:
            notes.append(
                f"trainer.dataset.expand_method={dataset.expand_method} has no effect: trainer.dataset.expand_prop is "
                "0, so nothing is expanded"
            )
    return notes


def _notes_on_muon(optimizer: OptimizerConfig) -> list[str]:
    """A note on options of Muon that were changed, where AdamW trains all weights."""
    default = OptimizerConfig()
    changed = [name for name in MUON_KEYS if getattr(optimizer, name) != getattr(default, name)]
    if optimizer.name == "muon" or not changed:
        return []
    listed = ", ".join(f"trainer.optimizer.{name}" for name in changed)
    return [f"no effect without trainer.optimizer.name=muon: {listed}"]

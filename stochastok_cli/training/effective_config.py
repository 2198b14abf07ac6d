"""The configuration that a run uses, and where each value comes from.

Without a checkpoint to start from, this imports neither torch nor numpy.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from stochastok_cli.artifacts import read_manifest
from stochastok_cli.config import Config, DatasetConfig, ModelConfig, Source, values_by_key
from stochastok_cli.data.folders import memmap_dir
from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.training.schedules import learning_rate

CONTEXT_WINDOW, VOCAB_SIZE, CHECKPOINT_NAME = "model.context_window", "model.vocab_size", "model.checkpoint_name"


class EffectiveConfig(NamedTuple):
    """The configuration that a run uses, which it writes to its `config.yaml`.

    Attributes:
        config: The configuration.
        sources: Where each value comes from, by the keys of `values_by_key`.
        unused: The keys of values that have no effect, because the checkpoint's architecture doesn't have them.
        notes: Messages for the user.
    """

    config: Config
    sources: dict[str, Source]
    unused: frozenset[str]
    notes: list[str]


def effective_config(config: Config, sources: Mapping[str, Source]) -> EffectiveConfig:
    """The configuration that a run of `config` uses: with the model section of the checkpoint that it starts from, or
    with the size of the data's vocabulary. Changes nothing on disk, but a model's `config.json` on the Hub is kept in
    the cache.

    Args:
        config: From `load_config_and_sources`.
        sources: From there, too.

    Raises:
        UserError: As `starting_point.resolve_starting_point` does.
    """
    notes = notes_on_ineffective_values(config)
    if config.checkpoint_name is not None:
        return _with_checkpoint(config, dict(sources), notes)
    folder = dataset_folder(config)
    resolved, replaced = take_vocab_size_of_data(config)
    new_sources = dict(sources)
    if replaced:
        new_sources[VOCAB_SIZE] = Source("dataset", str(folder))
    elif not folder.is_dir() and not is_overridden(VOCAB_SIZE, config.overridden):
        notes.append(f"{folder} does not exist; once it does, {VOCAB_SIZE} is the size of its tokenizer's vocabulary")
    return EffectiveConfig(resolved, new_sources, frozenset(), notes)


def _with_checkpoint(config: Config, sources: dict[str, Source], notes: list[str]) -> EffectiveConfig:
    from stochastok_cli.training.starting_point import resolve_starting_point  # imports torch

    start = resolve_starting_point(config, with_weights=False)
    checkpoint = Source("checkpoint", str(start.parent))
    before, after = values_by_key(config), values_by_key(start.config)
    keys = {key for key in after if key.startswith("model.")} - {CHECKPOINT_NAME}
    unused: set[str] = set()
    if isinstance(start.hyperparameters, ModelConfig):
        lowered = {CONTEXT_WINDOW} if is_overridden(CONTEXT_WINDOW, config.overridden) else set()
        taken = keys - lowered
    else:
        unused = keys - {CONTEXT_WINDOW, VOCAB_SIZE}
        taken = {VOCAB_SIZE, *(key for key in [CONTEXT_WINDOW] if before[key] != after[key])}
    sources |= dict.fromkeys(taken, checkpoint)
    return EffectiveConfig(start.config, sources, frozenset(unused), notes)


def dataset_folder(config: Config) -> Path:
    """The folder of the dataset that a run trains on."""
    return memmap_dir(Path(config.general.paths.data_dir)) / config.trainer.dataset.name


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
    end of, and on a method of expansion that nothing is expanded by."""
    output_dir, training = config.general.paths.output_dir, config.trainer.training
    notes = [] if output_dir is None else [f"general.paths.output_dir ({output_dir}) has no effect: nothing goes there"]
    if training.warmup_iters >= training.max_iters:
        reached = learning_rate(training.max_iters - 1, config.trainer.optimizer, training)
        notes.append(
            f"trainer.training.warmup_iters = {training.warmup_iters:,} is as long as the run or longer: the learning "
            f"rate rises to {reached:.3g} and never reaches {config.trainer.optimizer.lr:.3g}"
        )
    dataset = config.trainer.dataset
    is_default = dataset.expand_method == DatasetConfig().expand_method
    with suppress(UserError):  # an unknown method is refused with the data
        if dataset.expand_prop == 0 and not is_default and require_method(dataset.expand_method).takes_p:
            notes.append(
                f"trainer.dataset.expand_method={dataset.expand_method} has no effect: trainer.dataset.expand_prop is "
                "0, so nothing is expanded"
            )
    return notes

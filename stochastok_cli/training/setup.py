"""What a run needs, checked before anything is written: configuration, starting point, data, benchmarks, model."""

import dataclasses
import importlib.util
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from stochastok_cli import hub
from stochastok_cli.artifacts import read_manifest, validate_folder_name
from stochastok_cli.config import Config, DatasetConfig, ModelConfig, flatten
from stochastok_cli.data.memmap import memmap_dir
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import LoadedEvaluator
from stochastok_cli.evaluation.registry import find_invalid_values
from stochastok_cli.evaluation.run import load_evaluators
from stochastok_cli.models import adapters
from stochastok_cli.models.base import (
    DEFAULT_MODEL_TYPE,
    WRAPPER_MODEL_TYPE,
    ArchitectureConfig,
    CausalLM,
    ModelSpec,
    model_specs,
    spec_for,
    spec_of,
)
from stochastok_cli.models.checkpoint_reader import find_local_checkpoint, require_intact, run_of
from stochastok_cli.models.companion_files import read_companion_files
from stochastok_cli.models.huggingface import HuggingFaceModel
from stochastok_cli.random_streams import derive_key
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training import run_dir
from stochastok_cli.training.backends import uses_fused
from stochastok_cli.training.data import Data, open_data
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.run_dir import RunProgress
from stochastok_cli.training.schedules import learning_rate


@dataclass(frozen=True)
class Run:
    """A run whose configuration is resolved.

    Attributes:
        config: As it is run: with the model section of the checkpoint that training starts from.
        spec: The model's architecture.
        hyperparameters: What the architecture builds the model from.
        parent: The checkpoint that training starts from; None for fresh weights.
        fused: Whether the fused kernels are used.
        folder: The run's folder.
        progress: What the folder holds already.
        world: The ranks.
        notes: Messages for the user.
    """

    config: Config
    spec: ModelSpec
    hyperparameters: ArchitectureConfig
    parent: Path | None
    fused: bool
    folder: Path
    progress: RunProgress
    world: DistributedContext
    notes: list[str]


@dataclass(frozen=True)
class RunInputs:
    """Everything that is loaded for a run."""

    data: Data
    evaluators: list[LoadedEvaluator]
    model: CausalLM


def resolve_run(config: Config, world: DistributedContext, run_name: str | None, *, force: bool) -> Run:
    """Finds the checkpoint to start from, the run's folder and its progress. Changes nothing on disk.

    Args:
        config: The configuration as it was loaded.
        world: The ranks.
        run_name: The folder's name; None for the default one.
        force: Ignore what the folder holds.

    Raises:
        UserError: The number of ranks, the device or the installed packages don't fit the configuration, the folder
            holds something else, or a checkpoint is missing or damaged.
    """
    notes = _notes_on_ineffective_values(config)
    start = resolve_starting_point(config)
    config = start.config
    _require_divisible(config, world)
    fused = uses_fused(start.spec, start.hyperparameters, config, world.device)
    _require_logger_packages(config)
    if config.trainer.lora.rank:
        adapters.require_peft("trainer.lora.rank")
    name = validate_folder_name(run_dir.default_run_name(config, start.parent_name) if run_name is None else run_name)
    folder = Path(config.general.paths.checkpoint_dir) / name

    def read_progress() -> RunProgress:
        progress = run_dir.read_progress(folder, config)
        if progress.checkpoint and not progress.is_complete(config):
            fix = "remove it and run the same command again: the one before it is taken"
            require_intact(progress.checkpoint, with_optimizer=True, fix=fix)
        return progress

    progress = RunProgress() if force else world.broadcast_from_rank_0(read_progress)
    parent = start.parent
    if config.trainer.lora.rank and progress.checkpoint is not None:  # the run that it names may have gone on
        adapter = adapters.find_adapter(progress.checkpoint)
        parent = world.broadcast_from_rank_0(lambda: adapters.find_base(adapter))
    return Run(
        config=config,
        spec=start.spec,
        hyperparameters=start.hyperparameters,
        parent=parent,
        fused=fused,
        folder=folder,
        progress=progress,
        world=world,
        notes=notes + start.notes,
    )


def load_inputs(run: Run) -> RunInputs:
    """Opens data and benchmarks, checks them against each other and the run, and builds the model."""
    data = open_data(run.config)
    run_dir.require_same_data(run.progress, data.identity)
    if run.parent is not None:
        _require_same_vocabulary(run.parent, data.vocabulary)
    return RunInputs(data, load_evaluators_of(run.config, data.vocabulary), _build_model(run))


def _build_model(run: Run) -> CausalLM:
    """The model with the weights of the seed, or on rank 0 with those of the checkpoint that training starts from."""
    parent = run.parent
    if parent is not None:
        run.world.broadcast_from_rank_0(lambda: run.spec.check_weights(run.hyperparameters, parent))
    torch.manual_seed(derive_key(run.config.general.seed, "weights"))
    model = run.spec.build(run.hyperparameters, run.config.trainer.dropout_scheduler.dropout)
    dtype = getattr(torch, run.config.trainer.training.weight_dtype)
    for parameter in model.parameters():  # buffers, such as the tables of rotary embeddings, stay float32
        parameter.data = parameter.data.to(dtype)
    model.to(run.world.device)
    if parent is not None:
        load_weights_from(parent, model, run.world)
        model.companion_files = run.world.broadcast_from_rank_0(lambda: read_companion_files(parent))
    if run.config.trainer.lora.rank:
        _add_lora(run, model)
    if reason := model.training_unsupported():
        raise UserError(f"{parent} can't be trained, because {reason}", fix="start from another model")
    if run.config.trainer.dataset.is_instruction and (reason := model.packing_unsupported()):
        raise UserError(
            f"{parent} can't be trained on questions with answers, because {reason}", fix="start from another model"
        )
    return model


def _add_lora(run: Run, model: CausalLM) -> None:
    """Adds the adapters of `trainer.lora` to a model that has the weights of the run's parent."""
    assert run.parent is not None and isinstance(model, HuggingFaceModel)
    checksum = adapters.weights_checksum(run.parent) if run.world.is_main else None
    torch.manual_seed(derive_key(run.config.general.seed, "adapters"))
    model.add_lora(run.config.trainer.lora, run.parent, checksum)


def load_weights_from(checkpoint: Path, model: CausalLM, world: DistributedContext) -> None:
    """Reads the weights of a checkpoint on rank 0 alone; `Parallel.prepare` gives them to the other ranks."""
    world.broadcast_from_rank_0(lambda: spec_of(model).load_weights(model, checkpoint))


_WINDOW, _VOCAB_SIZE = "model.context_window", "model.vocab_size"


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


def resolve_starting_point(config: Config) -> StartingPoint:
    """Finds the checkpoint that training starts from, if the configuration names one, and takes its model section.

    A model that is not on this machine is downloaded from the Hub. Where the architecture has no section in the
    configuration, the vocabulary size is taken, and the context window where the model's is shorter. An override may
    make the context window smaller than the checkpoint's, if no weight depends on it.

    Raises:
        UserError: There is no such checkpoint, it is damaged or can't be trained, or a `model.*` override on the
            command line contradicts it.
    """
    if config.checkpoint_name is None:
        config, notes = _take_vocab_size_of_data(config)
        return StartingPoint(config, model_specs()[DEFAULT_MODEL_TYPE], config.model, None, None, notes)
    folder = find_local_checkpoint(config.checkpoint_name, Path(config.general.paths.checkpoint_dir))
    if folder is None:
        repo, revision = hub.parse_repo_id(config.checkpoint_name)
        folder, parent_name = hub.model_folder(repo, revision), repo.rpartition("/")[2]
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
    wanted = config.model.context_window if _is_overridden(_WINDOW, config.overridden) else longest
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
    overridden = [key for key in differing if _is_overridden(key, config.overridden)]
    if overridden:
        raise UserError(
            f"the checkpoint {folder} has "
            + ", ".join(f"{key} = {actual[key]!r}, not {configured[key]!r}" for key in overridden),
            fix="it can be lowered, not raised: drop the override"
            if overridden == [_WINDOW] and spec.shorten is not None
            else "its weights fit no other model: drop the override",
        )
    notes = [
        f"{key} = {actual[key]!r} as in {folder}, not {configured[key]!r} as in the configuration"
        + (" (an override lowers it)" if key == _WINDOW and spec.shorten and configured[key] < longest else "")
        for key in differing
    ]
    return StartingPoint(dataclasses.replace(config, model=model), spec, hyperparameters, folder, parent_name, notes)


def _take_vocab_size_of_data(config: Config) -> tuple[Config, list[str]]:
    """The configuration with the size of the data's vocabulary, where a manifest records it, and a note if it differs.

    An override is left alone: `open_data` compares it with the data.
    """
    folder = memmap_dir(Path(config.general.paths.data_dir)) / config.trainer.dataset.name
    manifest = None if _is_overridden(_VOCAB_SIZE, config.overridden) else read_manifest(folder)
    if manifest is None or manifest.tokenizer is None or manifest.tokenizer.size == config.model.vocab_size:
        return config, []
    size, before = manifest.tokenizer.size, config.model.vocab_size
    note = f"{_VOCAB_SIZE} = {size} as in {folder}, not {before} as in the configuration"
    return dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=size)), [note]


def _require_no_overrides(config: Config, spec: ModelSpec, folder: Path, applicable: set[str]) -> None:
    """Raises UserError if the command line sets a key of the model section that an architecture doesn't have."""
    for key in _flat_model(config.model):
        if key.removeprefix("model.") not in applicable and _is_overridden(key, config.overridden):
            raise UserError(
                f"{key} does not apply to {folder}, whose model_type is {spec.name!r}", fix="drop the override"
            )


def _flat_model(model: ModelConfig) -> dict[str, Any]:
    return flatten(dataclasses.asdict(model), "model.")


def _is_overridden(key: str, overridden: frozenset[str]) -> bool:
    return any(f"{key}.".startswith(f"{name}.") for name in overridden)


def load_evaluators_of(config: Config, vocabulary: Vocabulary) -> list[LoadedEvaluator]:
    """Loads the benchmarks of `trainer.eval`. An error names the override with which to train without them."""
    if invalid := [f"{key} = {value!r} {must}" for key, value, must in find_invalid_values(config)]:
        raise UserError("\n  ".join(["the configuration is not valid:", *invalid]))
    data_dir = Path(config.general.paths.data_dir)
    try:
        return load_evaluators(config.trainer.eval, data_dir, vocabulary, config.model.context_window)
    except UserError as error:
        raise UserError(str(error), fix="or train without it: trainer.eval=[]", exit_code=error.exit_code) from None


def _require_same_vocabulary(checkpoint: Path, vocabulary: Vocabulary) -> None:
    """Raises UserError if a checkpoint has a tokenizer, and it is not that of the data."""
    if (checkpoint / "tokenizer.json").is_file() and load_vocabulary(checkpoint).fingerprint != vocabulary.fingerprint:
        raise UserError(
            f"the data was made with the tokenizer {vocabulary.name!r}, which is not that of {checkpoint}",
            fix=f"make the data with --tokenizer {checkpoint}",
        )


def _require_divisible(config: Config, world: DistributedContext) -> None:
    steps = config.trainer.training.gradient_accumulation_steps
    if steps % world.world_size:
        raise UserError(
            f"trainer.training.gradient_accumulation_steps = {steps} can't be divided over "
            f"{world.world_size} processes",
            fix="set it to a multiple of their number, or give fewer GPUs (CUDA_VISIBLE_DEVICES)",
        )


def _require_logger_packages(config: Config) -> None:
    logging = config.general.logging
    for enabled, package in [(logging.wandb_log, "wandb"), (logging.tensorboard_log, "tensorboard")]:
        if enabled and importlib.util.find_spec(package) is None:
            raise UserError(
                f"general.logging.{package}_log is true, and {package} is not installed",
                fix=f"pip install 'stochastok[{package}]', or set it to false",
            )


def _notes_on_ineffective_values(config: Config) -> list[str]:
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

"""What a run needs, checked before anything is written: configuration, starting point, data, benchmarks, model."""

from dataclasses import dataclass
from pathlib import Path

import torch

from stochastok_cli.config import Config
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import LoadedEvaluator
from stochastok_cli.evaluation.run import load_evaluators
from stochastok_cli.models import adapters
from stochastok_cli.models.base import (
    ArchitectureConfig,
    CausalLM,
    ModelSpec,
    convert_parameters,
    model_specs,
    spec_of,
)
from stochastok_cli.models.companion_files import read_companion_files
from stochastok_cli.models.huggingface import HuggingFaceModel
from stochastok_cli.models.intact_checkpoints import require_intact
from stochastok_cli.random_streams import derive_key
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training import run_dir
from stochastok_cli.training.backends import uses_fused
from stochastok_cli.training.checks import checked_evaluators, evaluators_error, require_logger_packages
from stochastok_cli.training.data import Data, open_data, require_same_vocabulary
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.effective_config import notes_on_ineffective_values
from stochastok_cli.training.locate import LocatedRun, locate_run
from stochastok_cli.training.optimizers import muon_weights
from stochastok_cli.training.run_dir import RunProgress
from stochastok_cli.training.same_inputs import compare_inputs
from stochastok_cli.training.starting_point import StartingPoint, resolve_starting_point


@dataclass(frozen=True)
class Run:
    """A run whose configuration is resolved.

    Attributes:
        config: As it is run: with the model section of the checkpoint that training starts from.
        spec: The model's architecture.
        hyperparameters: What the architecture builds the model from.
        model_folder: The checkpoint that the model's section and companion files come from: the run's own where it has
            one, or its parent; with `trainer.lora`, the base model. None where the configuration names no parent.
        fused: Whether the fused kernels are used.
        folder: The run's folder.
        progress: What the folder holds already.
        world: The ranks.
        notes: Messages for the user.
        input_notes: Those on the dataset and the parent of a run that has a checkpoint (see `same_inputs`).
    """

    config: Config
    spec: ModelSpec
    hyperparameters: ArchitectureConfig
    model_folder: Path | None
    fused: bool
    folder: Path
    progress: RunProgress
    world: DistributedContext
    notes: list[str]
    input_notes: list[str]


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
            holds something else, a checkpoint is missing or damaged, or the run is complete and what it was trained on
            has been replaced.
    """
    notes = notes_on_ineffective_values(config)
    located = world.broadcast_from_rank_0(lambda: locate_run(config, run_name, force=force))
    world.broadcast_from_rank_0(located.require_intact_parent)
    folder = located.folder
    start = _starting_point(config, located, world)
    config = start.config
    _require_divisible(config, world)
    fused = uses_fused(start.spec, start.hyperparameters, config, world.device)
    require_logger_packages(config)
    if config.trainer.lora.rank:
        adapters.require_peft("trainer.lora.rank")

    def read_progress() -> tuple[RunProgress, list[str]]:
        progress = RunProgress() if force else run_dir.read_progress(folder, config)
        if progress.checkpoint:  # a complete run needs its optimizer's state no more
            require_intact(progress.checkpoint, with_optimizer=not progress.is_complete(config))
        return progress, compare_inputs(folder, config, progress, located.parent)

    progress, input_notes = world.broadcast_from_rank_0(read_progress)
    return Run(
        config=config,
        spec=start.spec,
        hyperparameters=start.hyperparameters,
        model_folder=start.folder,
        fused=fused,
        folder=folder,
        progress=progress,
        world=world,
        notes=notes + start.notes,
        input_notes=input_notes,
    )


def _starting_point(config: Config, located: LocatedRun, world: DistributedContext) -> StartingPoint:
    """The model of the run. Rank 0 alone reads the run's own checkpoint, which other nodes may not see."""
    if located.checkpoint is None:
        return resolve_starting_point(config, located)

    def of_rank_0() -> tuple[str, Config, ArchitectureConfig, Path | None, list[str]]:
        start = resolve_starting_point(config, located)
        return start.spec.name, start.config, start.hyperparameters, start.folder, start.notes

    name, resolved, hyperparameters, folder, notes = world.broadcast_from_rank_0(of_rank_0)
    return StartingPoint(resolved, model_specs()[name], hyperparameters, folder, notes)


def load_inputs(run: Run) -> RunInputs:
    """Opens data and benchmarks, checks them against each other and the run, and builds the model."""
    data = open_data(run.config)
    run_dir.require_same_data(run.progress, data.identity)
    if (folder := run.model_folder) is not None:
        run.world.broadcast_from_rank_0(lambda: require_same_vocabulary(folder, data.vocabulary))
    return RunInputs(data, load_evaluators_of(run.config, data.vocabulary), _build_model(run))


def _build_model(run: Run) -> CausalLM:
    """The model with the weights of the seed, or on rank 0 with those of the checkpoint that training starts from.

    A run that goes on loads its own weights later, when its folder is locked; the base model of its adapters is loaded
    here.
    """
    folder = run.model_folder
    if folder is not None:
        run.world.broadcast_from_rank_0(lambda: run.spec.check_weights(run.hyperparameters, folder))
    torch.manual_seed(derive_key(run.config.general.seed, "weights"))
    model = run.spec.build(run.hyperparameters, run.config.trainer.dropout_scheduler.dropout)
    convert_parameters(model, getattr(torch, run.config.trainer.training.weight_dtype))
    model.to(run.world.device)
    if folder is not None:
        if folder != run.progress.checkpoint:
            load_weights_from(folder, model, run.world)
        kept = run.progress.checkpoint or folder
        model.companion_files = run.world.broadcast_from_rank_0(lambda: read_companion_files(kept))
    if run.config.trainer.lora.rank:
        _add_lora(run, model)
    if run.config.trainer.optimizer.name == "muon" and not muon_weights(model):
        raise UserError(
            f"{folder or 'the model'} has no layers with matrices for Muon", fix="set trainer.optimizer.name=adamw"
        )
    if reason := model.training_unsupported():
        raise UserError(f"{folder} can't be trained, because {reason}", fix="start from another model")
    if run.config.trainer.dataset.is_instruction and (reason := model.packing_unsupported()):
        raise UserError(
            f"{folder} can't be trained on questions with answers, because {reason}", fix="start from another model"
        )
    return model


def _add_lora(run: Run, model: CausalLM) -> None:
    """Adds the adapters of `trainer.lora` to a model that has the weights of the base model."""
    base = run.model_folder
    assert base is not None and isinstance(model, HuggingFaceModel)
    checksum = adapters.weights_checksum(base) if run.world.is_main else None
    torch.manual_seed(derive_key(run.config.general.seed, "adapters"))
    model.add_lora(run.config.trainer.lora, base, checksum)


def load_weights_from(checkpoint: Path, model: CausalLM, world: DistributedContext) -> None:
    """Reads the weights of a checkpoint on rank 0 alone; `Parallel.prepare` gives them to the other ranks."""
    world.broadcast_from_rank_0(lambda: spec_of(model).load_weights(model, checkpoint))


def load_evaluators_of(config: Config, vocabulary: Vocabulary) -> list[LoadedEvaluator]:
    """Loads the benchmarks of `trainer.eval`. An error names the override with which to train without them."""
    evaluators, data_dir = checked_evaluators(config), Path(config.general.paths.data_dir)
    try:
        return load_evaluators(evaluators, data_dir, vocabulary, config.model.context_window)
    except UserError as error:
        raise evaluators_error(error) from None


def _require_divisible(config: Config, world: DistributedContext) -> None:
    steps = config.trainer.training.gradient_accumulation_steps
    if steps % world.world_size:
        raise UserError(
            f"trainer.training.gradient_accumulation_steps = {steps} can't be divided over "
            f"{world.world_size} processes",
            fix="set it to a multiple of their number, or give fewer GPUs (CUDA_VISIBLE_DEVICES)",
        )

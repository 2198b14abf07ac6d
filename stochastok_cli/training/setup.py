"""Everything that a run needs, opened and checked before anything is written."""

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stochastok_cli.artifacts import validate_folder_name
from stochastok_cli.config import Config, ModelConfig, flatten
from stochastok_cli.data.memmap import Corpus, MemmapDataset, memmap_dir
from stochastok_cli.data.packed_sampler import PackedSampler
from stochastok_cli.data.samplers import Sampler, WindowSampler
from stochastok_cli.data.sft_dataset import SHAPES, SFTDataset
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation import Evaluator, load_evaluators
from stochastok_cli.models.checkpoint_folders import require_intact, resolve_checkpoint
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama.state_dict import load_weights, read_model_config
from stochastok_cli.random_streams import derive_key
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary, load_vocabulary
from stochastok_cli.training import run_dir
from stochastok_cli.training.backends import takes_fused
from stochastok_cli.training.distributed import DistributedContext


@dataclass(frozen=True)
class Data:
    """What is trained and validated on."""

    train: Sampler
    val: Sampler
    vocabulary: Vocabulary
    identity: dict[str, Any]  # name and fingerprint of the dataset


def resolve_config(config: Config, world: DistributedContext) -> tuple[Config, Path | None, list[str]]:
    """The configuration as it will be run, the folder of the checkpoint to start from, and notes for the user.

    Raises UserError if the ranks can't divide the work, if the device can't run the kernels that are asked for, or if
    something is not installed.
    """
    notes = unused_keys(config)
    config, parent, differing = starting_point(config)
    require_divisible(config, world)
    takes_fused(config, world.device)
    require_logger(config)
    return config, parent, notes + differing


def find_run(
    config: Config, parent: Path | None, world: DistributedContext, name: str | None, *, force: bool
) -> tuple[Path, run_dir.RunProgress]:
    """The run's folder, and how far it has come: with `force` nowhere, whatever it holds.

    Raises UserError for a folder that can't be the run's, and for a damaged checkpoint to go on from.
    """
    folder = Path(config.general.paths.checkpoint_dir) / validate_folder_name(
        run_dir.run_name(config, parent) if name is None else name
    )

    def look() -> run_dir.RunProgress:
        found = run_dir.inspect(folder, config)
        if found.checkpoint and not found.is_complete(config):
            fix = "remove it and run the same command again: the one before it is taken"
            require_intact(found.checkpoint, with_optimizer=True, fix=fix)
        return found

    return folder, run_dir.RunProgress() if force else world.lead(look)


def open_everything(config: Config, parent: Path | None, found: run_dir.RunProgress) -> tuple[Data, list[Evaluator]]:
    """Data and benchmarks, checked against each other, the run and the checkpoint to start from."""
    data = open_data(config)
    run_dir.require_same_data(found, data.identity)
    if parent is not None:
        require_same_vocabulary(parent, data.vocabulary)
    return data, load_all_evaluators(config, data.vocabulary)


def make_model(config: Config, parent: Path | None, world: DistributedContext) -> Llama:
    """The model of the seed, or with the weights of the checkpoint to start from, which rank 0 reads for all."""
    torch.manual_seed(derive_key(config.general.seed, "weights"))
    model = Llama(config.model, config.trainer.dropout_scheduler.dropout).to(world.device)
    if parent is not None:
        world.lead(lambda: load_weights(model, parent))
        world.broadcast_(model.parameters())
    return model


def starting_point(config: Config) -> tuple[Config, Path | None, list[str]]:
    """The configuration with the model section of the checkpoint that training starts from, if it names one.

    Returns it with that checkpoint's folder and notes on what differed. Raises UserError if a `model.*` override on
    the command line says otherwise than the checkpoint, or if there is no such checkpoint.
    """
    if config.checkpoint_name is None:
        return config, None, []
    folder = resolve_checkpoint(config.checkpoint_name, Path(config.general.paths.checkpoint_dir))
    require_intact(folder, with_optimizer=False, fix="start from another checkpoint")
    model = dataclasses.replace(read_model_config(folder), checkpoint_name=config.model.checkpoint_name)
    asked, given = _flat_model(config.model), _flat_model(model)
    differing = [key for key in asked if asked[key] != given[key]]
    overridden = [key for key in differing if _is_overridden(key, config.overridden)]
    if overridden:
        raise UserError(
            f"the checkpoint {folder} has "
            + ", ".join(f"{key} = {given[key]!r}, not {asked[key]!r}" for key in overridden),
            fix="its weights fit no other model: drop the override",
        )
    notes = [f"{key} = {given[key]!r} as in {folder}, not {asked[key]!r} as in the configuration" for key in differing]
    return dataclasses.replace(config, model=model), folder, notes


def _flat_model(model: ModelConfig) -> dict[str, Any]:
    return flatten(dataclasses.asdict(model), "model.")


def _is_overridden(key: str, overridden: frozenset[str]) -> bool:
    return any(f"{key}.".startswith(f"{name}.") for name in overridden)


def open_data(config: Config) -> Data:
    """Opens the dataset and checks that it suits the model.

    Raises UserError if it is missing, damaged, of another kind or vocabulary, or too short for the context window.
    """
    dataset, data_dir = config.trainer.dataset, Path(config.general.paths.data_dir)
    folder = memmap_dir(data_dir) / dataset.name
    kind: type[MemmapDataset] = SFTDataset if dataset.is_instruction else Corpus
    source = kind(folder)
    if dataset.is_instruction != (folder / SHAPES).is_file():
        holds = "plain text, no questions" if dataset.is_instruction else "questions with answers"
        right = str(not dataset.is_instruction).lower()
        raise UserError(f"{folder} holds {holds}", fix=f"set trainer.dataset.is_instruction={right}")
    vocabulary = source.vocabulary
    if vocabulary.size != config.model.vocab_size:
        raise UserError(
            f"{folder} was made with the tokenizer {vocabulary.name!r} of {vocabulary.size:,} entries, and the model "
            f"has model.vocab_size = {config.model.vocab_size:,}",
            fix=f"set model.vocab_size={vocabulary.size}, or make the data with the model's tokenizer",
        )
    return Data(
        train=_windows(source, "train", config),
        val=_windows(source, "val", config),
        vocabulary=vocabulary,
        identity={"name": source.name, "fingerprint": source.fingerprint},
    )


def _windows(source: MemmapDataset, split: str, config: Config) -> Sampler:
    """The windows of a split. Validation draws, and expands, from random streams of its own."""
    dataset, length = config.trainer.dataset, config.model.context_window
    seed = config.general.seed
    try:
        expansion = StochasTok(
            source.vocabulary, dataset.expand_prop, dataset.expand_method, derive_key(seed, f"{split}/expansion")
        )
    except UserError as error:
        asked = f"trainer.dataset.expand_prop = {dataset.expand_prop}, expand_method = {dataset.expand_method!r}"
        raise UserError(f"{asked}: {error}") from None
    expand = expansion if dataset.expand_prop > 0 else None
    if isinstance(source, SFTDataset):
        rows, offsets = source.rows(split), source.offsets(split)
        return PackedSampler(
            rows, offsets, length, seed=seed, purpose=split, expand=expand, vocab_size=source.vocabulary.size
        )
    assert isinstance(source, Corpus)
    return WindowSampler(
        source.ids(split), length, seed=seed, vocab_size=config.model.vocab_size, purpose=split, expand=expand
    )


def require_same_vocabulary(checkpoint: Path, vocabulary: Vocabulary) -> None:
    """Raises UserError if a checkpoint that brings its tokenizer was trained on another vocabulary of the same size."""
    if (checkpoint / "tokenizer.json").is_file():
        theirs = load_vocabulary(checkpoint)
        if theirs.fingerprint != vocabulary.fingerprint:
            raise UserError(
                f"the data was made with the tokenizer {vocabulary.name!r}, which is not that of {checkpoint}",
                fix=f"make the data with --tokenizer {checkpoint}",
            )


def load_all_evaluators(config: Config, vocabulary: Vocabulary) -> list[Evaluator]:
    """The benchmarks of `trainer.eval`; the error for one that can't be had says how to go without."""
    data_dir = Path(config.general.paths.data_dir)
    try:
        return load_evaluators(config.trainer.eval, data_dir, vocabulary, config.model.context_window)
    except UserError as error:
        raise UserError(str(error), fix="or train without it: trainer.eval=[]", exit_code=error.exit_code) from None


def require_divisible(config: Config, world: DistributedContext) -> None:
    steps = config.trainer.training.gradient_accumulation_steps
    if steps % world.size:
        raise UserError(
            f"trainer.training.gradient_accumulation_steps = {steps} can't be divided over {world.size} processes",
            fix="set it to a multiple of their number, or give fewer GPUs (CUDA_VISIBLE_DEVICES)",
        )


def require_logger(config: Config) -> None:
    """Raises UserError if Weights & Biases or TensorBoard is asked for and not installed."""
    logging = config.general.logging
    for asked, package in [(logging.wandb_log, "wandb"), (logging.tensorboard_log, "tensorboard")]:
        if asked and importlib.util.find_spec(package) is None:
            raise UserError(
                f"general.logging.{package}_log is true, and {package} is not installed",
                fix=f"pip install 'stochastok[{package}]', or set it to false",
            )


def unused_keys(config: Config) -> list[str]:
    """Notes on keys of the reference that are accepted and have no effect."""
    output_dir = config.general.paths.output_dir
    return [] if output_dir is None else [f"general.paths.output_dir ({output_dir}) has no effect: nothing goes there"]

"""The dataset of a run: samplers of training and validation windows, checked against the configuration."""

import functools
import operator
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stochastok_cli.config import Config
from stochastok_cli.data.folders import find_dataset
from stochastok_cli.data.instruction_dataset import InstructionDataset, open_dataset
from stochastok_cli.data.memmap import Corpus, MemmapDataset
from stochastok_cli.data.packed_sampler import PackedSampler
from stochastok_cli.data.samplers import Sampler, WindowSampler
from stochastok_cli.data.sft_dataset import SFTDataset
from stochastok_cli.errors import UserError
from stochastok_cli.random_streams import derive_key
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.tokenization.split_table import has_splits
from stochastok_cli.tokenization.vocabulary import Vocabulary
from stochastok_cli.training.checks import expansion_error, resolve_expand_prop
from stochastok_cli.training.schedules import expand_prop


@dataclass(frozen=True)
class Data:
    """Samplers of training and validation windows, the vocabulary of their ids, and the dataset's identity.

    Attributes:
        train: Windows of the train split, expanded where `trainer.dataset.expand_prop` is above 0.
        val: Windows of the val split as they are on disk, so that losses with and without expansion compare.
        val_expanded: The same windows expanded like those of training, always with `trainer.dataset.expand_prop` and
            not as `expand_schedule` says, so that losses compare over a run; None where training does not expand.
        vocabulary: The vocabulary of the ids.
        identity: Name and fingerprint, as a checkpoint records them.
        expansion: `method` and `p` by which the dataset was made, None for canonical ids; empty where the dataset has
            no manifest, which would say it.
        notes: What the user should know.
    """

    train: Sampler
    val: Sampler
    val_expanded: Sampler | None
    vocabulary: Vocabulary
    identity: dict[str, Any]
    expansion: dict[str, Any]
    notes: list[str]


def open_data(config: Config) -> Data:
    """Opens the dataset and checks that it fits the model.

    Raises:
        UserError: The dataset is missing, damaged, of another kind or vocabulary, or too short for a context window.
    """
    dataset, data_dir = config.trainer.dataset, Path(config.general.paths.data_dir)
    folder = find_dataset(dataset.name, data_dir)
    source = open_dataset(folder)
    if dataset.is_instruction == isinstance(source, Corpus):
        kind = "questions with answers" if isinstance(source, SFTDataset) else "conversations or completions"
        content = "plain text, no questions" if dataset.is_instruction else kind
        is_instruction = str(not dataset.is_instruction).lower()
        raise UserError(f"{folder} holds {content}", fix=f"set trainer.dataset.is_instruction={is_instruction}")
    vocabulary = source.vocabulary
    if isinstance(source, Corpus):
        source.require_end_of_text("train", trusted=True)
    # A model of another program may have more entries than its tokenizer: a multiple of 64, for example.
    fits = operator.le if config.checkpoint_name else operator.eq
    if not fits(vocabulary.size, config.model.vocab_size):
        raise UserError(
            f"{folder} was made with the tokenizer {vocabulary.name!r} of {vocabulary.size:,} entries, and the model "
            f"has model.vocab_size = {config.model.vocab_size:,}",
            fix=f"set model.vocab_size={vocabulary.size}, or make the data with the model's tokenizer",
        )
    expands = resolve_expand_prop(config.trainer.dataset) != 0
    return Data(
        train=_make_sampler(source, "train", config, expanded=expands, scheduled=True),
        val=_make_sampler(source, "val", config, expanded=False),
        val_expanded=_make_sampler(source, "val", config, expanded=True) if expands else None,
        vocabulary=vocabulary,
        identity={"name": source.name, "fingerprint": source.fingerprint},
        expansion=dict(zip(("method", "p"), source.manifest.expansion, strict=True)) if source.manifest else {},
        notes=_notes_on_expansion(config, vocabulary) if expands else [],
    )


def _notes_on_expansion(config: Config, vocabulary: Vocabulary) -> list[str]:
    """Says where the expansion of training windows can't change them."""
    dataset = config.trainer.dataset
    if not require_method(dataset.expand_method).keeps_token_boundaries or has_splits(vocabulary):
        return []
    expansion = f"the expansion of training windows by {dataset.expand_method}"
    return [f"{expansion} splits nothing: the tokenizer {vocabulary.name!r} has no smaller tokens for any token"]


def require_same_vocabulary(checkpoint: Path, vocabulary: Vocabulary) -> None:
    """Raises UserError if a checkpoint has a tokenizer, and it is not that of the data."""
    if (checkpoint / "tokenizer.json").is_file() and load_vocabulary(checkpoint).fingerprint != vocabulary.fingerprint:
        raise UserError(
            f"the data was made with the tokenizer {vocabulary.name!r}, which is not that of {checkpoint}",
            fix=f"make the data with --tokenizer {shlex.quote(str(checkpoint))}",
        )


def _make_sampler(
    source: MemmapDataset, split: str, config: Config, *, expanded: bool, scheduled: bool = False
) -> Sampler:
    """The sampler of a split. Validation has its own random streams, for windows and for their expansion."""
    dataset, length, seed = config.trainer.dataset, config.model.context_window, config.general.seed
    try:
        expansion = StochasTok(
            source.vocabulary,
            resolve_expand_prop(config.trainer.dataset),
            dataset.expand_method,
            derive_key(seed, f"{split}/expansion"),
            keep=_added_names(source.vocabulary) if isinstance(source, InstructionDataset) else None,
            round_budget="randomly",
        )
    except UserError as error:
        raise expansion_error(dataset, error) from None
    expand = expansion if expanded else None
    p_schedule = None
    if scheduled and dataset.expand_schedule != "constant":
        p_schedule = functools.partial(expand_prop, dataset=dataset, training=config.trainer.training)
    if isinstance(source, SFTDataset | InstructionDataset):
        return PackedSampler(
            source.examples(split),
            length,
            seed=seed,
            purpose=split,
            expand=expand,
            expand_where=dataset.expand_where,
            p_schedule=p_schedule,
            vocab_size=source.vocabulary.size,
        )
    assert isinstance(source, Corpus)
    return WindowSampler(
        source.ids(split),
        length,
        seed=seed,
        vocab_size=source.vocabulary.size,
        purpose=split,
        expand=expand,
        p_schedule=p_schedule,
    )


def _added_names(vocabulary: Vocabulary) -> str | None:
    """A pattern of the added tokens that mark parts of a conversation, which are not split (`<think>`, `<tool_call>`).

    Special tokens are never split anyway. Some tokenizers add runs of white space, which are text like any other.
    """
    names = [re.escape(text) for i in sorted(vocabulary.added) if (text := vocabulary.token_text(i)).strip()]
    return rf"\A(?:{'|'.join(names)})\Z" if names else None

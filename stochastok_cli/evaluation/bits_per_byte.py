"""Bits per byte: the loss on a corpus over the bytes it spells, so that models and tokenizations compare."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stochastok_cli.data.memmap import Corpus, memmap_dir
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.scoring import BATCH_TOKENS, log_likelihoods
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.vocabulary import Vocabulary


@dataclass(frozen=True)
class ScoredText:
    """Flat ids of a corpus (`[tokens]`, as they are on disk) and how many bytes of text they spell."""

    name: str
    ids: np.ndarray
    num_bytes: int


def load_validation_text(
    name: str, data_dir: Path, vocabulary: Vocabulary, *, num_tokens: int | None = None
) -> ScoredText:
    """The val split of a folder under `data_as_memmaps`, or its first `num_tokens` ids.

    Raises UserError if the folder's vocabulary is another, or if there is no text in the split.
    """
    corpus = Corpus(memmap_dir(data_dir) / name)
    recorded = (corpus.manifest and corpus.manifest.tokenizer) or corpus.vocabulary
    if recorded.fingerprint != vocabulary.fingerprint:
        raise UserError(
            f"{corpus.path} was made with the tokenizer {recorded.name!r}, which is not the model's",
            fix="give a dataset that was made with the model's",
        )
    ids = corpus.ids("val")[:num_tokens]
    num_bytes = count_bytes(ids, vocabulary)
    if not num_bytes:
        raise UserError(f"{corpus.path / 'val.bin'} holds no text to score")
    return ScoredText(corpus.name, ids, num_bytes)


def count_bytes(ids: np.ndarray, vocabulary: Vocabulary) -> int:
    """The number of bytes of text that ids spell; special tokens, end-of-text among them, spell none.

    Raises UserError for an id that the vocabulary does not have.
    """
    lengths = vocabulary.text_widths
    if len(ids) and int(ids.max()) >= len(lengths):
        raise UserError(
            f"the id {int(ids.max())} is not in the vocabulary {vocabulary.name!r}",
            fix="the data are damaged or of another tokenizer: make them again",
        )
    step = 2**24  # a corpus may be larger than the memory
    return sum(int(lengths[ids[start : start + step]].sum()) for start in range(0, len(ids), step))


def bits_per_byte(
    model: CausalLM,
    vocabulary: Vocabulary,
    text: ScoredText,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback = no_progress,
) -> dict[str, float]:
    """`bits_per_byte/<folder>`: the negative log2-likelihood of all ids over the number of bytes that they spell.

    The ids are cut into consecutive windows of `context_window` (the last may be shorter). Every id is scored exactly
    once: given the ids before it in its window and the one id before the window, which for the first window is
    end-of-text. An end-of-text id is scored too, since where a document ends has to be said as well, and adds no
    bytes, since no byte of the text belongs to it.

    Two tokenizations of a text thus have the same number of bytes and of document ends. What differs is the reach of
    the context, which is counted in tokens. A beginning of a split (`num_tokens`) compares models, not
    tokenizations: equal numbers of ids are different stretches of text.
    """
    ids, window = text.ids, model.context_window
    start_of_text = np.array([vocabulary.end_of_text], dtype=ids.dtype)
    pairs = [
        (ids[start - 1 : start] if start else start_of_text, ids[start : start + window])
        for start in range(0, len(ids), window)
    ]
    nats = -log_likelihoods(model, pairs, batch_tokens, what=text.name, progress=progress).sum()
    return {f"bits_per_byte/{text.name}": float(nats / math.log(2) / text.num_bytes)}

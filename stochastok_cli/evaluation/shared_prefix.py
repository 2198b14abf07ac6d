"""log P(option | context) for the options of many questions, with the prefix that the options share computed once.

The sequences of a question begin alike: with the context, and often with more (the two sentences of BLiMP). This
shared prefix goes through the model once, its keys and values are kept, and the suffix of each option is read after it.

Prefixes are padded on the left, where no token attends, so that every option of a batch starts at the same position;
rotary positions are relative, so that the shift changes nothing. Suffixes are padded on the right.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stochastok_cli.evaluation.likelihood import Pair, target_log_likelihoods
from stochastok_cli.models.base import CausalLM, KeyValueCache

FEW_TOKENS = {"cpu": 1024, "cuda": 16384}
"""A batch smaller than this is filled up even if it needs padding, since the device would be idle otherwise."""
PADDING = 0.08
"""How much shorter than the longest a sequence may be in a larger batch; about half of it is padded on average."""


class SharedPrefixQuestion(NamedTuple):
    """The sequences of a question, each without its last id, which is predicted and never read.

    Attributes:
        prefix: The ids with which all sequences begin, int64 `[L]`.
        suffixes: The ids of each sequence after the prefix; may be empty.
        first: The position of each sequence's first prediction.
        targets: The ids of each continuation.
    """

    prefix: np.ndarray
    suffixes: list[np.ndarray]
    first: list[int]
    targets: list[np.ndarray]


class PlannedBatch(NamedTuple):
    """Questions whose prefixes go through the model in one pass.

    Attributes:
        questions: Their indices.
        suffix_batches: For each further pass, the options (counted over the batch) whose suffixes it reads.
    """

    questions: np.ndarray
    suffix_batches: list[np.ndarray]

    @property
    def num_passes(self) -> int:
        return 1 + len(self.suffix_batches)


def find_shared_prefix(pairs: Sequence[Pair]) -> SharedPrefixQuestion:
    """Splits the sequences of a question into their longest common prefix and what follows."""
    whole = [np.concatenate([context, continuation]).astype(np.int64) for context, continuation in pairs]
    read = [sequence[:-1] for sequence in whole]
    length = min(map(len, read))
    equal = np.all([sequence[:length] == read[0][:length] for sequence in read], axis=0)
    length = length if equal.all() else int(np.argmin(equal))
    first = [len(context) - 1 for context, _ in pairs]
    targets = [sequence[start + 1 :] for sequence, start in zip(whole, first, strict=True)]
    return SharedPrefixQuestion(read[0][:length], [sequence[length:] for sequence in read], first, targets)


# ------------------------------------------------------------------------------------------------ batches


def plan(
    questions: Sequence[SharedPrefixQuestion], context_window: int, batch_tokens: int, device_type: str
) -> list[PlannedBatch]:
    """All forward passes for some questions, the longest first; known before any of them is made."""
    few = FEW_TOKENS["cuda" if device_type == "cuda" else "cpu"]
    lengths = np.array([len(question.prefix) for question in questions], dtype=np.int64)
    longest = np.array([max(map(len, question.suffixes)) for question in questions], dtype=np.int64)
    return [
        PlannedBatch(members, list(_suffix_batches([questions[i] for i in members], batch_tokens, few)))
        for members in batches(lengths, longest, context_window, batch_tokens, few)
    ]


def batches(
    lengths: np.ndarray, extra: np.ndarray, context_window: int, batch_tokens: int, few: int
) -> Iterator[np.ndarray]:
    """Indices in batches, the longest first, with little padding.

    Args:
        lengths: Tokens of each row, int64 `[rows]`; a row is padded to the longest of its batch.
        extra: By how many tokens a padded row is extended at most, int64 `[rows]`.
        context_window: What a padded row and its extension must fit.
        batch_tokens: The most tokens of a batch, unless a single row has more.
        few: A batch of fewer tokens is filled up however much padding it needs.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        width = int(lengths[order[start]])
        end = start + 1
        while (
            end < len(order)
            and (end + 1 - start) * width <= batch_tokens
            and width + extra[order[end]] <= context_window
        ):
            if (end - start) * width >= few and lengths[order[end]] < (1 - PADDING) * width:
                break
            end += 1
        yield order[start:end]
        start = end


def _suffix_batches(questions: Sequence[SharedPrefixQuestion], batch_tokens: int, few: int) -> Iterator[np.ndarray]:
    """The options of one batch of questions, in the batches in which their suffixes are read."""
    width = max(len(question.prefix) for question in questions)
    lengths = np.array([len(suffix) for question in questions for suffix in question.suffixes], dtype=np.int64)
    nonempty = np.flatnonzero(lengths)
    few = min(few, batch_tokens)
    limit = max(batch_tokens // 2, few)
    longest = int(lengths.max(initial=0))
    for part in batches(lengths[nonempty], np.zeros(len(nonempty), np.int64), width + longest, limit, few):
        members = nonempty[part]
        # Each option repeats the keys and values of its prefix: at most twice those of a full batch.
        step = max(1, 2 * batch_tokens // (width + int(lengths[members].max())))
        yield from (members[i : i + step] for i in range(0, len(members), step))


# ------------------------------------------------------------------------------------------------ scores


@torch.inference_mode()
def score(
    model: CausalLM, questions: Sequence[SharedPrefixQuestion], suffix_batches: Sequence[np.ndarray]
) -> np.ndarray:
    """Log-likelihoods of all options of one batch of questions, one question after the other, float64."""
    cache = KeyValueCache()
    lengths = np.array([len(question.prefix) for question in questions])
    hidden = _read_prefixes(model, [question.prefix for question in questions], lengths, cache)
    options = [(q, i) for q, question in enumerate(questions) for i in range(len(question.suffixes))]
    scores = np.zeros(len(options))
    _add_prefix_predictions(model, hidden, questions, scores)
    padding = int(lengths.max()) - lengths
    for members in suffix_batches:
        _add_suffix_predictions(model, cache, questions, [options[i] for i in members], members, padding, scores)
    return scores


def _read_prefixes(
    model: CausalLM, prefixes: Sequence[np.ndarray], lengths: np.ndarray, cache: KeyValueCache
) -> Tensor:
    """Hidden states `[B, L, D]` of sequences padded on the left; their keys and values go into the cache."""
    width = int(lengths.max())
    ids = np.zeros((len(prefixes), width), dtype=np.int64)
    for row, prefix in zip(ids, prefixes, strict=True):
        row[width - len(prefix) :] = prefix
    device = model.device
    segment_start = None
    if (lengths < width).any():  # a padding token attends to itself alone; attending to nothing would give NaN
        segment_start = torch.from_numpy(np.minimum((width - lengths)[:, None], np.arange(width))).to(device)
    return model(torch.from_numpy(ids).to(device), segment_start, cache)


def _add_prefix_predictions(
    model: CausalLM, hidden: Tensor, questions: Sequence[SharedPrefixQuestion], scores: np.ndarray
) -> None:
    """Adds the log-likelihoods of the ids that are predicted from the shared prefix."""
    width = hidden.shape[1]
    predictions, option = [], 0  # (row of the batch, position, target, option)
    for b, question in enumerate(questions):
        length = len(question.prefix)
        for first, targets in zip(question.first, question.targets, strict=True):
            for position, target in zip(range(first, length), targets.tolist(), strict=False):
                predictions.append((b, width - length + position, target, option))
            option += 1
    _add_log_likelihoods(model, hidden, predictions, scores)


def _add_suffix_predictions(
    model: CausalLM,
    cache: KeyValueCache,
    questions: Sequence[SharedPrefixQuestion],
    options: Sequence[tuple[int, int]],
    indices: np.ndarray,
    padding: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Adds the log-likelihoods of the ids that are predicted from the suffixes of some options.

    Args:
        model: The network.
        cache: Keys and values of the prefixes.
        questions: The questions of the batch.
        options: (question, option) of each suffix to read.
        indices: Their places in `scores`.
        padding: How many positions of the cache are padding, int64 `[questions]`.
        scores: Log-likelihoods of all options of the batch, float64; modified in place.
    """
    suffixes = [questions[q].suffixes[i] for q, i in options]
    ids = np.zeros((len(suffixes), max(map(len, suffixes))), dtype=np.int64)
    predictions = []
    for row, (suffix, (q, i), index) in enumerate(zip(suffixes, options, indices.tolist(), strict=True)):
        ids[row, : len(suffix)] = suffix
        first = questions[q].first[i] - len(questions[q].prefix)  # negative: predicted from the prefix
        for position, target in enumerate(questions[q].targets[i].tolist(), first):
            if position >= 0:
                predictions.append((row, position, target, index))
    device = model.device
    rows = np.array([q for q, _ in options])
    repeated = KeyValueCache()
    repeated.keys, repeated.values = list(cache.keys), list(cache.values)
    repeated.keep(torch.from_numpy(rows).to(device))
    segment_start = None
    if padding[rows].any():
        segment_start = torch.from_numpy(np.repeat(padding[rows][:, None], ids.shape[1], axis=1)).to(device)
    hidden = model(torch.from_numpy(ids).to(device), segment_start, repeated)
    _add_log_likelihoods(model, hidden, predictions, scores)


def _add_log_likelihoods(
    model: CausalLM, hidden: Tensor, predictions: Sequence[tuple[int, int, int, int]], scores: np.ndarray
) -> None:
    """Adds log P(target) of each prediction to its option's score; each hidden state goes through the head once."""
    if not predictions:
        return
    row, position, target, option = np.array(predictions, dtype=np.int64).T
    flat, index = np.unique(row * hidden.shape[1] + position, return_inverse=True)
    states = hidden.flatten(0, 1)[torch.from_numpy(flat).to(hidden.device)]
    np.add.at(scores, option, target_log_likelihoods(model, states, index, target))

"""log P(option | prefix) for the options of many questions, with what the options of a question share computed once.

The sequences of a question begin alike: with the prefix, and often with more (the two sentences of BLiMP). That
beginning goes through the model once, its keys and values are kept, and the rest of each option is read after them.

Beginnings are padded on the left, where no token looks, so that every option of a batch starts at the same position;
rotary positions are relative, so the shift changes nothing. The rests are padded on the right, as everywhere.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stochastok_cli.evaluation.scoring import (
    BATCH_TOKENS,
    Pair,
    evaluation_mode,
    require_numbers,
    target_log_likelihoods,
)
from stochastok_cli.models.base import CausalLM, KeyValueCache
from stochastok_cli.progress import ProgressCallback, no_progress

FEW_TOKENS = {"cpu": 1024, "cuda": 16384}
"""A batch smaller than this is filled up even if it needs padding: the device would idle otherwise."""
PADDING = 0.08
"""How much shorter than the longest a sequence may be in a larger batch; about half of it is padded on average."""


class Question(NamedTuple):
    """The sequences of a question, each without its last id, which is predicted and never read.

    shared: ids with which all begin, int64 `[L]`; rests: what each reads after them (may be empty); first: the
    position of each sequence's first prediction; targets: the ids of each continuation.
    """

    shared: np.ndarray
    rests: list[np.ndarray]
    first: list[int]
    targets: list[np.ndarray]


def question_log_likelihoods(
    model: CausalLM,
    pairs: Sequence[Pair],
    num_options: Sequence[int] | np.ndarray,
    batch_tokens: int = BATCH_TOKENS,
    *,
    what: str = "scoring",
    progress: ProgressCallback = no_progress,
) -> np.ndarray:
    """What `log_likelihoods` gives for the same pairs, float64 `[len(pairs)]`, with less work.

    `num_options` says how many consecutive pairs belong to each question and so have the same context. Raises
    UserError if the model gives something that is not a number.
    """
    ends = np.cumsum(num_options)
    questions = [_question(pairs[end - n : end]) for end, n in zip(ends.tolist(), np.asarray(num_options), strict=True)]
    lengths = np.array([len(question.shared) for question in questions])
    longest_rest = np.array([max(map(len, question.rests)) for question in questions])
    scores = np.zeros(len(pairs), dtype=np.float64)
    done, few = 0, _few_tokens(model)
    with evaluation_mode(model):
        for batch in batches(lengths, longest_rest, model.context_window, batch_tokens, few):
            members = [questions[i] for i in batch]
            nats = _score(model, members, batch_tokens)
            where = np.concatenate([np.arange(ends[i] - len(questions[i].rests), ends[i]) for i in batch])
            scores[where] = nats
            done += len(where)
            progress(what, done, len(pairs))
    require_numbers(scores, what)
    return scores


def _question(pairs: Sequence[Pair]) -> Question:
    """Finds what the sequences of a question share."""
    whole = [np.concatenate([context, continuation]).astype(np.int64) for context, continuation in pairs]
    read = [sequence[:-1] for sequence in whole]
    length = min(map(len, read))
    same = np.all([sequence[:length] == read[0][:length] for sequence in read], axis=0)
    length = length if same.all() else int(np.argmin(same))
    first = [len(context) - 1 for context, _ in pairs]
    targets = [sequence[start + 1 :] for sequence, start in zip(whole, first, strict=True)]
    return Question(read[0][:length], [sequence[length:] for sequence in read], first, targets)


def _few_tokens(model: CausalLM) -> int:
    return FEW_TOKENS["cuda" if model.device.type == "cuda" else "cpu"]


def batches(lengths: np.ndarray, more: np.ndarray, window: int, batch_tokens: int, few: int) -> Iterator[np.ndarray]:
    """Indices in batches, the longest first, with little padding and at most `batch_tokens` tokens (one row at least).

    A row of `lengths[i]` tokens is padded to its batch's longest and then extended by up to `more[i]`, which together
    must fit the window. A batch of less than `few` tokens is filled up whatever it takes in padding.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        width = int(lengths[order[start]])
        end = start + 1
        while end < len(order) and (end + 1 - start) * width <= batch_tokens and width + more[order[end]] <= window:
            if (end - start) * width >= few and lengths[order[end]] < (1 - PADDING) * width:
                break
            end += 1
        yield order[start:end]
        start = end


@torch.inference_mode()
def _score(model: CausalLM, questions: Sequence[Question], batch_tokens: int) -> np.ndarray:
    """Log-likelihoods of all options of one batch of questions, one question after the other, float64."""
    cache = KeyValueCache()
    lengths = np.array([len(question.shared) for question in questions])
    hidden = _read(model, [question.shared for question in questions], lengths, cache)
    options = [(q, i) for q, question in enumerate(questions) for i in range(len(question.rests))]
    scores = np.zeros(len(options))
    _add_shared(model, hidden, questions, scores)
    rest = np.array([len(questions[q].rests[i]) for q, i in options])
    some = np.flatnonzero(rest)
    width = int(lengths.max())
    few = min(_few_tokens(model), batch_tokens)
    limit = max(batch_tokens // 2, few)
    for part in batches(rest[some], np.zeros(len(some), np.int64), width + int(rest.max(initial=0)), limit, few):
        for chunk in _fitting(some[part], width + int(rest[some[part]].max()), batch_tokens):
            _add_rests(model, cache, questions, [options[i] for i in chunk], chunk, width - lengths, scores)
    return scores


def _fitting(rows: np.ndarray, width: int, batch_tokens: int) -> Iterator[np.ndarray]:
    """Rows in parts whose keys and values, `width` positions each, are no more than twice those of a full batch."""
    step = max(1, 2 * batch_tokens // width)
    yield from (rows[i : i + step] for i in range(0, len(rows), step))


def _read(model: CausalLM, rows: Sequence[np.ndarray], lengths: np.ndarray, cache: KeyValueCache) -> Tensor:
    """Hidden states `[B, L, D]` of sequences padded on the left; the cache is filled with what they leave."""
    width = int(lengths.max())
    ids = np.zeros((len(rows), width), dtype=np.int64)
    for row, sequence in zip(ids, rows, strict=True):
        row[width - len(sequence) :] = sequence
    device = model.device
    visible = None
    if (lengths < width).any():  # a padding token looks at itself alone, since looking at nothing is no number
        visible = torch.from_numpy(np.minimum((width - lengths)[:, None], np.arange(width))).to(device)
    return model(torch.from_numpy(ids).to(device), visible, cache)


def _add_shared(model: CausalLM, hidden: Tensor, questions: Sequence[Question], scores: np.ndarray) -> None:
    """Adds what the options' ids get that are predicted from the shared beginning, its last position included."""
    width = hidden.shape[1]
    predictions, entry = [], 0  # (row of the batch, position there, target, option)
    for b, question in enumerate(questions):
        length = len(question.shared)
        for first, targets in zip(question.first, question.targets, strict=True):
            for position, target in zip(range(first, length), targets.tolist(), strict=False):
                predictions.append((b, width - length + position, target, entry))
            entry += 1
    _add(model, hidden, predictions, scores)


def _add_rests(
    model: CausalLM,
    cache: KeyValueCache,
    questions: Sequence[Question],
    options: Sequence[tuple[int, int]],
    entries: np.ndarray,
    padding: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Adds what the options' ids get that are predicted from their own ids.

    `options` are (question, option), `entries` their places in `scores`; `padding` `[questions]` is how many
    positions of the cache are nothing.
    """
    rests = [questions[q].rests[i] for q, i in options]
    ids = np.zeros((len(rests), max(map(len, rests))), dtype=np.int64)
    predictions = []
    for row, (rest, (q, i), entry) in enumerate(zip(rests, options, entries.tolist(), strict=True)):
        ids[row, : len(rest)] = rest
        first = questions[q].first[i] - len(questions[q].shared)  # before 0: predicted from what is shared
        for position, target in enumerate(questions[q].targets[i].tolist(), first):
            if position >= 0:
                predictions.append((row, position, target, entry))
    device = model.device
    rows = np.array([q for q, _ in options])
    own = KeyValueCache()
    own.keys, own.values = list(cache.keys), list(cache.values)
    own.keep(torch.from_numpy(rows).to(device))
    visible = None
    if padding[rows].any():
        visible = torch.from_numpy(np.repeat(padding[rows][:, None], ids.shape[1], axis=1)).to(device)
    _add(model, model(torch.from_numpy(ids).to(device), visible, own), predictions, scores)


def _add(model: CausalLM, hidden: Tensor, predictions: Sequence[tuple[int, int, int, int]], scores: np.ndarray) -> None:
    """Adds log P(target) of every prediction to its option's score; each hidden state goes through the head once."""
    if not predictions:
        return
    row, position, target, entry = np.array(predictions, dtype=np.int64).T
    flat, which = np.unique(row * hidden.shape[1] + position, return_inverse=True)
    states = hidden.flatten(0, 1)[torch.from_numpy(flat).to(hidden.device)]
    np.add.at(scores, entry, target_log_likelihoods(model, states, which, target))

"""log P(continuation | context) of many pairs, in batches."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress

BATCH_TOKENS = 16384
"""Tokens, padding included, that go through the model at once: about 2 GB for the shipped configuration on a GPU."""

Pair = tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]
"""The ids of a context and of its continuation, neither empty."""


def log_likelihoods(
    model: CausalLM,
    pairs: Sequence[Pair],
    batch_tokens: int = BATCH_TOKENS,
    *,
    what: str = "scoring",
    progress: ProgressCallback = no_progress,
) -> np.ndarray:
    """log P(continuation | context) for each pair, in nats, float64 `[len(pairs)]`.

    A pair must fit the window: `len(context) + len(continuation) - 1 <= context_window`. Pairs are sorted by length
    and padded on the right, where causal attention never looks, so the batch that a pair falls into does not change
    its score. Only the continuation's positions go through the head. Dropout is off, and the model is returned to
    the mode in which it came. Raises UserError if the model gives something that is not a number.
    """
    sizes = np.array([len(context) + len(continuation) - 1 for context, continuation in pairs], dtype=np.int64)
    scores = np.empty(len(pairs), dtype=np.float64)
    done = 0
    with evaluation_mode(model):
        for batch in _batches(sizes, batch_tokens):
            scores[batch] = _score(model, [pairs[i] for i in batch])
            done += len(batch)
            progress(what, done, len(pairs))
    require_numbers(scores, what)
    return scores


@contextmanager
def evaluation_mode(model: CausalLM) -> Iterator[None]:
    """Without dropout; afterwards the model is in the mode in which it came."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def require_numbers(scores: np.ndarray, what: str) -> None:
    """Raises UserError if some scores are infinite or no numbers."""
    bad = len(scores) - int(np.isfinite(scores).sum())
    if bad:
        raise UserError(
            f"the model gave no number for {bad} of {len(scores)} sequences ({what})",
            fix="its weights or its activations have overflowed; use an earlier checkpoint",
            exit_code=FAILED,
        )


def _batches(sizes: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Indices in batches, the longest first, of at most `batch_tokens` tokens with padding (one pair at least)."""
    order = np.argsort(-sizes, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // int(sizes[order[start]]))
        yield order[start : start + rows]
        start += rows


@torch.inference_mode()
def _score(model: CausalLM, pairs: Sequence[Pair]) -> np.ndarray:
    """One batch through the model: log-likelihoods, float64 `[len(pairs)]`."""
    device = model.device
    sequences = [np.concatenate([context, continuation]).astype(np.int64) for context, continuation in pairs]
    inputs = np.zeros((len(pairs), max(map(len, sequences)) - 1), dtype=np.int64)
    scored = np.zeros(inputs.shape, dtype=bool)  # position t is scored on what follows it
    for row, (sequence, (context, _)) in enumerate(zip(sequences, pairs, strict=True)):
        inputs[row, : len(sequence) - 1] = sequence[:-1]
        scored[row, len(context) - 1 : len(sequence) - 1] = True
    targets = np.concatenate([continuation for _, continuation in pairs]).astype(np.int64)
    hidden = model(torch.from_numpy(inputs).to(device))[torch.from_numpy(scored).to(device)]
    nats = target_log_likelihoods(model, hidden, np.arange(len(targets)), targets)
    ends = np.cumsum([0, *(len(continuation) for _, continuation in pairs)])[:-1]
    return np.add.reduceat(nats, ends)


def target_log_likelihoods(model: CausalLM, states: Tensor, which: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """log P(targets[i] | states[which[i]]), float64 `[targets]`, of hidden states `[N, D]`, in chunks of logits."""
    vocabulary = model.vocab_size
    step = max(1, (2**24 if states.device.type == "cpu" else 2**28) // vocabulary)
    order = np.argsort(which, kind="stable")
    found = np.empty(len(targets), dtype=np.float64)
    for start in range(0, len(states), step):
        mine = order[np.searchsorted(which[order], start) : np.searchsorted(which[order], start + step)]
        log_p = torch.log_softmax(model.logits(states[start : start + step]), dim=-1, dtype=torch.float32)
        rows, columns = torch.from_numpy(which[mine] - start), torch.from_numpy(targets[mine])
        found[mine] = log_p[rows.to(states.device), columns.to(states.device)].cpu().numpy()
    return found

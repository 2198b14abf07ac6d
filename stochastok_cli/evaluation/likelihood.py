"""log P(continuation | context) of a batch of pairs: the forward pass and the head."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor

from stochastok_cli.models.base import CausalLM, explain_out_of_memory

Pair = tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]
"""The ids of a context and of its continuation, neither empty."""


def explain_batch_tokens(batch_tokens: int) -> AbstractContextManager[None]:
    """Raises an out-of-memory error of the block, which runs batches of so many tokens, as a UserError."""
    fix = "give a smaller --batch-tokens; in a training, leave trainer.eval out and evaluate its checkpoints"
    return explain_out_of_memory(f"batches of {batch_tokens:,} tokens", fix)


def batches_by_length(sizes: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Indices in batches, the longest first, of at most `batch_tokens` tokens with padding (one pair at least)."""
    order = np.argsort(-sizes, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // int(sizes[order[start]]))
        yield order[start : start + rows]
        start += rows


@torch.inference_mode()
def score_pairs(model: CausalLM, pairs: Sequence[Pair]) -> np.ndarray:
    """Log-likelihoods of one batch, float64 `[pairs]`."""
    device = model.device
    sequences = [np.concatenate([context, continuation]).astype(np.int64) for context, continuation in pairs]
    inputs = np.zeros((len(pairs), max(map(len, sequences)) - 1), dtype=np.int64)
    scored = np.zeros(inputs.shape, dtype=bool)  # position t predicts the id at t + 1
    for row, (sequence, (context, _)) in enumerate(zip(sequences, pairs, strict=True)):
        inputs[row, : len(sequence) - 1] = sequence[:-1]
        scored[row, len(context) - 1 : len(sequence) - 1] = True
    targets = np.concatenate([continuation for _, continuation in pairs]).astype(np.int64)
    hidden = model(torch.from_numpy(inputs).to(device))[torch.from_numpy(scored).to(device)]
    nats = target_log_likelihoods(model, hidden, np.arange(len(targets)), targets)
    starts = np.cumsum([0, *(len(continuation) for _, continuation in pairs)])[:-1]
    return np.add.reduceat(nats, starts)


def target_log_likelihoods(model: CausalLM, hidden: Tensor, index: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """log P(targets[i] | hidden[index[i]]), float64 `[targets]`, with the logits computed in chunks.

    Args:
        model: Its head is used.
        hidden: Hidden states `[N, D]`.
        index: Which hidden state predicts each target, int64 `[targets]`.
        targets: Ids, int64 `[targets]`.
    """
    vocab_size = model.vocab_size
    step = max(1, (2**24 if hidden.device.type == "cpu" else 2**28) // vocab_size)
    order = np.argsort(index, kind="stable")
    nats = np.empty(len(targets), dtype=np.float64)
    for start in range(0, len(hidden), step):
        members = order[np.searchsorted(index[order], start) : np.searchsorted(index[order], start + step)]
        log_p = torch.log_softmax(model.logits(hidden[start : start + step]), dim=-1, dtype=torch.float32)
        rows, columns = torch.from_numpy(index[members] - start), torch.from_numpy(targets[members])
        nats[members] = log_p[rows.to(hidden.device), columns.to(hidden.device)].cpu().numpy()
    return nats


@torch.inference_mode()
def empty_pass(model: CausalLM) -> None:
    """Makes a forward pass on a single token without using its result, while other ranks score their batches."""
    model(torch.zeros((1, 1), dtype=torch.int64, device=model.device))

"""Decoding in batches, with cached keys and values."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stochastok_cli.evaluation.likelihood import empty_pass, explain_batch_tokens
from stochastok_cli.models.base import CausalLM, KeyValueCache

if TYPE_CHECKING:
    from stochastok_cli.evaluation.scoring import Ranks

Stop = Callable[[list[int]], bool]
"""Whether a sequence ends with the last of its new ids."""
Choose = Callable[[Tensor, list[int]], list[int]]
"""From logits `[sequences, V]` and the places of their prompts to the next id of each sequence."""
OnEnd = Callable[[int, list[int]], None]
"""Called with the place of a prompt and its new ids as soon as they are complete."""


def likeliest(logits: Tensor, places: list[int]) -> list[int]:
    """The likeliest id of each row `[sequences, V]`."""
    return logits.argmax(dim=-1).tolist()


def decode(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Stop,
    batch_tokens: int,
    ranks: "Ranks",
    choose: Choose = likeliest,
    on_end: OnEnd = lambda place, ids: None,
) -> list[list[int]]:
    """The new ids of each prompt, which ends at `stop`, after `max_new_tokens`, or where the context window is full.

    In each round, every rank decodes one batch.

    Args:
        model: In evaluation mode.
        prompts: Ids, none of them empty or longer than the context window.
        max_new_tokens: The most new ids of each prompt.
        stop: See `Stop`.
        batch_tokens: The most tokens of a batch, padding and new ids included, whose keys and values are kept.
        ranks: The processes that share the work.
        choose: See `Choose`; called once for each forward pass.
        on_end: See `OnEnd`.
    """
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)
    # Nothing follows the last new id, so that it need not fit the window.
    limits = np.minimum(min(max_new_tokens, model.context_window), model.context_window - lengths + 1)
    batches = plan(lengths, limits, model.context_window, batch_tokens, ranks.world_size)
    answers: dict[int, list[int]] = {}
    for first in range(0, len(batches), ranks.world_size):
        mine = first + ranks.rank
        members = batches[mine] if mine < len(batches) else []
        with explain_batch_tokens(batch_tokens):
            answers |= _decode_batch(model, prompts, members, limits.tolist(), stop, ranks, choose, on_end)
    for part in ranks.all_gather_object(answers):
        answers |= part
    return [answers[i] for i in range(len(prompts))]


def plan(
    lengths: np.ndarray, limits: np.ndarray, context_window: int, batch_tokens: int, world_size: int
) -> list[list[int]]:
    """The prompts of each batch, the longest first. Padding costs less than another batch, whose passes come after.

    A prompt is padded to the longest of its batch, and must fit the context window with its new ids then.

    Args:
        lengths: Ids of each prompt, int64 `[prompts]`.
        limits: The most new ids of each prompt, int64 `[prompts]`.
        context_window: In tokens.
        batch_tokens: The most tokens of a batch, unless a single prompt has more.
        world_size: The ranks, each of which gets as many prompts of a batch.

    >>> plan(np.array([3, 9, 9, 2]), np.array([4, 2, 2, 4]), 10, 100, 1)
    [[1, 2], [0, 3]]
    """
    batches: list[list[int]] = []
    most_rows = -(-len(lengths) // world_size)
    width = new = 0
    for i in np.argsort(-lengths, kind="stable").tolist():
        new = max(new, int(limits[i]) - 1)  # the last id is never read
        rows = len(batches[-1]) + 1 if batches else 1
        if 1 < rows <= most_rows and width + new <= context_window and rows * (width + new) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
            width, new = int(lengths[i]), int(limits[i]) - 1
    return batches


@torch.inference_mode()
def _decode_batch(
    model: CausalLM,
    prompts: Sequence[Sequence[int]],
    members: list[int],
    limits: list[int],
    stop: Stop,
    ranks: "Ranks",
    choose: Choose,
    on_end: OnEnd,
) -> dict[int, list[int]]:
    """The new ids of some prompts, padded on the left; finished sequences leave the batch.

    Equal prompts are read once. All ranks make as many forward passes as the one whose sequences end last.
    """
    device = model.device
    answers: dict[int, list[int]] = {i: [] for i in members}
    running = [i for i in members if limits[i] > 0]
    distinct = list(dict.fromkeys(tuple(prompts[i]) for i in running))
    width = max(map(len, distinct), default=0)
    padding = torch.tensor([width - len(prompt) for prompt in distinct], device=device)
    padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in distinct]
    ids = torch.tensor(padded, dtype=torch.int64, device=device)
    is_padded = any(len(prompt) < width for prompt in distinct)
    positions = torch.arange(width, device=device)
    cache = KeyValueCache()
    while any(ranks.all_gather_object(bool(running))):
        if not running:
            empty_pass(model)
            continue
        # A padding token attends to itself alone: attending to nothing would give NaN.
        segment_start = torch.minimum(padding[:, None], positions) if is_padded else None
        hidden = model(ids, segment_start, cache)[:, -1]
        if len(distinct) < len(running) and cache.length == width:
            row_of = {prompt: row for row, prompt in enumerate(distinct)}
            rows = torch.tensor([row_of[tuple(prompts[i])] for i in running], device=device)
            hidden, padding = hidden[rows], padding[rows]
            cache.keep(rows)
        chosen = choose(model.logits(hidden), running)
        unfinished = []
        for row, (i, token) in enumerate(zip(running, chosen, strict=True)):
            answers[i].append(token)
            if len(answers[i]) < limits[i] and not stop(answers[i]):
                unfinished.append(row)
            else:
                on_end(i, answers[i])
        if 0 < len(unfinished) < len(running):
            kept = torch.tensor(unfinished, device=device)
            padding = padding[kept]
            cache.keep(kept)
        running = [running[row] for row in unfinished]
        ids = torch.tensor([[chosen[row]] for row in unfinished], device=device)
        positions = torch.tensor([cache.length], device=device)
    return answers

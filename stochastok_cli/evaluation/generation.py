"""Decoding in batches, with cached keys and values."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from stochastok_cli.evaluation.likelihood import empty_pass
from stochastok_cli.models.base import CausalLM, KeyValueCache

if TYPE_CHECKING:
    from stochastok_cli.evaluation.scoring import Ranks

Stop = Callable[[list[int]], bool]
Choose = Callable[[torch.Tensor], list[int]]
"""From logits `[sequences, V]` to the next id of each sequence."""


def likeliest(logits: torch.Tensor) -> list[int]:
    """The likeliest id of each row `[sequences, V]`."""
    return logits.argmax(dim=-1).tolist()


def generate_greedy(
    model: CausalLM, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Stop, batch_size: int, ranks: "Ranks"
) -> list[list[int]]:
    """Decodes greedily, as `LM.generate_greedy` describes. In each round, every rank decodes one batch."""
    window = model.context_window
    kept = [list(p if len(p) <= window else p[-max(window - max_new_tokens, 1) :]) for p in prompts]
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(kept):
        by_length[len(prompt)].append(i)
    batches = [
        members[start : start + batch_size]
        for members in by_length.values()
        for start in range(0, len(members), batch_size)
    ]
    answers: dict[int, list[int]] = {}
    for first in range(0, len(batches), ranks.world_size):
        mine = first + ranks.rank
        members = batches[mine] if mine < len(batches) else []
        length = len(kept[members[0]]) if members else 0
        limit = min(max_new_tokens, window - length + 1)  # the last new id need not fit: nothing follows it
        answers |= zip(members, decode(model, [kept[i] for i in members], limit, stop, ranks), strict=True)
    for part in ranks.all_gather_object(answers):
        answers |= part
    return [answers[i] for i in range(len(prompts))]


@torch.inference_mode()
def decode(
    model: CausalLM,
    prompts: list[list[int]],
    max_new_tokens: int,
    stop: Stop,
    ranks: "Ranks",
    choose: Choose = likeliest,
) -> list[list[int]]:
    """At most `max_new_tokens` new ids for each of some prompts of one length; finished sequences leave the batch.

    All ranks make as many forward passes as the one whose sequences end last.

    Args:
        model: In evaluation mode.
        prompts: Ids, as many in each.
        max_new_tokens: As many as fit the context window, at most; the last new id need not fit.
        stop: Whether a sequence ends with its last new id.
        ranks: The processes that share the work.
        choose: Picks the next ids, once for each forward pass.

    Returns:
        The new ids of each prompt.
    """
    device = model.device
    answers: list[list[int]] = [[] for _ in prompts]
    running = list(range(len(prompts))) if max_new_tokens > 0 else []
    cache = KeyValueCache()
    ids = torch.tensor(prompts, dtype=torch.int64, device=device)
    while any(ranks.all_gather_object(bool(running))):
        if not running:
            empty_pass(model)
            continue
        chosen = choose(model.logits(model(ids, cache=cache)[:, -1]))
        for i, token in zip(running, chosen, strict=True):
            answers[i].append(token)
        unfinished = [row for row, i in enumerate(running) if len(answers[i]) < max_new_tokens and not stop(answers[i])]
        if 0 < len(unfinished) < len(running):
            cache.keep(torch.tensor(unfinished, device=device))
        running = [running[row] for row in unfinished]
        ids = torch.tensor([[chosen[row]] for row in unfinished], device=device)
    return answers

"""Greedy decoding in batches, with cached keys and values."""

from collections import defaultdict
from collections.abc import Callable

import torch

from stochastok_cli.models.base import CausalLM, KeyValueCache


@torch.inference_mode()
def greedy(
    model: CausalLM,
    prompts: list[list[int]],
    max_new_tokens: int,
    stop: Callable[[list[int]], bool],
    *,
    batch_size: int = 256,
) -> list[list[int]]:
    """The likeliest next ids after each prompt, one at a time, in the order of the prompts; dropout is off.

    A sequence ends when `stop(its new ids)` is true (the id that made it true is included), after `max_new_tokens`,
    or when the context window is full. Of a prompt longer than the window only the last
    `context_window - max_new_tokens` ids are kept (at least one). Prompts must not be empty.

    Prompts of equal length are decoded together, at most `batch_size` at once, so that no padding is needed.
    """
    window = model.context_window
    kept = [p if len(p) <= window else p[-max(window - max_new_tokens, 1) :] for p in prompts]
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, prompt in enumerate(kept):
        by_length[len(prompt)].append(i)

    answers: list[list[int]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    try:
        for length, members in by_length.items():
            limit = min(max_new_tokens, window - length + 1)  # the last new id need not fit: nothing is asked after it
            for first in range(0, len(members), batch_size):
                batch = members[first : first + batch_size]
                for i, answer in zip(batch, _decode(model, [kept[i] for i in batch], limit, stop), strict=True):
                    answers[i] = answer
    finally:
        model.train(was_training)
    return answers


def _decode(
    model: CausalLM, prompts: list[list[int]], limit: int, stop: Callable[[list[int]], bool]
) -> list[list[int]]:
    """At most `limit` new ids for each of some prompts of one length; finished sequences leave the batch."""
    device = model.device
    answers: list[list[int]] = [[] for _ in prompts]
    running = list(range(len(prompts)))
    cache = KeyValueCache()
    ids = torch.tensor(prompts, device=device)
    for _ in range(limit):
        chosen = model.logits(model(ids, cache=cache)[:, -1]).argmax(dim=-1).tolist()
        for i, token in zip(running, chosen, strict=True):
            answers[i].append(token)
        going = [row for row, i in enumerate(running) if not stop(answers[i])]
        if not going:
            break
        if len(going) < len(running):
            running = [running[row] for row in going]
            cache.keep(torch.tensor(going, device=device))
        ids = torch.tensor([[chosen[row]] for row in going], device=device)
    return answers

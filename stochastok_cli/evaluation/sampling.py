"""How the next id is drawn from logits: `Sampling`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stochastok_cli.errors import UserError, short_repr


@dataclass(frozen=True)
class Sampling:
    """How the next id is drawn.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest id.
        top_k: Draws from so many likeliest ids; from all where None.
        top_p: Draws from the fewest likeliest ids whose probabilities sum to this (Holtzman et al. 2020, "nucleus").
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def check(self) -> None:
        """Raises UserError for values that are not possible."""
        if not 0 <= self.temperature <= sys.float_info.max:
            raise UserError(
                f"--temperature {_shown(self.temperature)} is not possible", fix="give 0 or a positive number"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"--top-k {short_repr(self.top_k)} is not possible", fix="give 1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"--top-p {_shown(self.top_p)} is not possible", fix="give more than 0 and at most 1")

    def draw(self, logits: Tensor, uniforms: Sequence[float]) -> list[int]:
        """An id for each row, by the inverse of the cumulative distribution over ids in their own order.

        That order, unlike one by probability, does not depend on the last bits of the logits, so that the same numbers
        draw the same ids in every batch.

        Args:
            logits: float64 `[B, V]`.
            uniforms: B numbers in [0, 1).

        >>> logits = torch.tensor([[0.5, 0.1, 0.3, 0.1]]).double().log()
        >>> [Sampling().draw(logits, [u])[0] for u in (0.0, 0.49, 0.51, 0.61, 0.89, 0.99)]
        [0, 0, 1, 2, 2, 3]
        >>> [sampling.draw(logits, [0.99]) for sampling in (Sampling(top_k=2), Sampling(top_p=0.4), Sampling(0))]
        [[2], [0], [0]]
        """
        if self.temperature == 0:
            return logits.argmax(dim=-1).tolist()
        ids = None
        if self.top_p is not None:
            logits, ids = logits.sort(dim=-1, descending=True, stable=True)
            logits, ids = logits[:, : self.top_k], ids[:, : self.top_k]
        elif self.top_k is not None:
            logits, ids = logits.topk(min(self.top_k, logits.shape[-1]))
        weights = ((logits - logits.amax(dim=-1, keepdim=True)) / float(self.temperature)).exp()
        if self.top_p is not None:
            cumulative = weights.cumsum(dim=-1)
            weights[:, 1:][cumulative[:, :-1] >= self.top_p * cumulative[:, -1:]] = 0  # those before are enough
        if ids is not None:
            ids, order = ids.sort(dim=-1)
            weights = weights.gather(-1, order)
        cumulative = weights.cumsum(dim=-1)
        total = cumulative[:, -1:].contiguous()
        wanted = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None] * total
        last = torch.searchsorted(cumulative, total)  # of the ids that can be drawn, where rounding goes past them
        places = torch.minimum(torch.searchsorted(cumulative, wanted, right=True), last)
        return (places if ids is None else ids.gather(-1, places))[:, 0].tolist()


def _shown(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else short_repr(value)

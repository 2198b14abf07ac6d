"""What a fused step computes on: windows of tokens, and of them the tokens that have a loss."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Windows, in the types that the kernels take."""

    inputs: Tensor  # int32 [B, T]
    targets: Tensor  # int32 [B, T]
    token_weights: Tensor  # float32 [B, T]
    segment_start: Tensor | None  # int32 [B, T]
    dropout_keys: Tensor  # int64 [B]

    def windows(self, part: slice) -> "Batch":
        segment_start = None if self.segment_start is None else self.segment_start[part]
        return Batch(
            self.inputs[part], self.targets[part], self.token_weights[part], segment_start, self.dropout_keys[part]
        )

    def clone(self) -> "Batch":
        segment_start = None if self.segment_start is None else self.segment_start.clone()
        return Batch(
            self.inputs.clone(), self.targets.clone(), self.token_weights.clone(), segment_start,
            self.dropout_keys.clone(),
        )  # fmt: skip

    def tensors(self) -> list[Tensor]:
        """All tensors, without `segment_start` where there is none."""
        return [tensor for tensor in vars(self).values() if tensor is not None]


@dataclass(frozen=True)
class LossTokens:
    """The tokens of a micro-batch for which the head is computed."""

    index: Tensor | None  # [M] their positions among the N tokens; None: all of them, in order
    targets: Tensor  # [M] int32
    weights: Tensor  # [M] float32


def select_loss_tokens(batch: Batch, num_loss_tokens: int | None) -> LossTokens:
    """The tokens whose weight is not 0, if it is known that they are `num_loss_tokens` at most; else all tokens.

    Where there are fewer, token 0 with weight 0 fills the remaining places and adds nothing.
    """
    targets, weights = batch.targets.view(-1), batch.token_weights.view(-1)
    if num_loss_tokens is None or num_loss_tokens >= len(targets):
        return LossTokens(None, targets, weights)
    nonzero = torch.nonzero_static(weights, size=max(num_loss_tokens, 1), fill_value=-1).squeeze(1)
    index = nonzero.clamp(min=0)
    return LossTokens(index, targets[index], weights[index] * (nonzero >= 0))

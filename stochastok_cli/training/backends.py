"""How the loss and its gradients are computed: by the readable modules, or by the fused kernels where they run.

Both take the same weights and add to the same gradients; only the random numbers of dropout differ between them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from stochastok_cli.config import Config
from stochastok_cli.errors import UserError
from stochastok_cli.models.head_loss import head_loss
from stochastok_cli.models.llama.fused.support import unsupported
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.random_streams import derive_key, random_bits
from stochastok_cli.training.prefetch import DeviceBatch

# The first of torch's attention kernels that can: cuDNN's is by far the fastest on recent cards.
_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]

Forward = Callable[[Tensor, Tensor | None], Tensor]
"""Ids `[B, T]` and first visible positions `[B, T]` to hidden states `[B, T, D]`."""


@dataclass(frozen=True)
class Share:
    """A rank's part of an iteration (counted from 0): the numbers of its micro-batches, and those."""

    iteration: int
    micro_steps: Sequence[int]
    batches: Iterator[DeviceBatch]
    layer_is_complete: Callable[[int], None]
    """May be called with a layer's number when its gradients are, in an order that is the same on all ranks."""


class Backend(Protocol):
    name: str
    to_save_memory: str  # what a user can do

    def loss(self, batch: DeviceBatch) -> Tensor:
        """As `sum_of_window_losses`, of the model as it is: for validation in eval mode and under `torch.no_grad`."""
        ...

    def add_gradients(self, share: Share) -> Tensor:
        """Adds the gradients of a share to the parameters' `.grad`.

        Returns its part of the loss, the mean over the iteration's windows of all ranks: a scalar on the device.
        """
        ...


def choose_kernels(model: Llama, config: Config, device: torch.device) -> Backend:
    """What `general.kernels` asks for; `auto` takes the fused ones where they can run."""
    return Fused(model, config) if takes_fused(config, device) else PaperValue(model, config, device)


def takes_fused(config: Config, device: torch.device) -> bool:
    """Whether the run will use the fused kernels. Raises UserError if they are asked for and can't run."""
    wanted, hindrance = config.general.kernels, unsupported(config.model, device)
    if wanted == "fused" and hindrance:
        raise UserError(f"general.kernels is fused, but {hindrance}", fix="set general.kernels=auto")
    fused = wanted != "reference" and not hindrance
    if config.trainer.training.fp8_logits and not fused:
        raise UserError(
            "trainer.training.fp8_logits is true, which only the fused kernels know, and "
            + (hindrance or "general.kernels is reference"),
            fix="set it to false",
        )
    return fused


class PaperValue:
    """The modules of `model.transformer`, compiled by torch on CUDA."""

    name = "reference"
    to_save_memory = "lower trainer.training.batch_size and raise gradient_accumulation_steps by as much"

    def __init__(self, model: Llama, config: Config, device: torch.device):
        self.model, self.config = model, config
        self.forward: Forward = torch.compile(model) if device.type == "cuda" else model

    def loss(self, batch: DeviceBatch) -> Tensor:
        return sum_of_window_losses(self.forward, self.model.head_weight, batch)

    def add_gradients(self, share: Share) -> Tensor:
        # Compiled, the backward pass gives all gradients at its end, so that no layer is complete before the others.
        training = self.config.trainer.training
        windows = training.gradient_accumulation_steps * training.batch_size
        total = torch.zeros((), device=self.model.device)
        for micro_step in share.micro_steps:
            # Dropout depends on the micro-batch's place, not on the rank that runs it.
            torch.manual_seed(derive_key(self.config.general.seed, "dropout", share.iteration, micro_step))
            with sdpa_kernel(_ATTENTION, set_priority=True):
                loss = self.loss(next(share.batches)) / windows
            loss.backward()
            total += loss.detach()
        return total


class Fused:
    """The kernels of `model.fused`: all micro-batches of the iteration at once, or as many windows as fit."""

    name = "fused"
    to_save_memory = "they take what the GPU has free when a run begins: see what else runs on it (nvidia-smi)"

    def __init__(self, model: Llama, config: Config):
        from stochastok_cli.models.llama.fused.step import LlamaFusedStep

        self.config = config
        fp8 = config.trainer.training.fp8_logits
        self.step = LlamaFusedStep(model, config.trainer.dropout_scheduler.dropout, fp8_logits=fp8)

    def loss(self, batch: DeviceBatch) -> Tensor:
        return self.step.loss(
            batch.ids, batch.token_weights, batch.segment_start, num_loss_tokens=batch.num_loss_tokens
        )

    def add_gradients(self, share: Share) -> Tensor:
        training = self.config.trainer.training
        parts = [next(share.batches) for _ in share.micro_steps]
        ids, weights = torch.cat([part.ids for part in parts]), torch.cat([part.token_weights for part in parts])
        visible = [part.segment_start for part in parts if part.segment_start is not None]
        starts = np.array(share.micro_steps)[:, None] * training.batch_size
        index = (starts + np.arange(training.batch_size)).ravel()
        keys = random_bits(self.config.general.seed, "dropout", share.iteration, counters=index).view(np.int64)
        return self.step.loss_and_gradients(
            ids,
            weights / (training.gradient_accumulation_steps * training.batch_size),
            torch.cat(visible) if visible else None,
            torch.from_numpy(keys).pin_memory().to(ids.device, non_blocking=True),
            num_loss_tokens=sum(part.num_loss_tokens for part in parts),
            layer_is_complete=share.layer_is_complete,
        )


def sum_of_window_losses(forward: Forward, head_weight: Tensor, batch: DeviceBatch) -> Tensor:
    """The sum over a batch's windows of the weighted mean negative log-likelihood of their tokens, in nats.

    A float32 scalar; in bfloat16 products on CUDA, in float32 throughout on a CPU.
    """
    inputs, targets = batch.ids[:, :-1], batch.ids[:, 1:]
    device = head_weight.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        hidden = forward(inputs, batch.segment_start)
        return head_loss(
            hidden.flatten(0, 1),
            head_weight,
            targets.flatten(),
            batch.token_weights.flatten(),
            num_loss_tokens=batch.num_loss_tokens,
        )

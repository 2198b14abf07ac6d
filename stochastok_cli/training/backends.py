"""How the loss and its gradients are computed: by the readable modules, or by fused kernels where they can run.

Both backends take the same weights and add to the same gradients. Only the random numbers of dropout differ.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stochastok_cli.config import Config, TrainingConfig
from stochastok_cli.data.samplers import Batch
from stochastok_cli.errors import UserError
from stochastok_cli.models.base import ArchitectureConfig, CausalLM, ModelSpec, spec_of
from stochastok_cli.models.head_loss import head_loss
from stochastok_cli.random_streams import derive_key, random_bits

# In this order of preference: cuDNN's attention is by far the fastest on recent cards.
_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]

MODEL_TOO_LARGE = (
    "train a smaller model, spread its parts over more GPUs (trainer.parallel=shard), or see what else runs on the GPU "
    "(nvidia-smi)"
)
"""What to do where not even the weights, gradients and moments have room."""

Forward = Callable[[Tensor, Tensor | None], Tensor]
"""From ids `[B, T]` and segment starts `[B, T]` to hidden states `[B, T, D]`."""


class Backend(Protocol):
    """One way to compute the loss of a model and its gradients.

    Attributes:
        name: As in the key `general.kernels`.
        out_of_memory_fix: What a user can do when the device has too little memory.
        windows_at_once: How many windows go forward and backward at once; known after the first `forward_backward`.
        recomputes_activations: Whether the backward pass computes activations again; known then, too.
    """

    name: str
    out_of_memory_fix: str

    @property
    def windows_at_once(self) -> int: ...
    @property
    def recomputes_activations(self) -> bool: ...

    def micro_batches(self, windows: np.ndarray) -> list[np.ndarray]:
        """Divides a rank's windows of an iteration into the batches that `forward_backward` and `loss` take.

        Args:
            windows: int64 `[accumulation steps of this rank, batch_size]`, indices of windows.

        Returns:
            One-dimensional arrays of indices, one for each call.
        """
        ...

    def forward_backward(
        self, batch: Batch[Tensor], iteration: int, index: np.ndarray, on_gradients_ready: Callable[[int], None]
    ) -> Tensor:
        """Adds the gradients of a micro-batch to the parameters' `.grad`. The host does not wait for the device.

        Args:
            batch: Its windows.
            iteration: Counted from 0; with the indices it determines the dropout.
            index: The indices of the windows, one of the arrays of `micro_batches`.
            on_gradients_ready: May be called with the number of a block to whose gradients nothing more will be added
                in this iteration.

        Returns:
            The contribution of these windows to the mean loss of the whole iteration, a scalar on the device.
        """
        ...

    def loss(self, batch: Batch[Tensor]) -> Tensor:
        """The sum of the windows' losses in nats, for validation: in eval mode and under `torch.no_grad`."""
        ...


def uses_fused(spec: ModelSpec, hyperparameters: ArchitectureConfig, config: Config, device: torch.device) -> bool:
    """Whether a run uses the fused kernels: `general.kernels` is "fused", or it is "auto" and they can run.

    Raises UserError if they are required and can't run.
    """
    kernels, reason = config.general.kernels, spec.fused_unsupported(hyperparameters, device)
    if config.trainer.training.weight_dtype != "float32":
        reason = f"trainer.training.weight_dtype is {config.trainer.training.weight_dtype}, and they know only float32"
    if config.trainer.parallel == "shard":
        reason = "trainer.parallel is shard, and they need the whole model"
    if kernels == "fused" and reason:
        raise UserError(f"general.kernels is fused, but {reason}", fix="set general.kernels=auto")
    fused = kernels != "reference" and not reason
    if config.trainer.training.fp8_logits and not fused:
        raise UserError(
            "trainer.training.fp8_logits is true, which only the fused kernels know, and "
            + (reason or "general.kernels is reference"),
            fix="set it to false",
        )
    return fused


def indices_of_windows(batches: np.ndarray, batch_size: int) -> np.ndarray:
    """The indices of the windows of batches that are counted from 0, int64 `[number of batches, batch_size]`."""
    return batches[:, None] * batch_size + np.arange(batch_size)


def windows_per_iteration(training: TrainingConfig) -> int:
    """The number of windows in an iteration, over all ranks."""
    return training.gradient_accumulation_steps * training.batch_size


class CompiledBlocks:
    """A context in which the blocks of a model run compiled. Evaluation, whose lengths vary, runs them as they are."""

    def __init__(self, blocks: Sequence[nn.Module]):
        self.blocks = blocks
        self.compiled = [torch.compile(block.forward) for block in blocks]

    def __enter__(self) -> None:
        for block, compiled in zip(self.blocks, self.compiled, strict=True):
            block.forward = compiled  # hides the method of the class

    def __exit__(self, *error: object) -> None:
        for block in self.blocks:
            del block.forward


class EagerBackend:
    """The model's own modules and autograd, compiled by torch on CUDA, `batch_size` windows at a time."""

    name = "reference"
    out_of_memory_fix = "lower trainer.training.batch_size and raise gradient_accumulation_steps by as much"

    def __init__(self, model: CausalLM, config: Config, device: torch.device):
        self.model, self.config = model, config
        self.windows_at_once = config.trainer.training.batch_size
        self.recomputes_activations = config.trainer.training.activation_checkpointing
        model.set_activation_checkpointing(self.recomputes_activations)
        compiles = device.type == "cuda"
        self.forward: Forward = torch.compile(model) if compiles and model.compiles_whole else model
        self.compiled_blocks = CompiledBlocks(model.blocks if compiles and not model.compiles_whole else [])

    def micro_batches(self, windows: np.ndarray) -> list[np.ndarray]:
        return list(windows)

    def forward_backward(
        self, batch: Batch[Tensor], iteration: int, index: np.ndarray, on_gradients_ready: Callable[[int], None]
    ) -> Tensor:
        # Torch draws a dropout mask for a whole micro-batch. Its seed is the accumulation step's place among those of
        # all ranks, so that the mask does not depend on the number of ranks.
        training = self.config.trainer.training
        accumulation_step = int(index[0]) // training.batch_size
        torch.manual_seed(derive_key(self.config.general.seed, "dropout", iteration, accumulation_step))
        with self.compiled_blocks:  # the backward pass, too: it may run a block again
            with sdpa_kernel(_ATTENTION, set_priority=True):
                loss = sum_of_window_losses(self.forward, self.model, batch) / windows_per_iteration(training)
            loss.backward()
        return loss.detach()

    def loss(self, batch: Batch[Tensor]) -> Tensor:
        with self.compiled_blocks:
            return sum_of_window_losses(self.forward, self.model, batch)


class FusedBackend:
    """Kernels made for the architecture, on all windows of a rank at once, or as many of them as fit the device."""

    name = "fused"
    out_of_memory_fix = (
        "they take what the GPU has free when a run begins: see what else runs on it (nvidia-smi), or set "
        "trainer.training.activation_checkpointing=true"
    )

    def __init__(self, model: CausalLM, config: Config):
        self.config = config
        fused_step = spec_of(model).fused_step
        assert fused_step is not None
        training = config.trainer.training
        self.step = fused_step(
            model,
            config.trainer.dropout_scheduler.dropout,
            fp8_logits=training.fp8_logits,
            activation_checkpointing=training.activation_checkpointing,
        )

    @property
    def windows_at_once(self) -> int:
        return self.step.windows_at_once

    @property
    def recomputes_activations(self) -> bool:
        return self.step.recomputes_activations

    def micro_batches(self, windows: np.ndarray) -> list[np.ndarray]:
        return [windows.ravel()]

    def forward_backward(
        self, batch: Batch[Tensor], iteration: int, index: np.ndarray, on_gradients_ready: Callable[[int], None]
    ) -> Tensor:
        dropout_keys = random_bits(self.config.general.seed, "dropout", iteration, counters=index).view(np.int64)
        return self.step.loss_and_gradients(
            batch.ids,
            batch.token_weights / windows_per_iteration(self.config.trainer.training),
            batch.segment_start,
            torch.from_numpy(dropout_keys).pin_memory().to(batch.ids.device, non_blocking=True),
            num_loss_tokens=batch.num_loss_tokens,
            on_gradients_ready=on_gradients_ready,
        )

    def loss(self, batch: Batch[Tensor]) -> Tensor:
        return self.step.loss(
            batch.ids, batch.token_weights, batch.segment_start, num_loss_tokens=batch.num_loss_tokens
        )


def sum_of_window_losses(forward: Forward, model: CausalLM, batch: Batch[Tensor]) -> Tensor:
    """The sum over a batch's windows of the weighted mean negative log-likelihood of their tokens, in nats.

    `forward` is the model's own or a compiled one. The sum is a float32 scalar. Products are in bfloat16 on CUDA,
    everything is in float32 on a CPU.
    """
    inputs, targets = batch.ids[:, :-1], batch.ids[:, 1:]
    device = batch.ids.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        hidden = forward(inputs, batch.segment_start)
        return head_loss(
            hidden.flatten(0, 1),
            model.head_weight,
            targets.flatten(),
            batch.token_weights.flatten(),
            bias=model.head_bias,
            softcap=model.logit_softcap,
            num_loss_tokens=batch.num_loss_tokens,
        )

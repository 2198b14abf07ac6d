"""Data parallelism: the interface `Parallel`, and two ways that keep the whole model on every rank.

`SingleRank` is for one rank, `Replicated` for several and for the fused kernels. `sharded.py` has the other way, and
the choice between them.

Apart from choosing the class, the trainer, the backends and the checkpoints use only what `Parallel` declares. Its
methods are collective: all ranks make the same calls in the same order.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from stochastok_cli.models.base import CausalLM
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.optimizer_state import has_master_weights, load_whole, save_whole
from stochastok_cli.training.optimizers import optimizer_tensors

CopyTensors = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Copies tensors that training will change."""


class Parallel(Protocol):
    """One way to train a model on several ranks.

    Attributes:
        world: The ranks.
        model: The model to train, after `prepare`.
        loss: The loss of the iteration, a scalar on the device: this rank's part, which the step adds up, and after
            `reduce_gradients` the mean over the windows of all ranks.
    """

    world: DistributedContext
    model: CausalLM
    loss: Tensor

    def prepare(self, model: CausalLM) -> CausalLM:
        """Distributes a model whose weights are on rank 0, and returns the model to train.

        Backward passes add to the parameters' `.grad`; where it is None, they set it.
        """
        ...

    def zero_grad(self) -> None:
        """Sets gradients to 0 or None, and the loss to 0."""
        ...

    def on_gradients_ready(self, block: int) -> None:
        """Called by a backend when nothing more will be added to the gradients of a block in this iteration.

        These calls are optional: they let the reduction overlap the rest of the backward pass. The order of blocks
        must be the same on all ranks.
        """
        ...

    def reduce_gradients(self) -> None:
        """Sums gradients and loss over the ranks."""
        ...

    def gradient_norm(self) -> Tensor:
        """The norm of the whole gradient, a float32 scalar, after `reduce_gradients`."""
        ...

    def full_state_dict(self) -> dict[str, Tensor]:
        """The model's state dict with full tensors on rank 0, without parameters that are not trained. The result on
        other ranks must not be used."""
        ...

    def optimizer_state_writer(
        self, optimizer: torch.optim.Optimizer, folder: Path, *, with_weights: bool, copy: CopyTensors | None = None
    ) -> Callable[[], None]:
        """Does what all ranks have to do to write the `optimizer_tensors` into a checkpoint's folder.

        Args:
            optimizer: The optimizer.
            folder: The checkpoint's folder.
            with_weights: Whether the trained weights are written, too.
            copy: Copies the tensors that the result of this method reads; None where it is called at once.

        Returns:
            A function that writes the rest, to be called on rank 0 alone. It is not collective.
        """
        ...

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        """Copies the state in a checkpoint, saved by any number of ranks, into an optimizer and the weights."""
        ...


class _WholeModel:
    """What the ways have in common that keep the whole model on every rank."""

    world: DistributedContext
    model: CausalLM

    def full_state_dict(self) -> dict[str, Tensor]:
        frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        return {name: tensor for name, tensor in self.model.state_dict().items() if name not in frozen}

    def optimizer_state_writer(
        self, optimizer: torch.optim.Optimizer, folder: Path, *, with_weights: bool, copy: CopyTensors | None = None
    ) -> Callable[[], None]:
        if not self.world.is_main:
            return lambda: None
        tensors = optimizer_tensors(self.model, optimizer, with_weights=with_weights)
        tensors = tensors if copy is None else copy(tensors)
        return lambda: save_whole(tensors, folder)

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        with_weights = self.world.broadcast_from_rank_0(lambda: has_master_weights(folder))
        tensors = optimizer_tensors(self.model, optimizer, with_weights=with_weights)
        self.world.broadcast_from_rank_0(lambda: load_whole(tensors, folder))
        self.world.broadcast_(tensors.values())


class SingleRank(_WholeModel):
    """One rank. Autograd's first backward pass of an iteration sets the gradients, so nothing sets them to 0 first."""

    loss: Tensor

    def __init__(self, world: DistributedContext) -> None:
        self.world = world
        self.loss = torch.zeros((), device=world.device)

    def prepare(self, model: CausalLM) -> CausalLM:
        self.model = model
        self.parameters = model.trained_parameters()
        return model

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        self.loss.zero_()

    def on_gradients_ready(self, block: int) -> None:
        pass

    def reduce_gradients(self) -> None:
        set_missing_gradients(self.parameters)

    def gradient_norm(self) -> Tensor:
        return norm_of([parameter.grad for parameter in self.parameters if parameter.grad is not None])


BUCKET_BYTES = 2**28
"""Of complete gradients, whose sum over the ranks is started before the others are complete. Smaller ones would be
more. At each of them ranks wait for the slowest, and NCCL's kernel takes multiprocessors from the backward pass, whose
products have one program for each: what starts later then takes twice as long."""
_LOSS_ELEMENTS = 64  # in the flat buffer, so that gradients begin at a multiple of 128 bytes


class Replicated(_WholeModel):
    """The whole model on every rank, with gradients summed over the ranks (as in DistributedDataParallel).

    Every parameter's `.grad` is a view of one flat buffer. It begins with the loss, which has a tensor of its own where
    the buffer is not float32; the gradients of blocks come last. So one kernel each sets an iteration's gradients to 0
    and measures their norm. The buffer is summed over the ranks in a few large pieces: some blocks together while the
    backward pass continues, and the rest at the end.
    """

    flat: Tensor
    gradient: Tensor
    loss: Tensor

    def __init__(self, world: DistributedContext) -> None:
        self.world = world
        self._complete: list[slice] = []  # the blocks whose sum has not been started
        self._started: list[tuple[slice, Callable[[], None]]] = []  # parts, and functions that wait until they are sums

    def prepare(self, model: CausalLM) -> CausalLM:
        self.model = model
        self.world.broadcast_(model.parameters())
        in_blocks = {parameter for block in model.blocks for parameter in block.parameters()}
        parameters = sorted(model.trained_parameters(), key=in_blocks.__contains__)  # otherwise in their order
        size, dtype = sum(parameter.numel() for parameter in parameters), parameters[0].dtype
        self.flat = torch.zeros(_LOSS_ELEMENTS + size, dtype=dtype, device=parameters[0].device)
        self.loss, self.gradient = self.flat[0], self.flat[_LOSS_ELEMENTS:]
        if dtype != torch.float32:
            self.loss = torch.zeros((), device=parameters[0].device)
        ranges, start = {}, _LOSS_ELEMENTS
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.grad = self.flat[start:end].view_as(parameter)
            ranges[parameter] = start, end
            start = end
        self._blocks = [_range_of(block, ranges) for block in model.blocks]
        return model

    def zero_grad(self) -> None:
        self.flat.zero_()
        if self.loss.dtype != self.flat.dtype:
            self.loss.zero_()

    def on_gradients_ready(self, block: int) -> None:
        self._complete.append(self._blocks[block])
        if sum(part.stop - part.start for part in self._complete) * self.flat.element_size() < BUCKET_BYTES:
            return
        for part in _joined(self._complete):
            self._started.append((part, self.world.all_reduce_async(self.flat[part])))
        self._complete.clear()

    def reduce_gradients(self) -> None:
        end = 0
        for part, _ in sorted(self._started, key=lambda started: started[0].start):
            self.world.all_reduce_(self.flat[end : part.start])  # what lies between parts
            end = part.stop
        self.world.all_reduce_(self.flat[end:])
        if self.loss.dtype != self.flat.dtype:
            self.world.all_reduce_(self.loss)
        for _, wait in self._started:
            wait()
        self._started.clear()
        self._complete.clear()

    def gradient_norm(self) -> Tensor:
        return torch.linalg.vector_norm(self.gradient, dtype=torch.float32)


def set_missing_gradients(parameters: list[nn.Parameter]) -> None:
    """Sets gradients that are None to 0: those of parameters that had no part in the loss. So weight decay acts on them
    in every way to train."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def norm_of(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, a float32 scalar also where they are bfloat16."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32)))


def _range_of(block: nn.Module, ranges: dict[nn.Parameter, tuple[int, int]]) -> slice:
    """The part of the flat buffer that holds a block's gradients, whose parameters follow one another."""
    own = [ranges[parameter] for parameter in block.parameters() if parameter in ranges]
    return slice(min((start for start, _ in own), default=0), max((end for _, end in own), default=0))


def _joined(parts: list[slice]) -> list[slice]:
    """The same elements in as few slices as possible, in their order. `parts` do not overlap."""
    joined: list[slice] = []
    for part in sorted(parts, key=lambda part: part.start):
        if joined and joined[-1].stop == part.start:
            joined[-1] = slice(joined[-1].start, part.stop)
        elif part.stop > part.start:
            joined.append(part)
    return joined

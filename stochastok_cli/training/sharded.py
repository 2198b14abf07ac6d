"""Fully sharded data parallelism (FSDP2): each rank holds a part of every weight, gradient and moment.

The layers are gathered one at a time while they compute. Gradients are summed over the ranks in float32; on CUDA the
layers compute in bfloat16.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from stochastok_cli.config import Config
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.base import CausalLM
from stochastok_cli.models.checkpoint_reader import OPTIMIZER
from stochastok_cli.training.data_parallel import (
    CopyTensors,
    Parallel,
    Replicated,
    SingleRank,
    norm_of,
    set_missing_gradients,
)
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.optimizer_state import (
    has_master_weights,
    has_parts,
    load_parts,
    save_parts,
    save_whole,
)
from stochastok_cli.training.optimizers import optimizer_tensors

_MAX_GATHERED_FRACTION = 0.15
"""Layers that take less than this fraction of a GPU's memory stay gathered until the backward pass."""


def make_parallel(model: CausalLM, config: Config, world: DistributedContext, *, fused: bool) -> Parallel:
    """The way to train a model on these ranks that `trainer.parallel` names. The fused kernels need the whole
    model, and Muon whole matrices."""
    wanted, several = config.trainer.parallel, world.world_size > 1
    if config.trainer.optimizer.name == "muon":
        wanted = "replicate"
    if wanted == "auto" and world.device.type == "cuda":
        memory = torch.cuda.get_device_properties(world.device).total_memory
        # A weight, and where it is trained its gradient and AdamW's two moments.
        needed = sum(p.numel() * p.element_size() * (4 if p.requires_grad else 1) for p in model.parameters())
        wanted = "shard" if needed > memory / 2 else "replicate"
    if fused:
        return Replicated(world)
    if not several:
        return SingleRank(world)
    return Sharded(world) if wanted == "shard" else Replicated(world)


class Sharded:
    """See `Parallel`. The gradients of each micro-batch are summed over the ranks as soon as they are computed."""

    loss: Tensor

    def __init__(self, world: DistributedContext) -> None:
        self.world = world
        self.loss = torch.zeros((), device=world.device)

    def prepare(self, model: CausalLM) -> CausalLM:
        self.model = model
        self.world.broadcast_(model.parameters())
        mesh = init_device_mesh(self.world.device.type, (self.world.world_size,))
        policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
        if self.world.device.type == "cuda":
            policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        gather_once = _fits_gathered(model, self.world.device)
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=not gather_once)
        fully_shard(model, mesh=mesh, mp_policy=policy)
        register_fsdp_forward_method(model, "logits")
        for module in model.modules():
            if isinstance(module, FSDPModule):  # sums, not means: the loss is divided by all windows of an iteration
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        return model

    def zero_grad(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None
        self.loss.zero_()

    def on_gradients_ready(self, block: int) -> None:
        pass

    def reduce_gradients(self) -> None:
        self.world.all_reduce_(self.loss)
        set_missing_gradients(self.model.trained_parameters())

    def gradient_norm(self) -> Tensor:
        square = norm_of([_local(p.grad) for p in self.model.parameters() if p.grad is not None]).square()
        self.world.all_reduce_(square)
        return square.sqrt()

    def full_state_dict(self) -> dict[str, Tensor]:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        weights: Any = get_model_state_dict(self.model, options=options)
        return weights

    def optimizer_state_writer(
        self, optimizer: torch.optim.Optimizer, folder: Path, *, with_weights: bool, copy: CopyTensors | None = None
    ) -> Callable[[], None]:
        """See `Parallel`. The parts are written at once: writing them is collective."""
        tensors = optimizer_tensors(self.model, optimizer, with_weights=with_weights)
        if not self.world.any(not folder.is_dir()):
            save_parts(tensors, folder)
            return lambda: None
        gathered = {}  # for a folder that not all nodes see
        for name, tensor in tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.world.is_main:
                gathered[name] = full.cpu()
        gathered = gathered if copy is None else copy(gathered)
        return lambda: save_whole(gathered, folder)

    @torch.no_grad()
    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        with_weights, in_parts = self.world.broadcast_from_rank_0(
            lambda: (has_master_weights(folder), has_parts(folder))
        )
        tensors = optimizer_tensors(self.model, optimizer, with_weights=with_weights)
        if not in_parts:
            self._scatter(tensors, folder / OPTIMIZER)
        elif self.world.any(not has_parts(folder)):
            raise UserError(
                f"not all processes of this run see {folder}, where each has to read its part",
                fix="put the run on a file system that all nodes share",
                exit_code=FAILED,
            )
        else:
            load_parts(tensors, folder)

    def _scatter(self, tensors: dict[str, Tensor], file: Path) -> None:
        """Copies full tensors, which rank 0 reads one by one, into parts."""
        with safe_open(file, framework="pt") if self.world.is_main else nullcontext() as stream:
            for name, tensor in tensors.items():
                full = torch.empty(tensor.shape, dtype=tensor.dtype, device=self.world.device)
                if stream is not None:
                    full.copy_(stream.get_tensor(name))
                self.world.broadcast_([full])
                if isinstance(tensor, DTensor):
                    full = distribute_tensor(full, tensor.device_mesh, tensor.placements, src_data_rank=None)
                _local(tensor).copy_(_local(full))


def _fits_gathered(model: CausalLM, device: torch.device) -> bool:
    """Whether layers may stay gathered in bfloat16 from the forward pass to the backward pass: they take little memory.

    Layers that are freed after the forward pass are gathered again in the backward pass, which takes time.
    """
    if device.type != "cuda":
        return False
    gathered = 2 * sum(parameter.numel() for parameter in model.parameters())  # bytes
    return gathered < torch.cuda.get_device_properties(device).total_memory * _MAX_GATHERED_FRACTION


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor

"""Utilization of the GPUs, memory, and the size of a checkpoint."""

import re

import torch
from torch import nn

from stochastok_cli.config import Config
from stochastok_cli.models.base import CausalLM
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.optimizers import muon_weights

# Dense bfloat16 with float32 sums, TFLOP/s, from the manufacturers' data sheets. The first entry is used whose name
# occurs in the name of the device.
_PEAK_TFLOPS = {
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "A800": 312.0,
    "H800": 989.0,
    "L40S": 362.0,
    "A10G": 70.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}


def checkpoint_bytes(model: CausalLM, config: Config) -> int:
    """The size of a checkpoint, without headers and small files: the trained weights with their moments, float32
    weights twice where the model has them in bfloat16, and all others where they are saved merged with an adapter."""
    moments = moments_of(model, config)
    rounds = config.trainer.training.checkpoint_dtype == "bfloat16"
    total = 0
    for parameter in model.parameters():
        size = parameter.element_size()
        saved = min(size, 2) if rounds else size
        if parameter.requires_grad:
            total += parameter.numel() * (saved + moments[parameter] * size + (size if saved < size else 0))
        elif config.trainer.lora.merge:
            total += parameter.numel() * saved
    return total


def async_save_bytes(model: CausalLM, config: Config, *, sharded: bool) -> int:
    """What `async_save` copies to host memory: the trained weights, and of a whole model their moments and the weights
    again where a checkpoint rounds them."""
    moments = moments_of(model, config)
    rounds = config.trainer.training.checkpoint_dtype == "bfloat16"
    total = 0
    for parameter in model.trained_parameters():
        copies = 1 if sharded else 1 + moments[parameter] + (rounds and parameter.element_size() > 2)
        total += parameter.numel() * parameter.element_size() * copies
    return total


def moments_of(model: CausalLM, config: Config) -> dict[nn.Parameter, int]:
    """The number of moments of each trained weight: AdamW has two, Muon one."""
    muon = muon_weights(model) if config.trainer.optimizer.name == "muon" else {}
    return {parameter: 1 if parameter in muon else 2 for parameter in model.trained_parameters()}


def utilization(tokens_per_second: float, model: CausalLM, config: Config, world: DistributedContext) -> float | None:
    """The model's operations relative to the GPUs' peak (MFU; Chowdhery et al. 2022, appendix B).

    None where the peak is unknown, and for instruction data, where attention and loss skip most of the operations.
    """
    peak = peak_flops(world.device)
    if peak is None or config.trainer.dataset.is_instruction:
        return None
    return tokens_per_second * model.flops_per_token(config.model.context_window) / (peak * world.world_size)


def peak_flops(device: torch.device) -> float | None:
    """The nominal peak of a GPU in bfloat16 products, in operations per second; None where it is unknown."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak * 1e12 for model, peak in _PEAK_TFLOPS.items() if re.search(rf"\b{model}\b", name)), None)


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that this process has had allocated on a GPU at once; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None

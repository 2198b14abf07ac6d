"""Whether the fused kernels can train a model on a device. Doesn't import them, so that it can always be asked."""

import importlib.metadata
import importlib.util

import torch
from packaging.version import Version

from stochastok_cli.config import ModelConfig
from stochastok_cli.models.llama.fused.attention_tiles import HEAD_DIMS, LENGTH_MULTIPLE

HIDDEN_DIM_MULTIPLE = 64  # the depth of a tile of the matrix products
MAX_HIDDEN_DIM = 4096  # a program holds whole rows of hidden states
TRITON_VERSION = Version("3.6")
"""The first in which Gluon has what `fused.pingpong` needs."""


def unsupported(config: ModelConfig, device: torch.device) -> str | None:
    """None if the fused kernels can train this model on this device, else the reason, as a clause."""
    return unsupported_shape(config) or unsupported_device(device)


def unsupported_device(device: torch.device) -> str | None:
    """None if the fused kernels can run on this device, else the reason, as a clause."""
    if device.type != "cuda":
        return f"they are for NVIDIA GPUs, and the device is {device.type!r}"
    major, minor = torch.cuda.get_device_capability(device)
    if major != 9:
        return f"their tiles are made for compute capability 9 (H100, H200), and this GPU has {major}.{minor}"
    if importlib.util.find_spec("triton") is None:
        return "the package `triton` is not installed"
    version = _triton_version()
    if version is not None and version < TRITON_VERSION:
        return f"they need triton {TRITON_VERSION}, and {version} is installed"
    return None


def _triton_version() -> Version | None:
    """None where Triton is part of a package of another name, as with nightly builds of PyTorch."""
    try:
        return Version(importlib.metadata.version("triton"))
    except importlib.metadata.PackageNotFoundError:
        return None


def unsupported_shape(config: ModelConfig) -> str | None:
    """None if the fused kernels can train a model of these sizes, else the reason, as a clause."""
    ffn_dim = config.core_model.ffn.ffn_dim
    if config.head_dim not in HEAD_DIMS:
        return f"they take heads of width {', '.join(map(str, HEAD_DIMS))}, and these have {config.head_dim}"
    if config.context_window % LENGTH_MULTIPLE:
        return f"they take context windows of a multiple of {LENGTH_MULTIPLE}, and this is {config.context_window}"
    if config.hidden_dim % HIDDEN_DIM_MULTIPLE or config.hidden_dim > MAX_HIDDEN_DIM:
        return (
            f"they take a hidden_dim of a multiple of {HIDDEN_DIM_MULTIPLE} up to {MAX_HIDDEN_DIM}, and this is "
            f"{config.hidden_dim}"
        )
    if ffn_dim % 8:
        return f"they take an ffn_dim of a multiple of 8 (rows of 16 bytes), and this is {ffn_dim}"
    return None

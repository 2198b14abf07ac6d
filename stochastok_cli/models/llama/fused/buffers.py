"""What a fused step holds on the device for a micro-batch: activations kept for the gradients, and those in passing.

Names as in `fused.step`: B windows of T tokens, N = B T rows, D the width of the residual stream, F that of the
feed-forward, H query heads and G key/value heads of width h.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stochastok_cli.config import ModelConfig


@dataclass
class Layer:
    """What a layer's forward pass leaves for its gradient."""

    x: Tensor  # [N, D] the residual stream before the layer
    normed: Tensor  # [N, D]
    rstd: Tensor  # [N] float32
    qkv: Tensor  # [N, (H + 2 G) h], turned
    rows: Tensor  # [B, H, T] int32, words of the dropout masks
    columns: Tensor  # [B, G, T] int32
    lse: Tensor  # [B, H, T] float32
    attended: Tensor  # [N, D]
    ffn_x: Tensor  # [N, D] the residual stream between attention and feed-forward
    ffn_normed: Tensor  # [N, D]
    ffn_rstd: Tensor  # [N] float32
    gate_up: Tensor  # [N, 2 F]
    act: Tensor  # [N, F]


@dataclass
class Buffers:
    """All activations of one micro-batch, and the gradients on their way through it."""

    layers: list[Layer]
    x: Tensor  # [N, D] after the last layer
    normed: Tensor  # [N, D]
    rstd: Tensor  # [N] float32
    y: Tensor  # [N, D] what a part adds to the residual stream, and in the backward pass its gradient
    grad: Tensor  # [N, D] of the residual stream, after a layer
    ffn_grad: Tensor  # [N, D] of the residual stream, between attention and feed-forward
    normed_grad: Tensor  # [N, D]
    attended_grad: Tensor  # [N, D]
    qkv_grad: Tensor  # [N, (H + 2 G) h]
    delta: Tensor  # [B, H, T] float32
    act_grad: Tensor  # [N, F]
    gate_up_grad: Tensor  # [N, 2 F]


def allocate(config: ModelConfig, windows: int, length: int, dtype: torch.dtype, device: torch.device) -> Buffers:
    width, ffn, heads, groups = (
        config.hidden_dim, config.core_model.ffn.ffn_dim, config.core_model.attn.num_heads, config.kv_heads,
    )  # fmt: skip
    rows, qkv = windows * length, (heads + 2 * groups) * config.head_dim

    def matrix(columns: int) -> Tensor:
        return torch.empty(rows, columns, dtype=dtype, device=device)

    def single(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device=device)

    def layer() -> Layer:
        return Layer(
            x=matrix(width), normed=matrix(width), rstd=single(rows), qkv=matrix(qkv),
            rows=single(windows, heads, length, dtype=torch.int32),
            columns=single(windows, groups, length, dtype=torch.int32), lse=single(windows, heads, length),
            attended=matrix(width), ffn_x=matrix(width), ffn_normed=matrix(width), ffn_rstd=single(rows),
            gate_up=matrix(2 * ffn), act=matrix(ffn),
        )  # fmt: skip

    return Buffers(
        layers=[layer() for _ in range(config.core_model.num_layers)], x=matrix(width), normed=matrix(width),
        rstd=single(rows), y=matrix(width), grad=matrix(width), ffn_grad=matrix(width), normed_grad=matrix(width),
        attended_grad=matrix(width), qkv_grad=matrix(qkv), delta=single(windows, heads, length), act_grad=matrix(ffn),
        gate_up_grad=matrix(2 * ffn),
    )  # fmt: skip


def activation_bytes(config: ModelConfig, windows: int, length: int) -> int:
    """What a micro-batch of so many windows holds on the device, besides weights, gradients and the head's chunk."""
    buffers = allocate(config, windows, length, torch.bfloat16, torch.device("meta"))
    tensors = [t for part in (buffers, *buffers.layers) for t in vars(part).values() if isinstance(t, Tensor)]
    return sum(t.nbytes for t in tensors)


def first_windows(buffers: Buffers, windows: int, length: int) -> Buffers:
    """The same buffers, cut to their first windows: views."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor[:windows] if tensor.dim() == 3 else tensor[: windows * length]

    def parts(of: Layer | Buffers) -> dict[str, Tensor]:
        return {name: cut(value) for name, value in vars(of).items() if isinstance(value, Tensor)}

    return Buffers(layers=[Layer(**parts(layer)) for layer in buffers.layers], **parts(buffers))

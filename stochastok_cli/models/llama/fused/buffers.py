"""What a fused step holds on the device for a micro-batch: activations that the backward pass needs, and temporaries.

Shapes as in `fused.step`: B windows of T tokens, N = B T, D the width of hidden states, F that of the feed-forward
layers, H query heads and G key/value heads of width h.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stochastok_cli.config import ModelConfig


@dataclass
class LayerActivations:
    """What the forward pass of a layer stores for its backward pass."""

    residual: Tensor  # [N, D] the residual stream before the layer
    normed: Tensor  # [N, D]
    rstd: Tensor  # [N] float32
    qkv: Tensor  # [N, (H + 2 G) h] rotated
    query_hash: Tensor  # [B, H, T] int32, of the dropout masks
    key_hash: Tensor  # [B, G, T] int32
    lse: Tensor  # [B, H, T] float32
    attention_out: Tensor  # [N, D]
    ffn_residual: Tensor  # [N, D] the residual stream between attention and feed-forward
    ffn_normed: Tensor  # [N, D]
    ffn_rstd: Tensor  # [N] float32
    gate_up: Tensor  # [N, 2 F]
    ffn_hidden: Tensor  # [N, F]


@dataclass
class Buffers:
    """All activations of one micro-batch, and the gradients of the layer that is at work."""

    layers: list[LayerActivations]
    residual: Tensor  # [N, D] after the last layer
    normed: Tensor  # [N, D]
    rstd: Tensor  # [N] float32
    sublayer_out: Tensor  # [N, D] what attention or feed-forward adds to the residual stream; later its gradient
    residual_grad: Tensor  # [N, D] of the residual stream after a layer
    ffn_residual_grad: Tensor  # [N, D] of the residual stream between attention and feed-forward
    normed_grad: Tensor  # [N, D]
    attention_out_grad: Tensor  # [N, D]
    qkv_grad: Tensor  # [N, (H + 2 G) h]
    delta: Tensor  # [B, H, T] float32
    ffn_hidden_grad: Tensor  # [N, F]
    gate_up_grad: Tensor  # [N, 2 F]


def allocate(config: ModelConfig, windows: int, length: int, dtype: torch.dtype, device: torch.device) -> Buffers:
    """Buffers for a micro-batch.

    Args:
        config: The model.
        windows: B.
        length: T.
        dtype: The type of all matrices with one row a token.
        device: Where to allocate them.
    """
    width, ffn, heads, kv_heads = (
        config.hidden_dim, config.core_model.ffn.ffn_dim, config.core_model.attn.num_heads, config.kv_heads,
    )  # fmt: skip
    rows, qkv = windows * length, (heads + 2 * kv_heads) * config.head_dim

    def matrix(columns: int) -> Tensor:
        return torch.empty(rows, columns, dtype=dtype, device=device)

    def other(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device=device)

    def layer() -> LayerActivations:
        return LayerActivations(
            residual=matrix(width), normed=matrix(width), rstd=other(rows), qkv=matrix(qkv),
            query_hash=other(windows, heads, length, dtype=torch.int32),
            key_hash=other(windows, kv_heads, length, dtype=torch.int32), lse=other(windows, heads, length),
            attention_out=matrix(width), ffn_residual=matrix(width), ffn_normed=matrix(width), ffn_rstd=other(rows),
            gate_up=matrix(2 * ffn), ffn_hidden=matrix(ffn),
        )  # fmt: skip

    return Buffers(
        layers=[layer() for _ in range(config.core_model.num_layers)], residual=matrix(width), normed=matrix(width),
        rstd=other(rows), sublayer_out=matrix(width), residual_grad=matrix(width), ffn_residual_grad=matrix(width),
        normed_grad=matrix(width), attention_out_grad=matrix(width), qkv_grad=matrix(qkv),
        delta=other(windows, heads, length), ffn_hidden_grad=matrix(ffn), gate_up_grad=matrix(2 * ffn),
    )  # fmt: skip


def activation_bytes(config: ModelConfig, windows: int, length: int) -> int:
    """Bytes of the bfloat16 buffers of a micro-batch. Weights, gradients and the output head are not included."""
    buffers = allocate(config, windows, length, torch.bfloat16, torch.device("meta"))
    tensors = [t for part in (buffers, *buffers.layers) for t in vars(part).values() if isinstance(t, Tensor)]
    return sum(t.nbytes for t in tensors)


def slice_windows(buffers: Buffers, windows: int, length: int) -> Buffers:
    """Views of the first windows in buffers for more of them."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor[:windows] if tensor.dim() == 3 else tensor[: windows * length]

    def tensors(part: LayerActivations | Buffers) -> dict[str, Tensor]:
        return {name: cut(value) for name, value in vars(part).items() if isinstance(value, Tensor)}

    return Buffers(layers=[LayerActivations(**tensors(layer)) for layer in buffers.layers], **tensors(buffers))


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that can be allocated, including those that torch's allocator has reserved and not given out."""
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserved

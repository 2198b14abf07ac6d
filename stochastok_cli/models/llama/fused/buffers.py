"""What a fused step holds on the device for a micro-batch: activations that the backward pass needs, and temporaries.

Shapes as in `fused.step`: B windows of T tokens, N = B T, D the width of hidden states, F that of the feed-forward
layers, H query heads and G key/value heads of width h.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from stochastok_cli.config import ModelConfig
from stochastok_cli.models.llama.fused.residual import square_sum_parts


@dataclass
class LayerActivations:
    """What the forward pass of a layer stores for its backward pass."""

    residual: Tensor  # [N, D] the residual stream before the layer
    rstd: Tensor  # [N] float32, 1 / RMS of its rows
    qkv: Tensor  # [N, (H + 2 G) h] rotated
    query_hash: Tensor  # [B, H, T] int32, of the dropout masks
    key_hash: Tensor  # [B, G, T] int32
    lse: Tensor  # [B, H, T] float32
    attention_out: Tensor  # [N, D]
    ffn_residual: Tensor  # [N, D] the residual stream between attention and feed-forward
    ffn_rstd: Tensor  # [N] float32
    gate_up: Tensor  # [N, 2 F]
    ffn_hidden: Tensor  # [N, F]


@dataclass
class Activations:
    """What the forward pass of a micro-batch writes."""

    layers: list[LayerActivations]
    residual: Tensor  # [N, D] after the last layer
    normed: Tensor  # [N, D]
    rstd: Tensor  # [N] float32
    square_sums: Tensor  # [N, P] float32, of P parts of the rows of the residual stream


@dataclass
class Buffers(Activations):
    """The activations of a micro-batch, which the backward pass needs, and the gradients of one layer.

    With `recompute`, layers have only their `residual` and its `rstd` each. They share the rest, which holds the
    activations of one layer, and which the backward pass computes again for every layer from these.
    """

    residual_grad: Tensor  # [N, D] of the residual stream after a layer
    ffn_residual_grad: Tensor  # [N, D] of the residual stream between attention and feed-forward
    normed_grad: Tensor  # [N, D]
    projected_grad: Tensor  # [N, D] of what attention adds to the residual stream
    attention_out_grad: Tensor  # [N, D]
    qkv_grad: Tensor  # [N, (H + 2 G) h]
    delta: Tensor  # [B, H, T] float32
    gate_up_grad: Tensor  # [N, 2 F]
    recompute: bool


def allocate(
    config: ModelConfig, windows: int, length: int, dtype: torch.dtype, device: torch.device, *, recompute: bool = False
) -> Buffers:
    """Buffers for a micro-batch.

    Args:
        config: The model.
        windows: B.
        length: T.
        dtype: The type of all matrices with one row a token.
        device: Where to allocate them.
        recompute: See `Buffers`.
    """
    make = _Maker(config, windows, length, dtype, device)
    width, ffn, qkv = make.width, make.ffn, make.qkv
    first, others = make.layer(), range(config.core_model.num_layers - 1)
    following = [
        replace(first, residual=make.matrix(width), rstd=make.rows_of_float()) if recompute else make.layer()
        for _ in others
    ]
    return Buffers(
        layers=[first, *following], residual=make.matrix(width), normed=make.matrix(width), rstd=make.rows_of_float(),
        square_sums=make.square_sums(), residual_grad=make.matrix(width), ffn_residual_grad=make.matrix(width),
        normed_grad=make.matrix(width), projected_grad=make.matrix(width), attention_out_grad=make.matrix(width),
        qkv_grad=make.matrix(qkv), delta=make.by_head(make.heads), gate_up_grad=make.matrix(2 * ffn),
        recompute=recompute,
    )  # fmt: skip


def allocate_one_layer(
    config: ModelConfig, windows: int, length: int, dtype: torch.dtype, device: torch.device
) -> Activations:
    """Buffers for a forward pass alone, arguments as of `allocate`: every layer overwrites those of the one before."""
    make = _Maker(config, windows, length, dtype, device)
    return _in_turn(make.layer(), config.core_model.num_layers, make.matrix(make.width), make.square_sums())


def borrow_one_layer(buffers: Buffers) -> Activations:
    """The same in the buffers of a first layer, whose activations are lost."""
    return _in_turn(buffers.layers[0], len(buffers.layers), buffers.normed, buffers.square_sums)


def _in_turn(layer: LayerActivations, num_layers: int, normed: Tensor, square_sums: Tensor) -> Activations:
    return Activations([layer] * num_layers, layer.residual, normed, layer.rstd, square_sums)


class _Maker:
    """Makes tensors of the shapes of a micro-batch."""

    def __init__(
        self, config: ModelConfig, windows: int, length: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.windows, self.length, self.dtype, self.device = windows, length, dtype, device
        self.width, self.ffn = config.hidden_dim, config.core_model.ffn.ffn_dim
        self.heads, self.kv_heads = config.core_model.attn.num_heads, config.kv_heads
        self.qkv = (self.heads + 2 * self.kv_heads) * config.head_dim

    def matrix(self, columns: int) -> Tensor:
        return torch.empty(self.windows * self.length, columns, dtype=self.dtype, device=self.device)

    def rows_of_float(self) -> Tensor:
        return torch.empty(self.windows * self.length, device=self.device)

    def square_sums(self) -> Tensor:
        parts = square_sum_parts(self.width)
        return torch.empty(self.windows * self.length, parts, device=self.device)

    def by_head(self, heads: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(self.windows, heads, self.length, dtype=dtype, device=self.device)

    def layer(self) -> LayerActivations:
        width = self.width
        return LayerActivations(
            residual=self.matrix(width), rstd=self.rows_of_float(), qkv=self.matrix(self.qkv),
            query_hash=self.by_head(self.heads, torch.int32), key_hash=self.by_head(self.kv_heads, torch.int32),
            lse=self.by_head(self.heads), attention_out=self.matrix(width), ffn_residual=self.matrix(width),
            ffn_rstd=self.rows_of_float(), gate_up=self.matrix(2 * self.ffn), ffn_hidden=self.matrix(self.ffn),
        )  # fmt: skip


def num_bytes(activations: Activations) -> int:
    """Bytes of all tensors; one that several layers share counts once."""
    parts = (activations, *activations.layers)
    tensors = {id(t): t.nbytes for part in parts for t in vars(part).values() if isinstance(t, Tensor)}
    return sum(tensors.values())


AnyActivations = TypeVar("AnyActivations", bound=Activations)


def slice_windows(buffers: AnyActivations, windows: int, length: int) -> AnyActivations:
    """Views of the first windows in buffers for more of them."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor[:windows] if tensor.dim() == 3 else tensor[: windows * length]

    def tensors(part: LayerActivations | Activations) -> dict[str, Tensor]:
        return {name: cut(value) for name, value in vars(part).items() if isinstance(value, Tensor)}

    layers = [LayerActivations(**tensors(layer)) for layer in buffers.layers]
    return replace(buffers, layers=layers, **tensors(buffers))


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that can be allocated, including those that torch's allocator has reserved and not given out."""
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reserved

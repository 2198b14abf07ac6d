"""The forward and backward passes of a `Llama` as sequences of kernels. Shapes as in `fused.step`."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from stochastok_cli.models.llama.fused.attention_backward import attention_backward
from stochastok_cli.models.llama.fused.attention_forward import attention_forward
from stochastok_cli.models.llama.fused.batch import Batch
from stochastok_cli.models.llama.fused.buffers import Activations, Buffers, LayerActivations
from stochastok_cli.models.llama.fused.dropout import attention_hashes, output_stream
from stochastok_cli.models.llama.fused.embedding import embed, embed_backward
from stochastok_cli.models.llama.fused.matmul import add_matmul_
from stochastok_cli.models.llama.fused.norm import (
    add_projection_gradients,
    copy_scaled_weight,
    norm,
    norm_backward,
    rstd_of_square_sums,
    scaled_norm_backward,
)
from stochastok_cli.models.llama.fused.residual import add_projection
from stochastok_cli.models.llama.fused.rotary import rotated_qkv
from stochastok_cli.models.llama.fused.swiglu import gate_up_swiglu, swiglu_backward
from stochastok_cli.models.llama.model import Block, Llama


@dataclass(frozen=True)
class Network:
    """A model, and what the kernels need of it besides.

    Attributes:
        model: The model.
        weights: For each matrix, a copy of the type that the products take. Those of the projections after a norm are
            multiplied by the norm's weight.
        product: float32, as large as the largest of these projections: overwritten by `add_projection_gradients`.
        partial: float32 `[P, D]`, overwritten by the gradients of the norms.
    """

    model: Llama
    weights: dict[Tensor, Tensor]
    product: Tensor
    partial: Tensor

    @property
    def blocks(self) -> list[Block]:
        return list(self.model.layers)  # type: ignore[arg-type]

    @cached_property
    def _others(self) -> tuple[list[Tensor], list[Tensor]]:
        """The copies of the matrices that do not follow a norm, and these."""
        after_norms = projections_after_norms(self.model)
        others = [weight for weight in self.weights if weight not in after_norms]
        return [self.weights[weight][: len(weight)] for weight in others], others

    def copy_weights(self) -> None:
        """Brings the copies to the values of the parameters."""
        torch._foreach_copy_(*self._others)
        for weight, gain in projections_after_norms(self.model).items():
            copy_scaled_weight(weight, gain, self.weights[weight])


def projections_after_norms(model: Llama) -> dict[Tensor, Tensor]:
    """The weights of the projections that follow a norm, and the norms' weights."""
    weights: dict[Tensor, Tensor] = {}
    for block in model.layers:
        assert isinstance(block, Block)
        weights[block.attention.qkv.weight] = block.attention_norm.weight
        weights[block.ffn.gate_up.weight] = block.ffn_norm.weight
    return weights


def forward(network: Network, activations: Activations, batch: Batch, dropout: float) -> None:
    """Computes the hidden states after the last norm, `activations.normed`."""
    model, weights, blocks, b = network.model, network.weights, network.blocks, activations
    length, keys, ids = batch.inputs.shape[1], batch.dropout_keys, batch.inputs.view(-1)
    first = b.layers[0]
    embed(ids, weights[model.embedding.weight], keys, dropout, length, first.residual, first.rstd)
    for i, layer in enumerate(b.layers):
        _layer_forward(network, i, layer, b.square_sums, batch, dropout)
        following = b if i + 1 == len(blocks) else b.layers[i + 1]
        add_projection(
            layer.ffn_hidden, weights[blocks[i].ffn.down.weight], layer.ffn_residual, keys, 0, 0.0, length,
            following.residual, b.square_sums,
        )  # fmt: skip
        if following is not b:
            rstd_of_square_sums(b.square_sums, model.config.hidden_dim, following.rstd)
    norm(b.residual, model.norm.weight, b.normed, b.rstd)


def _layer_forward(
    network: Network, i: int, layer: LayerActivations, square_sums: Tensor, batch: Batch, dropout: float
) -> None:
    """Computes layer `i` from its `residual` and `rstd` to its `ffn_hidden`; overwrites `square_sums`."""
    model, weights, block = network.model, network.weights, network.blocks[i]
    length, keys = batch.inputs.shape[1], batch.dropout_keys
    heads, kv_heads = model.config.core_model.attn.num_heads, model.config.kv_heads
    qkv_weight = weights[block.attention.qkv.weight]
    rotated_qkv(layer.residual, qkv_weight, layer.rstd, model.rotation, heads, kv_heads, length, layer.qkv)
    if dropout > 0:
        attention_hashes(keys, i, layer.query_hash, layer.key_hash)
    attention_forward(
        layer.qkv, batch.segment_start, layer.query_hash, layer.key_hash, dropout, layer.attention_out, layer.lse
    )
    add_projection(
        layer.attention_out, weights[block.attention.output.weight], layer.residual, keys, output_stream(i), dropout,
        length, layer.ffn_residual, square_sums,
    )  # fmt: skip
    rstd_of_square_sums(square_sums, model.config.hidden_dim, layer.ffn_rstd)
    gate_up_swiglu(
        layer.ffn_residual, weights[block.ffn.gate_up.weight], layer.ffn_rstd, layer.gate_up, layer.ffn_hidden
    )


def backward(network: Network, buffers: Buffers, batch: Batch, dropout: float) -> Iterator[int]:
    """From `buffers.normed_grad` back to the embedding; adds to all gradients but that of the head's weight.

    Yields the number of each layer, from the last, when nothing more is added to its gradients.
    """
    model, b = network.model, buffers
    norm_backward(
        b.normed_grad, b.residual, b.rstd, model.norm.weight, b.residual_grad, grad_of(model.norm.weight),
        network.partial,
    )  # fmt: skip
    for i in reversed(range(len(b.layers))):
        if b.recompute and i + 1 < len(b.layers):  # the last layer's activations are still there
            _layer_forward(network, i, b.layers[i], b.square_sums, batch, dropout)
        _layer_backward(network, i, b, batch, dropout)
        yield i
    embed_backward(
        batch.inputs.view(-1), b.residual_grad, batch.dropout_keys, dropout, batch.inputs.shape[1],
        grad_of(model.embedding.weight),
    )  # fmt: skip


def _layer_backward(network: Network, i: int, buffers: Buffers, batch: Batch, dropout: float) -> None:
    """Replaces `residual_grad`, the gradient of what layer `i` computes, by that of its input."""
    model, weights, b = network.model, network.weights, buffers
    layer, block = b.layers[i], network.blocks[i]
    down, gate_up = block.ffn.down.weight, block.ffn.gate_up.weight
    output, qkv = block.attention.output.weight, block.attention.qkv.weight

    add_matmul_(grad_of(down), b.residual_grad.T, layer.ffn_hidden)
    swiglu_backward(b.residual_grad, weights[down], layer.gate_up, layer.ffn_rstd, b.gate_up_grad)
    _add_projection_gradients(network, b.gate_up_grad, layer.ffn_residual, gate_up, block.ffn_norm.weight)
    torch.mm(b.gate_up_grad, weights[gate_up], out=b.normed_grad)
    scaled_norm_backward(
        b.normed_grad, layer.ffn_residual, layer.ffn_rstd, b.residual_grad, b.ffn_residual_grad, dy=b.projected_grad,
        dropout_keys=batch.dropout_keys, stream=output_stream(i), dropout=dropout, length=batch.inputs.shape[1],
    )  # fmt: skip

    add_matmul_(grad_of(output), b.projected_grad.T, layer.attention_out)
    torch.mm(b.projected_grad, weights[output], out=b.attention_out_grad)
    attention_backward(
        layer.qkv, layer.attention_out, b.attention_out_grad, layer.lse, batch.segment_start, layer.query_hash,
        layer.key_hash, layer.rstd, model.rotation, dropout, b.delta, b.qkv_grad,
    )  # fmt: skip
    _add_projection_gradients(network, b.qkv_grad, layer.residual, qkv, block.attention_norm.weight)
    torch.mm(b.qkv_grad, weights[qkv], out=b.normed_grad)
    scaled_norm_backward(b.normed_grad, layer.residual, layer.rstd, b.ffn_residual_grad, b.residual_grad)


def _add_projection_gradients(network: Network, grad: Tensor, x: Tensor, weight: Tensor, gain: Tensor) -> None:
    """Adds the gradients of a projection's weight and of the norm's before it."""
    add_projection_gradients(
        grad, x, weight, gain, grad_of(weight), grad_of(gain), network.product, network.partial
    )  # fmt: skip


def grad_of(parameter: Tensor) -> Tensor:
    """The gradient that a parameter has."""
    assert parameter.grad is not None
    return parameter.grad

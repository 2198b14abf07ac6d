"""The forward and backward passes of a `Llama` as sequences of kernels. Shapes as in `fused.step`."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stochastok_cli.models.llama.fused.attention_backward import attention_backward
from stochastok_cli.models.llama.fused.attention_forward import attention_forward
from stochastok_cli.models.llama.fused.batch import Batch
from stochastok_cli.models.llama.fused.buffers import Activations, Buffers, LayerActivations
from stochastok_cli.models.llama.fused.dropout import attention_hashes, output_stream
from stochastok_cli.models.llama.fused.embedding import embed, embed_backward
from stochastok_cli.models.llama.fused.matmul import add_matmul_
from stochastok_cli.models.llama.fused.norm import norm, residual_norm, residual_norm_backward
from stochastok_cli.models.llama.fused.rotary import rotated_qkv
from stochastok_cli.models.llama.fused.swiglu import gate_up_swiglu, swiglu_backward
from stochastok_cli.models.llama.model import Block, Llama


@dataclass(frozen=True)
class Network:
    """A model, and what the kernels need of it besides."""

    model: Llama
    weights: dict[Tensor, Tensor]  # for each matrix, a copy of the type that the products take
    partial: Tensor  # float32 [P, D], overwritten by the gradients of the norms

    @property
    def blocks(self) -> list[Block]:
        return list(self.model.layers)  # type: ignore[arg-type]


def forward(network: Network, activations: Activations, batch: Batch, dropout: float) -> None:
    """Computes the hidden states after the last norm, `activations.normed`."""
    model, weights, blocks, b = network.model, network.weights, network.blocks, activations
    length, keys, ids = batch.inputs.shape[1], batch.dropout_keys, batch.inputs.view(-1)
    first = b.layers[0]
    embed(
        ids, weights[model.embedding.weight], blocks[0].attention_norm.weight, keys, dropout, length, first.residual,
        first.normed, first.rstd,
    )  # fmt: skip
    for i, layer in enumerate(b.layers):
        _layer_forward(network, i, layer, b.sublayer_out, batch, dropout)
        torch.mm(layer.ffn_hidden, weights[blocks[i].ffn.down.weight].T, out=b.sublayer_out)
        is_last = i + 1 == len(blocks)
        following = b if is_last else b.layers[i + 1]
        gain = model.norm.weight if is_last else blocks[i + 1].attention_norm.weight
        residual_norm(
            layer.ffn_residual, b.sublayer_out, gain, keys, 0, 0.0, length, following.residual, following.normed,
            following.rstd,
        )  # fmt: skip


def _layer_forward(
    network: Network, i: int, layer: LayerActivations, sublayer_out: Tensor, batch: Batch, dropout: float
) -> None:
    """Computes layer `i` from its `residual`, `normed` and `rstd` to its `ffn_hidden`; overwrites `sublayer_out`."""
    model, weights, block = network.model, network.weights, network.blocks[i]
    length, keys = batch.inputs.shape[1], batch.dropout_keys
    heads, kv_heads = model.config.core_model.attn.num_heads, model.config.kv_heads
    qkv_weight = weights[block.attention.qkv.weight]
    rotated_qkv(layer.normed, qkv_weight, model.rotation, heads, kv_heads, length, layer.qkv)
    if dropout > 0:
        attention_hashes(keys, i, layer.query_hash, layer.key_hash)
    attention_forward(
        layer.qkv, batch.segment_start, layer.query_hash, layer.key_hash, dropout, layer.attention_out, layer.lse
    )
    torch.mm(layer.attention_out, weights[block.attention.output.weight].T, out=sublayer_out)
    residual_norm(
        layer.residual, sublayer_out, block.ffn_norm.weight, keys, output_stream(i), dropout, length,
        layer.ffn_residual, layer.ffn_normed, layer.ffn_rstd,
    )  # fmt: skip
    gate_up_swiglu(layer.ffn_normed, weights[block.ffn.gate_up.weight], layer.gate_up, layer.ffn_hidden)


def backward(network: Network, buffers: Buffers, batch: Batch, dropout: float) -> Iterator[int]:
    """From `buffers.normed_grad` back to the embedding; adds to all gradients but that of the head's weight.

    Yields the number of each layer, from the last, when nothing more is added to its gradients.
    """
    model, partial, b = network.model, network.partial, buffers
    residual_norm_backward(
        b.normed_grad, b.residual, b.rstd, model.norm.weight, None, b.residual_grad, grad_of(model.norm.weight), partial
    )
    for i in reversed(range(len(b.layers))):
        if b.recompute and i + 1 < len(b.layers):  # the last layer's activations are still there
            layer = b.layers[i]
            norm(layer.residual, network.blocks[i].attention_norm.weight, layer.normed, layer.rstd)
            _layer_forward(network, i, layer, b.sublayer_out, batch, dropout)
        _layer_backward(network, i, b, batch, dropout)
        yield i
    embed_backward(
        batch.inputs.view(-1), b.residual_grad, batch.dropout_keys, dropout, batch.inputs.shape[1],
        grad_of(model.embedding.weight),
    )  # fmt: skip


def _layer_backward(network: Network, i: int, buffers: Buffers, batch: Batch, dropout: float) -> None:
    """Replaces `residual_grad`, the gradient of what layer `i` computes, by that of its input."""
    model, weights, partial, b = network.model, network.weights, network.partial, buffers
    layer, block = b.layers[i], network.blocks[i]
    down, gate_up = block.ffn.down.weight, block.ffn.gate_up.weight
    output, qkv = block.attention.output.weight, block.attention.qkv.weight

    add_matmul_(grad_of(down), b.residual_grad.T, layer.ffn_hidden)
    swiglu_backward(b.residual_grad, weights[down], layer.gate_up, b.gate_up_grad)
    add_matmul_(grad_of(gate_up), b.gate_up_grad.T, layer.ffn_normed)
    torch.mm(b.gate_up_grad, weights[gate_up], out=b.normed_grad)
    residual_norm_backward(
        b.normed_grad, layer.ffn_residual, layer.ffn_rstd, block.ffn_norm.weight, b.residual_grad,
        b.ffn_residual_grad, grad_of(block.ffn_norm.weight), partial, dy=b.sublayer_out,
        dropout_keys=batch.dropout_keys, stream=output_stream(i), dropout=dropout, length=batch.inputs.shape[1],
    )  # fmt: skip

    add_matmul_(grad_of(output), b.sublayer_out.T, layer.attention_out)
    torch.mm(b.sublayer_out, weights[output], out=b.attention_out_grad)
    attention_backward(
        layer.qkv, layer.attention_out, b.attention_out_grad, layer.lse, batch.segment_start, layer.query_hash,
        layer.key_hash, model.rotation, dropout, b.delta, b.qkv_grad,
    )  # fmt: skip
    add_matmul_(grad_of(qkv), b.qkv_grad.T, layer.normed)
    torch.mm(b.qkv_grad, weights[qkv], out=b.normed_grad)
    residual_norm_backward(
        b.normed_grad, layer.residual, layer.rstd, block.attention_norm.weight, b.ffn_residual_grad,
        b.residual_grad, grad_of(block.attention_norm.weight), partial,
    )  # fmt: skip


def grad_of(parameter: Tensor) -> Tensor:
    """The gradient that a parameter has."""
    assert parameter.grad is not None
    return parameter.grad

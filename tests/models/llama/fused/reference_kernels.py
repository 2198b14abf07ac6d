"""The reference for the fused kernels: what they compute, in float32 operations of torch, with their dropout masks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stochastok_cli.config import AttentionConfig, CoreModelConfig, FeedForwardConfig, ModelConfig
from stochastok_cli.models.head_loss import head_loss
from stochastok_cli.models.llama.attention import causal_mask, rotate
from stochastok_cli.models.llama.model import Llama


def relative_error(actual: Tensor, expected: Tensor) -> float:
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    return ((actual - expected).norm() / expected.norm()).item()


def lowbias32(x: Tensor) -> Tensor:
    """lowbias32 on int64 tensors of values below 2^32."""
    x = x & 0xFFFFFFFF
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & 0xFFFFFFFF
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def odd_hash(keys: Tensor, stream: int, index: Tensor) -> Tensor:
    """int64 `[B, *index.shape]`."""
    keys = keys.view(torch.int64).view(-1, *[1] * index.dim())
    low = lowbias32((keys & 0xFFFFFFFF) + lowbias32(torch.tensor(stream, device=keys.device)))
    high = lowbias32(((keys >> 32) & 0xFFFFFFFF) + low)
    return lowbias32(lowbias32(index + low) ^ high) | 1


def scaled_mask(row_hash: Tensor, column_hash: Tensor, dropout: float) -> Tensor:
    """The factors of dropout, 0 or 1 / (1 - p): float32 `[..., R, C]` of hashes `[..., R]` and `[..., C]`."""
    product = (row_hash[..., :, None] * column_hash[..., None, :]) & 0xFFFFFFFF
    return (product >= int(dropout * 2**32)).float() / (1 - dropout)


def residual_mask(keys: Tensor, stream: int, length: int, width: int, dropout: float) -> Tensor:
    """float32 `[B, T, D]`, of the embedding (stream 0) or a layer's attention output (4 layer + 4)."""
    row, column = (torch.arange(n, device=keys.device) for n in (length, width))
    return scaled_mask(odd_hash(keys, stream, row), odd_hash(keys, stream + 1, column), dropout)


def attention_mask(keys: Tensor, layer: int, heads: int, kv_heads: int, length: int, dropout: float) -> Tensor:
    """float32 `[B, H, T, T]`."""
    row, column = (torch.arange(n * length, device=keys.device).view(n, length) for n in (heads, kv_heads))
    columns = odd_hash(keys, 4 * layer + 3, column).repeat_interleave(heads // kv_heads, dim=1)
    return scaled_mask(odd_hash(keys, 4 * layer + 2, row), columns, dropout)


def attend(q: Tensor, k: Tensor, v: Tensor, segment_start: Tensor | None, mask: Tensor) -> Tensor:
    """softmax(q kᵀ / √h) times `mask`, v: `[B, H, T, h]`, with fewer key/value heads than query heads."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    length = q.shape[2]
    visible = causal_mask(segment_start, 0, length, q.device)
    if visible is None:
        visible = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[3])).masked_fill(~visible, -math.inf)
    return torch.softmax(scores, dim=-1) * mask @ v


def hidden_states(model: Llama, ids: Tensor, segment_start: Tensor | None, keys: Tensor, dropout: float) -> Tensor:
    """`Llama.forward` in training mode, with the masks of the fused kernels: `[B, T, D]`."""
    config, length = model.config, ids.shape[1]
    heads, kv_heads, width = config.core_model.attn.num_heads, config.kv_heads, config.hidden_dim
    x = model.embedding(ids) * residual_mask(keys, 0, length, width, dropout)
    for i, layer in enumerate(model.layers):
        qkv = layer.attention.qkv(layer.attention_norm(x)).unflatten(-1, (-1, config.head_dim)).transpose(1, 2)
        q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
        q, k = (rotate(t, model.rotation[:, :length]) for t in (q, k))
        attended = attend(q, k, v, segment_start, attention_mask(keys, i, heads, kv_heads, length, dropout))
        y = layer.attention.output(attended.transpose(1, 2).flatten(2))
        x = x + y * residual_mask(keys, 4 * i + 4, length, width, dropout)
        gate, up = layer.ffn.gate_up(layer.ffn_norm(x)).chunk(2, dim=-1)
        x = x + layer.ffn.down(F.silu(gate) * up)
    return model.norm(x)


def fused_config(
    *, tied: bool = True, head_dim: int = 32, vocab_size: int = 700, context_window: int = 128, layers: int = 2
) -> ModelConfig:
    """A small model with grouped heads, and sizes that are no multiples of a tile or powers of two."""
    return ModelConfig(
        core_model=CoreModelConfig(
            num_layers=layers, ffn=FeedForwardConfig(ffn_dim=136), attn=AttentionConfig(num_heads=6, group_size=3)
        ),
        hidden_dim=6 * head_dim,
        context_window=context_window,
        vocab_size=vocab_size,
        embedding_weight_tying=tied,
    )


def random_keys(windows: int, device: torch.device, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**63), 2**63 - 1, (windows,), generator=generator).to(device)


def packed_rows(windows: int, length: int, device: torch.device, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Examples packed end to end: segment starts, int32, and token weights, of which few are not 0."""
    generator = torch.Generator().manual_seed(seed)
    segment_start = torch.zeros(windows, length, dtype=torch.int32)
    weights = torch.zeros(windows, length)
    for row in range(windows):
        start = 0
        while start < length:
            end = start + int(torch.randint(5, 70, (1,), generator=generator))
            segment_start[row, start:end] = start
            weights[row, end - 3 : end] = 1
            start = end
        weights[row] /= weights[row].sum().clamp(min=1)
    return segment_start.to(device), weights.to(device)


def reference_gradients(model, ids, token_weights, segment_start, keys, dropout, rounded=False):
    """Loss and gradients in the model's type, or with the products in bfloat16."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=rounded):
        if dropout:
            hidden = hidden_states(model, ids[:, :-1], segment_start, keys, dropout)
        else:
            hidden = model(ids[:, :-1], segment_start)
        loss = head_loss(hidden.flatten(0, 1), model.head_weight, ids[:, 1:].flatten(), token_weights.flatten())
    model.zero_grad()
    loss.backward()
    return loss.detach(), gradients_of(model)


def gradients_of(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def errors_of(actual, expected):
    """Relative errors of the loss and of each parameter's gradient."""
    gradients = {name: relative_error(actual[1][name], gradient) for name, gradient in expected[1].items()}
    return {"loss": relative_error(actual[0], expected[0])} | gradients

"""Causal self-attention with grouped query heads (Ainslie et al. 2023) and rotary position embeddings.

Shapes: B sequences, T tokens of a call, S tokens that can be attended to (T plus what the cache holds), D the width of
hidden states, H query heads and G key/value heads of width h.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stochastok_cli.config import ModelConfig
from stochastok_cli.models.base import KeyValueCache
from stochastok_cli.models.llama_config import ROPE_BASE


def rotary_table(head_dim: int, positions: int) -> Tensor:
    """Cosines and sines of the angles of rotary position embeddings (Su et al. 2021), section 3.2.2.

    The entries `i` and `i + head_dim / 2` of a head form a pair, as `transformers` stores the weights of Llama models.
    In the paper, neighboring entries do.

    Returns:
        float32 `[2, positions, head_dim]`.
    """
    frequencies = 1.0 / ROPE_BASE ** (torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(torch.arange(positions).float(), frequencies).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotates `x` `[B, heads, T, h]` by the angles of `rotation` `[2, T, h]`, in float32; keeps the type of `x`."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).type_as(x)


def causal_mask(segment_start: Tensor | None, start: int, length: int, device: torch.device) -> Tensor | None:
    """The mask of causal attention within segments.

    Args:
        segment_start: int `[B, length]`, the first position that each query attends to, at most its own. None: 0.
        start: The position of the first query, which is the number of tokens in the cache.
        length: The number of queries.
        device: Where to put the mask.

    Returns:
        bool, broadcastable to `[B, H, length, start + length]`. None where no mask is needed: for a whole causal
        sequence, for which kernels have a fast path, and for a single query that attends to everything.
    """
    if segment_start is None and (start == 0 or length == 1):
        return None
    keys = torch.arange(start + length, device=device)
    causal = keys <= keys[start:, None]
    return causal if segment_start is None else causal & (keys >= segment_start[:, None, :, None])


class SelfAttention(nn.Module):
    """Self-attention without biases. `group_size` neighboring query heads share one key/value head."""

    def __init__(self, config: ModelConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = config.core_model.attn.num_heads, config.kv_heads, config.head_dim
        # One product for all three. Its rows have the same fan-in as those of three, so the initialization is the same.
        self.qkv = nn.Linear(config.hidden_dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.output = nn.Linear(config.hidden_dim, config.hidden_dim, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        """Computes what the layer adds to the residual stream.

        Args:
            x: `[B, T, D]`, normalized hidden states.
            rotation: `[2, T, h]`, the part of `rotary_table` for these positions.
            mask: From `causal_mask`.
            cache: Keys and values of earlier positions, which is extended.

        Returns:
            `[B, T, D]`.
        """
        dropout = self.dropout if self.training else 0.0
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        out = _attend(q, k, v, mask, dropout)
        return F.dropout(self.output(out.transpose(1, 2).flatten(2)), dropout)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """softmax(q kᵀ / √h) v `[B, H, T, h]` with dropout on the weights. Without a mask it is causal, if T > 1."""
    # On CUDA, only the flash kernel supports `enable_gqa`, for 16-bit types without a mask. For everything else torch
    # would fall back to a slow kernel that stores all weights, so the key heads are repeated instead. They are also
    # repeated in training, where cuDNN's kernel is faster (see training/backends.py).
    flash = mask is None and q.dtype in (torch.bfloat16, torch.float16) and not torch.is_grad_enabled()
    grouped = not q.is_cuda or flash
    if not grouped:
        group_size = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group_size, dim=1), v.repeat_interleave(group_size, dim=1)
    causal = mask is None and q.shape[2] > 1
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, enable_gqa=grouped)

"""Causal self-attention: grouped query heads, rotary positions, and the cache that decoding keeps.

Shapes: B sequences, T tokens of this call, S tokens that can be looked at (T plus what the cache holds), H query
heads, G key/value heads, h the width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stochastok_cli.config import ModelConfig
from stochastok_cli.models.base import KeyValueCache

ROPE_BASE = 10_000.0


def rotary_table(head_dim: int, positions: int) -> Tensor:
    """Cosines and sines of the rotary angles (Su et al. 2021), float32 `[2, positions, head_dim]`.

    Pair `i` is made of the entries `i` and `i + head_dim / 2`: the order in which `transformers` stores Llama weights,
    not the interleaved one of the paper.
    """
    frequencies = 1.0 / ROPE_BASE ** (torch.arange(0, head_dim, 2).float() / head_dim)
    angles = torch.outer(torch.arange(positions).float(), frequencies).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns `x` `[B, heads, T, h]` by the angles of `rotation` `[2, T, h]`, in float32; the type of `x` is kept."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-second, first), dim=-1) * sin).type_as(x)


def visibility(segment_start: Tensor | None, start: int, length: int, device: torch.device) -> Tensor | None:
    """Which keys each query may look at: bool, broadcastable to `[B, H, length, start + length]`.

    Query `t` stands at position `start + t` and sees the positions from `segment_start[:, t]` (int `[B, length]`, at
    most its own position) to itself. None is returned where no mask is needed: a whole causal sequence, for which
    kernels have a fast path, or a single query that sees everything.
    """
    if segment_start is None and (start == 0 or length == 1):
        return None
    keys = torch.arange(start + length, device=device)
    causal = keys <= keys[start:, None]
    return causal if segment_start is None else causal & (keys >= segment_start[:, None, :, None])


class SelfAttention(nn.Module):
    """Self-attention without biases; `group_size` neighbouring query heads share one key/value head."""

    def __init__(self, config: ModelConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = config.core_model.attn.num_heads, config.kv_heads, config.head_dim
        # One product for the three: their rows have the same fan-in, so the default law of initialisation is theirs.
        self.qkv = nn.Linear(config.hidden_dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.output = nn.Linear(config.hidden_dim, config.hidden_dim, bias=False)
        self.dropout = dropout

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        """`x` `[B, T, D]`, `rotation` `[2, T, h]`, `mask` from `visibility` → `[B, T, D]`."""
        dropout = self.dropout if self.training else 0.0
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        attended = _attend(q, k, v, mask, dropout)
        return F.dropout(self.output(attended.transpose(1, 2).flatten(2)), dropout)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """softmax(q kᵀ / √h) v with dropout on the weights: `[B, H, T, h]`; without a mask, causal where T > 1."""
    # On CUDA only the flash kernel lets query heads share a key head, and it takes 16-bit types and no mask. Asked to
    # share, the rest falls back to the slow kernel that holds every weight; so the key heads are repeated for it. So
    # they are for training, where cuDNN's kernel is the faster (see training/kernels.py).
    flash = mask is None and q.dtype in (torch.bfloat16, torch.float16) and not torch.is_grad_enabled()
    shares = not q.is_cuda or flash
    if not shares:
        group_size = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group_size, dim=1), v.repeat_interleave(group_size, dim=1)
    causal = mask is None and q.shape[2] > 1
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal, enable_gqa=shares)

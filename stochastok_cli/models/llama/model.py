"""The network: a causal language model of the Llama family (Touvron et al. 2023), from token ids to hidden states.

It has RMSNorm before attention and feed-forward layers, rotary position embeddings, grouped query heads, SwiGLU and no
biases; the embedding may be tied to the output head. `state_dict.py` reads and writes it in the layout of
`transformers`, whose `LlamaForCausalLM` computes the same function.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stochastok_cli.config import ModelConfig
from stochastok_cli.models.base import CausalLM, KeyValueCache
from stochastok_cli.models.linear_weights import LinearWeight
from stochastok_cli.models.llama.attention import SelfAttention, causal_mask, rotary_table
from stochastok_cli.models.llama_config import MODEL_TYPE, NORM_EPS


class FeedForward(nn.Module):
    """The SwiGLU feed-forward layer (Shazeer 2020): down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.core_model.ffn.ffn_dim
        self.gate_up = nn.Linear(config.hidden_dim, 2 * width, bias=False)
        self.down = nn.Linear(width, config.hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """One layer: attention and feed-forward, each applied to the normalized residual stream and added to it."""

    def __init__(self, config: ModelConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_dim, eps=NORM_EPS)
        self.attention = SelfAttention(config, layer, dropout)
        self.ffn_norm = nn.RMSNorm(config.hidden_dim, eps=NORM_EPS)
        self.ffn = FeedForward(config)

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotation, mask, cache)
        return x + self.ffn(self.ffn_norm(x))


class Llama(CausalLM):
    """The model of `config`, initialized by PyTorch's defaults from torch's global generator.

    `dropout` acts in training mode on the embeddings, the attention weights and the attention's output; the masks are
    drawn from torch's global generator and from nothing else.
    """

    model_type: ClassVar[str] = MODEL_TYPE

    def __init__(self, config: ModelConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.context_window, self.vocab_size = config.context_window, config.vocab_size
        self.dropout = dropout
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_dim)
        self.layers = nn.ModuleList(Block(config, i, dropout) for i in range(config.core_model.num_layers))
        self.norm = nn.RMSNorm(config.hidden_dim, eps=NORM_EPS)
        self.head = nn.Linear(config.hidden_dim, config.vocab_size, bias=False)
        if config.embedding_weight_tying:
            self.embedding.weight = self.head.weight  # initialized as a linear layer, U(±1/√D)
        self.rotation: Tensor
        self.register_buffer("rotation", rotary_table(config.head_dim, config.context_window), persistent=False)

    def forward(self, ids: Tensor, segment_start: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        start, length = (cache.length if cache is not None else 0), ids.shape[1]
        assert start + length <= self.context_window
        rotation = self.rotation[:, start : start + length]
        mask = causal_mask(segment_start, start, length, ids.device)
        x = F.dropout(self.embedding(ids), self.dropout, self.training)
        for layer in self.layers:
            if self.activation_checkpointing and self.training:
                x = checkpoint(layer, x, rotation, mask, cache, use_reentrant=False)
            else:
                x = layer(x, rotation, mask, cache)
        return self.norm(x)

    @property
    def head_weight(self) -> Tensor:
        return self.head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def attention_of(self, block: nn.Module) -> nn.Module:
        assert isinstance(block, Block)
        return block.attention

    def linear_weights(self, block: nn.Module) -> dict[Tensor, LinearWeight]:
        assert isinstance(block, Block)
        attention, ffn = block.attention, block.ffn
        queries, keys = (heads * attention.head_dim for heads in (attention.heads, attention.kv_heads))
        return super().linear_weights(block) | {
            attention.qkv.weight: LinearWeight((queries, keys, keys)),
            ffn.gate_up.weight: LinearWeight((ffn.down.in_features, ffn.down.in_features)),
        }

    def flops_per_token(self, context_window: int) -> int:
        """Six operations for every parameter of a matrix product (Kaplan et al. 2020, section 2.1), and those of causal
        attention over half a window on average. What is computed twice is counted once."""
        core = self.config.core_model
        return self.matrix_flops_per_token() + 6 * core.num_layers * self.config.hidden_dim * context_window

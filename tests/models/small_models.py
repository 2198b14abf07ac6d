"""Small models with every feature of the shipped one: grouped heads, several layers, tied or untied."""

import torch

from stochastok_cli.config import AttentionConfig, CoreModelConfig, FeedForwardConfig, ModelConfig
from stochastok_cli.models.llama.model import Llama

VOCAB_SIZE = 2048  # of the bundled vocabulary sample2k


def small_config(*, tied: bool = True, vocab_size: int = VOCAB_SIZE, context_window: int = 48) -> ModelConfig:
    return ModelConfig(
        core_model=CoreModelConfig(
            num_layers=3, ffn=FeedForwardConfig(ffn_dim=80), attn=AttentionConfig(num_heads=8, group_size=4)
        ),
        hidden_dim=64,
        context_window=context_window,
        vocab_size=vocab_size,
        embedding_weight_tying=tied,
    )


def sharp_model(config: ModelConfig, dropout: float = 0.0) -> Llama:
    """Random weights three times as large as fresh ones, and norms that differ from 1: nothing is near a symmetry."""
    torch.manual_seed(7)
    model = Llama(config, dropout)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
            elif name.startswith("layers"):
                parameter.mul_(3)
    return model.eval()


def random_ids(*shape: int, seed: int = 0, vocab_size: int = VOCAB_SIZE) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))

"""An architecture in one file: causal mean pooling instead of attention.

Each layer adds to a token the mean over the values of the tokens up to it, and then what a small network makes of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stochastok_cli.errors import UserError
from stochastok_cli.json_files import write_json
from stochastok_cli.models.base import CausalLM, KeyValueCache, ModelSpec, register_model, unwrap
from stochastok_cli.models.weight_files import CONFIG, WEIGHTS, read_json
from stochastok_cli.tokenization.vocabulary import Vocabulary


@dataclass(frozen=True)
class ToyConfig:
    context_window: int
    vocab_size: int
    width: int = 16
    num_layers: int = 2


class ToyBlock(nn.Module):
    def __init__(self, layer: int, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.value = nn.Linear(width, width)
        self.ffn = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, pooling: Tensor, cache: KeyValueCache | None) -> Tensor:
        """`x` `[B, T, D]`, `pooling` `[B or 1, T, S]` whose rows sum to 1."""
        values = self.value(x)[:, None]
        if cache is not None:
            _, values = cache.extend(self.layer, values, values)
        x = x + pooling @ values[:, 0]
        return x + self.ffn(x)


class ToyModel(CausalLM):
    model_type: ClassVar[str] = "mean_pooling"

    def __init__(self, config: ToyConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config, self.dropout = config, dropout
        self.context_window, self.vocab_size = config.context_window, config.vocab_size
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(ToyBlock(i, config.width) for i in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)

    def forward(self, ids: Tensor, segment_start: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        start = 0 if cache is None else cache.length
        position = torch.arange(start + ids.shape[1], device=ids.device)
        visible = (position <= position[start:, None])[None]
        if segment_start is not None:
            visible = visible & (position >= segment_start[:, :, None])
        pooling = visible / visible.sum(-1, keepdim=True).clamp(min=1)
        x = F.dropout(self.embedding(ids), self.dropout, self.training)
        for layer in self.layers:
            x = layer(x, pooling, cache)
        return self.norm(x)

    @property
    def head_weight(self) -> Tensor:
        return self.head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        return self.head(hidden)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return list(self.layers)

    def flops_per_token(self, context_window: int) -> int:
        pooling = 3 * self.config.num_layers * self.config.width * context_window
        return 6 * self.num_matrix_parameters() + pooling


def read_config(folder: Path) -> ToyConfig:
    tree = read_json(folder / CONFIG)
    if tree.get("model_type") != ToyModel.model_type:
        raise UserError(f"{folder} holds another model")
    return ToyConfig(tree["context_window"], tree["vocab_size"], tree["width"], tree["num_layers"])


def load_weights(model: nn.Module, folder: Path) -> None:
    unwrap(model).load_state_dict(load_file(folder / WEIGHTS))


def save(
    model: nn.Module, folder: Path, vocabulary: Vocabulary, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    toy = unwrap(model)
    assert isinstance(toy, ToyModel)
    save_file({**(toy.state_dict() if state_dict is None else state_dict)}, folder / WEIGHTS)
    write_json(folder / CONFIG, {"model_type": toy.model_type, **vars(toy.config)})
    vocabulary.save_tokenizer(folder)


TOY = register_model(ModelSpec(ToyModel.model_type, read_config, ToyModel, load_weights, save))

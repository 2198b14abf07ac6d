"""Activations inside a model: the residual stream after each attention layer."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.models.base import CausalLM


def last_activations(lm: LM, sequences: Sequence[Sequence[int]]) -> np.ndarray:
    """The residual stream after each attention layer at the last id of each sequence, float32 `[sequences, L, D]`."""
    width = max(map(len, sequences))
    step = max(1, lm.batch_tokens // width)
    batches = [sequences[start : start + step] for start in range(0, len(sequences), step)]
    parts = lm.run_batches(
        batches, lambda batch: _last_activations(lm.model, batch, width), len, description="alignment"
    )
    return np.concatenate(parts)


@torch.inference_mode()
def _last_activations(model: CausalLM, sequences: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """The result of `last_activations` for one batch, padded on the right to `width`."""
    device = model.device
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    last = torch.tensor([len(sequence) - 1 for sequence in sequences], device=device)
    layers = residual_after_attention(model, torch.from_numpy(ids).to(device))
    rows = torch.arange(len(sequences), device=device)
    return torch.stack([x[rows, last] for x in layers], dim=1).float().cpu().numpy()


def residual_after_attention(model: CausalLM, ids: Tensor) -> list[Tensor]:
    """The residual stream `[B, T, D]` after each attention layer: the layer's input plus the output of its attention.

    Raises UserError for a model whose layers have no attention of their own.
    """
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def keep_input(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs.append(args[0] if args else kwargs["hidden_states"])

    def keep_output(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        outputs.append(result[0] if isinstance(result, tuple) else result)

    with ExitStack() as hooks:
        for layer, attention in attention_layers(model):
            hooks.callback(layer.register_forward_pre_hook(keep_input, with_kwargs=True).remove)
            hooks.callback(attention.register_forward_hook(keep_output).remove)
        model(ids)
    return [x + added for x, added in zip(inputs, outputs, strict=True)]


@torch.inference_mode()
def require_residual_layers(model: CausalLM) -> None:
    """Raises UserError unless each layer gives its input, plus its attention's output, plus that of one more module.

    Otherwise `residual_after_attention` would return something else than the residual stream: some models add the
    residual inside their attention, or normalize the output of the attention.
    """
    layers = attention_layers(model)
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        outputs[module] = result[0] if isinstance(result, tuple) else result

    with ExitStack() as hooks:
        for layer, _ in layers:
            for module in (layer, *layer.children()):
                hooks.callback(module.register_forward_hook(keep).remove)
        residual = residual_after_attention(model, torch.arange(1, 5, device=model.device)[None])
    for (layer, attention), x in zip(layers, residual, strict=True):
        rest = outputs[layer] - x
        others = [outputs[child] for child in layer.children() if child is not attention and child in outputs]
        others = [other.reshape(rest.shape) for other in others if other.numel() == rest.numel()]
        if not any(torch.allclose(other, rest, atol=1e-4, rtol=1e-3, equal_nan=True) for other in others):
            raise UserError(
                f"--evaluator alignment can't tell what attention adds in the layers of this model "
                f"({type(layer).__name__})"
            )


def attention_layers(model: CausalLM) -> list[tuple[nn.Module, nn.Module]]:
    """The layers of a model in their order, each with its attention. Raises UserError if one has none."""
    layers = [(block, attention) for block in model.blocks if (attention := model.attention_of(block)) is not None]
    if not layers or len(layers) < len(model.blocks):
        raise UserError("--evaluator alignment finds no attention in the layers of this model")
    return layers

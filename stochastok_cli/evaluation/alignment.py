"""Inside the model: do the tokenizations of a word end in the same place? (the paper's Figures 11 to 13)

A word, with the space before it, is read after an end-of-text id in its canonical tokenization and in others. Compared
are the activations at its last id after each attention layer: the residual stream before the feed-forward.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from stochastok_cli.data.word_list import WordList
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.findings import EvalResult
from stochastok_cli.evaluation.generation import greedy
from stochastok_cli.evaluation.robustness import Tokenization
from stochastok_cli.evaluation.scoring import BATCH_TOKENS, evaluation_mode, require_numbers
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary

DEFAULT = Tokenization("uniform", 1.0, 8)
PCA_WORDS = 20
NEW_TOKENS = 24  # of a completion


@dataclass(frozen=True)
class CutWords:
    """Words and their distinct tokenizations, two or more each, the canonical first; each begins with end-of-text."""

    words: list[str]
    tokenizations: list[list[list[int]]]


def cut_words(
    words: WordList, vocabulary: Vocabulary, tokenization: Tokenization, num_words: int | None, context_window: int
) -> CutWords:
    """Always the same sample of `num_words` words (all where None) that have other tokenizations among the draws.

    Raises UserError if there are none.
    """
    expanders = [
        StochasTok(vocabulary, tokenization.p, tokenization.method, seed=seed) for seed in range(tokenization.samples)
    ]
    if not words.words:
        raise UserError(f"{words.name} holds no words", fix="one word a line")
    kept, found = [], []
    for place in stream(0, "alignment/words").permutation(len(words.words)).tolist():
        canonical = vocabulary.encode(f" {words.words[place]}")
        drawn = [tuple(canonical), *(tuple(expand(canonical, place).tolist()) for expand in expanders)]
        distinct = [[vocabulary.end_of_text, *ids] for ids in dict.fromkeys(drawn) if len(ids) < context_window]
        if len(distinct) > 1:
            kept.append(words.words[place])
            found.append(distinct)
        if len(kept) == num_words:
            break
    if not kept:
        raise UserError(
            f"{tokenization.name} cuts none of the {len(words.words):,} words in another way", fix="give a larger p"
        )
    return CutWords(kept, found)


def alignment(
    model: CausalLM,
    cut: CutWords,
    name: str,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback = no_progress,
) -> EvalResult:
    """By layer `alignment/<name>/layer_<i>/distance`, the mean Euclidean distance between two tokenizations of a word
    (over its pairs, then over the words), and `…/relative`, over the mean distance between two words: activations grow
    from layer to layer, and from model to model.

    Curves: `alignment/<name>` has the distances by layer, `alignment/<name>/pca` the first two principal components of
    the last layer's activations of the first PCA_WORDS words.
    """
    sequences = [ids for ways in cut.tokenizations for ids in ways]
    states = last_activations(model, sequences, batch_tokens, progress=progress)
    require_numbers(states.sum(axis=(1, 2)), "alignment")
    require_plain_layers(model)
    ends = np.cumsum([len(ways) for ways in cut.tokenizations])
    by_word = np.split(states, ends[:-1])
    prefix = f"alignment/{name}"
    found = EvalResult()
    for layer in range(states.shape[1]):
        inside = np.array([_mean_distance(word[:, layer]) for word in by_word])
        found.add(f"{prefix}/layer_{layer + 1}/distance", inside)
        between = _mean_distance(np.array([word[0, layer] for word in by_word]))
        if between > 0:  # two words or more
            name = f"{prefix}/layer_{layer + 1}/relative"
            found.add(name, inside / between)
            found.curves.setdefault(prefix, []).append({"x": layer + 1, "y": found.metrics[name], "n": len(by_word)})
    found.curves[f"{prefix}/pca"] = _principal_components(cut.words[:PCA_WORDS], by_word[:PCA_WORDS])
    return found


@torch.inference_mode()
def last_activations(
    model: CausalLM, sequences: Sequence[Sequence[int]], batch_tokens: int, *, progress: ProgressCallback = no_progress
) -> np.ndarray:
    """The residual stream after each attention layer at the last id of each sequence, float32 `[sequences, L, D]`."""
    device = model.device
    width = max(map(len, sequences))
    step = max(1, batch_tokens // width)
    parts = []
    with evaluation_mode(model):
        for start in range(0, len(sequences), step):
            some = sequences[start : start + step]
            ids = np.zeros((len(some), width), dtype=np.int64)
            for row, sequence in zip(ids, some, strict=True):
                row[: len(sequence)] = sequence
            last = torch.tensor([len(sequence) - 1 for sequence in some], device=device)
            after = after_attention(model, torch.from_numpy(ids).to(device))
            rows = torch.arange(len(some), device=device)
            parts.append(torch.stack([x[rows, last] for x in after], dim=1).float().cpu().numpy())
            progress("alignment", start + len(some), len(sequences))
    return np.concatenate(parts)


def after_attention(model: CausalLM, ids: torch.Tensor) -> list[torch.Tensor]:
    """The residual stream `[B, T, D]` after each attention layer: a layer's input and what its attention adds to it.

    Raises UserError for a foreign model whose layers are made in another way.
    """
    inputs: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []

    def keep_input(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        inputs.append(arguments[0] if arguments else named["hidden_states"])

    def keep_output(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        outputs.append(result[0] if isinstance(result, tuple) else result)

    with ExitStack() as hooks:
        for layer, attention in attention_layers(model):
            hooks.callback(layer.register_forward_pre_hook(keep_input, with_kwargs=True).remove)
            hooks.callback(attention.register_forward_hook(keep_output).remove)
        model(ids)
    return [x + added for x, added in zip(inputs, outputs, strict=True)]


@torch.inference_mode()
def require_plain_layers(model: CausalLM) -> None:
    """Raises UserError unless each layer gives its input, plus what attention adds, plus what one more part adds.

    Else what `after_attention` takes for the residual stream is something else: some models add it inside their
    attention, or norm what attention gives.
    """
    layers = attention_layers(model)
    outputs: dict[nn.Module, torch.Tensor] = {}

    def keep(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        outputs[module] = result[0] if isinstance(result, tuple) else result

    with ExitStack() as hooks:
        for layer, _ in layers:
            for module in (layer, *layer.children()):
                hooks.callback(module.register_forward_hook(keep).remove)
        after = after_attention(model, torch.arange(1, 5, device=next(model.parameters()).device)[None])
    for (layer, attention), x in zip(layers, after, strict=True):
        rest = outputs[layer] - x
        others = [outputs[part] for part in layer.children() if part is not attention and part in outputs]
        others = [part.reshape(rest.shape) for part in others if part.numel() == rest.numel()]
        if not any(torch.allclose(part, rest, atol=1e-4, rtol=1e-3) for part in others):
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


def _mean_distance(points: np.ndarray) -> float:
    """The mean over all pairs of points `[n, D]`; 0 for a single one."""
    if len(points) < 2:
        return 0.0
    points = points.astype(np.float64)
    norms = (points**2).sum(axis=1)
    squared = norms[:, None] + norms - 2 * points @ points.T
    first, second = np.triu_indices(len(points), 1)
    return float(np.sqrt(np.maximum(squared[first, second], 0)).mean())


def _principal_components(words: Sequence[str], by_word: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    points = np.concatenate([word[:, -1] for word in by_word]).astype(np.float64)
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes[:2].T
    owners = [word for word, states in zip(words, by_word, strict=True) for _ in states]
    return [{"x": float(row[0]), "y": float(row[1]), "word": word} for row, word in zip(plane, owners, strict=True)]


def completions(
    model: CausalLM, vocabulary: Vocabulary, prompt: str, tokenization: Tokenization
) -> list[dict[str, Any]]:
    """What the model says after a prompt cut in its canonical and in other ways (the paper's Figure 11), greedily:
    `{"tokens": [texts], "completion": text}`, the canonical first. Raises UserError for an empty prompt."""
    canonical = vocabulary.encode(prompt)
    if not canonical:
        raise UserError("--prompt is empty")
    cut = [
        StochasTok(vocabulary, tokenization.p, tokenization.method, seed=seed)(canonical).tolist()
        for seed in range(tokenization.samples)
    ]
    distinct = [list(ids) for ids in dict.fromkeys(map(tuple, [canonical, *cut]))]
    said = greedy(model, distinct, NEW_TOKENS, lambda ids: ids[-1] == vocabulary.end_of_text)
    return [
        {
            "tokens": [vocabulary.decode([i]) for i in ids],
            "completion": vocabulary.decode([i for i in answer if i != vocabulary.end_of_text]),
        }
        for ids, answer in zip(distinct, said, strict=True)
    ]

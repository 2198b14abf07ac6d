"""From the configuration's evaluators to functions that only want a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from stochastok_cli.config import EvaluatorConfig
from stochastok_cli.evaluation.addition import load_addition, math_generation
from stochastok_cli.evaluation.benchmarks import load_benchmark
from stochastok_cli.evaluation.bits_per_byte import bits_per_byte, load_validation_text
from stochastok_cli.evaluation.likelihood import BATCH_TOKENS
from stochastok_cli.evaluation.multiple_choice import encode, score
from stochastok_cli.model.transformer import Transformer
from stochastok_cli.storage import Progress, silent
from stochastok_cli.tokens.vocabulary import Vocabulary


class Measure(Protocol):
    """What is asked of a model: metrics by name. It leaves the model in the mode in which it came."""

    def __call__(self, model: Transformer, *, progress: Progress) -> dict[str, float]: ...


@dataclass(frozen=True)
class Evaluator:
    """A measure with its data loaded and tokenized, and on how many questions (or tokens) each group of metrics rests.

    The keys of `n` are what the names of the metrics begin with.
    """

    measure: Measure
    n: dict[str, int]


def load_evaluators(
    configs: Sequence[EvaluatorConfig],
    data_dir: Path,
    vocabulary: Vocabulary,
    context_window: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Evaluator]:
    """Loads and checks everything that the evaluators need, for models of this vocabulary and context window.

    Raises UserError for whatever would go wrong later: nothing is left to be found out during training.
    """
    loaders: dict[str, Callable[[EvaluatorConfig, Path, Vocabulary], list[Evaluator]]] = {
        "mcq": partial(_load_mcq, context_window=context_window, batch_tokens=batch_tokens),
        "math_generation": _load_math_generation,
        "bits_per_byte": partial(_load_bits_per_byte, context_window=context_window, batch_tokens=batch_tokens),
    }
    return [evaluator for config in configs for evaluator in loaders[config.evaluator](config, data_dir, vocabulary)]


def evaluate(model: Transformer, evaluators: Sequence[Evaluator], *, progress: Progress = silent) -> dict[str, float]:
    """All metrics of all evaluators, in their order."""
    metrics: dict[str, float] = {}
    for evaluator in evaluators:
        metrics |= evaluator.measure(model, progress=progress)
    return metrics


def counts(evaluators: Sequence[Evaluator]) -> dict[str, int]:
    """`n` of all evaluators: `{"mcq/arc": 1000, …}`; for bits per byte the number of tokens scored."""
    return {group: n for evaluator in evaluators for group, n in evaluator.n.items()}


def _load_mcq(
    config: EvaluatorConfig, data_dir: Path, vocabulary: Vocabulary, *, context_window: int, batch_tokens: int
) -> list[Evaluator]:
    found = []
    for name in config.benchmarks:
        encoded = encode(load_benchmark(name, data_dir, config.num_samples), vocabulary, context_window)
        measure = partial(score, encoded=encoded, batch_tokens=batch_tokens)
        found.append(Evaluator(measure, {f"mcq/{encoded.name}": len(encoded.num_options)}))
    return found


def _load_math_generation(config: EvaluatorConfig, data_dir: Path, vocabulary: Vocabulary) -> list[Evaluator]:
    return [
        Evaluator(
            partial(math_generation, vocabulary=vocabulary, asked=asked),
            {f"math_generation/{asked.split}/{asked.form}": len(asked.prompts)},
        )
        for asked in load_addition(data_dir, vocabulary, config.num_samples)
    ]


def _load_bits_per_byte(
    config: EvaluatorConfig, data_dir: Path, vocabulary: Vocabulary, *, context_window: int, batch_tokens: int
) -> list[Evaluator]:
    num_tokens = None if config.num_samples is None else config.num_samples * context_window
    texts = [load_validation_text(name, data_dir, vocabulary, num_tokens=num_tokens) for name in config.benchmarks]
    return [
        Evaluator(
            partial(bits_per_byte, vocabulary=vocabulary, text=text, batch_tokens=batch_tokens),
            {f"bits_per_byte/{text.name}": len(text.ids)},
        )
        for text in texts
    ]

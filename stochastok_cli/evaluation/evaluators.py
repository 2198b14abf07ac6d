"""From the configuration's evaluators to functions that only want a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from stochastok_cli.config import EvaluatorConfig
from stochastok_cli.data.memmap import memmap_dir
from stochastok_cli.data.sft_dataset import SFTDataset
from stochastok_cli.data.word_list import read_words
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.addition import ask_addition, load_addition
from stochastok_cli.evaluation.adversarial import ask_adversarially
from stochastok_cli.evaluation.alignment import DEFAULT, alignment, cut_words
from stochastok_cli.evaluation.benchmarks import BENCHMARKS, Benchmark, load_benchmark
from stochastok_cli.evaluation.bits_per_byte import ScoredText, bits_per_byte, load_validation_text
from stochastok_cli.evaluation.contamination import Contamination, contamination_of
from stochastok_cli.evaluation.findings import EvalResult, merged
from stochastok_cli.evaluation.marginal import marginal_bits_per_byte, require_known_probability
from stochastok_cli.evaluation.multiple_choice import by_kind, encode, score
from stochastok_cli.evaluation.robustness import Tokenization, evaluate_retokenized
from stochastok_cli.evaluation.scoring import BATCH_TOKENS
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary


class Measure(Protocol):
    """What is asked of a model. It leaves the model in the mode in which it came."""

    def __call__(self, model: CausalLM, *, progress: ProgressCallback) -> EvalResult: ...


@dataclass(frozen=True)
class Evaluator:
    """A measure with its data loaded and tokenized, and on how many questions (or tokens) each group of metrics rests.

    The keys of `n` are what the names of the metrics begin with.
    """

    measure: Measure
    n: dict[str, int]


@dataclass(frozen=True)
class Extras:
    """What is found out besides the metrics of the configuration.

    by_kind: accuracy on each kind of question; leakage: which questions the data trained on hold, and the accuracy on
    the others; tokenization: other ways to cut the questions, or what bits per byte are summed over; adversarial:
    forward passes that a search for the worst cut may spend on a question; words: a file of words for `alignment`.
    """

    by_kind: bool = False
    contamination_of: bool = False
    tokenization: Tokenization | None = None
    adversarial: int | None = None
    words: Path | None = None


def load_evaluators(
    configs: Sequence[EvaluatorConfig],
    data_dir: Path,
    vocabulary: Vocabulary,
    context_window: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    extras: Extras = Extras(),
    progress: ProgressCallback = no_progress,
) -> list[Evaluator]:
    """Loads and checks everything that the evaluators need, for models of this vocabulary and context window.

    Raises UserError for whatever would go wrong later: nothing is left to be found out during training.
    """
    loaders: dict[str, Callable[[EvaluatorConfig, Path, Vocabulary], list[Evaluator]]] = {
        "mcq": partial(
            _load_mcq, context_window=context_window, batch_tokens=batch_tokens, extras=extras, progress=progress
        ),
        "math_generation": _load_math_generation,
        "bits_per_byte": partial(
            _load_bits_per_byte, context_window=context_window, batch_tokens=batch_tokens, extras=extras
        ),
        "alignment": partial(_load_alignment, context_window=context_window, batch_tokens=batch_tokens, extras=extras),
    }
    return [evaluator for config in configs for evaluator in loaders[config.evaluator](config, data_dir, vocabulary)]


def evaluate(
    model: CausalLM, evaluators: Sequence[Evaluator], *, progress: ProgressCallback = no_progress
) -> dict[str, float]:
    """All metrics of all evaluators, in their order."""
    return evaluate_models(model, evaluators, progress=progress).metrics


def evaluate_models(
    model: CausalLM, evaluators: Sequence[Evaluator], *, progress: ProgressCallback = no_progress
) -> EvalResult:
    """The same with what each question gave."""
    return merged(evaluator.measure(model, progress=progress) for evaluator in evaluators)


def counts(evaluators: Sequence[Evaluator]) -> dict[str, int]:
    """`n` of all evaluators: `{"mcq/arc": 1000, …}`; for bits per byte the number of tokens scored."""
    return {group: n for evaluator in evaluators for group, n in evaluator.n.items()}


def _load_mcq(
    config: EvaluatorConfig,
    data_dir: Path,
    vocabulary: Vocabulary,
    *,
    context_window: int,
    batch_tokens: int,
    extras: Extras,
    progress: ProgressCallback,
) -> list[Evaluator]:
    found = []
    for name in config.benchmarks:
        benchmark = load_benchmark(name, data_dir, config.num_samples)
        encoded = encode(benchmark, vocabulary, context_window)
        groups = by_kind(benchmark) if extras.by_kind else {}
        measures: list[Measure] = []
        if extras.contamination_of:
            leaked = _leakage(benchmark, data_dir, progress)
            groups["new_question"] = ~leaked.same_text
            groups["new_ask"] = ~leaked.same_ask
        encoded = replace(encoded, groups=groups)
        measures.append(partial(score, encoded=encoded, batch_tokens=batch_tokens))
        how: dict[str, Any] = {"vocabulary": vocabulary, "encoded": encoded, "batch_tokens": batch_tokens}
        group = f"mcq/{encoded.name}"
        n = {group: len(encoded.num_options)}
        n |= {f"{group}/{part}": int(members.sum()) for part, members in groups.items()}
        if extras.tokenization is not None:
            StochasTok(vocabulary, extras.tokenization.p, extras.tokenization.method)  # refuses what is impossible
            measures.append(partial(evaluate_retokenized, tokenization=extras.tokenization, **how))
            n[f"{group}/{extras.tokenization.name}"] = len(encoded.num_options)
        if extras.adversarial is not None:
            measures.append(partial(ask_adversarially, budget=extras.adversarial, **how))
            n[f"{group}/adversarial"] = len(encoded.num_options)
        found.append(Evaluator(partial(_all, measures=measures), n))
    return found


def _all(model: CausalLM, *, measures: list[Measure], progress: ProgressCallback) -> EvalResult:
    return merged(measure(model, progress=progress) for measure in measures)


def _leakage(benchmark: Benchmark, data_dir: Path, progress: ProgressCallback) -> Contamination:
    folder = BENCHMARKS[benchmark.name].trained_on
    if folder is None:
        raise UserError(
            f"benchmark {benchmark.name}: no data of this program teach it, so that nothing can have leaked",
            fix="drop --leakage",
        )
    return contamination_of(benchmark, SFTDataset(memmap_dir(data_dir) / folder), progress=progress)


def _load_math_generation(config: EvaluatorConfig, data_dir: Path, vocabulary: Vocabulary) -> list[Evaluator]:
    return [
        Evaluator(
            partial(ask_addition, vocabulary=vocabulary, asked=asked),
            {f"math_generation/{asked.split}/{asked.form}": len(asked.prompts)},
        )
        for asked in load_addition(data_dir, vocabulary, config.num_samples)
    ]


def _load_bits_per_byte(
    config: EvaluatorConfig,
    data_dir: Path,
    vocabulary: Vocabulary,
    *,
    context_window: int,
    batch_tokens: int,
    extras: Extras,
) -> list[Evaluator]:
    if extras.tokenization is not None:
        require_known_probability(extras.tokenization)
    num_tokens = None if config.num_samples is None else config.num_samples * context_window
    texts = [load_validation_text(name, data_dir, vocabulary, num_tokens=num_tokens) for name in config.benchmarks]
    return [
        Evaluator(
            partial(
                _bits_per_byte,
                vocabulary=vocabulary,
                text=text,
                tokenization=extras.tokenization,
                batch_tokens=batch_tokens,
            ),
            {f"bits_per_byte/{text.name}": len(text.ids)},
        )
        for text in texts
    ]


def _load_alignment(
    config: EvaluatorConfig,
    data_dir: Path,
    vocabulary: Vocabulary,
    *,
    context_window: int,
    batch_tokens: int,
    extras: Extras,
) -> list[Evaluator]:
    tokenization = extras.tokenization or DEFAULT
    cut = cut_words(read_words(extras.words), vocabulary, tokenization, config.num_samples, context_window)
    measure = partial(alignment, cut=cut, name=tokenization.name, batch_tokens=batch_tokens)
    return [Evaluator(measure, {f"alignment/{tokenization.name}": len(cut.words)})]


def _bits_per_byte(
    model: CausalLM,
    *,
    vocabulary: Vocabulary,
    text: ScoredText,
    tokenization: Tokenization | None,
    batch_tokens: int,
    progress: ProgressCallback,
) -> EvalResult:
    found = EvalResult(bits_per_byte(model, vocabulary, text, batch_tokens=batch_tokens, progress=progress))
    if tokenization is None:
        return found
    return found | marginal_bits_per_byte(
        model, vocabulary, text, tokenization, batch_tokens=batch_tokens, progress=progress
    )

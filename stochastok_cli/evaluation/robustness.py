"""Robustness to tokenization: a benchmark in other tokenizations of the same text (arXiv 2604.16037).

The prefix is tokenized in another way, the same for all options of a question; where there is no prefix, every option
is. The options of a question with a prefix stay canonical, since an answer is what the model itself would generate.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stochastok_cli.errors import UserError, short_name
from stochastok_cli.evaluation.answers import Answers
from stochastok_cli.evaluation.base import CANONICAL, EvaluatorOutput
from stochastok_cli.evaluation.changed_answers import WrongAnswer, changed_answers
from stochastok_cli.evaluation.chosen_answers import chosen_answers
from stochastok_cli.evaluation.encoding import EncodedBenchmark, EncodedQuestion
from stochastok_cli.evaluation.metrics import chance, is_correct
from stochastok_cli.evaluation.results import Curve, Metric
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.evaluation.statistics import ratio_interval
from stochastok_cli.evaluation.tokenization_notes import note_unchanged
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.methods import METHODS, expansion_label, require_method, usable_methods

BINS = 10  # of the normalized edit distance, from 0 to 1
DEFAULT_SAMPLES = 8


@dataclass(frozen=True)
class Tokenization:
    """Other tokenizations: a method of expansion, its p (None for a fixed rule), and how many are drawn."""

    method: str
    p: float | None
    samples: int

    @property
    def name(self) -> str:
        """As in the names of metrics and of expanded folders.

        >>> Tokenization("stochastok", 0.1, 8).name
        'stochastok0.1'
        """
        return expansion_label(self.method, self.p)

    @property
    def text(self) -> str:
        """As `--tokenization` takes it.

        >>> Tokenization("stochastok", 0.1, 8).text
        'stochastok:0.1'
        """
        return self.method if self.p is None else f"{self.method}:{self.p}"


def parse_tokenization(text: str, samples: int | None = None) -> Tokenization:
    """`METHOD:P`, where P is what follows the last colon if that is a number. A fixed rule needs none.

    Raises UserError for anything else; `StochasTok` checks p.

    >>> parse_tokenization("uniform:0.5")
    Tokenization(method='uniform', p=0.5, samples=8)
    """
    if text.partition(":")[0] == CANONICAL:
        raise UserError(
            f"--tokenization {short_name(text)}: the canonical tokenization has no P, and is always evaluated",
            fix="drop it" if text == CANONICAL else "drop it, or give the METHOD:P of another one",
        )
    method, _, after = text.rpartition(":")
    try:
        p = float(after)
    except ValueError:
        method, p = text, None
    family = METHODS.get(method.partition(":")[0])
    takes_arguments = family is not None and (family.arguments or family.bind)
    definition = require_method(method) if p is not None or takes_arguments or family is None else family
    if p is None and definition.takes_p:
        rules = ", ".join(name for name in usable_methods() if not require_method(name).takes_p)
        raise UserError(
            f"--tokenization {text!r} is not METHOD:P", fix=f"for example {definition.name}:0.1; without P: {rules}"
        )
    definition.resolve_p(p)
    if not definition.takes_p:
        if samples not in (None, 1):
            raise UserError(f"{definition.name} is a fixed rule: every sample is the same", fix="drop --samples")
        return Tokenization(definition.name, None, 1)
    return Tokenization(definition.name, p, samples or DEFAULT_SAMPLES)


def optional_tokenization(text: str | None, samples: int | None) -> Tokenization | None:
    """The tokenization of an option that may be absent; `samples` belongs to it."""
    if text is None and samples is not None:
        raise UserError("--samples says nothing without --tokenization", fix="drop it, or name a METHOD:P")
    return None if text is None else parse_tokenization(text, samples)


@dataclass(frozen=True)
class Retokenized:
    """A benchmark in another tokenization.

    Attributes:
        benchmark: Its questions; `truncated` counts those that no longer fit the window.
        edit_distance: By question, the splits made over the largest number possible, float64 `[questions]`; negative
            where a method has merged tokens.
        growth: By question, the ids of what is tokenized in another way over those of its canonical tokenization,
            float64 `[questions]`.
        changed: How many questions have other ids.
    """

    benchmark: EncodedBenchmark
    edit_distance: np.ndarray
    growth: np.ndarray
    changed: int


def retokenize(benchmark: EncodedBenchmark, expand: StochasTok, context_window: int) -> Retokenized:
    """Draws another tokenization of each question of a benchmark, equal for an equal `expand`.

    A prefix that no longer fits the window loses ids from the left. An option that no longer fits stays canonical.
    """
    max_splits = expand.lattice.max_splits
    questions: list[EncodedQuestion] = []
    distances: list[float] = []
    growths: list[float] = []
    truncated = index = changed = 0
    for question in benchmark.questions:
        texts = [question.text] if question.has_prefix else question.options
        canonical = [np.asarray(ids) for ids in texts]
        expanded = [expand(ids, index + i) for i, ids in enumerate(canonical)]
        index += len(texts)
        if question.has_prefix:
            whole = question.with_text(expanded[0])
            retokenized = whole.cut_to(context_window)
            truncated += retokenized is not whole
        else:
            too_long = [len(ids) > context_window for ids in expanded]
            truncated += sum(too_long)
            expanded = [old if long else new for old, new, long in zip(canonical, expanded, too_long, strict=True)]
            retokenized = replace(question, options=expanded)
        questions.append(retokenized)
        changed += not all(map(np.array_equal, canonical, expanded))
        before, after = sum(map(len, canonical)), sum(map(len, expanded))
        distances.append((after - before) / max(sum(int(max_splits[ids].sum()) for ids in canonical), 1))
        growths.append(after / max(before, 1))
    retokenized_benchmark = replace(benchmark, questions=questions, truncated=truncated)
    return Retokenized(retokenized_benchmark, np.array(distances), np.array(growths), changed)


def evaluate_retokenized(
    lm: LM, benchmark: EncodedBenchmark, tokenization: Tokenization, is_right: np.ndarray
) -> EvaluatorOutput:
    """A benchmark in `samples` other tokenizations, as `robustness_metrics` describes the results.

    Args:
        lm: The model.
        benchmark: Its questions in their canonical tokenization.
        tokenization: The others.
        is_right: Which questions are answered right in the canonical one, bool `[questions]`.
    """
    wrong: dict[int, WrongAnswer] = {}
    answers: list[Answers] = []
    correct, distances, growths, truncated, changed_ids, guess = [], [], [], 0, 0, math.nan
    for sample in range(tokenization.samples):
        expand = StochasTok(lm.vocabulary, tokenization.p, tokenization.method, seed=sample)
        retokenized = retokenize(benchmark, expand, lm.context_window)
        description = f"{benchmark.name}, {tokenization.text}, sample {sample + 1} of {tokenization.samples}"
        scores = lm.question_scores(retokenized.benchmark, description=description)
        correct.append(is_correct(scores))
        answers += chosen_answers(retokenized.benchmark, scores, tokenization.name, sample)
        for i in np.flatnonzero(is_right & ~correct[-1]).tolist():
            wrong.setdefault(i, WrongAnswer(retokenized.benchmark.questions[i].text, scores[i]))
        guess = chance(scores)
        distances.append(retokenized.edit_distance)
        growths.append(retokenized.growth)
        truncated += retokenized.benchmark.truncated
        changed_ids += retokenized.changed
    note_unchanged(benchmark.name, tokenization.text, changed_ids)
    group = Metric("mcq", benchmark.name, tokenization.name, "accuracy", math.nan, chance=guess)
    outcomes, distance, growth = np.array(correct, dtype=np.float64), np.array(distances), np.array(growths)
    output = robustness_metrics(group, outcomes, distance, growth, truncated)
    changed = changed_answers(lm.vocabulary, benchmark, tokenization.name, is_right, wrong)
    return replace(output, answers=answers, changed_answers=[changed])


def robustness_metrics(
    of_samples: Metric, correct: np.ndarray, distance: np.ndarray, growth: np.ndarray, truncated: int
) -> EvaluatorOutput:
    """The results of a benchmark in several other tokenizations.

    The metric that counts right answers, over all samples, the outcome of a question being its fraction of correct
    answers; worst_case: correct in every sample; any_case: correct in at least one; worst_sample: the accuracy of the
    sample on which the model is worst; edit_distance: mean splits over the largest number possible; growth: mean ids of
    the text over those of its canonical tokenization; truncated, where some questions did not fit. The curve is the
    accuracy against the edit distance, in BINS of it.

    Args:
        of_samples: The metric that counts right answers, without its value and outcomes.
        correct: Answers, 0 or 1, float64 `[samples, questions]`.
        distance: Edit distances, float64 `[samples, questions]`.
        growth: Ids over canonical ids, float64 `[samples, questions]`.
        truncated: How many questions did not fit, over all samples.
    """

    def metric(name: str, value: float, outcomes: np.ndarray | None = None) -> Metric:
        chance = of_samples.chance if name == of_samples.name else None
        return replace(of_samples, name=name, value=value, n=correct.shape[1], outcomes=outcomes, chance=chance)

    outcomes = {
        of_samples.name: correct.mean(axis=0),
        "worst_case": correct.min(axis=0),
        "any_case": correct.max(axis=0),
    }
    metrics = [metric(name, float(values.mean()), values) for name, values in outcomes.items()]
    metrics.append(metric("worst_sample", float(correct.mean(axis=1).min())))
    metrics.append(metric("edit_distance", float(distance.mean())))
    metrics.append(metric("growth", float(growth.mean())))
    if truncated:
        metrics.append(metric("truncated", truncated))
    points = accuracy_by_distance(correct, distance)
    return EvaluatorOutput(metrics, [Curve(of_samples.evaluator, of_samples.benchmark, of_samples.part, points)])


def accuracy_by_distance(correct: np.ndarray, distance: np.ndarray) -> list[dict[str, Any]]:
    """The accuracy in each of BINS equal parts of the edit distance from 0 to 1 that contains questions.

    A negative distance, of fewer tokens than before, belongs to the first part.

    Args:
        correct: Answers, 0 or 1, float64 `[samples, questions]`.
        distance: Edit distances, float64 `[samples, questions]`.

    Returns:
        Points: `x` the mean distance, `y` the accuracy, `n` the number of answers, `low` and `high` the
        interval over questions.
    """
    bins = np.clip((distance * BINS).astype(int), 0, BINS - 1)  # negative where a method has merged tokens
    points = []
    for i in range(BINS):
        inside = bins == i
        if inside.any():
            low, high = ratio_interval((correct * inside).sum(axis=0), inside.sum(axis=0))
            point = {
                "x": distance[inside].mean(),
                "y": correct[inside].mean(),
                "n": inside.sum(),
                "low": low,
                "high": high,
            }
            points.append({name: float(value) for name, value in point.items()})
    return points

"""The results of evaluators: `Metric`, `Curve` and `EvalResult`, their keys, and their numbers in JSON.

This module imports neither numpy nor torch, like `stochastok_cli.evaluation.base`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.evaluation.answers import Answers, ChangedAnswers
    from stochastok_cli.evaluation.generated_texts import GeneratedText


def metric_group(evaluator: str, benchmark: str, part: str = "") -> str:
    """What the keys of related metrics begin with. White space and slashes of a part become underscores.

    >>> metric_group("mcq", "arc"), metric_group("mcq", "langgame-val", "starts with")
    ('mcq/arc', 'mcq/langgame-val/starts_with')
    """
    return "/".join(filter(None, (evaluator, benchmark, re.sub(r"[\s/]+", "_", part))))


@dataclass(frozen=True)
class Metric:
    """One number that an evaluator computes for a model.

    Attributes:
        evaluator: Name of the evaluator, as in `--evaluator`: "mcq", "math_generation" …
        benchmark: What was scored: "langgame-val", a split of addition, a folder, a tokenization of words.
        part: "" for the whole benchmark; else a kind of question ("starts_with"), another tokenization
            ("stochastok0.1", "adversarial"), a form of an addition question ("base"), or a layer ("layer_3").
        name: "accuracy", "exact_match", "bits_per_byte", "distance" …
        value: The number.
        n: How many questions, tokens or words it rests on.
        outcomes: One value per question whose mean is `value`, float64 `[questions]`, always in the same order; None
            where the metric is no mean over questions.
        outcome_range: The outcomes of a wrong and of a right answer; None for others, such as distances.
        chance: The value that uniform guesses have; None where there are no guesses, or none is known.
    """

    evaluator: str
    benchmark: str
    part: str
    name: str
    value: float
    n: int | None = None
    outcomes: "np.ndarray | None" = field(default=None, repr=False, compare=False)
    outcome_range: tuple[float, float] | None = field(default=(0.0, 1.0), repr=False)
    chance: float | None = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> str:
        """The name in `metrics.jsonl` and `eval --json`. A metric that is named as its evaluator is not named twice.

        >>> Metric("mcq", "langgame-val", "starts_with", "accuracy", 0.5).key
        'mcq/langgame-val/starts_with/accuracy'
        >>> Metric("bits_per_byte", "sample-tokenized", "", "bits_per_byte", 2.5).key
        'bits_per_byte/sample-tokenized'
        """
        group = metric_group(self.evaluator, self.benchmark, self.part)
        return group if self.name == self.evaluator else f"{group}/{self.name}"

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval over questions; None where there are no outcomes, or where they can't say how sure it is.

        The latter are outcomes that are all equal and neither right nor wrong: a bootstrap would claim certainty.
        """
        from stochastok_cli.evaluation.statistics import mean_interval

        if self.outcomes is None or not len(self.outcomes):
            return None
        is_equal = bool((self.outcomes == self.outcomes[0]).all())
        if is_equal and (self.outcome_range is None or self.outcomes[0] not in self.outcome_range):
            return None
        return mean_interval(self.outcomes, self.outcome_range)


def finite_or_none(value: float | None) -> float | None:
    """A number as JSON has it: there is no NaN or infinity, which a model that has diverged gives.

    >>> finite_or_none(0.5), finite_or_none(math.inf)
    (0.5, None)
    """
    return value if value is not None and math.isfinite(value) else None


def finite_interval(interval: tuple[float, float]) -> tuple[float | None, float | None]:
    """Both ends of an interval as JSON has them."""
    return finite_or_none(interval[0]), finite_or_none(interval[1])


@dataclass(frozen=True)
class Curve:
    """The points of a plot: `{"x": …, "y": …}`, and further values of each point."""

    evaluator: str
    benchmark: str
    part: str
    points: list[dict[str, Any]]

    @property
    def key(self) -> str:
        """The name in `eval --json`.

        >>> Curve("alignment", "uniform1.0", "pca", []).key
        'alignment/uniform1.0/pca'
        """
        return metric_group(self.evaluator, self.benchmark, self.part)

    def to_json(self) -> list[dict[str, Any]]:
        """The points; a value that is not finite becomes None."""
        return [
            {name: finite_or_none(value) if isinstance(value, float) else value for name, value in point.items()}
            for point in self.points
        ]


@dataclass
class EvalResult:
    """All results of one checkpoint.

    Attributes:
        checkpoint: The folder that was evaluated, or the model's id on the Hub.
        label: What tables call the checkpoint: its run's name, or its path where two runs have the same name.
        iteration: How many iterations made it; None where that is unknown.
        metrics: In the order in which the evaluators gave them.
        curves: Points of plots.
        sample_counts: How many questions (or tokens, or words) each group of metrics rests on: `{"mcq/arc": 1000, …}`.
        completions: Continuations of a prompt, `{"tokens": […], "completion": "…"}`; not part of `to_json`, like what
            follows.
        answers: Answers to each question, in every tokenization in which it was asked.
        unlogged: Benchmarks whose questions are not in `answers`, since they have neither options nor one right text.
        changed_answers: Some answers that become wrong in other tokenizations.
        texts: Sampled documents.
        num_parameters: The size of the model.
    """

    checkpoint: str
    label: str
    iteration: int | None
    metrics: list[Metric] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    sample_counts: dict[str, int] = field(default_factory=dict)
    completions: list[dict[str, Any]] = field(default_factory=list)
    answers: "list[Answers]" = field(default_factory=list)
    changed_answers: "list[ChangedAnswers]" = field(default_factory=list)
    unlogged: Sequence[str] = ()
    texts: "list[GeneratedText]" = field(default_factory=list)
    num_parameters: int | None = None

    @property
    def values(self) -> dict[str, float]:
        """The value of each metric by its key."""
        return {metric.key: metric.value for metric in self.metrics}

    def to_json(self) -> dict[str, Any]:
        """The object that `stochastok eval --json` prints; a value that is not finite becomes None."""
        return {
            "schema": 1,
            "checkpoint": self.checkpoint,
            "iteration": self.iteration,
            "metrics": {key: finite_or_none(value) for key, value in self.values.items()},
            "n": self.sample_counts,
            "intervals": {one.key: finite_interval(one.interval) for one in self.metrics if one.interval is not None},
            **({"curves": {curve.key: curve.to_json() for curve in self.curves}} if self.curves else {}),
        }

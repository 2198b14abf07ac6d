"""Uncertainty of metrics: intervals over questions, over pairs of answers, and over seeds. Pure functions."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from stochastok_cli.random_streams import stream

CONFIDENCE = 0.95
RESAMPLES = 10_000
CONFIDENCE_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Half the width of an interval, in standard deviations."""
_BLOCK = 2**22  # counts held at once

Interval = tuple[float, float]


def mean_interval(values: np.ndarray, outcome_range: Interval | None = (0.0, 1.0)) -> Interval:
    """The 95% interval of the mean of `values` `[questions]`.

    Where every value is one of the two ends of `outcome_range`, as right and wrong answers are, it is the interval of
    Agresti and Coull (1998), which keeps a width where all answers are right or all are wrong. A bootstrap of such
    values covers the truth far too rarely near the ends. Other values take the bootstrap.
    """
    values = np.asarray(values, dtype=np.float64)
    if outcome_range is None or not np.isin(values, outcome_range).all():
        return bootstrap_interval(values)
    low, high = outcome_range
    bounds = binomial_interval(int((values == high).sum()), len(values))
    return low + (high - low) * bounds[0], low + (high - low) * bounds[1]


def binomial_interval(successes: int, trials: int) -> Interval:
    """The 95% interval of a proportion (Agresti and Coull 1998), cut to [0, 1].

    >>> [round(end, 3) for end in binomial_interval(1000, 1000)], [round(end, 3) for end in binomial_interval(1, 4)]
    ([0.995, 1.0], [0.034, 0.711])
    """
    n = trials + CONFIDENCE_Z**2
    center = (successes + CONFIDENCE_Z**2 / 2) / n
    half = CONFIDENCE_Z * math.sqrt(center * (1 - center) / n)
    return max(center - half, 0.0), min(center + half, 1.0)


def bootstrap_interval(values: np.ndarray, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> Interval:
    """The percentile bootstrap interval of the mean of `values` `[questions]` (Efron 1979).

    Equal values always give an equal interval.
    """
    return bootstrap_ratio(values, np.ones(len(values)), confidence, resamples)


def ratio_interval(correct: np.ndarray, answers: np.ndarray) -> Interval:
    """The 95% interval of `sum(correct) / sum(answers)`, both `[questions]`.

    It is the `bootstrap_ratio`. Where all answers are correct, or none is, that has no width, and it is the
    `binomial_interval` of the questions that have answers.
    """
    if correct.sum() in (0, answers.sum()):
        questions = int((answers > 0).sum())
        return binomial_interval(questions if correct.any() else 0, questions)
    return bootstrap_ratio(correct, answers)


def bootstrap_ratio(
    correct: np.ndarray, answers: np.ndarray, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """The percentile bootstrap interval of `sum(correct) / sum(answers)`, resampled by question.

    A resample of n questions with replacement is a multinomial draw of how often each distinct pair occurs, so that
    correct and wrong answers need two counts per resample, whatever n is.

    Args:
        correct: How many answers to each question are correct, `[questions]`.
        answers: How many answers each question has, `[questions]`; may be 0.
        confidence: The probability that the interval covers the ratio.
        resamples: How many resamples are drawn.
    """
    pairs = np.stack([correct, answers], axis=1).astype(np.float64)
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    random, n = stream(0, "bootstrap"), int(counts.sum())
    step = max(1, _BLOCK // len(distinct))
    sums = np.concatenate(
        [
            random.multinomial(n, counts / n, size=min(step, resamples - start)) @ distinct
            for start in range(0, resamples, step)
        ]
    )
    sums = sums[sums[:, 1] > 0]
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


class Difference(NamedTuple):
    """The mean by which a second checkpoint exceeds a first on the same questions.

    Attributes:
        difference: The mean over questions.
        interval: Its 95% interval.
        first_better: On how many questions the first has the higher value.
        second_better: On how many questions the second has the higher value.
    """

    difference: float
    interval: Interval
    first_better: int
    second_better: int


def paired_difference(first: np.ndarray, second: np.ndarray, outcome_range: Interval | None = (0.0, 1.0)) -> Difference:
    """Compares two checkpoints by one value per question of each, both `[questions]`.

    Where all values are ends of `outcome_range`, the interval is that of Bonett and Price (2012) for the difference of
    paired proportions, which keeps a width where no question differs. Else it is the bootstrap interval.

    Questions that are easy or hard for both cancel out, so that this interval is narrower than the intervals of the two
    means suggest.
    """
    change = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    worse, better, n = int((change < 0).sum()), int((change > 0).sum()), len(change)
    if outcome_range is not None and np.isin([first, second], outcome_range).all():
        width = outcome_range[1] - outcome_range[0]
        p_worse, p_better = (worse + 1) / (n + 2), (better + 1) / (n + 2)
        center = p_better - p_worse
        half = CONFIDENCE_Z * math.sqrt((p_worse + p_better - center**2) / (n + 2))
        interval = (width * max(center - half, -1.0), width * min(center + half, 1.0))
    else:
        interval = bootstrap_interval(change)
    return Difference(float(change.mean()), interval, worse, better)


class Spread(NamedTuple):
    """The mean over runs, the standard deviation between runs (n - 1), and Student's interval of the mean."""

    mean: float
    deviation: float
    interval: Interval


def spread(values: Sequence[float], confidence: float = CONFIDENCE) -> Spread:
    """The spread of one metric over two or more runs that differ in their seeds."""
    runs = np.asarray(values, dtype=np.float64)
    mean, deviation = float(runs.mean()), float(runs.std(ddof=1))
    half = student_quantile((1 + confidence) / 2, len(runs) - 1) * deviation / math.sqrt(len(runs))
    return Spread(mean, deviation, (mean - half, mean + half))


def student_quantile(probability: float, degrees: int) -> float:
    """The quantile (above 1/2) of Student's t with some degrees of freedom, by bisection on its distribution function.

    >>> round(student_quantile(0.975, 2), 3), round(student_quantile(0.975, 30), 3)
    (4.303, 2.042)
    """
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        if _student_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student_cdf(t: float, degrees: int) -> float:
    """P(T < t) for t >= 0: the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    if odd:
        inside = 2 / math.pi * (angle + (sine * total if degrees > 1 else 0.0))
    else:
        inside = sine * total
    return 0.5 + inside / 2

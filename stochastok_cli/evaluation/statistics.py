"""How far a number can be trusted: intervals over questions, over pairs of answers, and over seeds. Pure functions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stochastok_cli.random_streams import stream

CONFIDENCE = 0.95
RESAMPLES = 10_000
_BLOCK = 2**22  # counts held at once

Interval = tuple[float, float]


def bootstrap_interval(values: np.ndarray, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> Interval:
    """The percentile bootstrap interval of the mean of `values` `[questions]` (Efron 1979).

    The same values give the same interval each time.
    """
    return bootstrap_share(values, np.ones(len(values)), confidence, resamples)


def bootstrap_share(
    hits: np.ndarray, asked: np.ndarray, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Interval:
    """The same of `sum(hits) / sum(asked)`, both `[questions]`, where a question is asked several times or not at all.

    A resample of n questions with replacement is a multinomial draw of how often each distinct pair occurs, so right
    and wrong answers need two counts a resample, whatever n is.
    """
    pairs = np.stack([hits, asked], axis=1).astype(np.float64)
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
    """What a second checkpoint has more than a first on the same questions, with its interval, and on how many
    questions each of the two is better."""

    difference: float
    interval: Interval
    first_better: int
    second_better: int


def paired_difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Of one value a question of each. Questions that are easy or hard for both drop out, so this interval is narrower
    than what the intervals of the two means suggest."""
    change = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    return Difference(
        float(change.mean()), bootstrap_interval(change), int((change < 0).sum()), int((change > 0).sum())
    )


class Spread(NamedTuple):
    """The mean over runs, the deviation from run to run (n - 1), and Student's interval of the mean."""

    mean: float
    deviation: float
    interval: Interval


def spread(values: Sequence[float], confidence: float = CONFIDENCE) -> Spread:
    """Of one metric over two or more runs that differ in their seeds."""
    runs = np.asarray(values, dtype=np.float64)
    mean, deviation = float(runs.mean()), float(runs.std(ddof=1))
    half = student_quantile((1 + confidence) / 2, len(runs) - 1) * deviation / math.sqrt(len(runs))
    return Spread(mean, deviation, (mean - half, mean + half))


def student_quantile(probability: float, freedom: int) -> float:
    """The quantile (above 1/2) of Student's t, by bisection on its distribution function.

    >>> round(student_quantile(0.975, 2), 3), round(student_quantile(0.975, 30), 3)
    (4.303, 2.042)
    """
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        if _student_below(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student_below(t: float, freedom: int) -> float:
    """P(T < t) for t >= 0: the finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    if odd:
        inside = 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))
    else:
        inside = sine * total
    return 0.5 + inside / 2

"""What the scores of multiple-choice questions say. Pure functions of numpy arrays.

A question's scores are a float64 array of shape `(options,)` of log-likelihoods in nats, the right option first.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np


def accuracy(scores: Sequence[np.ndarray]) -> float:
    """The share of questions whose right option scores higher than every other; a tie is not right."""
    return float(np.mean([bool(np.all(s[0] > s[1:])) for s in scores]))


def path_confidence(scores: Sequence[np.ndarray]) -> float:
    """The mean probability of the right option when a question's likelihoods are made to sum to one (a softmax)."""
    likelihoods = [np.exp(s - s.max()) for s in scores]  # relative to the best option, so that none overflows
    return float(np.mean([likelihood[0] / likelihood.sum() for likelihood in likelihoods]))


def ground_confidence(scores: Sequence[np.ndarray]) -> float:
    """The mean log-likelihood of the right option, in nats."""
    return float(np.mean([s[0] for s in scores]))


def num_options(scores: Sequence[np.ndarray]) -> float:
    """The mean number of options of a question."""
    return float(np.mean([len(s) for s in scores]))


def chance(scores: Sequence[np.ndarray]) -> float:
    """What guessing uniformly scores: the mean of 1 / (number of options)."""
    return float(np.mean([1.0 / len(s) for s in scores]))


Number = TypeVar("Number", float, np.ndarray)


def normalized(value: Number, chance: float) -> Number:
    """`value` on the scale where chance is 0 and perfect is 1; negative for what is worse than chance."""
    return (value - chance) / (1.0 - chance)


def multiple_choice_metrics(scores: Sequence[np.ndarray]) -> dict[str, float]:
    """All of the above, by the names under which they are reported."""
    right, confidence, guess = accuracy(scores), path_confidence(scores), chance(scores)
    return {
        "accuracy": right,
        "path_confidence": confidence,
        "ground_confidence": ground_confidence(scores),
        "num_options": num_options(scores),
        "normalized_accuracy": normalized(right, guess),
        "normalized_path_confidence": normalized(confidence, guess),
    }

"""Metrics as pure functions of numpy arrays.

The scores of a multiple-choice question are a float64 array `[options]` of log-likelihoods in nats, the correct option
first.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

# ------------------------------------------------------------------------------------------------ multiple choice


def margins(scores: Sequence[np.ndarray]) -> np.ndarray:
    """By how many nats the correct option is likelier than the best other one, float64 `[questions]`."""
    return np.array([question[0] - question[1:].max() for question in scores])


def is_correct(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Whether the correct option of each question is the likeliest, bool `[questions]`; a tie is not correct."""
    return margins(scores) > 0


def accuracy(scores: Sequence[np.ndarray]) -> float:
    """The fraction of questions that are answered correctly."""
    return float(is_correct(scores).mean())


def path_confidence(scores: Sequence[np.ndarray]) -> float:
    """The mean probability of the correct option, with the likelihoods of a question normalized (a softmax)."""
    return float(np.mean([option_probabilities(s)[0] for s in scores]))


def option_probabilities(scores: np.ndarray) -> np.ndarray:
    """The probability of each option of a question, with its likelihoods normalized (a softmax), float64 `[options]`.

    >>> option_probabilities(np.log([0.03, 0.01])).round(2).tolist()
    [0.75, 0.25]
    """
    likelihoods = np.exp(scores - scores.max())  # relative to the best option, so that none overflows
    return likelihoods / likelihoods.sum()


def ground_confidence(scores: Sequence[np.ndarray]) -> float:
    """The mean log-likelihood of the correct option, in nats."""
    return float(np.mean([s[0] for s in scores]))


def num_options(scores: Sequence[np.ndarray]) -> float:
    """The mean number of options of a question."""
    return float(np.mean([len(s) for s in scores]))


def chance(scores: Sequence[np.ndarray]) -> float:
    """The accuracy of uniform guesses: the mean of 1 / (number of options)."""
    return float(np.mean([1.0 / len(s) for s in scores]))


Number = TypeVar("Number", float, np.ndarray)


def normalized(value: Number, chance: float) -> Number:
    """`value` on the scale where chance is 0 and perfect is 1; negative where it is worse than chance."""
    return (value - chance) / (1.0 - chance)


def multiple_choice_metrics(scores: Sequence[np.ndarray]) -> dict[str, float]:
    """All metrics of multiple choice by the names under which they are reported."""
    correct, confidence, guess = accuracy(scores), path_confidence(scores), chance(scores)
    return {
        "accuracy": correct,
        "path_confidence": confidence,
        "ground_confidence": ground_confidence(scores),
        "num_options": num_options(scores),
        "normalized_accuracy": normalized(correct, guess),
        "normalized_path_confidence": normalized(confidence, guess),
    }


# ------------------------------------------------------------------------------------------------ text


def bits_per_byte(nats: float, num_bytes: float) -> float:
    """A loss summed over all tokens, in nats, as bits for each byte of their text.

    >>> bits_per_byte(math.log(2) * 30, 10)
    3.0
    """
    return nats / math.log(2) / num_bytes


# ------------------------------------------------------------------------------------------------ activations


def mean_distance(points: np.ndarray) -> float:
    """The mean Euclidean distance over all pairs of points `[n, D]`; 0 for a single point.

    >>> mean_distance(np.array([[0.0, 0.0], [3.0, 4.0]]))
    5.0
    """
    if len(points) < 2:
        return 0.0
    points = points.astype(np.float64)
    norms = (points**2).sum(axis=1)
    squared = norms[:, None] + norms - 2 * points @ points.T
    first, second = np.triu_indices(len(points), 1)
    return float(np.sqrt(np.maximum(squared[first, second], 0)).mean())


def principal_components(points: np.ndarray) -> np.ndarray:
    """The first two principal components of points `[n, D]`, float64 `[n, 2]`."""
    points = points.astype(np.float64)
    centered = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    return centered @ axes[:2].T

"""Metrics computed by hand."""

import math
import warnings

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from stochastok_cli.evaluation.metrics import (
    accuracy,
    mean_distance,
    multiple_choice_metrics,
    option_probabilities,
    path_confidence,
    principal_components,
)


def scores(*probabilities: list[float]) -> list[np.ndarray]:
    return [np.log(np.array(question)) for question in probabilities]


def test_all_metrics_of_three_questions():
    # Right, wrong, right; the likelihoods of a question need not sum to one.
    questions = scores([0.2, 0.1, 0.1], [0.1, 0.3], [0.5, 0.2, 0.2, 0.1])
    guess = (1 / 3 + 1 / 2 + 1 / 4) / 3
    confidence = (0.5 + 0.25 + 0.5) / 3
    assert multiple_choice_metrics(questions) == pytest.approx(
        {
            "accuracy": 2 / 3,
            "path_confidence": confidence,
            "ground_confidence": (math.log(0.2) + math.log(0.1) + math.log(0.5)) / 3,
            "num_options": 3.0,
            "normalized_accuracy": (2 / 3 - guess) / (1 - guess),
            "normalized_path_confidence": (confidence - guess) / (1 - guess),
        }
    )


def test_normalized_metrics_are_0_at_chance_and_1_when_perfect():
    indifferent = scores([0.25] * 4, [0.25] * 4)
    assert multiple_choice_metrics(indifferent)["normalized_path_confidence"] == pytest.approx(0)
    certain = [np.array([0.0, -np.inf]), np.array([0.0, -np.inf, -np.inf])]
    perfect = multiple_choice_metrics(certain)
    assert (perfect["normalized_accuracy"], perfect["normalized_path_confidence"]) == (1, 1)


@pytest.mark.parametrize("tied", [[-1.0, -1.0], [-1.0, -2.0, -1.0], [-3.0] * 4])
def test_a_tie_with_the_right_option_is_not_right(tied: list[float]):
    assert accuracy([np.array(tied)]) == 0


def test_a_tie_among_wrong_options_does_no_harm():
    assert accuracy([np.array([-1.0, -2.0, -2.0])]) == 1


def test_likelihoods_too_far_apart_for_a_double():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert path_confidence([np.array([-3000.0, -1.0]), np.array([-1.0, -3000.0])]) == 0.5


@pytest.mark.parametrize("best", [-2000.0, 2000.0])
def test_likelihoods_that_no_double_holds_have_probabilities(best: float):
    """Long answers have log-likelihoods of thousands of nats."""
    scores = best + np.log([1.0, 1 / 3, 1 / 6])
    np.testing.assert_allclose(option_probabilities(scores), [6 / 9, 2 / 9, 1 / 9], rtol=1e-9)


def test_activations_far_from_0_have_the_distances_between_them():
    """In float32 their squared norms would differ by more than their distances."""
    points = (1e4 + np.random.default_rng(0).normal(size=(20, 64))).astype(np.float32)
    assert mean_distance(points) == pytest.approx(pdist(points.astype(np.float64)).mean(), rel=1e-6)
    assert mean_distance(points[:1]) == 0


def test_the_principal_components_of_activations_far_from_0():
    random = np.random.default_rng(0)
    (axes, _), places = np.linalg.qr(random.normal(size=(64, 2))), random.normal(size=(30, 2)) * (9, 3)
    points = (1e4 + places @ axes.T).astype(np.float32)
    components = principal_components(points)
    assert components.dtype == np.float64
    np.testing.assert_allclose(pdist(components), pdist(places), atol=0.02)  # the points lie in a plane
    assert components[:, 0].var() > 4 * components[:, 1].var()
    assert abs(components.mean(axis=0)).max() < 1e-9

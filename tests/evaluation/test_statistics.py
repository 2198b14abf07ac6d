"""Intervals against other programs' and against the truth."""

import numpy as np
import pytest
from scipy import stats

from stochastok_cli.evaluation.statistics import (
    bootstrap_interval,
    bootstrap_ratio,
    paired_difference,
    spread,
    student_quantile,
)


def test_the_bootstrap_of_right_and_wrong_answers_has_the_binomial_quantiles():
    low, high = bootstrap_interval(np.array([1.0] * 70 + [0.0] * 30))
    expected = stats.binom(100, 0.7).ppf([0.025, 0.975]) / 100
    assert (low, high) == pytest.approx(tuple(expected), abs=0.011)


def test_the_bootstrap_of_many_values_agrees_with_scipys():
    values = np.random.default_rng(0).gamma(2, size=300)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", random_state=0).confidence_interval
    assert bootstrap_interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(1)
    held = [
        low <= 0.6 <= high
        for low, high in (bootstrap_interval(random.random(200) < 0.6, resamples=2000) for _ in range(400))
    ]
    assert 0.91 < np.mean(held) < 0.98


def test_the_same_values_have_the_same_interval_and_equal_ones_none():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(np.ones(10)) == (1.0, 1.0)


def test_pairs_see_a_difference_that_two_intervals_hide():
    """Both are right on the same half of the questions, and the second on twenty more."""
    first = np.array([1.0] * 500 + [0.0] * 500)
    second = first.copy()
    second[500:520] = 1
    result = paired_difference(first, second)
    assert result.difference == pytest.approx(0.02)
    assert (result.first_better, result.second_better) == (0, 20)
    assert result.interval[0] > 0
    assert bootstrap_interval(first)[1] > bootstrap_interval(second)[0]
    rotated = paired_difference(second, first)
    assert rotated.difference == -result.difference and rotated.first_better == 20


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 30])
def test_students_quantile(freedom):
    assert student_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom))


def test_spread_over_seeds():
    result = spread([0.5, 0.6, 0.7])
    assert (result.mean, result.deviation) == (pytest.approx(0.6), pytest.approx(0.1))
    expected = stats.t.interval(0.95, 2, loc=0.6, scale=0.1 / np.sqrt(3))
    assert result.interval == pytest.approx(tuple(expected))


def test_a_share_of_answers_is_resampled_by_question():
    random = np.random.default_rng(0)
    answers = random.integers(0, 9, 150)
    correct = random.binomial(answers, random.beta(2, 1, 150))  # some questions are easier than others
    rows = random.integers(150, size=(4000, 150))
    shares = correct[rows].sum(axis=1) / answers[rows].sum(axis=1)
    assert bootstrap_ratio(correct, answers) == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.01)
    once = random.random(80) < 0.3
    assert bootstrap_ratio(once, np.ones(80)) == bootstrap_interval(once)

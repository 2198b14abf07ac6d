"""Intervals against other programs' and against the truth."""

import warnings

import numpy as np
import pytest
from scipy import stats

from stochastok_cli.evaluation.statistics import (
    binomial_interval,
    bootstrap_interval,
    bootstrap_ratio,
    mean_interval,
    paired_difference,
    ratio_interval,
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


@pytest.mark.parametrize(
    ("both", "worse", "better", "neither", "expected"),
    [
        (12, 4, 26, 6, (0.2548067, 0.6251933)),  # as `ci.prop.ps` of the R package statpsych has it
        (0, 1, 3, 4, (-0.2638121, 0.6638121)),  # 2/10 and 4/10: 0.2 -+ 1.959964 * sqrt((0.6 - 0.04) / 10)
    ],
)
def test_the_interval_of_paired_differences_is_that_of_bonett_and_price(both, worse, better, neither, expected):
    first = np.repeat([1.0, 1.0, 0.0, 0.0], [both, worse, better, neither])
    second = np.repeat([1.0, 0.0, 1.0, 0.0], [both, worse, better, neither])
    result = paired_difference(first, second)
    assert result.interval == pytest.approx(expected, abs=1e-7)
    assert (result.first_better, result.second_better) == (worse, better)


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


def test_questions_without_answers_leave_a_share_of_answers_its_interval():
    """Some resamples hold no answer at all: there is no share in them."""
    answers = np.array([2.0, 2.0] + [0.0] * 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bootstrap_ratio(np.array([1.0, 2.0] + [0.0] * 20), answers) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("n", "p"), [(1000, 0.999), (30, 0.99), (1000, 0.9999), (30, 0.5), (200, 0.6), (50, 0.02), (1000, 0.25)]
)
def test_intervals_of_right_and_wrong_answers_cover(n, p):
    """The bootstrap covers 0.64 at (1000, 0.999) and 0.28 at (30, 0.99)."""
    random = np.random.default_rng(0)
    covered = [low <= p <= high for low, high in (mean_interval(random.random(n) < p) for _ in range(2000))]
    assert np.mean(covered) > 0.935


@pytest.mark.parametrize(("n", "worse", "better"), [(1000, 0.0, 0.002), (30, 0.01, 0.05), (200, 0.1, 0.15), (50, 0, 0)])
def test_intervals_of_paired_differences_cover(n, worse, better):
    random = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        kind = random.random(n)
        first = (kind < worse).astype(float)
        second = ((kind >= worse) & (kind < worse + better)).astype(float)
        low, high = paired_difference(first, second).interval
        covered.append(low <= better - worse <= high and low < high)
    assert np.mean(covered) > 0.935


def test_an_interval_follows_the_scale_of_its_outcomes():
    answers = np.array([1.0] * 7 + [0.0] * 3)
    low, high = mean_interval(answers)
    scaled = mean_interval(answers * 4 / 3 - 1 / 3, (-1 / 3, 1.0))
    assert scaled == pytest.approx((low * 4 / 3 - 1 / 3, high * 4 / 3 - 1 / 3))
    assert mean_interval(np.ones(10) * 0.5) == (0.5, 0.5)  # no right or wrong answers: the bootstrap
    # Values that are no answers are never taken for right and wrong ones, even where all are 0 or 1.
    assert mean_interval(answers, None) == bootstrap_interval(answers) != mean_interval(answers)
    assert mean_interval(np.ones(10), None) == (1.0, 1.0)
    nothing = paired_difference(answers, answers, None)
    assert nothing.interval == (0.0, 0.0) != paired_difference(answers, answers).interval
    low, high = ratio_interval(np.array([2.0, 0, 3]), np.array([2.0, 0, 3]))
    assert (low, high) == binomial_interval(2, 2) and low < 0.5

"""Results as records: keys, JSON, intervals."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from stochastok_cli.cli.train import _as_json
from stochastok_cli.evaluation.comparison import aggregate, compare_paired
from stochastok_cli.evaluation.results import Curve, EvalResult, Metric
from stochastok_cli.evaluation.statistics import mean_interval
from stochastok_cli.training.train import TrainResult

RIGHT = np.array([1.0, 0.0, 1.0, 1.0])


def result() -> EvalResult:
    metrics = [
        Metric("mcq", "arc", "", "accuracy", 0.75, 4, RIGHT),
        Metric("mcq", "arc", "", "truncated", 3, 4),
        Metric("bits_per_byte", "text", "", "bits_per_byte", math.inf, 9),
        Metric("bits_per_byte", "text", "uniform0.2", "canonical", 2.0, 9),
    ]
    return EvalResult("runs/a/step_5", "a", 5, metrics, [], {"mcq/arc": 4, "bits_per_byte/text": 9})


def test_json_has_the_keys_of_the_contract_in_their_order():
    tree = result().to_json()
    assert list(tree) == ["schema", "checkpoint", "iteration", "metrics", "n", "intervals"]
    assert json.dumps(tree["metrics"]) == (
        '{"mcq/arc/accuracy": 0.75, "mcq/arc/truncated": 3, "bits_per_byte/text": null, '
        '"bits_per_byte/text/uniform0.2/canonical": 2.0}'
    )
    assert tree["n"] == {"mcq/arc": 4, "bits_per_byte/text": 9}
    assert tree["intervals"] == {"mcq/arc/accuracy": mean_interval(RIGHT)}


def test_curves_are_last_and_only_where_there_are_some():
    points = [{"x": 0.1, "y": 0.5}]
    tree = EvalResult("a", "a", None, curves=[Curve("mcq", "arc", "stochastok0.1", points)]).to_json()
    assert list(tree)[-1] == "curves"
    assert tree["curves"] == {"mcq/arc/stochastok0.1": points}


def test_an_interval_is_computed_once_and_only_for_means_over_questions():
    accuracy, truncated, *_ = result().metrics
    assert accuracy.interval is accuracy.interval
    assert truncated.interval is None
    halves = Metric("mcq", "arc", "", "accuracy", 0.5, 2, np.full(2, 0.5))
    assert halves.interval is None  # a bootstrap of equal values would claim certainty
    assert Metric("mcq", "arc", "", "accuracy", 1.0, 2, np.ones(2)).interval == mean_interval(np.ones(2))
    assert accuracy == Metric("mcq", "arc", "", "accuracy", 0.75, 4)
    with pytest.raises(AttributeError):
        accuracy.value = 1.0  # type: ignore[misc]


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # the mean and deviation of infinite values
def test_what_is_not_finite_is_null_in_every_json_object():
    losses = np.array([1.0, np.inf, 3.0])
    diverged = Metric("bits_per_byte", "text", "", "bits_per_byte", math.inf, 3, losses, None)
    one = EvalResult("a", "a", 5, [diverged], [Curve("alignment", "text", "", [{"x": 1, "y": math.nan, "word": "a"}])])
    for tree in (one.to_json(), aggregate([one, one]).to_json(), compare_paired(one, one).to_json()):
        assert "null" in json.dumps(tree, allow_nan=False)
    trained = TrainResult(Path("a"), Path("a/step_1"), 1, True, {"validation/perplexity": math.inf, "val": 1.0})
    assert json.loads(_as_json(trained), parse_constant=pytest.fail)["metrics"] == {
        "validation/perplexity": None,
        "val": 1.0,
    }

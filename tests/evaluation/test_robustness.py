"""The same questions cut in other ways, at random and in the worst way."""

import numpy as np
import pytest

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.benchmarks import Benchmark, Question
from stochastok_cli.evaluation.encoding import EncodedBenchmark, encode
from stochastok_cli.evaluation.evaluators.multiple_choice import evaluate_multiple_choice
from stochastok_cli.evaluation.metrics import is_correct
from stochastok_cli.evaluation.robustness import (
    Tokenization,
    accuracy_by_distance,
    evaluate_retokenized,
    parse_tokenization,
    retokenize,
)
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.evaluation.statistics import binomial_interval
from stochastok_cli.tokenization.expansion import StochasTok
from tests.evaluation.conftest import LONG_WINDOW as WINDOW


def accuracy(lm: LM, encoded: EncodedBenchmark) -> float:
    return evaluate_multiple_choice(lm, encoded).values["mcq/langgame-val/accuracy"]


def right(model, vocabulary, encoded: EncodedBenchmark) -> np.ndarray:
    return is_correct(LM(model, vocabulary).question_scores(encoded))


@pytest.fixture(scope="module")
def model(long_model):
    return long_model


def test_method_and_p():
    assert parse_tokenization("stochastok:0.1", 3) == Tokenization("stochastok", 0.1, 3)
    assert parse_tokenization("bpe-dropout:0.1", 3).name == "bpe-dropout0.1"
    for wrong in ("stochastok", "stochastok:much"):
        with pytest.raises(
            UserError, match="is not METHOD:P; for example stochastok:0.1; without P: character, digits:"
        ):
            parse_tokenization(wrong, 3)
    for unknown in ("foo", "foo:0.5", ""):
        with pytest.raises(UserError, match="unknown method .*; give stochastok, .*, character, digits"):
            parse_tokenization(unknown, 3)


def test_the_text_stays_and_so_do_the_options(encoded, vocabulary):
    cut = retokenize(encoded, StochasTok(vocabulary, 0.7, "uniform"), WINDOW)
    for (context, option), (old_context, old_option) in zip(cut.benchmark.pairs, encoded.pairs, strict=True):
        assert vocabulary.decode(context.tolist()) == vocabulary.decode(old_context)
        assert option == old_option
    assert (cut.edit_distance > 0).all() and (cut.edit_distance <= 1).all()
    assert all(cut.benchmark.pairs[i][0] is not encoded.pairs[i][0] for i in range(4))
    assert (cut.benchmark.pairs[0][0] == cut.benchmark.pairs[3][0]).all()  # the same for all options of a question


def test_every_token_cut_as_finely_as_can_be_is_at_distance_1(encoded, vocabulary):
    expand = StochasTok(vocabulary, 50.0, "uniform-k")
    assert retokenize(encoded, expand, WINDOW).edit_distance == pytest.approx(1)


def test_options_are_cut_where_there_is_no_prefix(vocabulary):
    blimp = encode(Benchmark("blimp", [Question("", ["The cat sleeps.", "The cat sleep."], 1)]), vocabulary, WINDOW)
    cut = retokenize(blimp, StochasTok(vocabulary, 1.0), WINDOW)
    for (context, option), (old_context, old_option) in zip(cut.benchmark.pairs, blimp.pairs, strict=True):
        assert context == old_context
        assert vocabulary.decode(option) == vocabulary.decode(old_option)
        assert len(option) > len(old_option)


def test_what_does_not_fit_any_more_is_truncated_and_counted(encoded, vocabulary):
    cut = retokenize(encoded, StochasTok(vocabulary, 1.0), 60)
    assert cut.benchmark.truncated > 0
    assert max(len(context) + len(option) - 1 for context, option in cut.benchmark.pairs) <= 60


def test_p_0_is_the_canonical_tokenization(encoded, vocabulary, model):
    output = evaluate_retokenized(
        LM(model, vocabulary), encoded, Tokenization("stochastok", 0.0, 2), right(model, vocabulary, encoded)
    ).values
    canonical = accuracy(LM(model, vocabulary), encoded)
    name = "mcq/langgame-val/stochastok0.0"
    for metric in ("accuracy", "worst_case", "any_case", "worst_sample"):
        assert output[f"{name}/{metric}"] == canonical
    assert output[f"{name}/edit_distance"] == 0


def test_mean_and_worst_over_the_samples(encoded, vocabulary, model):
    output = evaluate_retokenized(
        LM(model, vocabulary), encoded, Tokenization("uniform", 0.8, 5), right(model, vocabulary, encoded)
    )
    name = "mcq/langgame-val/uniform0.8"
    worst, sample, mean, best = (
        output.values[f"{name}/{metric}"] for metric in ("worst_case", "worst_sample", "accuracy", "any_case")
    )
    assert worst <= sample <= mean <= best
    assert worst < best
    [curve] = output.curves
    assert curve.key == name
    points = curve.points
    assert sum(point["n"] for point in points) == 5 * 30
    assert sum(point["n"] * point["y"] for point in points) / 150 == pytest.approx(mean)
    assert sum(point["n"] * point["x"] for point in points) / 150 == pytest.approx(
        output.values[f"{name}/edit_distance"]
    )


def test_accuracy_by_distance():
    right = np.array([[1.0, 0.0], [1.0, 1.0]])
    distance = np.array([[0.0, 0.31], [0.04, 1.0]])
    points = accuracy_by_distance(right, distance)
    assert [(point["x"], point["y"], point["n"]) for point in points] == [(0.02, 1.0, 2), (0.31, 0.0, 1), (1.0, 1.0, 1)]
    shorter = accuracy_by_distance(right, distance - 0.02)  # a method that merges tokens
    assert (shorter[0]["x"], sum(point["n"] for point in shorter)) == (pytest.approx(0), 4)
    one_of_one, none_of_one = binomial_interval(1, 1), binomial_interval(0, 1)  # answers to one question each
    assert [(point["low"], point["high"]) for point in points] == [one_of_one, none_of_one, one_of_one]
    (point,) = accuracy_by_distance(right[:1], np.array([[-0.3, 0.05]]))  # a tokenization with fewer tokens
    assert (point["n"], point["y"]) == (2, 0.5)

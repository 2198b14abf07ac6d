"""From questions to scores: the boundary between prefix and option, the window, the sample."""

import numpy as np
import pytest

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.benchmarks import Benchmark, Question
from stochastok_cli.evaluation.encoding import encode, split_at_boundary
from stochastok_cli.evaluation.evaluators.multiple_choice import evaluate_multiple_choice
from stochastok_cli.evaluation.metrics import multiple_choice_metrics
from stochastok_cli.evaluation.scoring import LM
from tests.evaluation.test_scoring import by_definition
from tests.models.small_models import sharp_model, small_config

BENCHMARK = Benchmark(
    "arc",
    [
        Question("What falls from the sky? ", ["rain", "a house", "the tree of the garden"], 1),
        Question("", ["The cat sleeps.", "The cat sleep."], 2),
        Question("Answer:", [" yes", "no"], 3),
    ],
)


def multiple_choice(model, vocabulary, benchmark, **options):
    metrics = evaluate_multiple_choice(
        LM(model, vocabulary, **options), encode(benchmark, vocabulary, model.config.context_window)
    )
    return {metric.key: metric.value for metric in metrics}


@pytest.mark.parametrize(
    ("prefix", "option", "expected"),
    [
        ("Answer:", " sing", ("Answer:", " sing")),  # LangGame: a second space was never seen in training
        ("Answer:", "sing", ("Answer:", " sing")),
        ("Answer: ", "sing", ("Answer:", " sing")),
        ("Answer:\n", "sing", ("Answer:", "\nsing")),
        ("Answer:  ", "sing", ("Answer:", "  sing")),
        ("Answer:", "\tsing", ("Answer:", "\tsing")),
        ("", "The cat sleeps.", ("", "The cat sleeps.")),
        (" ", "sing", ("", " sing")),
    ],
)
def test_the_space_at_the_boundary_belongs_to_the_option(prefix, option, expected):
    assert split_at_boundary(prefix, option) == expected


def test_prefix_and_option_are_tokenized_separately(vocabulary):
    encoded = encode(Benchmark("arc", [Question("the ", ["re", "se"], 1)]), vocabulary, 48)
    assert encoded.pairs == [
        (vocabulary.encode("the"), vocabulary.encode(" re")),
        (vocabulary.encode("the"), vocabulary.encode(" se")),
    ]


def test_scores_are_the_log_likelihood_of_the_option_alone(model, vocabulary):
    """Against the definition: neither prefix nor end-of-text is scored, and an empty prefix is end-of-text."""
    expected = []
    for question in BENCHMARK.questions:
        scores = []
        for option in question.options:
            before, after = split_at_boundary(question.prefix, option)
            context = vocabulary.encode(before) if before else [vocabulary.end_of_text]
            scores.append(by_definition(model, context, vocabulary.encode(after)))
        expected.append(np.array(scores))
    metrics = multiple_choice(model, vocabulary, BENCHMARK)
    assert metrics == pytest.approx(
        {f"mcq/arc/{name}": value for name, value in multiple_choice_metrics(expected).items()}, abs=1e-4
    )


def test_the_batch_size_changes_no_metric(model, vocabulary):
    assert multiple_choice(model, vocabulary, BENCHMARK, batch_tokens=1) == pytest.approx(
        multiple_choice(model, vocabulary, BENCHMARK), abs=1e-4
    )


def test_a_long_prefix_is_truncated_from_the_left_and_counted(model, vocabulary):
    long = "the garden and the house and " * 20 + "the river:"
    benchmark = Benchmark("arc", [Question(long, ["rain", "the house of the king"], 1), BENCHMARK.questions[0]])
    encoded = encode(benchmark, vocabulary, model.config.context_window)
    assert encoded.truncated == 1
    longest = max(len(option) for _, option in encoded.pairs[:2])
    kept = vocabulary.encode(long)[-(49 - longest) :]
    assert [prefix for prefix, _ in encoded.pairs[:2]] == [kept, kept]  # the same for all options of a question
    assert max(len(prefix) + len(option) - 1 for prefix, option in encoded.pairs) == 48
    assert multiple_choice(model, vocabulary, benchmark)["mcq/arc/truncated"] == 1


def test_nothing_is_said_of_truncation_where_all_fits(model, vocabulary):
    assert "mcq/arc/truncated" not in multiple_choice(model, vocabulary, BENCHMARK)


def test_an_option_that_fills_the_window_is_scored_and_a_longer_one_refused(vocabulary):
    text = " the" * 47
    assert len(vocabulary.encode(text)) == 47
    benchmark = Benchmark("arc", [Question("Question?", [text, " a"], 7)])
    model = sharp_model(small_config(context_window=47))
    assert multiple_choice(model, vocabulary, benchmark)["mcq/arc/truncated"] == 1
    with pytest.raises(UserError, match="benchmark arc, row 7: an option has 47 tokens, .* window is 46"):
        encode(benchmark, vocabulary, 46)

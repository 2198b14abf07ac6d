"""Kinds of question whose names meet those of other results."""

import pytest

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.evaluators.generation import Generation
from stochastok_cli.evaluation.evaluators.multiple_choice import MultipleChoice
from stochastok_cli.evaluation.run import evaluate
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.progress import no_progress
from stochastok_cli.report.tables import part_label


def load(evaluator, vocabulary, tmp_path):
    return evaluator.load(vocabulary, 48, tmp_path, no_progress)


def rows_of(*kinds):
    return [{"question": "a", "options": ["b", "c"], "answer": "B", "kind": kind} for kind in kinds]


@pytest.mark.parametrize("evaluator", [MultipleChoice, Generation])
def test_kinds_with_one_name_are_refused(evaluator, vocabulary, jsonl, tmp_path):
    file = jsonl(rows_of("a_b", "A_B", "a/b"))
    with pytest.raises(UserError, match="has the kinds 'a/b' and 'a_b', whose metrics would both be named 'a_b'"):
        load(evaluator((f"x={file}",), by_kind=True), vocabulary, tmp_path)
    load(evaluator((f"x={file}",)), vocabulary, tmp_path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("character", {"tokenization": "character"}),
        ("uniform0.5", {"tokenization": "uniform:0.5", "samples": 1}),
        ("adversarial", {"adversarial": 2}),
        ("transfer", {"adversarial": 2, "transfer": True}),
    ],
)
def test_a_kind_named_like_another_result_is_refused(kind, options, vocabulary, jsonl, tmp_path):
    benchmarks = (f"x={jsonl(rows_of(kind, 'y'))}",)
    with pytest.raises(UserError, match=f"a kind '{kind}', and '{kind}' is also the name of another result"):
        load(MultipleChoice(benchmarks, by_kind=True, **options), vocabulary, tmp_path)
    load(MultipleChoice(benchmarks, by_kind=True), vocabulary, tmp_path)


def test_tables_show_a_kind_as_it_is_written(vocabulary, model, jsonl, tmp_path):
    [loaded] = load(MultipleChoice((f"x={jsonl(rows_of('a/b', 'A_B'))}",), by_kind=True), vocabulary, tmp_path)
    metrics = {part_label(metric): metric.key for metric in loaded.run(LM(model, vocabulary)).metrics if metric.part}
    assert metrics == {"A B": "mcq/x/A_B/accuracy", "a/b": "mcq/x/a_b/accuracy"}
    assert set(loaded.sample_counts) == {"mcq/x", "mcq/x/A_B", "mcq/x/a_b"}


@pytest.mark.parametrize("arguments", [([], "langgame-val"), ("model", [])])
def test_nothing_to_evaluate_is_said(arguments):
    with pytest.raises(UserError, match="there is no"):
        evaluate(*arguments)

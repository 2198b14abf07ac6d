"""Results of lm-evaluation-harness as metrics: rows as `lm_eval.simple_evaluate` returns them."""

import sys

import numpy as np
import pytest

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.evaluators.lm_eval import LMEvaluationHarness
from stochastok_cli.evaluation.harness.answers import answers_of
from stochastok_cli.evaluation.harness.results import TaskRun, metrics_of
from stochastok_cli.evaluation.registry import make_evaluator


def rows(*values, name="acc", **more):
    row = {"filter": "none", "resps": [[(-1.0, False)]], "filtered_resps": [(-1.0, False)], "arguments": [("",)]}
    return [{**row, "target": 0, name: value, **more} for value in values]


def results(first, second, error=0.5):
    """Two tasks in a group in a group, and a task whose metric is no mean over its questions."""
    both = [row["acc"] for row in first + second]
    texts = rows((-5.0, 3), (-4.0, 2), name="perplexity")
    return {
        "results": {
            "a": {"alias": "a", "acc,none": float(np.mean([row["acc"] for row in first])), "acc_stderr,none": 0.1},
            "b": {"acc,none": float(np.mean([row["acc"] for row in second])), "acc_stderr,none": "N/A"},
            "texts": {"perplexity,none": error, "perplexity_stderr,none": float("nan"), "alias": "texts"},
            "outer": {"acc,none": float(np.mean(both)), "alias": "outer", "sample_count": {"acc,none": 4}},
        },
        "group_subtasks": {"outer": ["inner"], "inner": ["a", "b"]},
        "higher_is_better": {"a": {"acc": True}, "b": {"acc": True}, "texts": {"perplexity": False}, "outer": {}},
        "n-samples": {name: {"effective": 2} for name in ("a", "b", "texts")},
        "samples": {"a": first, "b": second, "texts": texts},
    }


COUNTS = {"requests": 4, "changed": 3, "truncated": 0, "canonical": 1, "tokens_before": 10, "tokens_after": 15}


def test_the_aggregate_of_the_harness_is_the_metric():
    run = TaskRun.of(results(rows(1, 0), rows(1, 1)), {"a": {"requests": 4, "truncated": 2}})
    unnamed = TaskRun.of(results(rows(1, 0), rows(1, 1)), {"": {"requests": 4, "truncated": 1}})
    assert [m.value for m in metrics_of(unnamed, [], "") if m.benchmark == "requests of unnamed tasks"] == [1]
    metrics = {metric.key: metric for metric in metrics_of(run, [], "")}
    values = {key.removeprefix("lm_eval/"): metric.value for key, metric in metrics.items()}
    assert run.unlogged == ["a", "b", "texts"]  # their rows are no questions
    expected = {"a/acc": 0.5, "a/acc_stderr": 0.1, "a/truncated": 2, "b/acc": 1.0, "texts/perplexity": 0.5}
    assert values == expected | {"outer/acc": 0.75}
    assert metrics["lm_eval/outer/acc"].outcomes.tolist() == [1, 0, 1, 1] and metrics["lm_eval/outer/acc"].n == 4
    assert metrics["lm_eval/a/acc"].interval is not None and metrics["lm_eval/texts/perplexity"].interval is None


def test_samples_have_a_mean_and_the_worst_of_samples_and_questions():
    canonical = TaskRun.of(results(rows(1, 1), rows(1, 1)), {})
    samples = [
        TaskRun.of(results(rows(1, 0), rows(0, 0), error=2.0), {"a": COUNTS}),
        TaskRun.of(results(rows(1, 1), rows(0, 1), error=4.0), {"a": COUNTS}),
    ]
    values = {
        metric.key.removeprefix("lm_eval/"): metric.value
        for metric in metrics_of(canonical, samples, "uniform0.5")
        if metric.part
    }
    assert values == {
        "a/uniform0.5/acc": 0.75,
        "a/uniform0.5/acc_worst_sample": 0.5,
        "a/uniform0.5/acc_worst_case": 0.5,
        "a/uniform0.5/acc_any_case": 1.0,
        "a/uniform0.5/token_growth": 1.5,
        "a/uniform0.5/retokenized": 0.75,
        "a/uniform0.5/left_canonical": 2,
        "b/uniform0.5/acc": 0.25,
        "b/uniform0.5/acc_worst_sample": 0.0,
        "b/uniform0.5/acc_worst_case": 0.0,
        "b/uniform0.5/acc_any_case": 0.5,
        "texts/uniform0.5/perplexity": 3.0,
        "texts/uniform0.5/perplexity_worst_sample": 4.0,
        "outer/uniform0.5/acc": 0.5,
        "outer/uniform0.5/acc_worst_sample": 0.25,
        "outer/uniform0.5/acc_worst_case": 0.25,
        "outer/uniform0.5/acc_any_case": 0.75,
    }


def test_a_filter_is_part_of_the_name_and_nan_is_no_wrong_answer():
    made = results(rows(1, 0), rows(1, 1))
    made["results"]["a"]["acc,strict"] = 0.0
    made["samples"]["a"] += [{**row, "filter": "strict", "acc": 0} for row in rows(1, 0)]
    metrics = {metric.key: metric for metric in metrics_of(TaskRun.of(made, {}), [], "")}
    assert metrics["lm_eval/a/acc,strict"].outcomes.tolist() == [0, 0]
    assert metrics["lm_eval/a/acc"].value == 0.5
    made["samples"]["b"][1]["resps"] = [[(float("nan"), False)]]
    with pytest.raises(UserError, match=r"the model gave no number for 1 of 2 requests \(b\)"):
        TaskRun.of(made, {})


def test_answers_of_options_and_of_generations():
    asked = [("Sky?", " red"), ("Sky?", " blue")]
    choice = {
        "doc_id": 4,
        "filter": "none",
        "resps": [],
        "arguments": asked,
        "target": 1,
        "filtered_resps": [(-2, 0), (-1, 0)],
        "acc": 1,
    }
    wrong = {**choice, "filtered_resps": [(-1, 0), (-3, 0)], "acc": 0}
    text = {
        "doc_id": 0,
        "filter": "none",
        "arguments": [("1+1=", {"until": []})],
        "target": 2,
        "filtered_resps": ["3"],
        "exact_match": 0,
    }
    samples = {"a": [choice, wrong], "b": [text, {**text, "filter": "strict"}]}
    answers = answers_of({"samples": samples | {"rule": [{**wrong, "acc": 1}], "texts": rows(1, name="bits_per_byte")}})
    assert set(answers) == {"a", "b"}
    assert answers["a"].options == [["blue", "red"]] * 2 and answers["a"].answers == ["blue", "red"]
    assert answers["a"].rows == [5, 5] and [scores.tolist() for scores in answers["a"].log_likelihoods] == [
        [-1, -2],
        [-3, -1],
    ]
    assert answers["a"].is_correct == [True, False] and answers["a"].questions == ["Sky?"] * 2
    assert (answers["b"].options, answers["b"].answers, answers["b"].is_correct) == ([["2"]], ["3"], [False])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--evaluator lm_eval needs --tasks"),
        ({"tasks": ["x"], "include_path": "no/folder"}, "--include-path no/folder is no folder"),
        ({"tasks": ["x"], "retokenize": "both"}, "--retokenize says nothing without --tokenization"),
        ({"tasks": ["x"], "tokenization": "uniform:0.1", "retokenize": "al"}, "retokenize = 'al' is not possible"),
        ({"tasks": ["x"], "tokenization": "digits:right3", "samples": 2}, "is a fixed rule"),
        ({"tasks": ["x"], "num_fewshot": -1}, "--num-fewshot = -1 must be at least 0"),
        ({"tasks": ["x"], "benchmarks": ["arc"]}, "--benchmarks can only go with"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        make_evaluator("lm_eval", options)


def test_without_the_harness(monkeypatch, vocabulary, tmp_path):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"is not installed; pip install 'stochastok\[lm-eval\]'"):
        LMEvaluationHarness(("arc_easy",)).load(vocabulary, 48, tmp_path, lambda *_: None)

"""Questions shared by train and val, and the kinds of question."""

from pathlib import Path

import numpy as np
import pytest

from stochastok_cli.data.recipes.langgame import make_langgame
from stochastok_cli.data.recipes.langgame_questions import KINDS, predicate_of
from stochastok_cli.data.sft_dataset import SFTDataset
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.benchmarks import load_benchmark
from stochastok_cli.evaluation.contamination import find_contamination
from stochastok_cli.evaluation.evaluators.multiple_choice import MultipleChoice
from stochastok_cli.evaluation.run import load_evaluators, run_evaluators
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.models.small_models import sharp_model, small_config


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_langgame(load_vocabulary("sample2k"), folder, train_size=300, val_size=200)
    return folder


def test_the_questions_trained_on_have_leaked_whole(data_dir):
    rows = SFTDataset(data_dir / "data_as_memmaps" / "langgame")
    contamination = find_contamination(load_benchmark("langgame-train", data_dir), rows)
    assert contamination.same_text.all() and contamination.same_predicate.all()


def test_of_the_others_some_ask_the_same(data_dir):
    rows = SFTDataset(data_dir / "data_as_memmaps" / "langgame")
    benchmark = load_benchmark("langgame-val", data_dir)
    contamination = find_contamination(benchmark, rows)
    trained = load_benchmark("langgame-train", data_dir).questions  # the first 200 of the 300
    known = {(predicate_of(question.prefix), question.options[0]) for question in trained}
    same = np.array([(predicate_of(question.prefix), question.options[0]) in known for question in benchmark.questions])
    assert same.any() and not same.all()
    assert contamination.same_predicate[same].all()
    assert not contamination.same_text.any()


def test_what_is_asked_may_hold_an_apostrophe():
    for inside in ("n't", "'s", "s", "ee"):
        question = f"Which word contains '{inside}'? The options: [ don't, fell]. Answer:"
        assert predicate_of(question) == f"contains '{inside}'?"
        most = f"Which word has the most letter '{inside}'s? The options: [ don't, fell]. Answer:"
        assert predicate_of(most) == f"has the most letter '{inside}'s?"


def test_disjoint_data_share_no_question(tmp_path, vocabulary):
    made = make_langgame(vocabulary, tmp_path, train_size=3000, val_size=300, disjoint=True)
    assert made.manifest.options["disjoint"] is True
    contamination = find_contamination(load_benchmark("langgame-val", tmp_path), SFTDataset(made.path))
    assert not contamination.same_predicate.any() and not contamination.same_text.any()
    with pytest.raises(UserError, match="made with other options: disjoint \\(there on, now not given\\)"):
        make_langgame(vocabulary, tmp_path, train_size=3000, val_size=300)


def test_every_question_has_its_kind_and_kinds_make_up_the_whole(data_dir, vocabulary):
    benchmark = load_benchmark("langgame-val", data_dir)
    assert {question.kind for question in benchmark.questions} == set(KINDS)
    evaluator = MultipleChoice(("langgame-val",), by_kind=True, contamination=True)
    [loaded] = load_evaluators([evaluator], data_dir, vocabulary, 200)
    output = run_evaluators(LM(sharp_model(small_config(context_window=200)), vocabulary), [loaded])
    n = loaded.sample_counts
    of_kinds = {kind: f"mcq/langgame-val/{kind}" for kind in KINDS}
    assert sum(n[name] for name in of_kinds.values()) == n["mcq/langgame-val"] == 200
    right = sum(output.values[f"{name}/accuracy"] * n[name] for name in of_kinds.values())
    assert right / 200 == pytest.approx(output.values["mcq/langgame-val/accuracy"])
    assert n["mcq/langgame-val/unseen_question"] == 200 > n["mcq/langgame-val/unseen_predicate_and_answer"] > 0
    with_outcomes = [metric for metric in output.metrics if metric.outcomes is not None]
    assert {metric.key for metric in with_outcomes} >= {f"{name}/accuracy" for name in n}
    for metric in with_outcomes:
        assert metric.outcomes.mean() == pytest.approx(metric.value)
        assert metric.n == len(metric.outcomes) == n[metric.key.rpartition("/")[0]]


def test_contamination_of_what_nothing_teaches(tmp_path, vocabulary, jsonl):
    file = jsonl([{"sentence_good": "The cat sleeps.", "sentence_bad": "The cat sleep."}])
    evaluator = MultipleChoice((f"blimp={file}",), contamination=True)
    with pytest.raises(UserError, match="benchmark blimp: no data of this program teach it"):
        load_evaluators([evaluator], tmp_path, vocabulary, 48)

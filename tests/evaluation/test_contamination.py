"""Questions shared by train and val, and the kinds of question."""

from pathlib import Path

import numpy as np
import pytest

from stochastok_cli.config import EvaluatorConfig
from stochastok_cli.data.recipes.langgame import make_langgame
from stochastok_cli.data.recipes.langgame_questions import KINDS, predicate_of
from stochastok_cli.data.sft_dataset import SFTDataset
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation import Extras, counts, evaluate_models, load_evaluators
from stochastok_cli.evaluation.benchmarks import load_benchmark
from stochastok_cli.evaluation.contamination import contamination_of
from stochastok_cli.tokenization.vocabulary import load_vocabulary
from tests.models.small_models import sharp_model, small_config


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_langgame(load_vocabulary("sample2k"), folder, train_size=300, val_size=200)
    return folder


def test_the_questions_trained_on_have_leaked_whole(data_dir):
    rows = SFTDataset(data_dir / "data_as_memmaps" / "langgame")
    found = contamination_of(load_benchmark("langgame-train", data_dir), rows)
    assert found.same_text.all() and found.same_ask.all()


def test_of_the_others_some_ask_the_same(data_dir):
    rows = SFTDataset(data_dir / "data_as_memmaps" / "langgame")
    asked = load_benchmark("langgame-val", data_dir)
    found = contamination_of(asked, rows)
    trained = load_benchmark("langgame-train", data_dir).questions  # the first 200 of the 300
    known = {(predicate_of(question.prefix), question.options[0]) for question in trained}
    same = np.array([(predicate_of(question.prefix), question.options[0]) in known for question in asked.questions])
    assert same.any() and not same.all()
    assert found.same_ask[same].all()
    assert not found.same_text.any()


def test_what_is_asked_may_hold_an_apostrophe():
    for inside in ("n't", "'s", "s", "ee"):
        asked = f"Which word contains '{inside}'? The options: [ don't, fell]. Answer:"
        assert predicate_of(asked) == f"contains '{inside}'?"
        most = f"Which word has the most letter '{inside}'s? The options: [ don't, fell]. Answer:"
        assert predicate_of(most) == f"has the most letter '{inside}'s?"


def test_disjoint_data_share_no_question(tmp_path, vocabulary):
    made = make_langgame(vocabulary, tmp_path, train_size=3000, val_size=300, disjoint=True)
    assert made.manifest.options["disjoint"] is True
    found = contamination_of(load_benchmark("langgame-val", tmp_path), SFTDataset(made.path))
    assert not found.same_ask.any() and not found.same_text.any()
    with pytest.raises(UserError, match="made with other options: disjoint \\(there True, now None\\)"):
        make_langgame(vocabulary, tmp_path, train_size=3000, val_size=300)


def test_every_question_has_its_kind_and_kinds_make_up_the_whole(data_dir, vocabulary):
    asked = load_benchmark("langgame-val", data_dir)
    assert {question.kind for question in asked.questions} == set(KINDS)
    config = EvaluatorConfig("mcq", None, ("langgame-val",))
    evaluators = load_evaluators(
        [config], data_dir, vocabulary, 200, extras=Extras(by_kind=True, contamination_of=True)
    )
    found, n = evaluate_models(sharp_model(small_config(context_window=200)), evaluators), counts(evaluators)
    of_kinds = {kind: f"mcq/langgame-val/{kind}" for kind in KINDS}
    assert sum(n[name] for name in of_kinds.values()) == n["mcq/langgame-val"] == 200
    right = sum(found.metrics[f"{name}/accuracy"] * n[name] for name in of_kinds.values())
    assert right / 200 == pytest.approx(found.metrics["mcq/langgame-val/accuracy"])
    assert n["mcq/langgame-val/new_question"] == 200 > n["mcq/langgame-val/new_ask"] > 0
    assert set(found.intervals()) >= {f"{name}/accuracy" for name in n}
    assert found.metrics.keys() >= found.outcomes.keys()
    for name, values in found.outcomes.items():
        assert values.mean() == pytest.approx(found.metrics[name])


def test_leakage_of_what_nothing_teaches(tmp_path, vocabulary, jsonl):
    file = jsonl([{"sentence_good": "The cat sleeps.", "sentence_bad": "The cat sleep."}])
    config = EvaluatorConfig("mcq", None, (f"blimp={file}",))
    with pytest.raises(UserError, match="benchmark blimp: no data of this program teach it"):
        load_evaluators([config], tmp_path, vocabulary, 48, extras=Extras(contamination_of=True))

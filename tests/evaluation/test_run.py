"""From options to metrics: everything is loaded and checked before a model is scored."""

import datasets
import pytest

from stochastok_cli.config import EvaluatorConfig
from stochastok_cli.data.recipes.addition import make_addition
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.run import load_evaluators, run_evaluators
from stochastok_cli.evaluation.scoring import LM
from tests.evaluation.test_bits_per_byte import flat_ids, save


@pytest.fixture
def data_dir(tmp_path, vocabulary):
    save(flat_ids(vocabulary), vocabulary, tmp_path)
    make_addition(vocabulary, tmp_path, num_digits=1)
    rows = datasets.Dataset.from_list([{"question": f"{i}? Answer:", "options": [" the", " a"]} for i in range(9)])
    datasets.DatasetDict(train=rows, val=rows).save_to_disk(tmp_path / "data_as_datasets" / "langgame")
    return tmp_path


CONFIGS = [
    EvaluatorConfig("mcq", 4, ("langgame-train", "langgame-val")),
    EvaluatorConfig("math_generation", 3),
    EvaluatorConfig("bits_per_byte", 2, ("text-tokenized",)),
]


def test_all_evaluators_are_loaded_once_and_run_again_and_again(data_dir, model, vocabulary, monkeypatch):
    evaluators = load_evaluators(CONFIGS, data_dir, vocabulary, 48)
    monkeypatch.setattr(datasets, "load_from_disk", None)  # nothing is read any more
    metrics = run_evaluators(LM(model, vocabulary), evaluators).values
    assert metrics == run_evaluators(LM(model, vocabulary), evaluators).values
    n = {group: count for evaluator in evaluators for group, count in evaluator.sample_counts.items()}
    assert n["mcq/langgame-val"] == 4
    assert n["math_generation/val/base"] == 3
    assert n["bits_per_byte/text-tokenized"] == 2 * 48
    assert {name if name in n else name.rpartition("/")[0] for name in metrics} == set(n)


def test_progress_is_reported(data_dir, model, vocabulary):
    reports = []
    evaluators = load_evaluators(CONFIGS, data_dir, vocabulary, 48)
    run_evaluators(LM(model, vocabulary, progress=lambda *state: reports.append(state)), evaluators)
    assert {("langgame-val", 8, 8), ("addition, val, base", 3, 3), ("text-tokenized", 2, 2)} <= set(reports)


def test_an_option_longer_than_the_window_is_found_when_loading(data_dir, vocabulary, jsonl):
    file = jsonl([{"question": "?", "options": ["yes", "the garden " * 30]}])
    with pytest.raises(UserError, match="benchmark langgame-val, row 1: an option has"):
        load_evaluators([EvaluatorConfig("mcq", None, (f"langgame-val={file}",))], data_dir, vocabulary, 48)


def test_no_evaluators_no_metrics(data_dir, model, vocabulary):
    assert run_evaluators(LM(model, vocabulary), load_evaluators([], data_dir, vocabulary, 48)).values == {}

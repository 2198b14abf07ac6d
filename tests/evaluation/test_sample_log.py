"""The file of `--log-samples`: every answer in every tokenization, and never half a file."""

import fcntl
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import datasets
import pytest
import torch

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.run import evaluate
from stochastok_cli.evaluation.sample_log import SamplesNotWritten
from stochastok_cli.models.llama.state_dict import save_model
from stochastok_cli.report.questions import question_examples
from tests.models.small_models import sharp_model, small_config

MCQ = {"evaluator": "mcq", "benchmarks": ["langgame-val"], "num_samples": 6}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, long_model, vocabulary):
    folder = tmp_path_factory.mktemp("model")
    save_model(long_model, folder, vocabulary)
    return folder


@pytest.fixture
def ask(checkpoint, langgame_folder):
    """Evaluates the model on questions of LangGame; returns the result and the rows of the file."""

    def ask(file, options, **more):
        [result] = evaluate(checkpoint, options, data_dir=langgame_folder, device="cpu", log_samples=file, **more)
        return result, [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]

    return ask


def test_log_likelihoods_are_those_of_the_tokens(ask, long_model, vocabulary, tmp_path):
    file = tmp_path / "new" / "samples.jsonl"
    result, rows = ask(file, {**MCQ, "tokenization": "uniform:0.5", "samples": 2, "adversarial": 8})
    parts = defaultdict(list)
    for row in rows:
        parts[row["part"], row["sample"]].append(row)
        assert "".join(row["tokens"]) == row["question"] == vocabulary.decode(row["token_ids"])
        for ids, option, expected in zip(row["option_token_ids"], row["options"], row["log_likelihoods"], strict=True):
            assert vocabulary.decode(ids) == option
            with torch.no_grad():
                logits = long_model.head(long_model(torch.tensor([[*row["token_ids"], *ids]])))[0, -len(ids) - 1 : -1]
            found = logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum().item()
            assert expected == pytest.approx(found, abs=1e-3)
        likeliest = max(range(len(row["options"])), key=row["log_likelihoods"].__getitem__)
        assert row["answer"] == row["options"][likeliest] and row["is_correct"] == (likeliest == 0)
        assert row["target"] == row["options"][0] and row["checkpoint"] == result.checkpoint
    assert {key: len(of_part) for key, of_part in parts.items()} == {
        ("", None): 6, ("uniform0.5", 0): 6, ("uniform0.5", 1): 6, ("adversarial", None): 6
    }  # fmt: skip
    of_samples = [parts["uniform0.5", sample] for sample in range(2)]
    by_metric = {
        "": parts["", None],
        "uniform0.5/": [*of_samples[0], *of_samples[1]],
        "adversarial/": parts["adversarial", None],
    }
    for part, of_part in by_metric.items():
        right = [row["is_correct"] for row in of_part]
        assert result.values[f"mcq/langgame-val/{part}accuracy"] == pytest.approx(sum(right) / len(right))
    asked = [row["row"] for row in parts["", None]]
    assert len({*asked}) == 6 and all([row["row"] for row in of_part] == asked for of_part in parts.values())
    changed = {one["row"] for one, two in zip(*of_samples, strict=True) if one["token_ids"] != two["token_ids"]}
    assert changed == {*asked}


@pytest.mark.parametrize("evaluator", ["mcq", "generation"])
def test_a_report_calls_questions_by_the_rows_of_the_file(evaluator, ask, langgame_folder, tmp_path):
    options = {**MCQ, "evaluator": evaluator, "num_samples": 15, "tokenization": "uniform:0.5", "samples": 2}
    result, rows = ask(tmp_path / "samples.jsonl", {**options, "max_new_tokens": 2} if evaluator != "mcq" else options)
    texts = {row["row"]: row["question"] for row in rows}
    dataset = datasets.load_from_disk(str(langgame_folder / "data_as_datasets" / "langgame"))["val"]
    assert all(dataset[row - 1]["question"] == text for row, text in texts.items())
    [examples] = question_examples([result])
    assert examples.examples and all(texts[one.row] == one.question for one in examples.examples)
    shown = [one for group in result.changed_answers for one in group.examples]
    assert all(texts[one.row] == "".join(token.text for token in one.canonical) for one in shown)
    assert shown or evaluator == "generation"


def test_generated_answers(ask, vocabulary, tmp_path):
    options = {**MCQ, "evaluator": "generation", "tokenization": "uniform:0.5", "samples": 1, "max_new_tokens": 3}
    result, rows = ask(tmp_path / "samples.jsonl", options)
    assert [(row["part"], row["sample"]) for row in rows] == 6 * [("", None)] + 6 * [("uniform0.5", 0)]
    answers = [answer for one in result.answers for answer in one.answers]
    assert [row["answer"] for row in rows] == answers and len({*answers}) > 1
    for row in rows:
        assert vocabulary.decode(row["token_ids"]) == row["question"]
        assert row["options"] is row["log_likelihoods"] is row["option_token_ids"] is None
    assert rows[0]["token_ids"] != rows[6]["token_ids"]


def test_a_file_is_complete_or_absent(ask, checkpoint, langgame_folder, vocabulary, tmp_path):
    broken = sharp_model(small_config(context_window=200))
    with torch.no_grad():
        broken.head.weight.fill_(float("nan"))
    (tmp_path / "broken").mkdir()
    save_model(broken, tmp_path / "broken", vocabulary)
    file = tmp_path / "samples.jsonl"

    def fail():
        with pytest.raises(UserError, match="the model gave no number"):
            evaluate([checkpoint, tmp_path / "broken"], MCQ, data_dir=langgame_folder, device="cpu", log_samples=file)
        return sorted(path.name for path in tmp_path.iterdir())

    assert fail() == ["broken"]
    _, rows = ask(file, MCQ)
    before = file.read_bytes()
    assert fail() == ["broken", "samples.jsonl"] and file.read_bytes() == before
    _, again = ask(file, {**MCQ, "num_samples": 3})
    assert (len(rows), len(again)) == (6, 3)


def test_what_a_killed_process_has_left_is_removed(ask, tmp_path):
    file = tmp_path / "samples.jsonl"
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    running, other = f".{file.name}.{os.getppid()}.partial", f".other.jsonl.{killed.pid}.partial"
    for name in (f".{file.name}.{killed.pid}.partial", running, other):
        (tmp_path / name).touch()
    ask(file, MCQ)
    assert sorted(os.listdir(tmp_path)) == sorted([file.name, running, other])
    locked = tmp_path / f".{file.name}.{killed.pid}.partial"  # as by a process on another machine
    with open(locked, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        ask(file, MCQ)
        assert locked.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_the_error_of_a_full_disk_has_the_results(ask, tmp_path):
    file = tmp_path / "samples.jsonl"
    (tmp_path / f".{file.name}.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(SamplesNotWritten, match="samples.jsonl can't be written: No space left on device") as error:
        ask(file, MCQ)
    assert [one.values for one in error.value.results] == [ask(file, MCQ)[0].values]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("notes.txt", MCQ, "would replace a file that --log-samples did not write; give another name"),
        ("data.jsonl", MCQ, "would replace a file that --log-samples did not write"),
        (".", MCQ, "is a folder; name a file, such as samples.jsonl"),
        ("notes.txt/new", MCQ, "notes.txt is a file; name a file in a folder"),
        ("new", {"evaluator": "alignment"}, "--log-samples: alignment asks no questions; drop it"),
    ],
)
def test_what_can_not_be_written_is_refused(name, options, message, ask, tmp_path):
    (tmp_path / "notes.txt").write_text("my notes\n")
    (tmp_path / "data.jsonl").write_text('{"text": "mine"}\n')
    with pytest.raises(UserError, match=message):
        ask(tmp_path / name, options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "notes.txt"]

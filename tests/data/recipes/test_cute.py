"""CUTE's tasks against the paper's examples and a slow distance, and the generated questions on disk."""

import collections
import functools
import itertools
import json
import sys

import datasets
import numpy as np
import pytest

from stochastok_cli.cli import app
from stochastok_cli.data.recipes.cute import make_cute as make
from stochastok_cli.data.recipes.cute_generator import Cute
from stochastok_cli.data.recipes.cute_tasks import TASKS, levenshtein
from stochastok_cli.data.recipes.edit_distances import EditDistances
from stochastok_cli.data.sft_dataset import SFTDataset
from stochastok_cli.data.word_list import read_words
from stochastok_cli.errors import USAGE, UserError
from stochastok_cli.manifest import read_manifest
from stochastok_cli.tokenization.loaders import load_vocabulary

SAMPLE = load_vocabulary("sample2k")
PAPER = [  # Table 2
    ("spell", ["there"], "Spell out the word: there.", "t h e r e"),
    ("spell_inverse", ["t h e r e"], "Write the word that is spelled out (no spaces): t h e r e.", "there"),
    ("contains_char", ["c", "there"], "Is there a 'c' in 'there'?", "No"),
    ("orth", ["happy", "glad", "apply"], "Closer in Levenshtein distance to 'happy': glad or apply?", "apply"),
    ("ins_char", ["b", "e", "there"], "Add 'b' after every 'e' in 'there'.", "thebreb"),
    ("del_char", ["e", "there"], "Delete every 'e' in 'there'.", "thr"),
    ("sub_char", ["e", "a", "there"], "Replace every 'e' with 'a' in 'there'.", "thara"),
    ("swap_char", ["t", "r", "there"], "Swap 't' and 'r' in 'there'.", "rhete"),
]


@pytest.mark.parametrize(("task", "inputs", "question", "answer"), PAPER)
def test_the_papers_examples(task, inputs, question, answer):
    assert TASKS[task].question(inputs) == f"{question} Answer:"
    assert TASKS[task].answer(*inputs) == answer


def test_the_papers_examples_are_all_eight():
    assert [task for task, *_ in PAPER] == list(TASKS)


@functools.cache
def slow_distance(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    cost = slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(cost, slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1)


def test_levenshtein_against_the_definition():
    words = read_words().words[::31]
    for word in words:
        assert [levenshtein(word, other) for other in words] == [slow_distance(word, other) for other in words]


def test_the_distances_to_a_list_are_those_of_pairs():
    words = [*read_words().words[::23], "a", "Straße", "naïve", "слово", "𝒳𝒴", "x" * 300, "x" * 254 + "yx"]
    distances = EditDistances(words)
    for word in [*words, "", "zz"]:
        assert distances.to(word).tolist() == [levenshtein(word, other) for other in words]


def test_the_distances_of_a_long_list_are_not_all_kept():
    words = ["".join(letters) for letters in itertools.product("abcdefghij", repeat=4)]
    distances = EditDistances(words)
    assert distances.to.cache_info().maxsize * distances.to("abcd").nbytes <= 2**26 < len(words) ** 2


@pytest.fixture(scope="module")
def questions():
    return list(Cute({"train": read_words().words}, 0).questions("train", 2400))


def test_every_task_is_asked_equally_often(questions):
    counts = collections.Counter(question.kind for question in questions)
    assert set(counts) == set(TASKS)
    assert all(abs(count - 300) < 5 * 300**0.5 for count in counts.values())
    yes = [question.options[0] == "Yes" for question in questions if question.kind == "contains_char"]
    assert 0.38 < np.mean(yes) < 0.62


def test_options_are_distinct_and_one_is_right(questions):
    words = set(read_words().words)
    for question in questions:
        right, *wrong = question.options
        assert len({right, *wrong}) == len(question.options) == (2 if TASKS[question.kind].choices else 4)
        if question.kind == "spell_inverse":
            assert words >= {right, *wrong}
        elif not TASKS[question.kind].choices:
            assert all(len(option) == len(right) for option in wrong)
            assert all(bool(" " in option) == (" " in right) for option in wrong)


def test_of_two_candidates_exactly_one_is_nearer(questions):
    for question in questions:
        if question.kind == "orth":
            word = question.text.split("'")[1]
            right, wrong = (levenshtein(word, option) for option in question.options)
            assert 0 < right < wrong


def test_a_shorter_set_is_the_beginning_of_a_longer_one(questions):
    assert list(Cute({"train": read_words().words}, 0).questions("train", 100)) == questions[:100]
    assert list(Cute({"train": read_words().words}, 1).questions("train", 100)) != questions[:100]


def test_both_forms_on_disk_hold_the_same_questions(tmp_path):
    made = make(SAMPLE, tmp_path, train_size=300, val_size=200)
    rows = SFTDataset(made.path)
    texts = datasets.load_from_disk(str(tmp_path / "data_as_datasets" / "cute"))
    assert {split: len(texts[split]) for split in texts} == {"train": 200, "val": 200}
    assert rows.num_rows == {"train": 300, "val": 200}
    for split in ("train", "val"):
        for row, (_, middle, end), text in zip(rows.rows(split), rows.offsets(split), texts[split], strict=False):
            assert SAMPLE.decode(row[:middle].tolist()) == text["question"]
            assert SAMPLE.decode(row[middle:end].tolist()) == text["options"][0]
    again = make(SAMPLE, tmp_path, train_size=300, val_size=200)
    assert not again.created
    with pytest.raises(UserError, match="made with other options: seed"):
        make(SAMPLE, tmp_path, train_size=300, val_size=200, seed=1)


def test_disjoint_words(tmp_path):
    make(SAMPLE, tmp_path, train_size=2000, val_size=500, disjoint=True)
    texts = datasets.load_from_disk(str(tmp_path / "data_as_datasets" / "cute"))
    spelled = {
        split: {row["options"][0] for row in texts[split] if row["task"] == "spell"} for split in ("train", "val")
    }
    assert spelled["train"] and spelled["val"] and not spelled["train"] & spelled["val"]


def test_validation_questions_that_are_in_training_are_counted(tmp_path, monkeypatch, capsys):
    words = {split: read_words().words for split in ("train", "val")}
    train, val = (
        [(q.text, q.options[0]) for q in Cute(words, 0).questions(split, n)]
        for split, n in (("train", 3000), ("val", 200))
    )
    repeated = sum(question in train for question in val)
    assert 5 < repeated < 100
    arguments = ["--train-size", "3000", "--val-size", "200", "--tokenizer", "sample2k", "--data-dir", str(tmp_path)]
    note = f"{repeated} of 200 validation questions are also in training; --disjoint keeps their words apart\n"
    for more, noted, count in (([], True, repeated), ([], True, repeated), (["--disjoint", "--force"], False, 0)):
        monkeypatch.setattr(sys, "argv", ["stochastok", "make-cute", *arguments, *more, "--json"])
        with pytest.raises(SystemExit):
            app.main()
        out, err = capsys.readouterr()
        assert json.loads(out)["val_in_train"] == count
        assert (note in err) is noted and ("0 of 200 validation questions are also in training\n" in err) is not noted
    assert read_manifest(tmp_path / "data_as_memmaps" / "cute").val_in_train == 0


def test_too_few_words(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("aa\nbb\ncc\n")
    with pytest.raises(UserError, match="no questions of every task can be made of 3 words"):
        make(SAMPLE, tmp_path, words=file)
    file.write_text("abc\nabd\nab\nabe\n")  # each as far from any other
    with pytest.raises(UserError, match="no questions of every task can be made of 4 words"):
        make(SAMPLE, tmp_path, words=file)
    file.write_text("abc\n")
    with pytest.raises(UserError, match=r"can be made of 1 word \(train\)"):
        make(SAMPLE, tmp_path, words=file)
    file.write_text("ab\ncde\nabcd\n½\n")
    with pytest.raises(UserError, match="line 4: '½', which is not one word of letters"):
        make(SAMPLE, tmp_path, words=file)
    with pytest.raises(UserError, match="--val-size is 0; it must be at least 1"):
        make(SAMPLE, tmp_path, val_size=0)


def test_the_command_prints_the_path(tmp_path, monkeypatch, capsys):
    arguments = ["--train-size", "20", "--val-size", "10", "--tokenizer", "sample2k", "--data-dir", str(tmp_path)]
    for more, code in (([], 0), ([], 0), (["--seed", "5"], USAGE)):
        monkeypatch.setattr(sys, "argv", ["stochastok", "make-cute", *arguments, *more])
        with pytest.raises(SystemExit) as ended:
            app.main()
        out, err = capsys.readouterr()
        assert ended.value.code == code
        assert out == ("" if code else f"{tmp_path / 'data_as_memmaps' / 'cute'}\n")
        assert "for example: " in err if not code else err.count("\n") == 1

"""Files of questions under any name, and with any columns."""

import bz2
import gzip
import json
import lzma
import shutil
import warnings
from pathlib import Path

import datasets
import pytest

from stochastok_cli.errors import FAILED, Notice, UserError
from stochastok_cli.evaluation.benchmarks import load_benchmark
from stochastok_cli.evaluation.generation_benchmarks import load_generation_benchmark
from stochastok_cli.evaluation.question_files import read_path, read_source


def write_rows(file: Path, *rows: dict) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


# Each name, and one that it would match as a pattern of names.
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("my [q] file.jsonl", "my q file.jsonl"),
        ("set*.jsonl", "set1.jsonl"),
        ("set?.jsonl", "set1.jsonl"),
        ("exp[1]/q.jsonl", "exp1/q.jsonl"),
        ("x::y.jsonl", "y.jsonl"),
        ("file:/q.jsonl", "q.jsonl"),
    ],
)
def test_the_name_of_a_file_is_no_pattern(name, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_rows(Path(other), {"x": "wrong"})
    write_rows(Path(name), {"x": "right"})
    for source in (name, str(tmp_path / name)):
        assert read_source("questions", source, "test")["x"][:] == ["right"]
    Path(name).write_text('{"x": 1')
    with pytest.raises(UserError) as raised:
        read_source("questions", name, "test")
    assert str(raised.value).startswith(f"questions: {name} can't be read: line 1: Expecting")


def test_files_with_brackets_in_other_formats(tmp_path):
    rows = datasets.Dataset.from_list([{"x": "right"}])
    rows.to_csv(tmp_path / "t[1].csv")
    rows.to_parquet(tmp_path / "t[1].parquet")
    for name in ("t[1].csv", "t[1].parquet"):
        read = read_path("questions", tmp_path / name, "test")
        assert read.shuffle(seed=1)["x"][:] == ["right"]


@pytest.mark.parametrize(("name", "saved"), [("exp[1]", False), ("exp*", False), ("a::b", False), ("a::b", True)])
def test_the_name_of_a_folder_is_no_pattern(name, saved, tmp_path):
    for folder, text in ((tmp_path / "exp1", "wrong"), (tmp_path / "plain", "right")):
        if saved:
            splits = {split: datasets.Dataset.from_list([{"x": f"{text} {split}"}]) for split in ("train", "test")}
            datasets.DatasetDict(splits).save_to_disk(folder)
        else:
            write_rows(folder / "train.jsonl", {"x": f"{text} train"})
            write_rows(folder / "in[2]" / "test_[3].jsonl", {"x": f"{text} test"})
    shutil.move(tmp_path / "plain", tmp_path / name)
    assert read_source("questions", str(tmp_path / name), "test")["x"][:] == ["right test"]
    assert read_source("questions", f"{tmp_path / name}:train", "test")["x"][:] == ["right train"]


def test_benchmarks_and_examples_of_a_folder_with_brackets(tmp_path):
    def row(text):
        return {"question": text, "options": ["yes", "no"], "answer": "yes"}

    write_rows(tmp_path / "q1" / "test.jsonl", row("wrong"))
    folder = write_rows(tmp_path / "q[1]" / "test.jsonl", row("right")).parent
    write_rows(folder / "train.jsonl", row("example"), row("example"))
    assert [one.prefix for one in load_benchmark(f"mine={folder}", tmp_path).questions] == ["right"]
    loaded = load_generation_benchmark(f"mine={folder}", tmp_path, num_fewshot=1, fewshot_split="train")
    [question] = loaded.questions
    assert (question.question, question.examples.partition(" ")[0]) == ("right", "example")


def test_cute_in_a_folder_with_brackets(tmp_path):
    for name, label in (("cute1", "wrong"), ("cute[1]", "t h e")):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "data" / "spell.tsv").write_text(f"input1\tlabel\nthe\t{label}\n")
        (tmp_path / name / "prompts.py").write_text('PROMPTS = {"spell": "Spell {}."}')
    [question] = load_generation_benchmark(f"cute-spell={tmp_path / 'cute[1]'}", tmp_path).questions
    assert (question.question, question.answers) == ("Spell the.", ("t h e",))


# `datasets` reads 10 MiB at a time, whose columns it expects of all rows.
LONG = "x" * (6 << 20)


@pytest.mark.slow
def test_rows_with_other_keys_than_the_first_ones(tmp_path):
    pair = {"sentence_good": "a", "sentence_bad": "b"}
    file = write_rows(tmp_path / "blimp.jsonl", {**pair, "UID": LONG}, {**pair, "UID": LONG}, {**pair, "prefix": "The"})
    rows = read_path("questions", file, "train")
    assert rows.remove_columns("UID")[:] == {
        "sentence_good": ["a"] * 3,
        "sentence_bad": ["b"] * 3,
        "prefix": [None, None, "The"],
    }
    assert len(load_benchmark(f"blimp={file}", tmp_path).questions) == 3


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([None, [], ["b"]], [None, [], ["b"]]),
        ([{"a": 1}, {"b": ["x"]}], [{"a": 1, "b": None}, {"a": None, "b": ["x"]}]),
        ([1, 2.5], [1.0, 2.5]),
        ([1, "b"], ["1", "b"]),
    ],
)
def test_files_of_a_folder_whose_values_are_of_other_types(values, read, tmp_path):
    for i, value in enumerate(values):
        write_rows(tmp_path / f"{i}.jsonl", {"x": i, f"only{i}": i, "value": value})
    rows = read_path("questions", tmp_path, "train")
    assert (rows["x"][:], rows["value"][:]) == ([*range(len(values))], read)


@pytest.mark.parametrize("has_json", [True, False])
def test_lists_and_texts_in_one_column(has_json, tmp_path, monkeypatch):
    write_rows(tmp_path / "a.jsonl", {"x": 1, "value": ["a"]})
    write_rows(tmp_path / "b.jsonl", {"x": 2, "value": "b"})
    if has_json and hasattr(datasets, "Json"):
        assert read_path("questions", tmp_path, "train")["value"][:] == [["a"], "b"]
        return
    monkeypatch.delattr(datasets, "Json", raising=False)  # as in older versions
    with pytest.raises(UserError, match="the column 'value' is list<.*string> in some rows and string in others"):
        read_path("questions", tmp_path, "train")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_of_a_folder_with_other_columns(suffix, tmp_path):
    for name, row in (("a", {"q": "1", "a": 1}), ("b", {"q": "NA", "b": 2})):
        getattr(datasets.Dataset.from_list([row]), f"to_{suffix}")(tmp_path / f"{name}.{suffix}")
    rows = read_path("questions", tmp_path, "train")
    assert rows[:] == {"q": ["1", "NA"], "a": [1, None], "b": [None, 2]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"x": 1}\n\n{"x": "\xff"}', "line 3: the byte 0xff at 7 is not UTF-8"),
        ("a.csv", b"x,y\n1,\xff\n", "line 2: the byte 0xff at 2 is not UTF-8"),
        (
            "a.jsonl",
            '{"x": 1}'.encode("utf-16"),
            "it is text in UTF-16, not in UTF-8; convert it: iconv -f UTF-16 -t UTF-8",
        ),
        ("a.tsv", "x".encode("utf-32"), "it is text in UTF-32, not in UTF-8; convert it: iconv -f UTF-32 -t UTF-8"),
        ("a.json", b'[{"x": 1},\n{"x":]', "Expecting value: line 2 column 6"),
        ("a.json", b'{"x": 1}\n{"x":}', "line 2: Expecting value"),
    ],
)
def test_what_can_not_be_read_is_named_with_its_line(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_path("questions", tmp_path / name, "train")
    assert str(raised.value).startswith(f"questions: {tmp_path / name} can't be read: {message}")


@pytest.mark.parametrize(("suffix", "compress"), [("bz2", bz2.compress), ("xz", lzma.compress), ("gz", gzip.compress)])
def test_a_damaged_compressed_file_of_a_folder_is_an_error(suffix, compress, tmp_path):
    """The readers of `datasets` pass silently over what follows the damage."""
    first, second = compress(b'{"x": 1}\n'), compress(b'{"x": 2}\n')
    file = tmp_path / f"train.jsonl.{suffix}"
    file.write_bytes(first + second)
    assert read_path("questions", tmp_path, "train")["x"][:] == [1, 2]
    file.write_bytes(first + bytes(len(second)) + second)
    with pytest.raises(UserError, match="can't be read: it is damaged or cut short: ") as raised:
        read_path("questions", tmp_path, "train")
    assert raised.value.exit_code == FAILED


@pytest.mark.parametrize("only", ["train", "test"])
def test_a_split_that_is_not_there_is_not_replaced_by_the_only_one(only, tmp_path):
    write_rows(tmp_path / f"{only}.jsonl", {"question": "a", "options": ["b", "c"]})
    other = "test" if only == "train" else "train"
    with pytest.raises(UserError, match=rf"has no split '{other}' \(there are: {only}\)"):
        read_source("questions", f"{tmp_path}:{other}", "test")
    assert len(read_source("questions", f"{tmp_path}:{only}", "test")) == 1
    if only == "test":
        assert len(read_source("questions", str(tmp_path), "test")) == 1
    else:
        with pytest.warns(Notice, match="has only the split 'train', which is asked"):
            assert len(read_source("questions", str(tmp_path), "test")) == 1
    (tmp_path / f"{only}.jsonl").rename(tmp_path / "rows.jsonl")
    with warnings.catch_warnings(action="error", category=Notice):  # files whose names are no splits
        assert len(read_source("questions", str(tmp_path), "test")) == 1

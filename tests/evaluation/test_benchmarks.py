"""Rows of every benchmark, from every place they may come from, and what is wrong with them."""

import json
import os
import warnings
from pathlib import Path

import datasets
import pytest

from stochastok_cli.data.recipes.cute import make_cute
from stochastok_cli.data.recipes.cute_tasks import TASKS
from stochastok_cli.data.recipes.langgame import make_langgame
from stochastok_cli.data.recipes.langgame_questions import KINDS
from stochastok_cli.errors import FAILED, USAGE, Notice, UserError
from stochastok_cli.evaluation.benchmarks import Question, benchmark_specs, load_benchmark
from stochastok_cli.evaluation.evaluators.multiple_choice import MultipleChoice
from stochastok_cli.evaluation.question_files import read_path
from stochastok_cli.progress import no_progress
from stochastok_cli.tokenization.loaders import load_vocabulary

ROWS = {
    "hellaswag": {"ctx": "A man sits down. He", "endings": ["flies away.", "eats.", "melts."], "label": "1"},
    "arc": {
        "question": "What is hot?",
        "choices": {"text": ["ice", "snow", "fire"], "label": ["A", "B", "C"]},
        "answerKey": "C",
    },
    "mmlu": {"question": "What is 1 + 1?", "subject": "algebra", "choices": ["0", "1", "2", "3"], "answer": 2},
    "winograd": {
        "sentence": "The cup does not fit in the bag because the _ is too big.",
        "option1": "bag",
        "option2": "cup",
        "answer": "2",
    },
    "blimp": {"sentence_good": "The cat sleeps.", "sentence_bad": "The cat sleep."},
    "langgame-val": {"question": "Which word has 'u'? Answer:", "options": [" cup", " cap", " cop"]},
    "cute-val": {"question": "Is there a 'c' in 'there'? Answer:", "options": [" No", " Yes"], "task": "contains_char"},
}
QUESTIONS = {
    "hellaswag": Question("A man sits down. He", ["eats.", "flies away.", "melts."], 1),
    "arc": Question("What is hot?", ["fire", "ice", "snow"], 1),
    "mmlu": Question("What is 1 + 1? Options: 0;1;2;3\n Answer:", ["2", "0", "1", "3"], 1),
    "winograd": Question(
        "",
        [
            "The cup does not fit in the bag because the cup is too big.",
            "The cup does not fit in the bag because the bag is too big.",
        ],
        1,
    ),
    "blimp": Question("", ["The cat sleeps.", "The cat sleep."], 1),
    "langgame-val": Question("Which word has 'u'? Answer:", [" cup", " cap", " cop"], 1),
    "cute-val": Question("Is there a 'c' in 'there'? Answer:", [" No", " Yes"], 1, "contains_char"),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_each_benchmark_from_a_local_file(name, jsonl, tmp_path):
    benchmark = load_benchmark(f"{name}={jsonl([ROWS[name]])}", tmp_path)
    assert (benchmark.name, benchmark.questions) == (name, [QUESTIONS[name]])


def test_mmlu_does_not_list_the_right_answer_among_the_wrong_ones(jsonl, tmp_path):
    rows = [{"question": "Which?", "choices": ["a", "b", "c", "d"], "answer": answer} for answer in range(4)] + [
        {"question": "Which?", "choices": ["b", "b", "c", "d"], "answer": 0}
    ]  # the same text twice, as it happens
    for question in load_benchmark(f"mmlu={jsonl(rows)}", tmp_path).questions:
        right, *wrong = question.options
        assert right not in wrong
        assert len(wrong) == (3 if question.row < 5 else 2)


def test_arc_keys_may_be_digits(jsonl, tmp_path):
    row = {"question": "?", "choices": {"text": ["ice", "fire"], "label": ["1", "2"]}, "answerKey": "2"}
    assert load_benchmark(f"arc={jsonl([row])}", tmp_path).questions[0].options == ["fire", "ice"]


@pytest.mark.parametrize("kind", ["json", "csv", "parquet", "saved", "saved splits", "folder of files"])
def test_kinds_of_local_files(kind, tmp_path):
    rows = datasets.Dataset.from_list([{**ROWS["winograd"], "option1": option} for option in ("bag", "None")])
    path = tmp_path / f"rows.{kind}"
    if kind == "json":
        path.write_text(json.dumps(rows.to_list()))
    elif kind == "csv":
        rows.to_csv(path)
    elif kind == "parquet":
        rows.to_parquet(path)
    elif kind == "saved":
        rows.save_to_disk(path)
    elif kind == "saved splits":
        datasets.DatasetDict(train=rows.select([0, 0, 0]), validation=rows).save_to_disk(path)
    else:
        path.mkdir()
        rows.to_parquet(path / "validation.parquet")
    benchmark = load_benchmark(f"winograd={path}", tmp_path)
    assert [question.options[1].split()[10] for question in benchmark.questions] == ["bag", "None"]


def test_a_folder_stands_for_the_hub_dataset_and_a_file_is_asked_whole(jsonl, tmp_path):
    """Of BLiMP the rows from 10% to 60% are used."""
    rows = [{"sentence_good": f"{i}.", "sentence_bad": "no."} for i in range(20)]
    folder = tmp_path / "data_as_datasets" / "blimp"
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(folder)
    for name in ("blimp", f"blimp={folder}"):
        questions = load_benchmark(name, tmp_path).questions
        assert [question.row for question in questions] == list(range(3, 13))
        assert [question.options[0] for question in questions] == [f"{i}." for i in range(2, 12)]
    assert len(load_benchmark(f"blimp={jsonl(rows)}", tmp_path).questions) == 20


def test_langgame_is_read_from_the_given_data_directory(tmp_path, monkeypatch):
    for data_dir, word in (("data", "wrong"), ("elsewhere", "right")):
        splits = {
            split: datasets.Dataset.from_list([{"question": split, "options": [f" {word}", " other"]}])
            for split in ("train", "val")
        }
        datasets.DatasetDict(splits).save_to_disk(tmp_path / data_dir / "data_as_datasets" / "langgame")
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        questions = load_benchmark(f"langgame-{split}", Path("elsewhere")).questions
        assert questions == [Question(split, [" right", " other"], 1)]


def test_datasets_of_other_names_are_benchmarks_too(tmp_path):
    vocabulary = load_vocabulary("sample2k")
    for name, seed in (("easy", 1), ("hard-ones", 2)):
        make_langgame(vocabulary, tmp_path, name=name, train_size=20, val_size=10, seed=seed)
    make_cute(vocabulary, tmp_path, name="spelling", train_size=20, val_size=10)
    easy, hard, cute = (load_benchmark(f"{name}-val", tmp_path) for name in ("easy", "hard-ones", "spelling"))
    assert (easy.name, len(easy.questions), len(hard.questions)) == ("easy-val", 10, 10)
    assert {question.prefix for question in easy.questions}.isdisjoint(question.prefix for question in hard.questions)
    assert {question.kind for question in easy.questions} <= set(KINDS)
    assert {question.kind for question in cute.questions} <= set(TASKS)
    evaluator = MultipleChoice(("easy-val", "hard-ones-train"), by_kind=True, contamination=True)
    _, loaded = evaluator.load(vocabulary, 200, tmp_path, no_progress)
    assert loaded.sample_counts["mcq/hard-ones-train"] == 10
    assert loaded.sample_counts["mcq/hard-ones-train/unseen_question"] == 0  # of its own folder of training questions
    for unknown in ("easy-test", "simple-val", "easy"):
        with pytest.raises(
            UserError, match=f"unknown benchmark '{unknown}'.*NAME-val after make-langgame or make-cute"
        ):
            load_benchmark(unknown, tmp_path)


def test_the_sample_is_the_same_each_time_and_grows(jsonl, tmp_path):
    file = jsonl({"question": str(i), "options": ["a", "b"]} for i in range(100))

    def rows(num_samples):
        return [question.row for question in load_benchmark(f"langgame-val={file}", tmp_path, num_samples).questions]

    assert rows(10) == rows(10) == sorted(rows(10))
    assert len(rows(10)) == len(set(rows(10))) == 10
    assert set(rows(10)) < set(rows(30))
    assert rows(10) != list(range(1, 11))
    assert rows(None) == rows(1000) == list(range(1, 101))


# ------------------------------------------------------------------------------------------------ the Hub


HUB = {
    "hellaswag": ("Rowan/hellaswag", "default", "validation"),
    "arc": ("allenai/ai2_arc", "ARC-Easy", "test"),
    "mmlu": ("cais/mmlu", "all", "test"),
    "winograd": ("allenai/winogrande", "winogrande_xs", "validation"),
    "blimp": ("WillHeld/blimp", "default", "train"),
}


@pytest.mark.parametrize("name", HUB)
def test_benchmarks_on_the_hub(name, hub_server, tmp_path):
    """Each dataset id, configuration and split, through the real `datasets.load_dataset`."""
    repo, config, split = HUB[name]
    card = f"""---
configs:
- config_name: another
  data_files:
  - {{split: {split}, path: other.jsonl}}
- config_name: {config}
  data_files:
  - {{split: other, path: other.jsonl}}
  - {{split: {split}, path: rows.jsonl}}
---
"""
    rows = "".join(json.dumps(ROWS[name]) + "\n" for _ in range(10))
    other = json.dumps({key: "no text" if isinstance(value, str) else value for key, value in ROWS[name].items()})
    files = {"README.md": card.encode(), "rows.jsonl": rows.encode(), "other.jsonl": other.encode()}
    hub_server.add_dataset(repo, files)
    first, expected = (2, 5) if name == "blimp" else (1, 10)
    questions = load_benchmark(name, tmp_path).questions
    assert questions[0] == QUESTIONS[name]._replace(row=first)
    assert len(questions) == expected


def test_a_benchmark_that_cannot_be_reached_names_the_way_out(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        load_benchmark("hellaswag", tmp_path)
    message = str(caught.value)
    assert message.startswith("benchmark hellaswag can't be loaded: the Hub can't be asked about Rowan/hellaswag")
    assert "hellaswag=PATH" in message
    assert "\n" not in message
    assert caught.value.exit_code == FAILED


# ------------------------------------------------------------------------------------------------ bad input


def test_a_pipe_is_no_file_of_questions(tmp_path):
    """Nor the name of a dataset on the Hub."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UserError, match="benchmark langgame-val: .*pipe.jsonl is a pipe; give a file"):
        load_benchmark(f"langgame-val={tmp_path / 'pipe.jsonl'}", tmp_path)


def test_suffixes_in_upper_case(jsonl, tmp_path):
    file = jsonl([{"question": "a", "options": [" b", " c"]}])
    upper = Path(file).rename(tmp_path / "Q.JSONL")
    assert load_benchmark(f"langgame-val={upper}", tmp_path).questions == [Question("a", [" b", " c"], 1)]


def test_an_unknown_name(tmp_path):
    with pytest.raises(UserError, match=r"unknown benchmark 'langame-val'; did you mean 'langgame-val'\?"):
        load_benchmark("langame-val", tmp_path)


def test_langgame_that_was_never_made(tmp_path):
    with pytest.raises(UserError, match="benchmark langgame-val: there is no .*langgame; run stochastok make-langgame"):
        load_benchmark("langgame-val", tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hellaswag", {"label": 3}, "the answer is option 3 .from 0., but there are 3 options"),
        ("hellaswag", {"label": -1}, "the answer is option -1"),
        ("hellaswag", {"label": ""}, "the answer '' is not the number of an option"),
        ("mmlu", {"answer": 1e400}, "the answer inf is not the number of an option"),
        ("hellaswag", {"endings": ["flies.", " ", "melts."]}, "an option is empty"),
        ("hellaswag", {"endings": "flies."}, "the options must be a list of texts, not 'flies.'"),
        ("hellaswag", {"ctx": None}, "the question is no text: null"),
        ("arc", {"answerKey": "D"}, r"answerKey 'D' is none of \['A', 'B', 'C'\]"),
        ("arc", {"answerKey": "1"}, "answerKey '1' is none of"),
        ("arc", {"choices": ["ice", "fire"]}, "values of the wrong kind"),
        ("winograd", {"answer": "3"}, "the answer is option 2 .from 0., but there are 2 options"),
        ("winograd", {"sentence": "No gap."}, "one '_' to be filled"),
        ("blimp", {"sentence_bad": ""}, "an option is empty"),
        ("langgame-val", {"options": []}, "the answer is option 0 .from 0., but there are 0 options"),
    ],
)
def test_a_bad_row_is_named(name, change, message, jsonl, tmp_path):
    file = jsonl([ROWS[name], {**ROWS[name], **change}])
    with pytest.raises(UserError, match=f"benchmark {name}, row 2: .*{message}") as caught:
        load_benchmark(f"{name}={file}", tmp_path)
    assert caught.value.exit_code == USAGE


def test_rows_without_a_choice_are_left_out_and_counted(jsonl, tmp_path):
    """Of the 67,000 published pairs of BLiMP seven hold the same sentence twice."""
    rows = [{"sentence_good": f"{i}.", "sentence_bad": "no." if i % 3 else f"{i}."} for i in range(12)]
    file = jsonl(rows)
    with pytest.warns(Notice, match=r"benchmark blimp: .* options are equal: 4 \(the first is row 1\)"):
        questions = load_benchmark(f"blimp={file}", tmp_path).questions
    assert [question.row for question in questions] == [2, 3, 5, 6, 8, 9, 11, 12]
    with pytest.warns(Notice, match="options are equal: "):
        sample = load_benchmark(f"blimp={file}", tmp_path, num_samples=7).questions
    assert len(sample) == 7
    assert {question.row for question in sample} < {question.row for question in questions}
    file = jsonl([{"sentence_good": "Yes.", "sentence_bad": "Yes."}], "equal.jsonl")
    with pytest.raises(UserError, match="benchmark blimp, row 1: there is nothing to choose between"):
        load_benchmark(f"blimp={file}", tmp_path)


@pytest.mark.parametrize("name", [name for name, source in benchmark_specs().items() if source.read is None])
def test_a_missing_column_is_named(name, jsonl, tmp_path):
    for column in benchmark_specs()[name].columns:
        full = ROWS[name.replace("-train", "-val")]
        file = jsonl([{key: value for key, value in full.items() if key != column}], f"without-{column}.jsonl")
        with pytest.raises(UserError, match=f"benchmark {name}: there is no column '{column}'.*there are"):
            load_benchmark(f"{name}={file}", tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("empty.jsonl", "", "has no rows"),
        ("blank.jsonl", "\n \n", "has no rows"),
        ("empty.json", "[]", "can't be read|there is no column|has no rows"),
        ("cut.jsonl", '{"question": "a", "opt', "can't be read: "),
        ("bad.jsonl", '{"x": 1}\n\n{bad', "bad.jsonl can't be read: line 3: Expecting property name"),
        ("list.jsonl", '{"x": 1}\n[1]\n', "can't be read: line 2: .* is no JSON object"),
        ("half.jsonl", '{"x": 1}\n{"x": "\\ud800"}', r"can't be read: line 2: \\ud800 is half of a surrogate pair"),
        ("half.json", '[{"x": "\\udc00 \\ud83d\\ude00"}]', r"can't be read: \\udc00 is half of a surrogate pair"),
        ("key.jsonl", '{"x": 1, "x": 2}', "can't be read: line 1: an object has the key 'x' twice"),
        ("twice.csv", "a,b,a\n1,2,3", "can't be read: two columns have the name 'a'"),
        ("twice.tsv", "a\ta\n1\t2", "can't be read: two columns have the name 'a'"),
        ("rows.docx", "x", "is of an unknown kind; give .jsonl"),
        (None, None, "does not exist"),
    ],
)
def test_files_that_hold_no_rows(file, content, message, tmp_path, caplog):
    path = tmp_path / (file or "absent.jsonl")
    if file:
        path.write_text(content)
    with pytest.raises(UserError, match=f"^benchmark langgame-val.*({message})"):
        load_benchmark(f"langgame-val={path}", tmp_path)
    assert not caplog.records  # `datasets` would log what it raises


def test_a_pair_of_surrogates_is_a_character(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"x": "\\ud83d\\ude00"}')
    assert read_path("questions", tmp_path / "rows.jsonl", "train")["x"][:] == ["😀"]


def test_files_of_a_folder_that_are_not_read_are_counted(tmp_path, caplog):
    rows = {"a.jsonl": '{"x": 1}', "b.jsonl": '{"x": 2}', "c.csv": "x\n3", "d.py": "", "README.md": "# x"}
    for name, content in rows.items():
        (tmp_path / name).write_text(content)
    with pytest.warns(Notice, match=r"not read in .*: 2 files: 1 \.csv, 1 \.py$"):
        assert read_path("questions", tmp_path, "train")["x"][:] == [1, 2]
    assert not caplog.records
    (tmp_path / "c.csv").unlink()
    (tmp_path / "d.py").unlink()
    with warnings.catch_warnings(category=Notice, action="error"):
        assert len(read_path("questions", tmp_path, "train")) == 2
    (tmp_path / "b.jsonl").write_text('{"x": 1}\n{bad')
    with pytest.raises(UserError, match="can't be read: b.jsonl: line 2: Expecting property name"):
        read_path("questions", tmp_path, "train")
    (tmp_path / "b.jsonl").write_text('{"x": 1, "x": 2}')
    with pytest.raises(UserError, match="can't be read: b.jsonl: line 1: an object has the key 'x' twice"):
        read_path("questions", tmp_path, "train")


def test_a_folder_without_the_split(tmp_path):
    rows = datasets.Dataset.from_list([ROWS["langgame-val"]])
    datasets.DatasetDict(one=rows, two=rows).save_to_disk(tmp_path / "rows")
    with pytest.raises(UserError, match=r"has no split 'val' \(there are: one, two\)"):
        load_benchmark(f"langgame-val={tmp_path / 'rows'}", tmp_path)

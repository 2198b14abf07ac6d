"""CUTE's test questions from the authors' files and from the Hub, both as the same multiple choice."""

import json
from pathlib import Path

import pytest

from stochastok_cli.data.recipes.cute_tasks import TASKS
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.benchmarks import Benchmark, load_benchmark

ROWS = {
    "spell": ["river", "r i v e r"],
    "spell_inverse": ["r i v e r", "river"],
    "contains_char": ["x", "river", "No"],
    "orth": ["river", "liver", "stream", "liver"],
    "ins_char": ["o", "r", "river", "roivero"],
    "del_char": ["r", "river", "ive"],
    "sub_char": ["r", "t", "river", "tivet"],
    "swap_char": ["v", "e", "river", "rievr"],
}
PROMPTS = {  # the last line, after examples, as on the Hub
    "spell": 'Question: Spell out the word "{}".',
    "spell_inverse": 'Question: Write the word "{}".',
    "contains_char": 'Question: Is there a "{}" in "{}"?',
    "orth": 'Question: Closer in Levenshtein distance to "{}": "{}", "{}".',
    "ins_char": 'Question: Add an "{}" after every "{}" in "{}".',
    "del_char": 'Question: Delete every instance of "{}" in "{}".',
    "sub_char": 'Question: Substitute "{}" with "{}" in "{}".',
    "swap_char": 'Question: Swap "{}" and "{}" in "{}".',
}


@pytest.fixture
def folder(tmp_path) -> Path:
    for task, row in ROWS.items():
        header = [*(f"input{i}" for i in range(1, len(row))), "label"]
        (tmp_path / f"{task}.tsv").write_text("\t".join(header) + "\n" + "\t".join(row) + "\n")
    return tmp_path


def check(benchmark: Benchmark, tasks: list[str]) -> None:
    assert [question.kind for question in benchmark.questions] == tasks
    for question, task in zip(benchmark.questions, tasks, strict=True):
        *inputs, answer = ROWS[task]
        assert question.prefix == TASKS[task].question(inputs)
        assert question.options[0] == f" {answer}"
        assert len(set(question.options)) == (2 if TASKS[task].choices else 4)


def test_all_tasks_from_a_folder_and_one_from_a_file(folder):
    check(load_benchmark(f"cute={folder}", folder), list(TASKS))
    for task in TASKS:
        check(load_benchmark(f"cute-{task}={folder}", folder), [task])
        check(load_benchmark(f"cute-{task}={folder / f'{task}.tsv'}", folder), [task])
    same = load_benchmark(f"cute={folder}", folder)
    assert same == load_benchmark(f"cute={folder}", folder)  # the wrong options too


def test_from_the_hub(hub_server, tmp_path):
    files = {}
    for task, (*inputs, answer) in ROWS.items():
        prompt = f'Do this.\n1. Spell "hello". Answer: "h e"\n{PROMPTS[task].format(*inputs)}'
        files[f"{task}.jsonl"] = json.dumps({"prompt": prompt, "answer": f" {answer} "}).encode()
    splits = "".join(f"  - {{split: {task}, path: {task}.jsonl}}\n" for task in TASKS)
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n{splits}---\n"
    hub_server.add_dataset("leukas/cute", {"README.md": card.encode(), **files})
    check(load_benchmark("cute", tmp_path), list(TASKS))
    check(load_benchmark("cute-orth", tmp_path), ["orth"])


def test_rows_that_make_no_question(folder):
    (folder / "orth.tsv").write_text("input1\tinput2\tinput3\tlabel\nriver\tliver\tstream\tsea\n")
    with pytest.raises(UserError, match="benchmark cute-orth, row 1: the answer 'sea' is not possible"):
        load_benchmark(f"cute-orth={folder}", folder)
    (folder / "spell.tsv").write_text("word\tlabel\nriver\tr i v e r\n")
    with pytest.raises(UserError, match=r"benchmark cute \(spell\): there is no column 'input1'"):
        load_benchmark(f"cute={folder}", folder)


def test_generated_questions_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="run stochastok make-cute first"):
        load_benchmark("cute-val", tmp_path)

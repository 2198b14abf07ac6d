"""The test questions of CUTE (Edman et al. 2024) as multiple choice, from the Hub or from local files.

On the Hub each task is a split of whole prompts, whose last line is the question; in the authors' repository each task
is a file `data/<task>.tsv` of inputs and a label. Both are converted to the wording of `cute_tasks`, without examples.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.data.recipes.cute_tasks import TASKS, options
from stochastok_cli.data.word_list import read_words

if TYPE_CHECKING:
    import datasets

HUB = "leukas/cute"
COLUMNS = ("task", "inputs", "answer")


def read_cute(tasks: Sequence[str], description: str, path: Path | None) -> "datasets.Dataset":
    """The questions of some tasks, one after the other, in the columns COLUMNS."""
    import datasets

    from stochastok_cli.evaluation.question_files import read_hub, read_path

    rows: list[dict[str, Any]] = []
    for task in tasks:
        if path is None:
            dataset = read_hub(description, HUB, None, task)
        else:
            folder = find_inputs(path, [task])
            dataset = read_path(description, path if folder is None else folder / f"{task}.tsv", task)
        rows += _rows(f"{description} ({task})", task, dataset)
    return datasets.Dataset.from_list(rows)


def find_inputs(path: Path, tasks: Sequence[str]) -> Path | None:
    """The folder of the authors' files of inputs, one for each task; None if there is none at or in `path`."""
    folders = (path, path / "data")
    return next((folder for folder in folders if any((folder / f"{task}.tsv").is_file() for task in tasks)), None)


def _rows(description: str, task: str, dataset: "datasets.Dataset") -> Iterator[dict[str, Any]]:
    from stochastok_cli.evaluation.question_files import require_columns

    if "prompt" in dataset.column_names:
        require_columns(description, dataset, ("prompt", "answer"))
        for row in dataset:
            question = row["prompt"].rpartition("Question:")[2]
            yield {
                "task": task,
                "inputs": re.findall(r'"([^"]*)"', question),
                "answer": (row["answer"] or "").strip(' "'),
            }
    else:
        count = TASKS[task].wording.count("{}")
        names = [f"input{i + 1}" for i in range(count)]
        require_columns(description, dataset, (*names, "label"))
        for row in dataset:
            yield {"task": task, "inputs": [str(row[name]) for name in names], "answer": str(row["label"])}


def cute_question(row: dict[str, Any]) -> tuple[str, list[str]]:
    """Turns a row into a question in the wording of `cute_tasks` and its options, always the same for the same row."""
    from stochastok_cli.random_streams import stream

    task, inputs, answer = (row[column] for column in COLUMNS)
    if len(inputs) != TASKS[task].wording.count("{}"):
        raise ValueError(f"{task} has {TASKS[task].wording.count('{}')} inputs, not {inputs}")
    choices = TASKS[task].choices
    if not answer or (choices is not None and answer not in choices(*inputs)):
        raise ValueError(f"the answer {answer!r} is not possible")
    random = stream(0, f"cute/{task}/{'/'.join(inputs)}")
    texts = options(task, inputs, answer, read_words().words, random)
    return TASKS[task].question(inputs), [f" {text}" for text in texts]

"""Multiple-choice benchmarks: where their rows come from, and how a row becomes a question.

A benchmark is given as `name` (`<data_dir>/data_as_datasets/<name>` where that exists, else the Hub dataset below) or
as `name=path`, with a local file or folder of the same columns. A folder stands for the Hub dataset: the same split
and the same share of its rows are asked. A file is asked whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stochastok_cli.data.memmap import dataset_dir
from stochastok_cli.data.recipes.cute_tasks import TASKS
from stochastok_cli.data.recipes.langgame_questions import kind_of
from stochastok_cli.errors import UserError, did_you_mean
from stochastok_cli.evaluation.cute import COLUMNS, cute_question, read_cute
from stochastok_cli.evaluation.question_files import read_hub, read_path, require_columns
from stochastok_cli.random_streams import stream

if TYPE_CHECKING:
    import datasets

SAMPLE_SEED = 0  # fixed, so that every run and every checkpoint is asked the same questions


class Question(NamedTuple):
    """A prefix (may be empty) and the texts that may follow it, the right one first."""

    prefix: str
    options: list[str]
    row: int  # which of the dataset's, counted from 1
    kind: str = ""  # of the benchmark's kinds of question, where it has some


@dataclass(frozen=True)
class Benchmark:
    """The questions that are asked, in the order of the dataset."""

    name: str
    questions: list[Question]


@dataclass(frozen=True)
class Source:
    """Where a benchmark's rows are, and the function that turns one into a prefix and its options.

    `to_question` raises ValueError for what is wrong with a row.
    """

    columns: tuple[str, ...]
    to_question: Callable[[dict[str, Any]], tuple[str, list[str]]]
    hub: str | None = None  # dataset id on the Hub; without one it is a folder that this program makes
    config: str | None = None
    split: str = "test"
    percent: tuple[int, int] = (0, 100)  # of the split's rows, in their order
    folder: str | None = None  # under data_as_datasets, where it is not the benchmark's name
    kind: Callable[[dict[str, Any]], str] = lambda row: ""
    trained_on: str | None = None  # the folder under data_as_memmaps that teaches such questions
    read: "Callable[[str, Path | None], datasets.Dataset] | None" = None  # for rows that come in another way


# ------------------------------------------------------------------------------------------- rows to questions


def _hellaswag(row: dict[str, Any]) -> tuple[str, list[str]]:
    return row["ctx"], _right_first(row["endings"], _index(row["label"]))


def _arc(row: dict[str, Any]) -> tuple[str, list[str]]:
    # Most keys are letters, some are digits; which one an option has is said beside it.
    labels, key = [str(label) for label in row["choices"]["label"]], str(row["answerKey"])
    if key not in labels:
        raise ValueError(f"answerKey {key!r} is none of {labels}")
    return row["question"], _right_first(row["choices"]["text"], labels.index(key))


def _mmlu(row: dict[str, Any]) -> tuple[str, list[str]]:
    options = _right_first(row["choices"], _index(row["answer"]))
    # The list of choices belongs to the prefix, not to each option: the scores differ by a constant for the question,
    # and a long list can be truncated from the left where an option can't.
    return f"{row['question']} Options: {';'.join(row['choices'])}\n Answer:", options


def _winograd(row: dict[str, Any]) -> tuple[str, list[str]]:
    if row["sentence"].count("_") != 1:
        raise ValueError(f"the sentence must have one '_' to be filled: {row['sentence']!r}")
    options = _right_first([row["option1"], row["option2"]], _index(row["answer"], first=1))
    return "", [row["sentence"].replace("_", option) for option in options]


def _blimp(row: dict[str, Any]) -> tuple[str, list[str]]:
    return "", _right_first([row["sentence_good"], row["sentence_bad"]], 0)


def _langgame(row: dict[str, Any]) -> tuple[str, list[str]]:
    return row["question"], _right_first(row["options"], 0)


def _index(answer: Any, first: int = 0) -> int:
    """The position of the right option, from a number or its spelling; options are counted from `first`."""
    try:
        return int(answer) - first
    except (TypeError, ValueError):
        raise ValueError(f"the answer {answer!r} is not the number of an option") from None


def _right_first(options: Any, right: int) -> list[str]:
    """The right option and then the wrong ones; a wrong one that reads like the right one is not listed."""
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"the options must be a list of texts, not {options!r}")
    if not 0 <= right < len(options):
        raise ValueError(f"the answer is option {right} (from 0), but there are {len(options)} options")
    if not all(option.strip() for option in options):
        raise ValueError("an option is empty")
    wrong = [option for option in options if option != options[right]]
    if not wrong:
        raise ValueError("there is nothing to choose between: no option differs from the right one")
    return [options[right], *wrong]


_LANGGAME: dict[str, Any] = {
    "folder": "langgame",
    "kind": lambda row: kind_of(row["question"]),
    "trained_on": "langgame",
}

_CUTE: dict[str, Any] = {"folder": "cute", "kind": lambda row: row["task"], "trained_on": "cute"}


def _cute_test(*tasks: str) -> Source:
    return Source(COLUMNS, cute_question, **_CUTE, read=partial(read_cute, tasks))


BENCHMARKS = {
    "hellaswag": Source(("ctx", "endings", "label"), _hellaswag, "Rowan/hellaswag", split="validation"),
    "arc": Source(("question", "choices", "answerKey"), _arc, "allenai/ai2_arc", "ARC-Easy"),
    "mmlu": Source(("question", "choices", "answer"), _mmlu, "cais/mmlu", "all"),
    "winograd": Source(
        ("sentence", "option1", "option2", "answer"),
        _winograd,
        "allenai/winogrande",
        "winogrande_xs",
        split="validation",
    ),
    "blimp": Source(("sentence_good", "sentence_bad"), _blimp, "WillHeld/blimp", split="train", percent=(10, 60)),
    "langgame-train": Source(("question", "options"), _langgame, split="train", **_LANGGAME),
    "langgame-val": Source(("question", "options"), _langgame, split="val", **_LANGGAME),
    "cute-train": Source(("question", "options", "task"), _langgame, split="train", **_CUTE),
    "cute-val": Source(("question", "options", "task"), _langgame, split="val", **_CUTE),
    "cute": _cute_test(*TASKS),
    **{f"cute-{task}": _cute_test(task) for task in TASKS},
}


# ------------------------------------------------------------------------------------------- loading


def load_benchmark(name: str, data_dir: Path, num_samples: int | None = None) -> Benchmark:
    """The benchmark `name` or `name=path`: all of its questions, or always the same sample of `num_samples`.

    A larger sample contains a smaller one. Raises UserError for an unknown name, for rows that can't be had, and for
    a row that makes no question (those that are not asked are not looked at).
    """
    name, _, path = name.partition("=")
    if name not in BENCHMARKS:
        raise UserError(
            f"unknown benchmark {name!r}{did_you_mean(name, list(BENCHMARKS))}",
            fix=f"there are: {', '.join(BENCHMARKS)}",
        )
    dataset, asked = _rows(name, Path(path).expanduser() if path else None, data_dir)
    order = stream(SAMPLE_SEED, f"questions/{name}").permutation(len(asked))
    questions = [_question(name, dataset, asked[i]) for i in sorted(order[:num_samples].tolist())]
    return Benchmark(name, questions)


def _rows(name: str, path: Path | None, data_dir: Path) -> "tuple[datasets.Dataset, range]":
    """A dataset and those of its rows that are the benchmark's."""
    source, what = BENCHMARKS[name], f"benchmark {name}"
    made = dataset_dir(data_dir) / (source.folder or name)
    if source.read is not None:
        dataset = source.read(what, path)
    elif path is not None or made.is_dir():
        dataset = read_path(what, path or made, source.split)
    elif source.hub:
        dataset = read_hub(what, source.hub, source.config, source.split)
    else:
        maker = f"stochastok make-{source.folder}"
        raise UserError(f"{what}: there is no {made}", fix=f"run {maker} first, or give --data-dir")
    require_columns(what, dataset, source.columns)
    first, last = (0, 100) if path is not None and path.is_file() else source.percent
    asked = range(len(dataset) * first // 100, len(dataset) * last // 100)
    if not asked:
        raise UserError(f"{what} has no rows to ask")
    return dataset, asked


def _question(name: str, dataset: "datasets.Dataset", index: int) -> Question:
    row, source = dataset[index], BENCHMARKS[name]
    try:
        prefix, options = source.to_question(row)
        if not isinstance(prefix, str):
            raise ValueError(f"the question is no text: {prefix!r}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"values of the wrong kind: {str(row)[:200]}"
        raise UserError(f"benchmark {name}, row {index + 1}: {reason}") from None
    return Question(prefix, options, index + 1, source.kind(row))

"""Multiple-choice benchmarks: where their rows come from, and how a row becomes a question.

A benchmark is named as `name` (`<data_dir>/data_as_datasets/<name>` where that exists, else the Hub dataset below) or
as `name=path`, with a local file or folder of the same columns. A folder replaces the Hub dataset: the same split and
the same part of its rows are used. A file is used whole.

NumPy is imported only to read questions: the names of the benchmarks are needed without it.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stochastok_cli.data.folders import dataset_dir
from stochastok_cli.data.recipes.base import RECIPES
from stochastok_cli.data.recipes.cute_tasks import TASKS
from stochastok_cli.errors import Notice, UserError, did_you_mean, short_json, shorten
from stochastok_cli.evaluation.base import benchmark_name
from stochastok_cli.evaluation.cute import COLUMNS, cute_question, read_cute
from stochastok_cli.manifest import read_manifest
from stochastok_cli.paths import expand_home

if TYPE_CHECKING:
    import datasets

SAMPLE_SEED = 0  # fixed, so that every run and every checkpoint is evaluated on the same questions
Row = dict[str, Any]


class Question(NamedTuple):
    """One question.

    Attributes:
        prefix: What the options follow; may be empty.
        options: The texts to choose from, the correct one first.
        row: The row of the dataset, counted from 1.
        kind: The kind of question, where the benchmark distinguishes kinds.
    """

    prefix: str
    options: list[str]
    row: int
    kind: str = ""


@dataclass(frozen=True)
class Benchmark:
    """The questions of a benchmark.

    Attributes:
        name: The benchmark's name.
        questions: In the order of its dataset.
        encode_whole: See `BenchmarkSpec`.
        trained_on: See `BenchmarkSpec`.
    """

    name: str
    questions: list[Question]
    encode_whole: bool = False
    trained_on: str | None = None


@dataclass(frozen=True)
class BenchmarkSpec:
    """One multiple-choice benchmark.

    Attributes:
        columns: The columns of its rows.
        to_question: Turns a row into a prefix and its options, the correct one first; raises ValueError saying what is
            wrong with a row.
        hub_id: The dataset on the Hub; None for one that this program makes.
        subset: The configuration of the dataset on the Hub.
        split: The split that is evaluated.
        percent: The part of the split's rows, in their order.
        folder: Its folder under `data_as_datasets`, where that is not the benchmark's name.
        kind: The kind of question of a row; None where there are no kinds.
        trained_on: The folder under `data_as_memmaps` that trains such questions, if there is one.
        read: Reads the rows, for datasets with a layout of their own.
        encode_whole: Whether prefix and option are encoded as one text, as lm-evaluation-harness does; else each on its
            own, as the questions and answers of training data are.
    """

    columns: tuple[str, ...]
    to_question: Callable[[Row], tuple[str, list[str]]]
    hub_id: str | None = None
    subset: str | None = None
    split: str = "test"
    percent: tuple[int, int] = (0, 100)
    folder: str | None = None
    kind: Callable[[Row], str] | None = None
    trained_on: str | None = None
    read: "Callable[[str, Path | None], datasets.Dataset] | None" = None
    encode_whole: bool = False


# ------------------------------------------------------------------------------------------- rows to questions


class NothingToChoose(ValueError):
    """A row all of whose options are equal: published benchmarks have a few."""

    def __init__(self) -> None:
        super().__init__("there is nothing to choose between: no option differs from the right one")


def _hellaswag(row: Row) -> tuple[str, list[str]]:
    return row["ctx"], _correct_first(row["endings"], _index(row["label"]))


def _arc(row: Row) -> tuple[str, list[str]]:
    # Most keys are letters, some are digits; the labels say which option has which key.
    labels, key = [str(label) for label in row["choices"]["label"]], str(row["answerKey"])
    if key not in labels:
        raise ValueError(f"answerKey {key!r} is none of {labels}")
    return row["question"], _correct_first(row["choices"]["text"], labels.index(key))


def _mmlu(row: Row) -> tuple[str, list[str]]:
    options = _correct_first(row["choices"], _index(row["answer"]))
    # The list of choices belongs to the prefix, not to each option: the scores differ by a constant for the question,
    # and a long list can be truncated from the left where an option can't.
    return f"{row['question']} Options: {';'.join(row['choices'])}\n Answer:", options


def _winograd(row: Row) -> tuple[str, list[str]]:
    if row["sentence"].count("_") != 1:
        raise ValueError(f"the sentence must have one '_' to be filled: {row['sentence']!r}")
    options = _correct_first([row["option1"], row["option2"]], _index(row["answer"], first=1))
    return "", [row["sentence"].replace("_", option) for option in options]


def _blimp(row: Row) -> tuple[str, list[str]]:
    return "", _correct_first([row["sentence_good"], row["sentence_bad"]], 0)


def _question_and_options(row: Row) -> tuple[str, list[str]]:
    return row["question"], _correct_first(row["options"], 0)


def _index(answer: Any, first: int = 0) -> int:
    """The position of the correct option, from a number or its text; options are counted from `first`."""
    try:
        return int(answer) - first
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"the answer {answer!r} is not the number of an option") from None


def _correct_first(options: Any, correct: int) -> list[str]:
    """The correct option and then the wrong ones, without those that are equal to the correct one."""
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"the options must be a list of texts, not {options!r}")
    if not 0 <= correct < len(options):
        raise ValueError(f"the answer is option {correct} (from 0), but there are {len(options)} options")
    if not all(option.strip() for option in options):
        raise ValueError("an option is empty")
    wrong = [option for option in options if option != options[correct]]
    if not wrong:
        raise NothingToChoose
    return [options[correct], *wrong]


# ------------------------------------------------------------------------------------------- the table


def _cute_test(*tasks: str) -> BenchmarkSpec:
    return BenchmarkSpec(
        COLUMNS, cute_question, folder="cute", kind=_task, trained_on="cute", read=partial(read_cute, tasks)
    )


def _task(row: Row) -> str:
    return row["task"]


_PUBLISHED = {
    "hellaswag": BenchmarkSpec(("ctx", "endings", "label"), _hellaswag, "Rowan/hellaswag", split="validation"),
    "arc": BenchmarkSpec(("question", "choices", "answerKey"), _arc, "allenai/ai2_arc", "ARC-Easy"),
    "mmlu": BenchmarkSpec(("question", "choices", "answer"), _mmlu, "cais/mmlu", "all"),
    "winograd": BenchmarkSpec(
        ("sentence", "option1", "option2", "answer"),
        _winograd,
        "allenai/winogrande",
        "winogrande_xs",
        split="validation",
    ),
    "blimp": BenchmarkSpec(
        ("sentence_good", "sentence_bad"), _blimp, "WillHeld/blimp", split="train", percent=(10, 60)
    ),
}
_CUTE_TESTS = {"cute": _cute_test(*TASKS), **{f"cute-{task}": _cute_test(task) for task in TASKS}}


def benchmark_specs() -> dict[str, BenchmarkSpec]:
    """All benchmarks by name: those on the Hub, and the splits of what the recipes make (`langgame-val`)."""
    made = {
        f"{recipe.name}-{benchmark.split}": BenchmarkSpec(
            benchmark.columns,
            _question_and_options,
            split=benchmark.split,
            folder=recipe.name,
            kind=benchmark.kind,
            trained_on=recipe.name,
        )
        for recipe in RECIPES.values()
        for benchmark in recipe.benchmarks
    }
    published = {name: replace(spec, encode_whole=True) for name, spec in _PUBLISHED.items()}
    return {**published, **made, **_CUTE_TESTS}


def find_spec(name: str, data_dir: Path) -> BenchmarkSpec:
    """The benchmark of a name: one of `benchmark_specs`, or a split of what a recipe made under another name.

    Raises UserError if there is neither.
    """
    specs = benchmark_specs()
    if (spec := _known_spec(name, data_dir)) is not None:
        return spec
    commands = " or ".join(recipe.command for recipe in RECIPES.values() if recipe.benchmarks)
    raise UserError(
        f"unknown benchmark {name!r}{did_you_mean(name, list(specs))}",
        fix=f"there are: {', '.join(specs)}, and in {data_dir} NAME-train and NAME-val after {commands} --name "
        "NAME; questions of your own have any other name: NAME=FILE",
    )


def is_known(name: str, data_dir: Path) -> bool:
    """Whether `find_spec` has a benchmark of this name."""
    return _known_spec(name, data_dir) is not None


def _known_spec(name: str, data_dir: Path) -> BenchmarkSpec | None:
    specs = benchmark_specs()
    if name in specs:
        return specs[name]
    folder, _, split = name.rpartition("-")
    manifest = read_manifest(dataset_dir(data_dir) / folder) if folder and "/" not in folder else None
    if manifest and f"{manifest.recipe}-{split}" in specs:
        return replace(specs[f"{manifest.recipe}-{split}"], folder=folder, trained_on=folder)
    return None


def require_benchmark_name(name: str) -> None:
    """Raises UserError for what can't be the name of one's own questions, as keys of metrics have it."""
    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{name!r} can't be the name of a benchmark", fix="use letters, digits, '_', '-' and '.'")


def own_spec(name: str, source: str, language: str | None = None) -> BenchmarkSpec:
    """The benchmark of a name that is none of `benchmark_specs`: the questions of a file, a folder or the Hub.

    Args:
        name: What metrics call it.
        source: See `question_files.read_source`.
        language: See `question_rows.read_question_rows`.
    """
    require_benchmark_name(name)

    def read(description: str, _: Path | None) -> "datasets.Dataset":
        import datasets

        from stochastok_cli.evaluation.question_files import read_source
        from stochastok_cli.evaluation.question_rows import read_question_rows

        dataset = read_source(description, source, "test")
        rows = read_question_rows(description, dataset, language=language, needs_options=True)
        columns = ("question", "options", "kind")
        return datasets.Dataset.from_dict({column: [getattr(row, column) for row in rows] for column in columns})

    return BenchmarkSpec(
        ("question", "options"), _question_and_options, kind=lambda row: row["kind"], read=read, encode_whole=True
    )


def has_kinds(benchmark: str) -> bool:
    """Whether a benchmark (`name` or `name=path`) distinguishes kinds of question; an unknown one may.

    >>> has_kinds("langgame-val"), has_kinds("arc=rows.jsonl")
    (True, False)
    """
    spec = benchmark_specs().get(benchmark_name(benchmark))
    return spec is None or spec.kind is not None


# ------------------------------------------------------------------------------------------- loading


def find_absent(name: str, data_dir: Path) -> Path | None:
    """The folder or file of the benchmark `name` or `name=path`, if it is not there. Nothing of the Hub is looked for.

    Raises UserError for an unknown name.
    """
    name, _, path = name.partition("=")
    if path and not is_known(name, data_dir):
        from stochastok_cli.evaluation.question_files import absent_source

        require_benchmark_name(name)
        return absent_source(path)
    spec = find_spec(name, data_dir)
    if path:
        source = Path(expand_home(path))
    elif spec.read is not None or spec.hub_id:
        return None
    else:
        source = dataset_dir(data_dir) / (spec.folder or name)
    return None if source.exists() else source


def load_benchmark(
    name: str, data_dir: Path, num_samples: int | None = None, *, language: str | None = None
) -> Benchmark:
    """The benchmark `name` or `name=path`: all of its questions, or always the same sample of `num_samples`.

    A larger sample contains a smaller one. Rows all of whose options are equal are left out, with a notice that counts
    them. Raises UserError for an unknown name, for rows that cannot be loaded, and for a sampled row that is not a
    valid question.
    """
    from stochastok_cli.random_streams import stream

    name, _, path = name.partition("=")
    spec = own_spec(name, path, language) if path and not is_known(name, data_dir) else find_spec(name, data_dir)
    dataset, rows = _rows(name, spec, Path(expand_home(path)) if path else None, data_dir)
    order = stream(SAMPLE_SEED, f"questions/{name}").permutation(len(rows)).tolist()
    missing = len(rows) if num_samples is None else num_samples
    questions: list[Question] = []
    equal: list[int] = []  # rows all of whose options are equal
    while missing and order:  # one row more for each that is left out
        drawn, order = order[:missing], order[missing:]
        for i in drawn:
            try:
                questions.append(_question(name, spec, dataset, rows[i]))
            except NothingToChoose:
                equal.append(rows[i] + 1)
        missing = 0 if num_samples is None else num_samples - len(questions)
    if not questions:
        raise UserError(f"benchmark {name}, row {min(equal)}: {NothingToChoose()}")
    if equal:
        text = f"benchmark {name}: rows left out, because all of their options are equal: {len(equal)}"
        text += f" (the first is row {min(equal)})"
        warnings.warn(text, Notice, stacklevel=2)
    return Benchmark(name, sorted(questions, key=attrgetter("row")), spec.encode_whole, spec.trained_on)


def _rows(name: str, spec: BenchmarkSpec, path: Path | None, data_dir: Path) -> "tuple[datasets.Dataset, range]":
    """A dataset and those of its rows that belong to the benchmark."""
    from stochastok_cli.evaluation.question_files import read_hub, read_path, require_columns

    description = f"benchmark {name}"
    folder = dataset_dir(data_dir) / (spec.folder or name)
    if spec.read is not None:
        dataset = spec.read(description, path)
    elif path is not None or folder.is_dir():
        dataset = read_path(description, path or folder, spec.split, is_default=True)
    elif spec.hub_id:
        dataset = read_hub(description, spec.hub_id, spec.subset, spec.split)
    else:
        command = f"stochastok {RECIPES[folder.name].command}"
        raise UserError(f"{description}: there is no {folder}", fix=f"run {command} first, or give --data-dir")
    require_columns(description, dataset, spec.columns)
    first, last = (0, 100) if path is not None and path.is_file() else spec.percent
    rows = range(len(dataset) * first // 100, len(dataset) * last // 100)
    if not rows:
        raise UserError(f"{description} has no rows to ask")
    return dataset, rows


def _question(name: str, spec: BenchmarkSpec, dataset: "datasets.Dataset", index: int) -> Question:
    row = dataset[index]
    try:
        prefix, options = spec.to_question(row)
        if not isinstance(prefix, str):
            raise ValueError(f"the question is no text: {short_json(prefix)}")
    except NothingToChoose:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"values of the wrong kind: {shorten(str(row))}"
        raise UserError(f"benchmark {name}, row {index + 1}: {reason}") from None
    return Question(prefix, options, index + 1, "" if spec.kind is None else spec.kind(row))

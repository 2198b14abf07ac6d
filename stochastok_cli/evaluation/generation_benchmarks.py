"""Questions that are answered by generated text: where their rows come from, and the examples before each question.

A benchmark is one of `generation_names`, a split of what a recipe made under another name (`easy-val`), or
`name=source` with questions of one's own (see `question_rows`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from stochastok_cli.data.folders import dataset_dir
from stochastok_cli.data.recipes.addition import ADDITION
from stochastok_cli.errors import UserError, did_you_mean
from stochastok_cli.evaluation import benchmarks, cute_prompts
from stochastok_cli.evaluation.benchmarks import (
    SAMPLE_SEED,
    Benchmark,
    benchmark_specs,
    is_known,
    load_benchmark,
    require_benchmark_name,
)
from stochastok_cli.evaluation.cute import find_inputs
from stochastok_cli.evaluation.text_match import Normalization
from stochastok_cli.manifest import read_manifest
from stochastok_cli.paths import expand_home

Pool = Callable[[], Sequence["GenerationQuestion"]]
"""Reads the questions that examples are drawn from."""
SPLITS = ("train", "val")
_ADDITION_ALIAS = "addition"
_BETWEEN_EXAMPLES = "\n\n"  # as in lm-evaluation-harness
_SPARE_DRAWS = 8  # examples drawn besides those that are needed, in place of ones that ask the question itself


@dataclass(frozen=True)
class GenerationQuestion:
    """One question.

    Attributes:
        question: The question itself.
        answers: The right answers.
        row: The row of the dataset, counted from 1.
        kind: The kind of question; "" where there are no kinds.
        examples: What comes before the question: other questions with their answers.
    """

    question: str
    answers: tuple[str, ...]
    row: int
    kind: str = ""
    examples: str = ""

    @property
    def prompt(self) -> str:
        """The examples and the question."""
        return self.examples + self.question


@dataclass(frozen=True)
class GenerationBenchmark:
    """The questions of a benchmark and how their answers are read.

    Attributes:
        name: The benchmark's name.
        questions: In the order of its dataset.
        until: Texts that end an answer; None for those that the evaluator's options name.
        max_new_tokens: The most ids of an answer; None for as many as the longest right answer may need.
        answer_begins: What follows a question, and the chat template's header of the answer, where there is one.
        separator: What is between the question and the answer of an example.
        extract: Takes the answer out of the generated text.
        normalization_of: How the answers to questions of some kinds are compared besides the evaluator's options.
        examples_are_given: Whether the prompts hold examples already.
        trained_on: See `BenchmarkSpec`.
        note: A sentence that a reader of the answers needs.
    """

    name: str
    questions: Sequence[GenerationQuestion]
    until: tuple[str, ...] | None = None
    max_new_tokens: int | None = None
    answer_begins: str = ""
    separator: str = " "
    extract: Callable[[str], str] = str
    normalization_of: Mapping[str, Normalization] = field(default_factory=dict)
    examples_are_given: bool = False
    trained_on: str | None = None
    note: str = ""


def generation_names() -> list[str]:
    """The benchmarks that have a name: CUTE and its tasks, and the splits of what the recipes make."""
    made = [name for name, spec in benchmark_specs().items() if _is_made(name) and spec.read is None]
    return [
        "cute",
        *(f"cute-{task}" for task in cute_prompts.ALL_TASKS),
        *made,
        *(f"{_ADDITION_ALIAS}-{split}" for split in SPLITS),
    ]


def _is_made(name: str) -> bool:
    return benchmark_specs()[name].hub_id is None


def load_generation_benchmark(
    name: str,
    data_dir: Path,
    num_samples: int | None = None,
    *,
    num_fewshot: int | None = None,
    fewshot_split: str | None = None,
    language: str | None = None,
) -> GenerationBenchmark:
    """The benchmark `name` or `name=source`: all of its questions, or always the same sample of `num_samples`.

    Args:
        name: See the module.
        data_dir: The folder of all data.
        num_samples: A larger sample contains a smaller one.
        num_fewshot: Examples before each question. They are drawn from the questions to train on, or where there are
            none from the others of the benchmark; of the same kind, where there are kinds; always the same ones.
        fewshot_split: The split of one's own questions that examples are drawn from.
        language: See `question_rows.read_question_rows`.

    Raises:
        UserError: The name is unknown, rows can't be loaded or are not valid questions, or there are too few examples.
    """
    name, _, source = name.partition("=")
    benchmark, read_pool = _load(name, source, data_dir, language, fewshot_split)
    if not benchmark.questions:
        raise UserError(f"benchmark {name} has no rows to ask")
    if num_fewshot and benchmark.examples_are_given:
        raise UserError(f"--num-fewshot: the prompts of {name} have four examples already", fix="drop it")
    questions = _sample(name, benchmark.questions, num_samples)
    if num_fewshot:
        questions = _with_examples(name, questions, read_pool(), num_fewshot, benchmark.separator)
    return replace(benchmark, questions=questions)


def _load(
    name: str, source: str, data_dir: Path, language: str | None, fewshot_split: str | None
) -> tuple[GenerationBenchmark, Pool]:
    """A benchmark, and the questions to train on, or where it has none its own."""
    if tasks := _cute_tasks(name):
        return _cute(name, tasks, source), list
    if source:
        return _own(name, source, language, fewshot_split)
    if (folder := _addition_folder(name, data_dir)) is not None:
        return _addition(name, folder)
    if _is_known_and_made(name, data_dir):
        return _made(name, data_dir)
    raise _unknown(name, data_dir)


def _unknown(name: str, data_dir: Path) -> UserError:
    known = "is scored by its options only: see --evaluator mcq" if name in benchmark_specs() else "is unknown"
    return UserError(
        f"benchmark {name!r} {known}{did_you_mean(name, generation_names())}",
        fix=f"there are: {', '.join(generation_names())}, in {data_dir} NAME-train and NAME-val of what make-langgame, "
        "make-cute or make-addition made with --name NAME, and NAME=FILE with questions of your own",
    )


def find_absent(name: str, data_dir: Path) -> Path | None:
    """The folder or file of a benchmark, if it is not there. Nothing of the Hub is looked for.

    Raises UserError for an unknown name.
    """
    name, _, source = name.partition("=")
    if _cute_tasks(name):
        path = Path(expand_home(source))
        return path if source and not path.exists() else None
    if source:
        from stochastok_cli.evaluation.question_files import absent_source

        require_benchmark_name(name)
        return absent_source(source)
    if (folder := _addition_folder(name, data_dir)) is not None:
        return None if folder.is_dir() else folder
    if _is_known_and_made(name, data_dir):
        return benchmarks.find_absent(name, data_dir)
    raise _unknown(name, data_dir)


def _cute_tasks(name: str) -> tuple[str, ...]:
    """The tasks of CUTE that a benchmark has; none if it is another benchmark."""
    task = name.removeprefix("cute-")
    if name == "cute":
        return tuple(cute_prompts.ALL_TASKS)
    return (task,) if task in cute_prompts.ALL_TASKS and name != task else ()


def _is_known_and_made(name: str, data_dir: Path) -> bool:
    return is_known(name, data_dir) and (name not in benchmark_specs() or _is_made(name))


def _cute(name: str, tasks: Sequence[str], source: str) -> GenerationBenchmark:
    path = Path(expand_home(source)) if source else None
    # The authors' code compares the answers with their labels as they are. The prompts on the Hub are not those: they
    # have spaces within the quotation marks.
    as_they_are = path is not None and find_inputs(path, tasks) is not None
    questions = [
        GenerationQuestion(
            row["prompt"], (row["answer"] if as_they_are else row["answer"].strip(' "'),), i, row["task"]
        )
        for i, row in enumerate(cute_prompts.read_cute_prompts(tasks, f"benchmark {name}", path), 1)
    ]
    return GenerationBenchmark(
        name,
        questions,
        until=(),
        max_new_tokens=cute_prompts.MAX_NEW_TOKENS,
        answer_begins=cute_prompts.ANSWER_BEGINS,
        extract=cute_prompts.extract_answer,
        normalization_of={
            task: Normalization(ignore_case=task in cute_prompts.WORD_TASKS, keep_white_space=as_they_are)
            for task in tasks
        },
        examples_are_given=True,
    )


def _own(name: str, source: str, language: str | None, fewshot_split: str | None) -> tuple[GenerationBenchmark, Pool]:
    from stochastok_cli.evaluation.question_files import read_source, with_split
    from stochastok_cli.evaluation.question_rows import read_question_rows

    description = f"benchmark {name}"

    def read(source: str) -> list[GenerationQuestion]:
        rows = read_question_rows(description, read_source(description, source, "test"), language=language)
        return [
            GenerationQuestion(row.question, tuple(text.strip() for text in row.answers), i, row.kind)
            for i, row in enumerate(rows, 1)
        ]

    require_benchmark_name(name)
    questions = read(source)
    examples = None if fewshot_split is None else with_split(description, source, fewshot_split)
    return GenerationBenchmark(name, questions), lambda: questions if examples is None else read(examples)


def _addition_folder(name: str, data_dir: Path) -> Path | None:
    """The folder of addition questions that a benchmark is a split of."""
    folder, _, split = name.rpartition("-")
    if split not in SPLITS or not folder or "/" in folder:
        return None
    if folder == _ADDITION_ALIAS:
        return dataset_dir(data_dir) / ADDITION.name
    path = dataset_dir(data_dir) / folder
    manifest = read_manifest(path)
    return path if manifest and manifest.recipe == ADDITION.name else None


def _addition(name: str, folder: Path) -> tuple[GenerationBenchmark, Pool]:
    """Addition as in its training data: `$72+87=951`, the last digit first."""
    from stochastok_cli.evaluation.evaluators.math_generation import ANSWERS_NOTE, STOP
    from stochastok_cli.evaluation.question_files import read_path, require_columns

    def read(split: str) -> list[GenerationQuestion]:
        description = f"benchmark {name}"
        dataset = read_path(description, folder, split)
        require_columns(description, dataset, ("question", "answer"))
        pairs = zip(dataset["question"][:], dataset["answer"][:], strict=True)
        return [GenerationQuestion(question, (answer.strip(),), i) for i, (question, answer) in enumerate(pairs, 1)]

    if not folder.is_dir():
        raise UserError(
            f"benchmark {name}: there is no {folder}", fix="run stochastok make-addition first, or give --data-dir"
        )
    benchmark = GenerationBenchmark(name, read(name.rpartition("-")[2]), until=(STOP,), separator="", note=ANSWERS_NOTE)
    return benchmark, lambda: read("train")


def _made(name: str, data_dir: Path) -> tuple[GenerationBenchmark, Pool]:
    """Generated questions of multiple choice, answered without their options."""

    def questions(benchmark: Benchmark) -> list[GenerationQuestion]:
        return [
            GenerationQuestion(one.prefix, (one.options[0].strip(),), one.row, one.kind) for one in benchmark.questions
        ]

    benchmark = load_benchmark(name, data_dir)
    made = GenerationBenchmark(name, questions(benchmark), trained_on=benchmark.trained_on)
    return made, lambda: questions(load_benchmark(f"{name.rpartition('-')[0]}-train", data_dir))


# ------------------------------------------------------------------------------------------- samples and examples


def _sample(
    name: str, questions: Sequence[GenerationQuestion], num_samples: int | None
) -> Sequence[GenerationQuestion]:
    from stochastok_cli.random_streams import stream

    if num_samples is None or num_samples >= len(questions):
        return questions
    order = stream(SAMPLE_SEED, f"questions/{name}").permutation(len(questions))
    return [questions[i] for i in sorted(order[:num_samples].tolist())]


def _with_examples(
    name: str,
    questions: Sequence[GenerationQuestion],
    pool: Sequence[GenerationQuestion],
    num_fewshot: int,
    separator: str,
) -> list[GenerationQuestion]:
    by_kind: dict[str, list[GenerationQuestion]] = {}
    for one in pool:
        by_kind.setdefault(one.kind, []).append(one)
    draw = partial(_draw_examples, name=name, num_fewshot=num_fewshot)
    result = []
    for question in questions:
        examples = draw(question, by_kind.get(question.kind, []))
        texts = [f"{one.question.rstrip()}{separator}{one.answers[0]}{_BETWEEN_EXAMPLES}" for one in examples]
        result.append(replace(question, examples="".join(texts)))
    return result


def _draw_examples(
    question: GenerationQuestion, pool: Sequence[GenerationQuestion], *, name: str, num_fewshot: int
) -> list[GenerationQuestion]:
    """Examples for a question, which depend on its row alone; never the question itself."""
    from stochastok_cli.random_streams import stream

    for draws in (min(num_fewshot + _SPARE_DRAWS, len(pool)), len(pool)):
        random = stream(SAMPLE_SEED, f"fewshot/{name}", question.row)
        drawn = random.choice(len(pool), draws, replace=False).tolist() if pool else []
        others = [pool[i] for i in drawn if pool[i].question != question.question]
        if len(others) >= num_fewshot:
            return others[:num_fewshot]
    of_kind = f" of the kind {question.kind}" if question.kind else ""
    raise UserError(
        f"--num-fewshot {num_fewshot}: benchmark {name} has {len(others)} other questions{of_kind}",
        fix="give a smaller number",
    )

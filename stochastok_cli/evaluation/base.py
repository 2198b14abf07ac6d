"""The interface of evaluators: `Evaluator`, its `Option`s and its output, and the registry.

This module imports neither numpy nor torch, so that the command line can list evaluators and their options quickly.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.results import Curve, Metric

if TYPE_CHECKING:
    from stochastok_cli.evaluation.answers import Answers, ChangedAnswers
    from stochastok_cli.evaluation.scoring import LM
    from stochastok_cli.progress import ProgressCallback
    from stochastok_cli.tokenization.vocabulary import Vocabulary

BATCH_TOKENS = 16384
"""Tokens, padding included, that go through the model at once: about 2 GB for the shipped configuration on a GPU."""

CANONICAL = "canonical"
"""What `--tokenization` calls the tokenization that a tokenizer itself gives a text."""
MOST_SAMPLES = 100_000
"""Texts that `generate` samples in each tokenization; prompts and results are kept in memory."""

Direction = Literal["higher", "lower"]
"""Which values of a metric are better."""


@dataclass(frozen=True)
class Option:
    """How a field of an evaluator is given on the command line.

    Attributes:
        help: A phrase for the option's help text.
        flag: The option's name; made of the field's name where None.
        metavar: What the help calls the option's value.
        min: The smallest value, for whole numbers.
        show_default: What the help calls the default.
        in_training: Whether it can be given in `trainer.eval`: a run records metrics and nothing else.
        choices: The possible values, which the shell completes.
        repeatable: Whether the option is given once for each value, which may have commas.
    """

    help: str
    flag: str | None = None
    metavar: str | None = None
    min: int | None = None
    show_default: str | None = None
    in_training: bool = True
    choices: tuple[str, ...] = ()
    repeatable: bool = False


def option(default: Any, help: str, **more: Any) -> Any:
    """A field of an `Evaluator` that `stochastok eval` offers as an option; `more` are the fields of `Option`."""
    return field(default=default, metadata={"option": Option(help, **more)})


@dataclass
class EvaluatorOutput:
    """The results of a loaded evaluator for one model: as in `EvalResult`, but of these benchmarks alone."""

    metrics: list[Metric] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    completions: list[dict[str, Any]] = field(default_factory=list)
    answers: "list[Answers]" = field(default_factory=list)
    changed_answers: "list[ChangedAnswers]" = field(default_factory=list)
    unlogged: Sequence[str] = ()

    @property
    def values(self) -> dict[str, float]:
        """The value of each metric by its key."""
        return {metric.key: metric.value for metric in self.metrics}

    def __add__(self, other: "EvaluatorOutput") -> "EvaluatorOutput":
        return EvaluatorOutput(
            self.metrics + other.metrics,
            self.curves + other.curves,
            self.completions + other.completions,
            self.answers + other.answers,
            self.changed_answers + other.changed_answers,
            [*self.unlogged, *other.unlogged],
        )


@dataclass(frozen=True)
class LoadedEvaluator:
    """An evaluator on one benchmark, with all data loaded and tokenized.

    Attributes:
        sample_counts: How many questions (or tokens, or words) each group of its metrics rests on, by `metric_group`.
        run: Scores a model.
    """

    sample_counts: dict[str, int]
    run: "Callable[[LM], EvaluatorOutput]"


@dataclass(frozen=True)
class Evaluator(ABC):
    """One way to measure a model. A subclass is a frozen dataclass whose fields are its options (see `option`).

    The fields decide what the command line accepts: an option that is not a field of the chosen evaluator is refused.
    A subclass in a module of `stochastok_cli.evaluation.evaluators` that is decorated with `register` is offered by
    `stochastok eval --evaluator`, by `trainer.eval` and by `stochastok_cli.evaluate`. Its module must import numpy,
    torch and datasets only inside its functions.

    Attributes:
        name: What `--evaluator` and metric names call it.
        title: The heading of its tables.
        description: A phrase for the help of `--evaluator`.
        unit: What `Metric.n` counts.
        has_outcomes: Whether some metrics are means over questions, which can be compared in pairs.
        same_questions: Whether models with different tokenizers are asked the same questions.
        has_answers: Whether its results have the answers to each question (`EvalResult.answers`).
        parts_table: The title of a table with a row for each part of `{benchmark}`; `{parts}` says whether these are
            parts or other tokenizations. "" where parts are columns of the benchmark's table.
        meanings: What each metric is, by `Metric.name`, for the lines below its tables; names that explain themselves
            are left out.
        part_meanings: What some parts of a benchmark are, by `Metric.part`, for the same lines.
        directions: Which values of each metric are better, by `Metric.name`; None where neither more nor less is.
        accuracies: The metrics that are shares of right answers, from 0 to 1, which plots draw.
        main_metrics: Those that training prints of each benchmark; all of them are in its `metrics.jsonl`.
        in_training: Whether it can be given in `trainer.eval`, which evaluates a model that has no files yet.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    unit: ClassVar[str] = "questions"
    has_outcomes: ClassVar[bool] = True
    same_questions: ClassVar[bool] = True
    has_answers: ClassVar[bool] = False
    parts_table: ClassVar[str] = ""
    meanings: ClassVar[Mapping[str, str]] = {}
    part_meanings: ClassVar[Mapping[str, str]] = {}
    directions: ClassVar[Mapping[str, Direction | None]] = {"accuracy": "higher", "exact_match": "higher"}
    accuracies: ClassVar[Sequence[str]] = ("accuracy", "exact_match")
    main_metrics: ClassVar[Sequence[str]] = ("accuracy", "exact_match")
    in_training: ClassVar[bool] = True

    @classmethod
    def options(cls) -> dict[str, Option]:
        """The options by the name of their field."""
        options = {f.name: f.metadata["option"] for f in dataclasses.fields(cls) if "option" in f.metadata}
        return {name: replace(one, flag=one.flag or f"--{name.replace('_', '-')}") for name, one in options.items()}

    @classmethod
    def explained(cls, names: Collection[str]) -> dict[str, str]:
        """The meanings of those of the metrics `names` that need an explanation."""
        return {name: meaning for name, meaning in cls.meanings.items() if name in names}

    @property
    def reads_model_files(self) -> bool:
        """Whether what it loads depends on more of a model than its vocabulary and context window.

        That is its chat template, or its generation settings.
        """
        return False

    @classmethod
    def benchmarks_hint(cls) -> str:
        """What the error for a missing `benchmarks` adds, where the evaluator has that option."""
        return ""

    def check(self) -> None:
        """Raises UserError for options that do not fit together. Called before anything is loaded."""
        for name, one in self.options().items():
            value = getattr(self, name)
            if one.min is not None and value is not None and value < one.min:
                raise UserError(f"{one.flag} = {value} must be at least {one.min}")
        benchmarks = getattr(self, "benchmarks", None)
        if benchmarks is not None:
            if twice := duplicates(benchmark_name(entry) for entry in benchmarks):
                raise UserError(
                    f"--benchmarks names {', '.join(twice)} twice", fix="one result has room under that name"
                )
            if not benchmarks:
                raise UserError(f"--evaluator {self.name} needs --benchmarks", fix=self.benchmarks_hint())

    def absent_data(self, data_dir: Path) -> "list[Path]":
        """The folders and files that it reads and that are not there. Nothing of the Hub is looked for.

        Raises UserError for what has no such name at all.
        """
        return []

    def check_models(self, vocabularies: "Sequence[Vocabulary]") -> None:  # noqa: B027 (most allow all models)
        """Raises UserError for options that the models that are evaluated together do not allow."""

    @abstractmethod
    def load(
        self, vocabulary: "Vocabulary", context_window: int, data_dir: Path, progress: "ProgressCallback"
    ) -> list[LoadedEvaluator]:
        """Loads, checks and tokenizes everything for models of a vocabulary and a context window.

        Raises UserError for whatever would go wrong later, so that nothing fails after a model has been loaded.
        """


EVALUATORS: dict[str, type[Evaluator]] = {}
"""The evaluators by name; filled when `stochastok_cli.evaluation.evaluators` is imported."""


def register(evaluator: type[Evaluator]) -> type[Evaluator]:
    """Adds an evaluator to the registry."""
    EVALUATORS[evaluator.name] = evaluator
    return evaluator


def benchmark_name(entry: str) -> str:
    """The benchmark that `NAME` or `NAME=PATH` evaluates.

    >>> benchmark_name("arc"), benchmark_name("arc=questions.jsonl")
    ('arc', 'arc')
    """
    return entry.partition("=")[0]


def duplicates(names: Iterable[str]) -> list[str]:
    """The names that occur more than once.

    >>> duplicates(["arc", "mmlu", "arc"])
    ['arc']
    """
    return [name for name, count in Counter(names).items() if count > 1]

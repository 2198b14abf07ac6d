"""Example questions of a report, with each model's answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stochastok_cli.evaluation.answers import Answers
from stochastok_cli.evaluation.results import EvalResult
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.methods import tokenization_text

LIMITS = {"all": 2, "some": 4, "none": 2}
"""How many questions of a benchmark are shown that all models answer right, some, or none."""
FEW_LIMITS = {"all": 1, "some": 2, "none": 1}
"""The same where there are many benchmarks."""
MANY = 3
"""More benchmarks than these are many."""


@dataclass(frozen=True)
class ModelAnswer:
    """One model's answer to a question.

    Attributes:
        model: The model's place among the checkpoints of the report.
        label: What the report calls it.
        option: The place of the answer among the options; the right one is 0.
        probability: Of this option among all; None where the answer was generated.
    """

    model: int
    label: str
    option: int
    probability: float | None

    @property
    def is_correct(self) -> bool:
        """Whether it is right."""
        return self.option == 0


@dataclass(frozen=True)
class ExampleQuestion:
    """A question with the answers of all models.

    Attributes:
        row: As `Answers.row` has it.
        question: What stands before the answer; may be empty.
        options: The options, the right one first; where answers are generated, the right answer and what models wrote.
        answers: Those of the models.
    """

    row: int
    question: str
    options: Sequence[str]
    answers: Sequence[ModelAnswer]


@dataclass(frozen=True)
class QuestionExamples:
    """Some questions of a benchmark.

    Attributes:
        title: The benchmark.
        num_questions: How many it has.
        counts: How many of them all models answer right ("all"), some do, and none does.
        examples: Those that are shown, in their order.
        note: A sentence that a reader of the answers needs.
    """

    title: str
    num_questions: int
    counts: dict[str, int]
    examples: Sequence[ExampleQuestion]
    note: str


def question_examples(results: Sequence[EvalResult]) -> list[QuestionExamples]:
    """Some questions of each benchmark, drawn at random, but always the same ones.

    They are drawn apart from those that all, some and no models answer right, so that each kind is seen; `counts` says
    how many there are of each.
    """
    groups = list(_groups(results))
    limits = FEW_LIMITS if len(groups) > MANY else LIMITS
    return [_examples(group, limits) for group in groups]


def _groups(results: Sequence[EvalResult]) -> Iterator[list[tuple[int, str, Answers]]]:
    """The answers of all models to the same questions, each with the place and the label of its model."""
    groups: list[list[tuple[int, str, Answers]]] = []
    for model, result in enumerate(results):
        for answers in (one for one in result.answers if one.is_canonical):
            for group in groups:
                first = group[0][2]
                same = first.key == answers.key and first.questions == answers.questions
                if same and first.options == answers.options:
                    group.append((model, result.label, answers))
                    break
            else:
                groups.append([(model, result.label, answers)])
    yield from (group for group in groups if group[0][2].questions)


def _examples(group: Sequence[tuple[int, str, Answers]], limits: dict[str, int]) -> QuestionExamples:
    first = group[0][2]
    kinds: dict[str, list[int]] = {kind: [] for kind in limits}
    for i in range(len(first.questions)):
        right = [answers.is_correct[i] for _, _, answers in group]
        kinds["all" if all(right) else "some" if any(right) else "none"].append(i)
    chosen = []
    for kind, limit in limits.items():
        order = stream(0, f"report {first.key} {kind}").permutation(len(kinds[kind]))
        chosen += sorted(kinds[kind][place] for place in order[:limit].tolist())
    counts = {kind: len(members) for kind, members in kinds.items()}
    title = " ".join(filter(None, (first.benchmark, tokenization_text(first.part).replace("_", " "))))
    return QuestionExamples(title, len(first.questions), counts, [_example(group, i) for i in chosen], first.note)


def _example(group: Sequence[tuple[int, str, Answers]], i: int) -> ExampleQuestion:
    """Question `i`, counted from 0."""
    first = group[0][2]
    right, *others = first.options[i]
    wrong = [answers.answers[i] for _, _, answers in group if not answers.is_correct[i]]
    others = list(dict.fromkeys(wrong)) if first.probabilities is None else others
    shown = []
    for model, label, answers in group:
        option = 0 if answers.is_correct[i] else 1 + others.index(answers.answers[i])
        shown.append(ModelAnswer(model, label, option, answers.probabilities[i] if answers.probabilities else None))
    return ExampleQuestion(first.row(i), first.questions[i], [right, *others], shown)


def kind_text(example: ExampleQuestion) -> str:
    """How many models answer a question right, in words."""
    right = sum(answer.is_correct for answer in example.answers)
    match right, len(example.answers):
        case (0, 1):
            return "wrong"
        case (1, 1):
            return "right"
        case (0, _):
            return "right by none"
        case (2, 2):
            return "right by both"
        case (_, number) if right == number:
            return f"right by all {number}"
        case _:
            return f"right by {right} of {len(example.answers)}"


def counts_text(examples: QuestionExamples) -> str:
    """A sentence on how many questions the models answer right, and how the examples were drawn."""
    models = len(examples.examples[0].answers) if examples.examples else 0
    all_, some, none = (examples.counts[kind] for kind in ("all", "some", "none"))
    if models == 1:
        counts = f"{all_:,} right, {none:,} wrong"
    elif models == 2:
        counts = f"{all_:,} right by both, {some:,} by one, {none:,} by neither"
    else:
        counts = f"{all_:,} right by all {models} models, {some:,} by some, {none:,} by none"
    text = f"Of {examples.num_questions:,} questions: {counts}. These are drawn at random from each kind."
    return f"{text} {examples.note}".strip()

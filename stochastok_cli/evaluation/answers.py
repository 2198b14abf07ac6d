"""What a model answered to each question and to its other tokenizations, for reports and for files of samples.

This module imports neither numpy nor torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from stochastok_cli.evaluation.results import metric_group

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.evaluation.encoding import Ids


@dataclass(frozen=True)
class Answers:
    """A model's answers to the questions of a benchmark, in their order.

    Attributes:
        evaluator: As in `Metric`, like the next two.
        benchmark: As in `Metric`.
        part: As in `Metric`.
        questions: The text before the answer; may be empty.
        options: The texts to choose from, the right one first; the right one alone where the answer is generated.
        answers: What the model answered.
        is_correct: Whether that is right.
        probabilities: That of the answer, after a softmax over the options; None where it is generated.
        note: A sentence that a reader of the answers needs.
        rows: The row of each question in its dataset, from 1; None where all are asked in their order.
        token_ids: What the answer follows, as the model read it: int sequences `[tokens]`; None where that is unknown.
        option_token_ids: The tokens of each option; None where answers are generated.
        log_likelihoods: Of each option, in nats; None where answers are generated.
        sample: Which of several other tokenizations it is, from 0; None for one alone.
        dataset: The dataset, where the benchmark is only a split of one, as of addition; None where it names it.
        is_canonical: Whether the questions are in their canonical tokenization; reports show answers to no others.
    """

    evaluator: str
    benchmark: str
    part: str
    questions: Sequence[str]
    options: Sequence[Sequence[str]]
    answers: Sequence[str]
    is_correct: Sequence[bool]
    probabilities: Sequence[float] | None = None
    note: str = ""
    rows: Sequence[int] | None = None
    token_ids: "Sequence[Ids] | None" = None
    option_token_ids: "Sequence[Sequence[Ids]] | None" = None
    log_likelihoods: "Sequence[np.ndarray] | None" = None
    sample: int | None = None
    dataset: str | None = None
    is_canonical: bool = True

    @property
    def key(self) -> str:
        """What the keys of the metrics of these answers begin with."""
        return metric_group(self.evaluator, self.benchmark, self.part)

    def row(self, i: int) -> int:
        """The row of question `i` in its dataset, from 1, which is what reports and files of samples call it by."""
        return i + 1 if self.rows is None else self.rows[i]


class ShownToken(NamedTuple):
    """A token of a tokenization that is compared with another one.

    Attributes:
        text: Its text; bytes that are no characters by themselves are written as `\\xe6`.
        is_shared: Whether the other tokenization has it at the same place.
    """

    text: str
    is_shared: bool


@dataclass(frozen=True)
class ChangedAnswer:
    """A question that is answered right in its canonical tokenization and wrong in another one.

    Attributes:
        row: As `Answers.row` has it.
        canonical: The canonical tokens of its text.
        other: The other ones.
        right: The right option, which the model chose in the canonical tokenization.
        answer: What it chose in the other one.
    """

    row: int
    canonical: Sequence[ShownToken]
    other: Sequence[ShownToken]
    right: str
    answer: str


@dataclass(frozen=True)
class ChangedAnswers:
    """Some of the questions whose answer becomes wrong in another tokenization.

    Attributes:
        evaluator: As in `Metric`, like the next two.
        benchmark: As in `Metric`.
        part: As in `Metric`.
        num_right: How many questions are answered right in their canonical tokenization.
        num_changed: How many of them are answered wrong in another one (in one of several samples at least).
        examples: Some of these.
    """

    evaluator: str
    benchmark: str
    part: str
    num_right: int
    num_changed: int
    examples: Sequence[ChangedAnswer]

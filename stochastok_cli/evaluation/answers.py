"""What a model answered to each question, for reports that show some of them.

This module imports neither numpy nor torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from stochastok_cli.evaluation.base import metric_group


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

    @property
    def key(self) -> str:
        """What the keys of the metrics of these answers begin with."""
        return metric_group(self.evaluator, self.benchmark, self.part)

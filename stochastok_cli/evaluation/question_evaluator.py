"""What evaluators share that ask the questions of benchmarks: multiple choice and generation.

This module imports neither numpy nor torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import Direction, Evaluator, option

if TYPE_CHECKING:
    from stochastok_cli.evaluation.robustness import Tokenization


UNSEEN_QUESTION, UNSEEN_PREDICATE_AND_ANSWER = "unseen_question", "unseen_predicate_and_answer"
"""The parts of `contamination`."""
DIRECTIONS_IN_OTHER_TOKENIZATIONS: Mapping[str, Direction | None] = {
    "worst_case": "higher",
    "any_case": "higher",
    "worst_sample": "higher",
    "edit_distance": None,
    "growth": None,
    "truncated": None,
}
"""`Evaluator.directions` of the metrics that `robustness.robustness_metrics` gives."""


@dataclass(frozen=True)
class QuestionEvaluator(Evaluator):
    """Asks the questions of benchmarks, of each kind and in other tokenizations. A subclass describes `benchmarks`."""

    has_answers = True
    parts_table = "{benchmark}, {parts}"
    part_meanings: ClassVar[Mapping[str, str]] = {
        UNSEEN_QUESTION: "questions whose text is not in the data trained on",
        UNSEEN_PREDICATE_AND_ANSWER: "questions that are not in the data trained on with their predicate and answer, "
        "in whatever wording and with whatever other options",
    }

    benchmarks: tuple[str, ...] = ()
    num_samples: int | None = option(
        None, "questions of each benchmark, always the same ones", min=1, show_default="all"
    )
    language: str | None = option(
        None,
        "which columns of questions of your own, where they are in several: `tl` for prompt_tl",
        metavar="LANGUAGE",
        show_default="en",
    )
    by_kind: bool = option(
        False, "also the share of right answers on each kind of question (LangGame, CUTE, questions of your own)"
    )
    contamination: bool = option(
        False,
        "also the share of right answers to questions that do not occur in the data trained on, by their text and by "
        "predicate and answer (LangGame, CUTE)",
    )
    tokenization: str | None = option(
        None,
        "also with the questions in other tokenizations, by a method of `stochastok expand`: stochastok:0.1",
        metavar="METHOD:P",
    )
    samples: int | None = option(None, "how many other tokenizations with --tokenization", min=1, show_default="8")

    def check(self) -> None:
        super().check()
        self._tokenization()
        if self.language is not None and not any("=" in name for name in self.benchmarks):
            raise UserError("--language chooses columns of NAME=FILE, and --benchmarks has none", fix="drop it")

    def _no_kinds(self) -> UserError:
        return UserError(f"--by-kind: {', '.join(self.benchmarks)} have no kinds of question", fix="drop it")

    def _tokenization(self) -> "Tokenization | None":
        if self.tokenization is None and self.samples is None:
            return None  # without an import of NumPy
        from stochastok_cli.evaluation.robustness import optional_tokenization

        return optional_tokenization(self.tokenization, self.samples)

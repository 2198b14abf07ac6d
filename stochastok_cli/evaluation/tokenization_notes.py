"""What users should know about how questions are tokenized, as notices."""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stochastok_cli.errors import Notice, count_of
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    from stochastok_cli.evaluation.encoding import Ids


def note_lost_text(benchmark: str, questions: "Iterable[Iterable[Ids]]", vocabulary: Vocabulary) -> None:
    """Says how many questions have text that the tokenizer can't represent.

    Args:
        benchmark: Its name.
        questions: The ids of all texts of each question.
        vocabulary: The vocabulary of the ids.
    """
    unknown = vocabulary.unknown
    if unknown is None:
        return
    lost = sum(any(unknown in ids for ids in texts) for texts in questions)
    if lost:
        lossy = count_of(lost, "question has", "questions have")
        text = f"benchmark {benchmark}: {lossy} text that the tokenizer can't represent, which is lost"
        warnings.warn(text, Notice, stacklevel=2)


def note_unchanged(benchmark: str, tokenization: str, changed: int) -> None:
    """Says that no question has been changed by another tokenization."""
    if not changed:
        warnings.warn(f"{benchmark}, {tokenization}: no question was changed by the tokenization", Notice, stacklevel=2)

"""The parts of a report, in the order in which a reader meets them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from stochastok_cli.evaluation.answers import ChangedAnswers
from stochastok_cli.report.questions import QuestionExamples
from stochastok_cli.report.runs import XAxis
from stochastok_cli.report.tables import Table
from stochastok_cli.tokenization.methods import tokenization_text

if TYPE_CHECKING:
    from stochastok_cli.evaluation.generated_texts import GeneratedText


class Drawing(NamedTuple):
    """A plot that is written, with its SVG for the page.

    Attributes:
        name: Of its files.
        caption: What is particular to this plot.
        notes: Sentences that several plots have in common.
        svg: An `<svg>` element whose text is text, in colors that the page sets.
    """

    name: str
    caption: str
    notes: Sequence[str]
    svg: str


@dataclass(frozen=True)
class Curves:
    """Curves of training runs, over each axis that is known.

    Attributes:
        labels: Of the runs, each with the place of its color.
        drawings: Those of each axis.
    """

    labels: Sequence[tuple[int, str]]
    drawings: dict[XAxis, Sequence[Drawing]]


@dataclass(frozen=True)
class SampledTexts:
    """What a model wrote.

    Attributes:
        label: What the report calls the model.
        texts: Its documents.
    """

    label: str
    texts: "Sequence[GeneratedText]"


@dataclass(frozen=True)
class ChangedExamples:
    """Questions that a model answers wrong in another tokenization.

    Attributes:
        label: What the report calls the model.
        changed: The questions.
    """

    label: str
    changed: ChangedAnswers

    @property
    def title(self) -> str:
        """The benchmark, the tokenization and the model."""
        return f"{self.changed.benchmark}, {tokenization_text(self.changed.part)}: {self.label}"

    @property
    def counts(self) -> str:
        """A sentence on how many there are."""
        one = self.changed
        return f"Of {one.num_right:,} right answers, {one.num_changed:,} become wrong."


Block = str | Table | Drawing | Curves | QuestionExamples | ChangedExamples | SampledTexts
"""A string is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: The heading of the page.
        command: The command line that made it.
        version: Of this program, with the date.
        sections: What it holds; those without blocks are left out.
    """

    title: str
    command: str
    version: str
    sections: Sequence[Section]

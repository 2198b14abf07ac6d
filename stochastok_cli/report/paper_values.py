"""Values that the StochasTok paper (arXiv 2506.01687) reports, read off its figures: for the lines that plots draw.

The models have 50 M parameters, those of Fig. 7 have 275 M, and that of Fig. 10 is GPT-2.
"""

import math
from typing import NamedTuple

from stochastok_cli.data.recipes.addition_tokenizations import FORMS
from stochastok_cli.evaluation.results import Metric


class PaperValue(NamedTuple):
    """A line of a figure: what its model was trained on (METHOD-P, or `canonical`), and its accuracy."""

    label: str
    value: float


class PaperFigure(NamedTuple):
    """A figure of the paper, and the metrics that its values are comparable with.

    Attributes:
        source: The figure's number.
        evaluator, benchmarks, parts, name: The fields of those metrics.
        values: What the figure shows, read off at the end of training.
    """

    source: str
    evaluator: str
    benchmarks: tuple[str, ...]
    parts: tuple[str, ...]
    name: str
    values: tuple[PaperValue, ...]

    def metric_names(self) -> set[str]:
        """The names of those metrics in `metrics.jsonl`."""
        return {
            Metric(self.evaluator, benchmark, part, self.name, math.nan).key
            for benchmark in self.benchmarks
            for part in self.parts
        }


_LANGGAME = ("langgame-train", "langgame-val")
FIGURES = (
    PaperFigure(
        "Fig. 1",
        "mcq",
        _LANGGAME,
        ("",),
        "normalized_accuracy",
        (
            PaperValue("stochastok-0.1", 1.0),
            PaperValue("bpe-dropout-0.1", 0.8),
            PaperValue("canonical", 0.65),
            PaperValue("no pretraining", 0.05),
        ),
    ),
    PaperFigure(
        "Fig. 4",
        "mcq",
        ("cute",),
        ("",),
        "normalized_accuracy",
        (
            PaperValue("stochastok-0.1", 0.85),
            PaperValue("canonical", 0.62),
            PaperValue("bpe-dropout-0.1", 0.57),
            PaperValue("no pretraining", 0.27),
        ),
    ),
    PaperFigure(
        "Fig. 5",
        "mcq",
        _LANGGAME,
        ("",),
        "normalized_accuracy",
        (
            PaperValue("canonical", 0.31),
            PaperValue("stochastok-0.001", 0.86),
            PaperValue("stochastok-0.01", 0.98),
            PaperValue("stochastok-0.2", 0.95),
        ),
    ),
    PaperFigure(
        "Fig. 6",
        "mcq",
        ("hold-long-val",),
        ("",),
        "normalized_accuracy",
        (PaperValue("stochastok-0.1", 0.95), PaperValue("canonical", 0.33)),
    ),
    PaperFigure(
        "Fig. 7",
        "mcq",
        _LANGGAME,
        ("",),
        "normalized_accuracy",
        (PaperValue("stochastok-0.1", 0.98), PaperValue("canonical", 0.8), PaperValue("bpe-dropout-0.1", 0.77)),
    ),
    PaperFigure(
        "Fig. 8",
        "math_generation",
        ("train", "val"),
        FORMS,
        "exact_match",
        (PaperValue("stochastok", 1.0), PaperValue("bpe_dropout", 0.75), PaperValue("base", 0.5)),
    ),
    PaperFigure(
        "Fig. 9",
        "mcq",
        _LANGGAME,
        ("",),
        "normalized_accuracy",
        (PaperValue("continued-stochastok-0.1", 0.99), PaperValue("canonical", 0.49)),
    ),
    PaperFigure(
        "Fig. 10",
        "mcq",
        _LANGGAME,
        ("",),
        "normalized_accuracy",
        (PaperValue("continued-stochastok-0.1", 0.89), PaperValue("original", 0.49)),
    ),
)


def paper_figure(key: str, source: str | None = None) -> PaperFigure | None:
    """The figure that reports a metric.

    Args:
        key: `Metric.key`, as in `metrics.jsonl`.
        source: The figure's number; where absent, the first figure that reports the metric.

    Returns:
        The figure, or None where the paper, or that figure, does not report the metric.

    >>> paper_figure("mcq/langgame-val/normalized_accuracy").source, paper_figure("mcq/arc/accuracy")
    ('Fig. 1', None)
    """
    figures = (figure for figure in FIGURES if source in (None, figure.source) and key in figure.metric_names())
    return next(figures, None)

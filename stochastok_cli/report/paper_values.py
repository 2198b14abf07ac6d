"""Values that the StochasTok paper (arXiv 2506.01687) reports for its 50M models, for the lines that plots draw."""

import math
from typing import NamedTuple

from stochastok_cli.data.recipes.addition_tokenizations import FORMS
from stochastok_cli.evaluation.base import Metric


class PaperValue(NamedTuple):
    """One line of a figure: how the model was pretrained, and the accuracy that it reaches."""

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


FIGURES = (
    PaperFigure(
        "Fig. 1",
        "mcq",
        ("langgame-train", "langgame-val"),
        ("",),
        "normalized_accuracy",
        (
            PaperValue("StochasTok", 1.0),
            PaperValue("BPE-dropout", 0.8),
            PaperValue("deterministic", 0.65),
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
            PaperValue("StochasTok", 0.85),
            PaperValue("deterministic", 0.62),
            PaperValue("BPE-dropout", 0.57),
            PaperValue("no pretraining", 0.27),
        ),
    ),
    PaperFigure(
        "Fig. 8",
        "math_generation",
        ("train", "val"),
        FORMS,
        "exact_match",
        (PaperValue("StochasTok", 1.0), PaperValue("BPE-dropout", 0.75), PaperValue("deterministic", 0.5)),
    ),
)
_BY_KEY = {
    Metric(figure.evaluator, benchmark, part, figure.name, math.nan).key: figure
    for figure in FIGURES
    for benchmark in figure.benchmarks
    for part in figure.parts
}


def paper_figure(key: str) -> PaperFigure | None:
    """The figure that reports a metric.

    Args:
        key: `Metric.key`, as in `metrics.jsonl`.

    Returns:
        The figure, or None where the paper does not report the metric.

    >>> paper_figure("mcq/langgame-val/normalized_accuracy").source, paper_figure("mcq/arc/accuracy")
    ('Fig. 1', None)
    """
    return _BY_KEY.get(key)

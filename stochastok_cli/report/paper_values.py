"""Values that the StochasTok paper (arXiv 2506.01687) reports, for the lines that plots draw where they apply."""

from typing import NamedTuple


class PaperValue(NamedTuple):
    label: str
    value: float


WITH, DETERMINISTIC, DROPOUT, NONE = "StochasTok", "deterministic", "BPE-dropout", "no pretraining"

_LANGGAME = [PaperValue(WITH, 1.0), PaperValue(DROPOUT, 0.8), PaperValue(DETERMINISTIC, 0.65), PaperValue(NONE, 0.05)]
_CUTE = [PaperValue(WITH, 0.85), PaperValue(DETERMINISTIC, 0.62), PaperValue(DROPOUT, 0.57), PaperValue(NONE, 0.27)]
_ADDITION = [PaperValue(WITH, 1.0), PaperValue(DROPOUT, 0.75), PaperValue(DETERMINISTIC, 0.5)]
SOURCES = {"langgame": "Fig. 1", "cute": "Fig. 4", "math_generation": "Fig. 8"}


def paper_values(metric: str) -> tuple[str, list[PaperValue]]:
    """The figure of the paper and its values for a metric; none for metrics that it does not report.

    >>> paper_values("mcq/langgame-val/normalized_accuracy")[0], paper_values("mcq/arc/accuracy")
    ('Fig. 1', ('', []))
    """
    evaluator, _, rest = metric.partition("/")
    if evaluator == "mcq" and rest.endswith("/normalized_accuracy") and rest.count("/") == 1:
        name = rest.partition("/")[0]
        if name.startswith("langgame-"):
            return SOURCES["langgame"], _LANGGAME
        if name == "cute":
            return SOURCES["cute"], _CUTE
    if evaluator == "math_generation" and rest.endswith("/exact_match"):
        return SOURCES["math_generation"], _ADDITION
    return "", []

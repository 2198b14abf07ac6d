"""What an evaluator finds: metrics, and for those that are means over questions, what each question gave."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stochastok_cli.evaluation.statistics import Difference, Interval, bootstrap_interval, paired_difference


@dataclass
class EvalResult:
    """Metrics by name. `outcomes` has for some of them one value a question, float64 `[questions]`, always in the same
    order, whose mean is the metric; `curves` has by name the points of a plot, `{"x": …, "y": …}` and what else is
    known of each."""

    metrics: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, np.ndarray] = field(default_factory=dict)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, name: str, outcomes: np.ndarray) -> None:
        """Records a metric that is the mean of what each question gave."""
        self.outcomes[name] = np.asarray(outcomes, dtype=np.float64)
        self.metrics[name] = float(self.outcomes[name].mean())

    def intervals(self) -> dict[str, Interval]:
        """The bootstrap interval over questions of every metric that allows one."""
        return {name: bootstrap_interval(values) for name, values in self.outcomes.items()}

    def __or__(self, other: "EvalResult") -> "EvalResult":
        return EvalResult(self.metrics | other.metrics, self.outcomes | other.outcomes, self.curves | other.curves)


def merged(parts: Iterable[EvalResult]) -> EvalResult:
    """All findings in one, in their order."""
    whole = EvalResult()
    for part in parts:
        whole |= part
    return whole


def differences(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """The paired difference of every metric whose outcomes both checkpoints have."""
    return {name: paired_difference(first[name], second[name]) for name in first if name in second}

"""Comparisons of results: two checkpoints question by question, and several seeds of one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stochastok_cli.config import flatten
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.results import EvalResult, finite_interval, finite_or_none
from stochastok_cli.evaluation.statistics import Difference, Spread, paired_difference, spread


@dataclass(frozen=True)
class PairedComparison:
    """Two checkpoints on the same questions.

    Attributes:
        first: The checkpoint that the other one is compared with.
        second: The other one.
        differences: The metrics of the second minus those of the first, by `Metric.key`.
    """

    first: EvalResult
    second: EvalResult
    differences: dict[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """The object that `stochastok eval --paired --json` prints."""
        counts = {metric.key: len(metric.outcomes) for metric in self.first.metrics if metric.outcomes is not None}
        return {
            "schema": 1,
            "paired": [self.first.checkpoint, self.second.checkpoint],
            "differences": {
                key: one._asdict()
                | {"difference": finite_or_none(one.difference), "interval": finite_interval(one.interval)}
                for key, one in self.differences.items()
            },
            "n": {key: counts[key] for key in self.differences},
        }


@dataclass(frozen=True)
class Aggregate:
    """Several seeds of one run.

    Attributes:
        results: One for each run.
        spreads: Mean, standard deviation and interval of every metric that all runs have, by `Metric.key`.
    """

    results: Sequence[EvalResult]
    spreads: dict[str, Spread]

    def to_json(self) -> dict[str, Any]:
        """The object that `stochastok eval --aggregate --json` prints."""
        return {
            "schema": 1,
            "aggregate": [result.checkpoint for result in self.results],
            "iteration": [result.iteration for result in self.results],
            "metrics": {key: finite_or_none(one.mean) for key, one in self.spreads.items()},
            "deviations": {key: finite_or_none(one.deviation) for key, one in self.spreads.items()},
            "intervals": {key: finite_interval(one.interval) for key, one in self.spreads.items()},
            "n": dict(self.results[0].sample_counts),
        }


def compare_paired(first: EvalResult, second: EvalResult) -> PairedComparison:
    """Compares every metric that is a mean over questions and that both checkpoints have.

    Raises UserError if the numbers of questions differ, since then they are not the same ones.
    """
    outcomes = {metric.key: metric.outcomes for metric in second.metrics if metric.outcomes is not None}
    for metric in first.metrics:
        if metric.outcomes is not None and len(metric.outcomes) != len(outcomes.get(metric.key, metric.outcomes)):
            raise UserError(f"{first.label} and {second.label} have other questions of {metric.key}: no pairs")
    differences = {
        metric.key: paired_difference(metric.outcomes, outcomes[metric.key], metric.outcome_range)
        for metric in first.metrics
        if metric.outcomes is not None and metric.key in outcomes
    }
    return PairedComparison(first, second, differences)


def aggregate(results: Sequence[EvalResult]) -> Aggregate:
    """Mean, deviation and interval over two or more runs of every metric that all of them have."""
    values = [result.values for result in results]
    keys = [key for key in values[0] if all(key in of_run for of_run in values)]
    return Aggregate(results, {key: spread([of_run[key] for of_run in values]) for key in keys})


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted keys in which configurations differ.

    >>> differing_keys([{"general": {"seed": 0, "device": "cpu"}}, {"general": {"seed": 1, "device": "cpu"}}])
    ['general.seed']
    """
    flat = [flatten(config) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    return [key for key in keys if any(config.get(key) != flat[0].get(key) for config in flat)]

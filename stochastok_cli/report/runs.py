"""A training run as a report shows it: what its files hold, and the axes of its curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from stochastok_cli.training.loggers.jsonl import RunStart
from stochastok_cli.training.run_summary import RunSummary
from stochastok_cli.training.runs import read_run
from stochastok_cli.training.throughput import tokens_per_iteration

XAxis = Literal["iteration", "tokens", "time"]
"""What curves of training are drawn over. The time is that of training, without evaluating and saving."""


@dataclass(frozen=True)
class ReportedRun:
    """One run.

    Attributes:
        label: What the report calls it.
        records: The lines of its `metrics.jsonl`, in their order.
        summary: What `stochastok runs` says of it; None for records alone.
        starts: When it was started and continued; empty for a run of an earlier version.
        place: Its place among what the report compares, which decides its color; that among the runs where None.
    """

    label: str
    records: Sequence[dict[str, Any]]
    summary: RunSummary | None = None
    starts: Sequence[RunStart] = ()
    place: int | None = None

    @property
    def dataset(self) -> str | None:
        """The name of its dataset; None where the configuration is not known."""
        return None if self.summary is None else self.summary.dataset

    @cached_property
    def tokens_per_iteration(self) -> int | None:
        """How many tokens an iteration trains on; None where the configuration is not known."""
        config = None if self.summary is None else self.summary.config
        return None if config is None else tokens_per_iteration(config)

    def x_values(self, x_axis: XAxis) -> Sequence[float] | None:
        """The place of each record on an axis: iterations, tokens or seconds. None where that is not known."""
        if x_axis == "time":
            return self._seconds
        iterations = [record["iteration"] for record in self.records]
        if x_axis == "iteration":
            return iterations
        return None if self.tokens_per_iteration is None else [i * self.tokens_per_iteration for i in iterations]

    @cached_property
    def _seconds(self) -> Sequence[float] | None:
        """The seconds of training up to each record, by the tokens a second that were logged."""
        import numpy as np

        if self.tokens_per_iteration is None:
            return None
        iterations, seconds = [0], [0.0]
        for record in self.records:
            speed = record.get("train/tokens_per_second")
            if speed and record["iteration"] > iterations[-1]:
                tokens = (record["iteration"] - iterations[-1]) * self.tokens_per_iteration
                iterations.append(record["iteration"])
                seconds.append(seconds[-1] + tokens / speed)
        if len(iterations) == 1:
            return None
        return np.interp([record["iteration"] for record in self.records], iterations, seconds).tolist()


def has_different_datasets(runs: Sequence[ReportedRun]) -> bool:
    """Whether the datasets of the runs, as far as they are known, are not all the same."""
    return len({run.dataset for run in runs} - {None}) > 1


def labels_of_curves(runs: Sequence[ReportedRun]) -> list[str]:
    """What legends call the runs: their labels, with their datasets where these differ."""
    with_dataset = has_different_datasets(runs)
    return [f"{run.label} ({run.dataset})" if with_dataset and run.dataset else run.label for run in runs]


def read_reported_run(folder: Path, label: str, root: Path | None = None, *, place: int | None = None) -> ReportedRun:
    """A run in a folder. What its files lack is left out, and `summary.problems` says what can't be read.

    Args:
        folder: The run's folder.
        label: What the report calls it.
        root: The folder that its name is relative to.
        place: See `ReportedRun`.
    """
    return reported_run(read_run(folder, root or folder.parent), label, place=place)


def reported_run(summary: RunSummary, label: str, *, place: int | None = None) -> ReportedRun:
    """A run that was read already, by the name that the report gives it."""
    return ReportedRun(label, summary.records, summary, summary.starts, place)

"""What is known of a run: its configuration, data, state and metrics, and which values of a metric are better.

This module imports neither torch nor numpy.
"""

import functools
import time
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from stochastok_cli.config import Config
from stochastok_cli.data.folders import short_dataset_name
from stochastok_cli.evaluation.base import Direction, Evaluator
from stochastok_cli.evaluation.registry import EVALUATORS, metric_of_key
from stochastok_cli.training.loggers.jsonl import RunStart

DIRECTIONS: dict[str, Direction] = {"loss": "lower", "perplexity": "lower", "bits_per_byte": "lower"}
"""Which values of the metrics of training and validation are better, by the last part of their names."""
State = Literal["running", "stopped", "complete", "damaged"]


@dataclass(frozen=True)
class Best:
    """The best value of a metric, and after how many iterations it was measured."""

    value: float
    iteration: int


@dataclass(frozen=True)
class RunSummary:
    """One run.

    Attributes:
        name: Its folder, relative to the folder that was searched.
        folder: Its folder.
        state: `running` while a process trains there; else `complete` or `stopped`, or `damaged` where its
            configuration can't be read.
        config: Its configuration; None where that can't be read.
        data: Name and fingerprint of the dataset, from the latest checkpoint or start; None where neither has them.
        method: The expansion method of its windows, by `trainer.dataset` or as its dataset was made; None without.
        p: The p of the method; None for a fixed rule.
        is_expansion_known: Whether `method` and `p` are known.
        checkpoint: The latest complete checkpoint.
        iteration: How many iterations are done, by the latest record or checkpoint.
        checkpoint_iteration: How many are done in the latest checkpoint; 0 without one.
        metrics: The latest value of each metric.
        records: The records of `metrics.jsonl`.
        changed: When something was last written there, in seconds since 1970.
        starts: When it was started and continued; empty for a run of an earlier version.
        problems: What can't be read or is not known, in sentences.
        is_damaged: Whether something in its folder can't be read.
    """

    name: str
    folder: Path
    state: State
    config: Config | None
    data: dict[str, Any] | None
    method: str | None
    p: float | None
    is_expansion_known: bool
    checkpoint: Path | None
    iteration: int
    checkpoint_iteration: int
    metrics: dict[str, float | None]
    records: list[dict[str, Any]] = field(repr=False)
    changed: float
    starts: list[RunStart] = field(repr=False)
    problems: list[str]
    is_damaged: bool

    @property
    def dataset(self) -> str | None:
        """The name of its dataset."""
        return None if self.config is None else short_dataset_name(self.config.trainer.dataset.name)

    @property
    def p_schedule(self) -> str:
        """How p falls to 0 over the run: linear or cosine; "" where it doesn't."""
        dataset = None if self.config is None else self.config.trainer.dataset
        falls = dataset is not None and dataset.expand_prop > 0 and dataset.expand_schedule != "constant"
        return dataset.expand_schedule if dataset is not None and falls else ""

    @property
    def parent(self) -> str | None:
        """The checkpoint that it started from, as its configuration names it."""
        return None if self.config is None else self.config.checkpoint_name

    @property
    def max_iters(self) -> int | None:
        """The length of the run in iterations."""
        return None if self.config is None else self.config.trainer.training.max_iters

    @property
    def shown_state(self) -> str:
        """The state for people, which names a run damaged of which something can't be read."""
        return f"{self.state}, damaged" if self.is_damaged and self.state != "damaged" else self.state

    def is_in(self, state: State) -> bool:
        """Whether `shown_state` has a state. A damaged run has that which it would have undamaged, too."""
        return state == self.state or (state == "damaged" and self.is_damaged)

    @property
    def is_ahead_of_checkpoint(self) -> bool:
        """Whether iterations are lost, which would be done again: after a process was killed, for example."""
        return self.state != "running" and self.iteration > self.checkpoint_iteration

    @property
    def shown_iterations(self) -> str:
        """How far the run is, for people: `10 of 24, checkpoint 8`."""
        text = f"{self.iteration:,}" if self.max_iters is None else f"{self.iteration:,} of {self.max_iters:,}"
        if not self.is_ahead_of_checkpoint:
            return text
        return (
            f"{text}, no checkpoint" if self.checkpoint is None else f"{text}, checkpoint {self.checkpoint_iteration:,}"
        )

    @functools.cached_property
    def best(self) -> dict[str, Best]:
        """The best value of each metric that has one (see `lower_is_better`)."""
        by_name = {name: self.best_of(name) for name in dict.fromkeys(chain.from_iterable(self.records))}
        return {name: best for name, best in by_name.items() if best is not None}

    def best_of(self, metric: str) -> Best | None:
        """The best value of one metric, where it has one: the first of equal ones."""
        lower = lower_is_better(metric)
        measured = [] if lower is None else [record for record in self.records if record.get(metric) is not None]
        if not measured:
            return None
        record = (min if lower else max)(measured, key=itemgetter(metric))
        return Best(record[metric], record["iteration"])

    def to_json(self) -> dict[str, Any]:
        """The object that `stochastok runs --json` prints."""
        return {
            "schema": 1,
            "run": self.name,
            "path": str(self.folder),
            "state": self.state,
            "damaged": self.is_damaged,
            "dataset": self.dataset,
            "method": self.method,
            "p": self.p,
            "parent": self.parent,
            "iteration": self.iteration,
            "max_iters": self.max_iters,
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "metrics": self.metrics,
            "best": {name: {"value": best.value, "iteration": best.iteration} for name, best in self.best.items()},
            "changed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.changed)),
            "problems": self.problems,
        }


@functools.lru_cache(maxsize=4096)
def lower_is_better(metric: str) -> bool | None:
    """Whether less of a metric is better; None for a metric that has no better and worse.

    >>> [lower_is_better(f"mcq/arc/{name}") for name in ("accuracy", "num_options")]
    [False, None]
    >>> lower_is_better("validation/loss"), lower_is_better("bits_per_byte/owt-tokenized")
    (True, True)
    """
    declared = metric_of_key(metric)
    if declared is not None:
        evaluator, name = declared
        direction = evaluator.directions[name]
    elif metric.partition("/")[0] in EVALUATORS:
        direction = None
    else:  # of training, or of an evaluator that is not there
        direction = ({**Evaluator.directions} | DIRECTIONS).get(metric.rpartition("/")[2])
    return None if direction is None else direction == "lower"

"""The runs under a folder: what each one trains, how far it is, its metrics and its state.

This module reads only, and imports neither torch nor numpy.
"""

import errno
import functools
import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from stochastok_cli.config import Config, config_from_file
from stochastok_cli.data.folders import short_dataset_name
from stochastok_cli.errors import FAILED, Notice, UserError, did_you_mean
from stochastok_cli.evaluation.base import Direction, Evaluator
from stochastok_cli.evaluation.registry import EVALUATORS, metric_of_key
from stochastok_cli.models.checkpoint_reader import (
    STATE,
    TrainingState,
    incomplete_checkpoints,
    incomplete_note,
    latest_progress,
    run_of,
)
from stochastok_cli.training import run_dir
from stochastok_cli.training.loggers.jsonl import RunStart, damaged_lines_note, parse_records, read_starts
from stochastok_cli.training.run_data import (
    ReadManifest,
    RunExpansion,
    expansion_of_dataset,
    expansion_of_windows,
    manifest_or_none,
    recorded_data,
)
from stochastok_cli.training.run_dir import RunProgress

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


def find_runs(folder: Path) -> list[RunSummary]:
    """The runs in a folder and in those below it, or the run that the folder itself is; latest change first.

    Raises UserError if there is no such folder.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"the folder {folder} {what}", fix="name the folder that holds the runs")
    read = functools.cache(manifest_or_none)  # most runs share a few datasets
    runs = [read_run(one, folder, read) for one in _run_folders(folder)]
    return sorted(runs, key=lambda run: (-run.changed, run.name))


def find_run(name: str, folder: Path) -> RunSummary:
    """A run by its path, or by its name in a folder. Raises UserError if there is none, or if it can't be read."""
    for candidate in (folder / name, Path(name)):
        if _is_run(candidate):
            run = read_run(candidate, folder)
            if run.config is None:
                raise UserError(f"{candidate} can't be compared: {run.problems[0]}")
            return run
        if candidate.is_dir() and not os.access(candidate, os.R_OK | os.X_OK):
            raise UserError(f"{candidate} can't be read: {os.strerror(errno.EACCES)}", exit_code=FAILED)
    known = [run.name for run in find_runs(folder)] if folder.is_dir() else []
    raise UserError(
        f"no run {name!r}, neither in {folder} nor as a path{did_you_mean(name, known)}",
        fix="stochastok runs lists them",
    )


def read_run(folder: Path, root: Path, read: ReadManifest = manifest_or_none) -> RunSummary:
    """What the files of a run's folder say. Damaged ones are named in `problems`, and their content is left out.

    Args:
        folder: The folder of the run.
        root: The folder that `RunSummary.name` is relative to.
        read: Reads the manifest of a dataset.
    """
    running = run_dir.is_running(folder)  # before the files are read: a run that ends meanwhile is then complete
    problems: list[str] = []
    checkpoint, state = latest_progress(folder)
    config = _read_config(folder, state, problems)
    records = _read_records(folder, problems, is_begun=checkpoint is not None, running=running)
    if config is not None and checkpoint is None and not running:
        lost = run_dir.lost_checkpoints(folder, config, [record["iteration"] for record in records])
        problems += [lost] if lost else []
    later = incomplete_checkpoints(folder, after=0 if state is None else state.iteration)
    problems += map(incomplete_note, later)
    progress = RunProgress(checkpoint, state)
    if running:
        condition: State = "running"
    elif config is None:
        condition = "damaged"
    else:
        condition = "complete" if progress.is_complete(config) else "stopped"
    starts = _read_starts(folder, problems)
    if checkpoint is not None and not running:
        problems += _lost_records(folder, records, starts)
    fingerprint = None if state is None else state.data["fingerprint"]
    data = recorded_data(starts, fingerprint)
    fingerprint = fingerprint or (None if data is None else data["fingerprint"])
    expansion = RunExpansion(None, None, is_known=False)
    if config is not None:
        expansion = expansion_of_windows(config) or expansion_of_dataset(config, fingerprint, data, read, folder)
    is_damaged = bool(problems)
    problems += [expansion.problem] if expansion.problem else []
    return RunSummary(
        name=folder.relative_to(root).as_posix() if folder != root and root in folder.parents else run_of(folder),
        folder=folder,
        state=condition,
        config=config,
        data=data if state is None else state.data,
        method=expansion.method,
        p=expansion.p,
        is_expansion_known=expansion.is_known,
        checkpoint=checkpoint,
        iteration=max([progress.iteration, *(record["iteration"] for record in records[-1:])]),
        checkpoint_iteration=progress.iteration,
        metrics=_latest(records),
        records=records,
        changed=_last_change(folder),
        starts=starts,
        problems=problems,
        is_damaged=is_damaged,
    )


def _run_folders(folder: Path) -> Iterator[Path]:
    """The folders of runs, without looking for further ones inside them or in hidden ones, or through links."""
    if _is_run(folder):
        yield folder
        return
    if not os.access(folder, os.R_OK | os.X_OK):
        warnings.warn(f"{folder} can't be read: {os.strerror(errno.EACCES)}", Notice, stacklevel=2)
        return
    entries = sorted((entry for entry in os.scandir(folder) if entry.is_dir()), key=lambda entry: entry.name)
    for entry in entries:
        if not entry.name.startswith("."):
            path = folder / entry.name
            if _is_run(path):
                yield path
            elif not entry.is_symlink():
                yield from _run_folders(path)


def _is_run(folder: Path) -> bool:
    """Whether a folder holds a run: its configuration beside other files of a run, or alone; these without the
    configuration; or a checkpoint of one."""
    names = set(os.listdir(folder)) if os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK) else set()
    if run_dir.CONFIG in names:
        if names & {run_dir.METRICS, run_dir.LOG}:
            return True
        try:
            config_from_file(folder / run_dir.CONFIG)
            return True
        except (OSError, UserError):
            pass
    elif run_dir.METRICS in names and names & {run_dir.STARTS, run_dir.LOG}:
        return True
    return any(name.startswith("step_") and (folder / name / STATE).is_file() for name in names)


def _read_config(folder: Path, state: TrainingState | None, problems: list[str]) -> Config | None:
    """The configuration of a run's file, or of its checkpoint where the file can't be read."""
    config, problem = run_dir.read_config(folder, state)
    if problem:
        problems.append(problem)
    if problem and config is not None:
        problems.append(f"{folder}: what is shown is the configuration of its latest checkpoint")
    return config


def _read_records(folder: Path, problems: list[str], *, is_begun: bool, running: bool) -> list[dict[str, Any]]:
    """The records of a run, which has a file of them once training has begun."""
    file = folder / run_dir.METRICS
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        if is_begun:
            problems.append(f"{file} is missing")
        return []
    except OSError as error:
        problems.append(f"{file} can't be read: {error.strerror}")
        return []
    if is_begun and not content and not running:
        problems.append(f"{file} is empty")
    records, damaged = parse_records(content, is_written=running)
    problems += [damaged_lines_note(file, damaged, len(records))] if damaged else []
    return records


def _lost_records(folder: Path, records: list[dict[str, Any]], starts: list[RunStart]) -> list[str]:
    """Says so where a run has no records from before it was continued for the first time."""
    file = folder / run_dir.METRICS
    continued = [start.iteration for start in starts if start.iteration > 0]
    first = records[0]["iteration"] if records else math.inf
    is_there = file.is_file() and file.stat().st_size > 0  # else that is said
    if not is_there or not continued or min(continued) >= first:
        return []
    before = f" before iteration {first:,}" if records else ""
    return [f"{file} has no records{before}: they have been lost"]


def _read_starts(folder: Path, problems: list[str]) -> list[RunStart]:
    """The starts of a run; runs of earlier versions have not recorded them."""
    file = folder / run_dir.STARTS
    try:
        starts, damaged = read_starts(file)
    except OSError as error:
        problems.append(f"{file} can't be read: {error.strerror}")
        return []
    problems += [damaged_lines_note(file, damaged, len(starts))] if damaged else []
    return starts


def _latest(records: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    latest: dict[str, float | None] = {}
    for record in records:
        latest |= record
    latest.pop("iteration", None)
    return latest


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


def _last_change(folder: Path) -> float:
    """The time of the last change of the files that training appends to; of the folder where there are none."""
    times = []
    for file in (folder / run_dir.METRICS, folder / run_dir.LOG, folder / run_dir.CONFIG):
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return max(times) if times else folder.stat().st_mtime

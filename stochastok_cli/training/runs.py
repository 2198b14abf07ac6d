"""The runs under a folder, found and read: a `RunSummary` of each one.

This module reads only, and imports neither torch nor numpy.
"""

import errno
import functools
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stochastok_cli.config import Config, config_from_file
from stochastok_cli.errors import FAILED, Notice, UserError, did_you_mean
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
from stochastok_cli.training.run_summary import RunSummary, State


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


def _last_change(folder: Path) -> float:
    """The time of the last change of the files that training appends to; of the folder where there are none."""
    times = []
    for file in (folder / run_dir.METRICS, folder / run_dir.LOG, folder / run_dir.CONFIG):
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return max(times) if times else folder.stat().st_mtime

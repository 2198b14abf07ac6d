"""What `stochastok eval` prints and writes after the numbers are known: tables, comparisons, completions, reports."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.cli import progress
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stochastok_cli.report.tables import Row


def show(tables: "Sequence[RenderableType]") -> None:
    """Tables for people, on stdout."""
    from rich.console import Console

    console = Console()
    if not sys.stdout.isatty():
        console.width = 200  # a file or a pipe has no edge at which to cut columns
    for table in tables:
        console.print(table)


def show_completions(row: "Row", prompt: str, entries: list[dict[str, Any]], as_json: bool) -> None:
    """The tokens of a prompt and what follows, side by side for each tokenization."""
    if as_json:
        print(json.dumps({"schema": 1, "checkpoint": row.checkpoint, "prompt": prompt, "completions": entries}))
        return
    print(f"{row.label}, completions:")
    for entry in entries:
        print(f"  {'|'.join(entry['tokens'])}  →  {entry['completion']!r}")
    print()


def write(report: Path, rows: "list[Row]", folders: list[Path], comparisons: list[dict[str, Any]]) -> None:
    """The report, with the records of the runs that the checkpoints are of."""
    from stochastok_cli.artifacts import command_line
    from stochastok_cli.report.html import write_report
    from stochastok_cli.training.events import read_metrics
    from stochastok_cli.training.run_dir import METRICS

    runs = {}
    for row, folder in zip(rows, folders, strict=True):
        records = read_metrics(folder.parent / METRICS) if folder.name.startswith("step_") else []
        if records:
            runs[row.label] = records
    page = write_report(report, rows, runs, command=command_line(), comparisons=comparisons)
    progress.note(f"report: {page}")


def compare(rows: "list[Row]", as_json: bool) -> list[dict[str, Any]]:
    """Each further checkpoint against the first."""
    from stochastok_cli.report import comparisons

    objects = []
    for second in rows[1:]:
        found = comparisons.paired(rows[0], second)
        if not found:
            raise UserError("--paired: this evaluator gives nothing a question to compare", fix="drop --paired")
        objects.append(comparisons.paired_json(rows[0], second, found))
        if as_json:
            print(json.dumps(objects[-1]))
        else:
            show([comparisons.paired_table(rows[0], second, found)])
    return objects


def aggregate(rows: "list[Row]", folders: list[Path], as_json: bool) -> dict[str, Any]:
    """All checkpoints as seeds of one run; a note says in what else they differ."""
    from stochastok_cli.models.checkpoint_folders import is_complete, read_state
    from stochastok_cli.report import comparisons

    configs = [read_state(folder).config for folder in folders if is_complete(folder)]
    differing = comparisons.differing_keys(configs) if len(configs) == len(folders) else []
    if differing:
        progress.note(f"averaged over {len(rows)} runs, which differ in {', '.join(differing)}")
    found = comparisons.over_seeds(rows)
    result = comparisons.seeds_json(rows, found)
    if as_json:
        print(json.dumps(result))
    else:
        show([comparisons.seeds_table(rows, found)])
    return result

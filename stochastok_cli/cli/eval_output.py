"""What `stochastok eval` prints and writes after the numbers are known: tables, comparisons, completions, reports."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.cli import progress
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    from stochastok_cli.evaluation.base import EvalResult
    from stochastok_cli.evaluation.comparison import Aggregate, PairedComparison


def show_completions(row: "EvalResult", prompt: str, entries: list[dict[str, Any]], as_json: bool) -> None:
    """The tokens of a prompt and what follows, side by side for each tokenization."""
    if as_json:
        print(json.dumps({"schema": 1, "checkpoint": row.checkpoint, "prompt": prompt, "completions": entries}))
        return
    print(f"{row.label}, completions:")
    for entry in entries:
        print(f"  {'|'.join(entry['tokens'])}  →  {entry['completion']!r}")
    print()


def write(
    report: Path,
    rows: "list[EvalResult]",
    folders: list[Path],
    comparisons: "Sequence[PairedComparison | Aggregate]",
) -> None:
    """The report, with the records of the runs that the checkpoints are of."""
    from stochastok_cli.artifacts import command_line
    from stochastok_cli.report.html import write_report
    from stochastok_cli.training.loggers.jsonl import read_metrics
    from stochastok_cli.training.run_dir import METRICS

    runs = {}
    for row, folder in zip(rows, folders, strict=True):
        records = read_metrics(folder.parent / METRICS) if folder.name.startswith("step_") else []
        if records:
            runs[row.label] = records
    page = write_report(report, rows, runs, command=command_line(), comparisons=comparisons)
    progress.note(f"report: {page}")


def compare(rows: "list[EvalResult]", as_json: bool) -> "list[PairedComparison]":
    """Each further checkpoint against the first."""
    from stochastok_cli.evaluation.comparison import compare_paired
    from stochastok_cli.report.tables import paired_table, print_tables

    comparisons = []
    for second in rows[1:]:
        comparison = compare_paired(rows[0], second)
        if not comparison.differences:
            raise UserError("--paired: this evaluator gives nothing a question to compare", fix="drop --paired")
        comparisons.append(comparison)
        if as_json:
            print(json.dumps(comparison.to_json()))
        else:
            print_tables([paired_table(comparison)])
    return comparisons


def aggregate(rows: "list[EvalResult]", folders: list[Path], as_json: bool) -> "Aggregate":
    """All checkpoints as seeds of one run; a note says in what else they differ."""
    from stochastok_cli.evaluation import comparison
    from stochastok_cli.models.checkpoint_folders import is_complete, read_state
    from stochastok_cli.report.tables import aggregate_table, print_tables

    configs = [read_state(folder).config for folder in folders if is_complete(folder)]
    differing = comparison.differing_keys(configs) if len(configs) == len(folders) else []
    if differing:
        progress.note(f"averaged over {len(rows)} runs, which differ in {', '.join(differing)}")
    result = comparison.aggregate(rows)
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        print_tables([aggregate_table(result)])
    return result

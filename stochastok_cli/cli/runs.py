"""`stochastok runs`: the runs under a folder, and where the configurations of two differ."""

import gc
import json
import os
import sys
import time
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochastok_cli.cli import candidates, options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from rich.table import Table

    from stochastok_cli.training.runs import RunSummary

MISSING = "–"
DEFAULT_METRIC = "validation/bits_per_byte"
GAP = "  "
"""What stands between two columns."""
WIDTH_OF_FILES = 200
"""The width of a table that goes to a file or a pipe, which have no edge."""


@subcommand
def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The folder that holds the runs.")] = Path(
        "checkpoints"
    ),
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            help="The metric of the column `best`, as in metrics.jsonl. Where it is given, the best is first.",
        ),
    ] = DEFAULT_METRIC,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Show only where the configurations of two runs differ, by name under FOLDER or by path.",
            autocompletion=candidates.runs_in_folder,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FOLDER",
            help="Write cards of the runs (or of the two compared), where their configurations differ, and their "
            "curves as one HTML page, with the plots as PNG and SVG. Needs the extra `report`.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each run (or for the comparison).")
    ] = False,
) -> None:
    """List the runs under a folder, the one that has changed last first.

    Each has its dataset, expansion, the checkpoint that it started from, how
    many iterations are done, the latest losses in nats per token and in bits per
    byte, the best value of a metric, its age since it last wrote, and its state:
    running, stopped or complete. Other folders are passed over.
    """
    if report is not None:
        from stochastok_cli.report.plots import require_matplotlib
        from stochastok_cli.report.report_folder import require_report_folder

        require_matplotlib()
        require_report_folder(report)
    if compare is not None:
        options.require_effect(runs, "beside --compare", metric=metric)
        from stochastok_cli.training.runs import find_run

        pair = [find_run(name, folder) for name in compare]
        if report is not None:  # before anything is printed, since stdout may be closed
            _write_report(report, list(zip(pair, compare, strict=True)), folder)
        _print_differences(pair, compare, as_json)
        return
    from stochastok_cli.training.runs import find_runs, lower_is_better

    gc.set_threshold(100_000, 10, 10)  # records are many objects without cycles, which take a while to look for
    summaries = find_runs(folder)
    if not summaries:
        progress.note(f"there are no runs under {folder}")
        return
    if metric != DEFAULT_METRIC:
        known = sorted({name for run in summaries for name in run.best})
        if metric not in known:
            raise UserError(
                f"no run has the metric {metric!r}{did_you_mean(metric, known)}", fix=f"there are: {', '.join(known)}"
            )
        sign = 1 if lower_is_better(metric) else -1
        summaries.sort(
            key=lambda run: (metric not in run.best, sign * run.best[metric].value if metric in run.best else 0)
        )
    if report is not None:  # by name, as an appendix lists them, or the best first
        listed = sorted(summaries, key=lambda run: run.name) if metric == DEFAULT_METRIC else summaries
        _write_report(report, [(run, run.name) for run in listed], folder)
    if as_json:
        for run in summaries:
            print(json.dumps(run.to_json()))
    else:
        _print(_table(summaries, metric))
    for run in summaries:
        for problem in run.problems:
            progress.note(f"note: {problem}")


def _write_report(report: Path, labeled: "list[tuple[RunSummary, str]]", root: Path) -> None:
    """Writes a report on runs, each with what it calls them."""
    from stochastok_cli.artifacts import command_line
    from stochastok_cli.report.html import write_runs_report
    from stochastok_cli.report.plots import COLORS, LINE_STYLES
    from stochastok_cli.report.runs import read_reported_run

    different = len(COLORS) * len(LINE_STYLES)
    if len(labeled) > different:
        progress.note(
            f"note: of {len(labeled)} runs, those after the first {different} have lines that look like others"
        )
    runs = [read_reported_run(run.folder, label, root) for run, label in labeled]
    page = write_runs_report(report, runs, command=command_line(), date=time.strftime("%Y-%m-%d"))
    progress.note(f"report: {page}")


def _table(summaries: "list[RunSummary]", metric: str) -> "Table":
    """Two lines a run, since all of it would not fit one."""
    from rich.text import Text

    table = _new_table()
    best_of = "bits/byte" if metric == DEFAULT_METRIC else metric.removeprefix("validation/").replace("/", "\n")
    for heading in ("run\n  from", "dataset\n  method p"):
        table.add_column(Text(heading), overflow="fold")
    for heading in ("iteration\nof", "loss:\ntrain\nval", "bits/byte:\ntrain\nval", f"best\n{best_of}", "age", "state"):
        table.add_column(Text(heading), no_wrap=True)
    now = time.time()
    for run in summaries:
        best = run.best.get(metric)
        cells = [
            run.name + (f"\n  {_short(run.parent)}" if run.parent else ""),
            (run.dataset or MISSING) + (f"\n  {_expansion(run)}" if run.method else ""),
            f"{run.iteration:,}\n{MISSING if run.max_iters is None else f'{run.max_iters:,}'}",
            f"{_number(run.metrics.get('train/loss'))}\n{_number(run.metrics.get('validation/loss'))}",
            f"{_number(run.metrics.get('train/bits_per_byte'))}\n{_number(run.metrics.get('validation/bits_per_byte'))}",
            f"{best.value:.4f}\nat {best.iteration:,}" if best else MISSING,
            _age(now - run.changed),
            run.state + ("\ndamaged" if run.problems and run.state != "damaged" else ""),
        ]
        table.add_row(*map(Text, cells))
    return table


def _expansion(run: "RunSummary") -> str:
    return f"{run.method}" if run.p is None else f"{run.method} {run.p:g}"


def _short(checkpoint: str) -> str:
    """The name of a run or a model, without the folders above it; of one of several checkpoints, with its step."""
    parts = Path(checkpoint).parts
    return "/".join(parts[-2:] if parts[-1].startswith("step_") else parts[-1:])


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _age(seconds: float) -> str:
    """A time span in its largest unit.

    >>> _age(42), _age(200), _age(18420), _age(3e6)
    ('42 s', '3 min', '5 h', '34 d')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(int(seconds), 0)} s"


def _print_differences(pair: "list[RunSummary]", names: tuple[str, str], as_json: bool) -> None:
    """Prints where two runs differ."""
    from stochastok_cli.training.run_dir import differing_values

    first, second = (run.config.to_dict() for run in pair if run.config is not None)
    differences = differing_values(first, second)
    if as_json:
        shown = [{"key": key, "values": list(values)} for key, values in differences.items()]
        print(json.dumps({"schema": 1, "compare": [str(run.folder) for run in pair], "differences": shown}))
    elif differences:
        from rich.text import Text

        table = _new_table()
        for heading in ("key", *names):
            table.add_column(Text(heading), overflow="fold")
        for key, values in differences.items():
            table.add_row(Text(key), *(Text(_yaml(value)) for value in values))
        _print(table)
    else:
        progress.note("the configurations are equal")
    data = [run.data for run in pair]
    if None not in data and data[0] != data[1] and "trainer.dataset.name" not in differences:
        progress.note("note: the data of the two runs have one name and other bytes")
    for run in pair:
        for problem in run.problems:
            progress.note(f"note: {problem}")


def _yaml(value: Any) -> str:
    """A value as in a YAML file, in one line."""
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _new_table() -> "Table":
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _print(table: "Table") -> None:
    """Prints a table of texts. Where all cells fit, rich prints the heading alone: hundreds of rows take it a while."""
    from rich.cells import cell_len
    from rich.console import Console

    console = Console()
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        console.width = WIDTH_OF_FILES
    columns = [[cell.plain.split("\n") for cell in column.cells] for column in table.columns]  # type: ignore[union-attr]
    headings = [column.header.plain.split("\n") for column in table.columns]  # type: ignore[union-attr]
    widths = [
        max(map(cell_len, chain.from_iterable([heading, *cells])))
        for heading, cells in zip(headings, columns, strict=True)
    ]
    if sum(widths) + len(GAP) * (len(widths) - 1) > console.width:
        console.print(table)
        return
    heading = _new_table()
    for column, width in zip(table.columns, widths, strict=True):
        heading.add_column(column.header, width=width)
    console.print(heading)
    for row in zip(*columns, strict=True):
        for line in zip_longest(*row, fillvalue=""):
            padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
            console.file.write(GAP.join(padded) + "\n")

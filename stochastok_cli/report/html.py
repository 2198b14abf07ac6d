"""A report on disk: tables as Markdown, CSV and JSON, plots as PNG and SVG, and one HTML page that holds all of it.

results.json   a list of the objects of `stochastok eval --json`
results.csv    a line for each checkpoint and metric
report.md      the tables, and links to the plots
report.html    the same in one file that loads nothing else
plots/         each plot as PNG and SVG
"""

import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from stochastok_cli.artifacts import nearest_existing_path
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import EvalResult
from stochastok_cli.evaluation.comparison import Aggregate, PairedComparison
from stochastok_cli.report.plots import Plot, Records, plots_of
from stochastok_cli.report.rendering import code_span, escape_markdown, to_csv, to_html, to_markdown
from stochastok_cli.report.tables import Table, comparison_table, tables_of

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b;
       background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; margin-top: 1.6rem; }
div.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.88rem; }
th, td { padding: 0.3rem 0.7rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { border-bottom: 1px solid #888; vertical-align: bottom; white-space: normal; } small { color: #666; }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: 0.9rem; }
code { font-size: 0.85rem; overflow-wrap: anywhere; }
"""
NOTE = "Brackets hold 95% intervals over the questions."


class Drawing(NamedTuple):
    """A plot that is written, with its SVG for the page."""

    name: str
    caption: str
    svg: str


def require_report_folder(folder: Path) -> None:
    """Raises UserError if a report can't be written to a folder, which need not exist."""
    existing = nearest_existing_path(folder)
    if not existing.is_dir():
        raise UserError(f"--report {folder}: {existing} is a file", fix="name a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--report {folder}: {existing} is not writable", fix="name another folder")


def write_report(
    folder: Path,
    results: Sequence[EvalResult],
    runs: Mapping[str, Records],
    *,
    command: str,
    comparisons: Sequence[PairedComparison | Aggregate] = (),
) -> Path:
    """Writes all files of a report, over an older report.

    Args:
        folder: Where to; it is made if it does not exist.
        results: One for each checkpoint.
        runs: The training records of the checkpoints' runs, by label.
        command: The command line that the report names as its origin.
        comparisons: Comparisons of the checkpoints, which follow their tables.

    Returns:
        The HTML page.
    """
    plot_folder = folder / "plots"
    plot_folder.mkdir(parents=True, exist_ok=True)
    for old in [*plot_folder.glob("*.png"), *plot_folder.glob("*.svg")]:
        old.unlink()
    objects = [one.to_json() for one in (*results, *comparisons)]
    (folder / "results.json").write_text(json.dumps(objects, indent=2) + "\n", encoding="utf-8")
    _write(folder / "results.csv", to_csv(results))
    drawings = [_save_plot(plot, plot_folder) for plot in plots_of(results, runs)]
    tables = [*tables_of(results), *map(comparison_table, comparisons)]
    _write(folder / "report.md", _markdown(tables, drawings, command))
    page = folder / "report.html"
    _write(page, _page(tables, drawings, command))
    return page


def _write(file: Path, text: str) -> None:
    """Writes UTF-8. Bytes of paths that are not UTF-8 are escaped, such as those of a checkpoint that was evaluated."""
    file.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def _save_plot(plot: Plot, folder: Path) -> Drawing:
    """Writes both files of a plot."""
    plot.figure.savefig(folder / f"{plot.name}.png", dpi=160, metadata={"Software": None})
    text = io.StringIO()
    plot.figure.savefig(text, format="svg", metadata={"Date": None})
    (folder / f"{plot.name}.svg").write_text(text.getvalue(), encoding="utf-8")
    return Drawing(plot.name, plot.caption, text.getvalue())


def _markdown(tables: Sequence[Table], drawings: Sequence[Drawing], command: str) -> str:
    lines = ["# Evaluation", "", f"Made by {code_span(command)}. {NOTE}", ""]
    for section, group in groupby(tables, lambda table: table.section):
        lines += [f"## {escape_markdown(section)}", ""]
        for table in group:
            lines += [f"### {escape_markdown(table.title)}", ""] if table.title else []
            lines += [to_markdown(table), ""]
    for drawing in drawings:
        lines += [f"![{drawing.name}](plots/{drawing.name}.svg)", "", escape_markdown(drawing.caption), ""]
    return "\n".join(lines)


def _page(tables: Sequence[Table], drawings: Sequence[Drawing], command: str) -> str:
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Evaluation</title><style>{CSS}</style></head><body>",
        f"<h1>Evaluation</h1><p>Made by <code>{html.escape(command)}</code>. {NOTE}</p>",
    ]
    for section, group in groupby(tables, lambda table: table.section):
        parts.append(f"<h2>{html.escape(section)}</h2>")
        for table in group:
            parts += [f"<h3>{html.escape(table.title)}</h3>"] if table.title else []
            parts.append(to_html(table))
    for drawing in drawings:
        svg = _with_unique_ids(drawing.svg, drawing.name)
        parts.append(f"<figure>{svg}<figcaption>{html.escape(drawing.caption)}</figcaption></figure>")
    return "\n".join([*parts, "</body></html>", ""])


def _with_unique_ids(svg: str, prefix: str) -> str:
    """A drawing without its XML header, and with a prefix before its ids, since one page holds several drawings."""
    drawing = svg[svg.index("<svg") :]
    for mark in ('id="', 'href="#', "url(#"):
        drawing = drawing.replace(mark, f"{mark}{prefix}-")
    return drawing

"""A report on disk: tables as Markdown, CSV and JSON, plots as PNG and SVG, and one HTML page that holds all of it.

results.json   a list of the objects of `stochastok eval --json`
results.csv    a line for each checkpoint and metric
report.md      the tables, and links to the plots
report.html    the same in one file
plots/         each plot as PNG and SVG
"""

import csv
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stochastok_cli.report.plots import Records, figures
from stochastok_cli.report.tables import Row, group_of, interval_text, row_json, value_text

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b;
       background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
div.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.88rem; }
th, td { padding: 0.3rem 0.7rem; text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { border-bottom: 1px solid #888; vertical-align: bottom; } small { color: #666; }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: 0.9rem; }
code { font-size: 0.85rem; overflow-wrap: anywhere; }
"""


class Sheet(NamedTuple):
    """A table: a title, headings, and rows of texts, the first column a name."""

    title: str
    headings: list[str]
    rows: list[list[str]]


class Plot(NamedTuple):
    name: str
    caption: str
    svg: str


def write_report(
    folder: Path,
    rows: Sequence[Row],
    runs: Mapping[str, Records],
    *,
    command: str,
    comparisons: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Writes all files of a report into `folder`, over an older report; returns the HTML page.

    `runs` are the records of the checkpoints' runs by label; `comparisons` further JSON objects, of pairs and seeds.
    """
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for old in [*(folder / "plots").glob("*.png"), *(folder / "plots").glob("*.svg")]:  # of an earlier report
        old.unlink()
    objects = [row_json(row) for row in rows] + [dict(one) for one in comparisons]
    (folder / "results.json").write_text(json.dumps(objects, indent=2) + "\n", encoding="utf-8")
    (folder / "results.csv").write_text(to_csv(rows), encoding="utf-8", newline="")
    plots = _save_plots(folder / "plots", rows, runs)
    sheets = [*to_sheets(rows), *map(_difference_sheet, (one for one in comparisons if "paired" in one))]
    (folder / "report.md").write_text(_markdown(sheets, plots, command), encoding="utf-8")
    (folder / "report.html").write_text(_page(sheets, plots, command), encoding="utf-8")
    return folder / "report.html"


def _save_plots(folder: Path, rows: Sequence[Row], runs: Mapping[str, Records]) -> list[Plot]:
    plots = []
    for name, caption, figure in figures(rows, runs):
        figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        (folder / f"{name}.svg").write_text(text.getvalue(), encoding="utf-8")
        plots.append(Plot(name, caption, _unique_ids(text.getvalue(), name)))
    return plots


def _unique_ids(svg: str, name: str) -> str:
    """The drawing without its XML header and with ids of its own, since several stand in one page."""
    drawing = svg[svg.index("<svg") :]
    for mark in ('id="', 'href="#', "url(#"):
        drawing = drawing.replace(mark, f"{mark}{name}-")
    return drawing


def to_csv(rows: Sequence[Row]) -> str:
    """A line for each checkpoint and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["checkpoint", "iteration", "metric", "value", "low", "high", "n"])
    for row in rows:
        for name, value in row.metrics.items():
            n = row.n.get(name.rpartition("/")[0], row.n.get(name, ""))
            iteration = "" if row.iteration is None else row.iteration
            writer.writerow([row.checkpoint, iteration, name, value, *row.intervals.get(name, ("", "")), n])
    return text.getvalue()


def to_sheets(rows: Sequence[Row]) -> list[Sheet]:
    """A table for each benchmark, checkpoints as rows; one for the parts of each, checkpoints as columns."""
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    sheets = []
    for group in dict.fromkeys(map(group_of, names)):
        mine = [name for name in names if group_of(name) == group]
        if group.endswith("/"):
            body = [
                [name.removeprefix(group).removesuffix("/accuracy").replace("_", " ").replace("/", " ")]
                + [_cell(row, name) for row in rows]
                for name in mine
            ]
            inside = group.startswith("alignment/")
            about = "distance of a word's tokenizations" if inside else "parts and other tokenizations"
            title = f"{group.split('/')[1]}: {about}"
            sheets.append(Sheet(title, ["layer" if inside else "accuracy on", *(row.label for row in rows)], body))
        else:
            headings = [name.removeprefix(f"{group}/").replace("_", " ").replace("/", " ") for name in mine]
            body = [
                [row.label, "" if row.iteration is None else f"{row.iteration:,}", *(_cell(row, name) for name in mine)]
                for row in rows
            ]
            asked = {row.n[group] for row in rows if group in row.n}
            count = f" ({', '.join(f'{n:,}' for n in sorted(asked))} questions)" if asked else ""
            title = f"{(group.partition('/')[2] or group).replace('_', ' ')}{count}"
            sheets.append(Sheet(title, ["checkpoint", "iteration", *headings], body))
    return sheets


def _cell(row: Row, name: str) -> str:
    if name not in row.metrics:
        return "–"
    value = value_text(name, row.metrics[name])
    return f"{value} {interval_text(row.intervals[name])}" if name in row.intervals else value


def _difference_sheet(paired: Mapping[str, Any]) -> Sheet:
    first, second = paired["paired"]
    body = [
        [
            name,
            f"{one['difference']:+.3f} {interval_text(one['interval'], '+.2f')}",
            f"{one['first_better']:,}",
            f"{one['second_better']:,}",
        ]
        for name, one in paired["differences"].items()
    ]
    return Sheet(f"{second} minus {first}", ["metric", "difference", "first better", "second better"], body)


NOTE = "Brackets hold 95% intervals: percentile bootstrap over the questions."


def _markdown(sheets: Sequence[Sheet], plots: Sequence[Plot], command: str) -> str:
    lines = ["# Evaluation", "", f"Made by `{command}`. {NOTE}", ""]
    for sheet in sheets:
        lines += [f"## {sheet.title}", "", _line(sheet.headings)]
        lines += [_line(["---", *["---:"] * (len(sheet.headings) - 1)]), *map(_line, sheet.rows), ""]
    for plot in plots:
        lines += [f"![{plot.name}](plots/{plot.name}.svg)", "", plot.caption, ""]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _page(sheets: Sequence[Sheet], plots: Sequence[Plot], command: str) -> str:
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Evaluation</title><style>{CSS}</style></head><body>",
        f"<h1>Evaluation</h1><p>Made by <code>{html.escape(command)}</code>. {NOTE}</p>",
    ]
    for sheet in sheets:
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in sheet.headings)
        body = "".join(f"<tr>{''.join(f'<td>{_small(cell)}</td>' for cell in row)}</tr>" for row in sheet.rows)
        parts.append(f"<h2>{html.escape(sheet.title)}</h2>")
        parts.append(f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>')
    for plot in plots:
        parts.append(f"<figure>{plot.svg}<figcaption>{html.escape(plot.caption)}</figcaption></figure>")
    return "\n".join([*parts, "</body></html>", ""])


def _small(cell: str) -> str:
    """A cell with its interval in small print."""
    value, bracket, interval = cell.partition(" [")
    return f"{html.escape(value)} <small>[{html.escape(interval)}</small>" if bracket else html.escape(cell)

"""Metrics as tables for people."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import numpy as np

TITLES = {
    "mcq": "Multiple choice",
    "math_generation": "Addition",
    "alignment": "Distance between the tokenizations of a word, after each attention layer",
    "bits_per_byte": "Bits per byte of the validation text (lower is better)",
}
HEADINGS = {
    "path_confidence": "path\nconf.",
    "ground_confidence": "ground\nconf.",
    "num_options": "options",
    "normalized_accuracy": "norm.\naccuracy",
    "normalized_path_confidence": "norm.\npath\nconf.",
}


@dataclass(frozen=True)
class Row:
    """A checkpoint: what to call it, its iteration where known, its metrics by full name, on how many questions each
    group of them rests; intervals and what each question gave where known; where it lies."""

    label: str
    iteration: int | None
    metrics: Mapping[str, float]
    n: Mapping[str, int]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    outcomes: "Mapping[str, np.ndarray]" = field(default_factory=dict)
    checkpoint: str = ""
    curves: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


def row_json(row: Row) -> dict[str, Any]:
    """As a line of `stochastok eval --json`."""
    return {
        "schema": 1,
        "checkpoint": row.checkpoint,
        "iteration": row.iteration,
        "metrics": {name: value if math.isfinite(value) else None for name, value in row.metrics.items()},
        "n": row.n,
        "intervals": row.intervals,
        **({"curves": row.curves} if row.curves else {}),
    }


def metric_tables(rows: Sequence[Row]) -> list[Group]:
    """A titled table for each group of metrics: a benchmark, a split of addition, or all corpora in bits per byte.

    Checkpoints are its rows and metrics its columns; the number of questions goes into the title.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    groups = list(dict.fromkeys(group_of(name) for name in names))
    return [_table(group, [name for name in names if group_of(name) == group], rows) for group in groups]


def group_of(name: str) -> str:
    """What a table is about: `mcq/arc`, `math_generation/val`, `bits_per_byte`; `mcq/arc/` is about parts of it."""
    if name.startswith(("mcq/", "alignment/")) and name.count("/") == 3:
        return f"{name.rsplit('/', 2)[0]}/"
    return name.rpartition("/")[0] if name.count("/") < 3 else name.rsplit("/", 2)[0]


def _table(group: str, names: Sequence[str], rows: Sequence[Row]) -> Group:
    evaluator, _, about = group.partition("/")
    title = TITLES.get(evaluator, evaluator) + (f": {about.rstrip('/')}" if about else "")
    if about.endswith("/"):
        more = "" if evaluator == "alignment" else ", parts and other tokenizations"
        return _parts_table(f"{title}{more}", group, names, rows)
    groups = {group} if evaluator == "mcq" else {name.rpartition("/")[0] for name in names if about}
    asked = {row.n[name] for row in rows for name in groups if name in row.n}
    if asked:
        title += f" ({', '.join(f'{count:,}' for count in sorted(asked))} questions)"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # six metrics must fit 80 columns
    table.add_column("checkpoint", overflow="fold")
    table.add_column("iteration", justify="right", no_wrap=True)
    for name in names:
        table.add_column(column_label(name.removeprefix(f"{group}/")), justify="right", no_wrap=True)
    for row in rows:
        values = [_value(name, row) if name in row.metrics else "–" for name in names]
        table.add_row(row.label, "" if row.iteration is None else f"{row.iteration:,}", *values)
    return Group(Text(title, style="bold"), table, "")  # a table's own title is broken at the table's width


def _parts_table(title: str, group: str, names: Sequence[str], rows: Sequence[Row]) -> Group:
    """Kinds of question and other parts: a line for each, a column for each checkpoint."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("" if group.startswith("alignment") else "accuracy on")
    table.add_column("number", justify="right")
    for row in rows:
        table.add_column(row.label, justify="right", overflow="fold")
    for name in names:
        part = name.removeprefix(group)
        kind, _, metric = part.partition("/")
        part = kind if metric == "accuracy" else f"{kind} {metric}"
        values = [_value(name, row).replace("\n", " ") if name in row.metrics else "–" for row in rows]
        number = rows[0].n.get(name.rpartition("/")[0], rows[0].n.get(group.rstrip("/")))
        table.add_row(part.replace("_", " "), f"{number:,}" if number is not None else "", *values)
    return Group(Text(title, style="bold"), table, "")


def column_label(name: str) -> str:
    """A narrow heading of a few lines.

    >>> column_label("base/exact_match"), column_label("web-tokenized"), column_label("web-tokenized-stochastok1.0")
    ('base\\nexact\\nmatch', 'web\\ncanonical', 'web\\nstochastok 1.0')
    """
    if name in HEADINGS:
        return HEADINGS[name]
    corpus = re.fullmatch(r"(.+)-tokenized(?:-(.+?)(\d[\d.e-]*))?", name)
    if corpus:
        dataset, method, p = corpus.groups()
        return f"{dataset}\n{f'{method} {p}' if method else 'canonical'}"
    return re.sub("[_/]", "\n", name)


def _value(name: str, row: Row) -> str:
    """A number, and below it the interval where there is one."""
    value = value_text(name, row.metrics[name])
    # The normalized accuracy has one as well, which says the same once more.
    shown = name in row.intervals and "/normalized_" not in name
    return f"{value}\n{interval_text(row.intervals[name])}" if shown else value


def value_text(name: str, value: float) -> str:
    return f"{value:,.0f}" if name.endswith("/truncated") else f"{value:.3f}"


def interval_text(interval: tuple[float, float], form: str = ".2f") -> str:
    """
    >>> interval_text((0.0412, 0.1))
    '[0.04 0.10]'
    """
    return f"[{interval[0]:{form}} {interval[1]:{form}}]"

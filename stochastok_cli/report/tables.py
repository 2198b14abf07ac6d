"""Metrics as tables for people."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

TITLES = {
    "mcq": "Multiple choice",
    "math_generation": "Addition",
    "bits_per_byte": "Bits per byte of the validation text (lower is better)",
}
HEADINGS = {
    "path_confidence": "path\nconf.",
    "ground_confidence": "ground\nconf.",
    "num_options": "options",
    "normalized_accuracy": "norm.\naccuracy",
    "normalized_path_confidence": "norm.\npath\nconf.",
}


class Row(NamedTuple):
    """A checkpoint: what to call it, its iteration where known, its metrics by full name, and on how many questions
    each group of them rests."""

    label: str
    iteration: int | None
    metrics: Mapping[str, float]
    n: Mapping[str, int]


def metric_tables(rows: Sequence[Row]) -> list[Group]:
    """A titled table for each group of metrics: a benchmark, a split of addition, or all corpora in bits per byte.

    Checkpoints are its rows and metrics its columns; the number of questions goes into the title.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    groups = list(dict.fromkeys(_group(name) for name in names))
    return [_table(group, [name for name in names if _group(name) == group], rows) for group in groups]


def _group(name: str) -> str:
    """What a table is about: `mcq/arc`, `math_generation/val`, `bits_per_byte`."""
    return name.rpartition("/")[0] if name.count("/") < 3 else name.rsplit("/", 2)[0]


def _table(group: str, names: Sequence[str], rows: Sequence[Row]) -> Group:
    evaluator, _, about = group.partition("/")
    title = TITLES.get(evaluator, evaluator) + (f": {about}" if about else "")
    asked = {count for row in rows for name, count in row.n.items() if about and f"{name}/".startswith(f"{group}/")}
    if asked:
        title += f" ({', '.join(f'{count:,}' for count in sorted(asked))} questions)"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # six metrics must fit 80 columns
    table.add_column("checkpoint", overflow="fold")
    table.add_column("iteration", justify="right", no_wrap=True)
    for name in names:
        table.add_column(column_label(name.removeprefix(f"{group}/")), justify="right", no_wrap=True)
    for row in rows:
        values = [_value(name, row.metrics[name]) if name in row.metrics else "–" for name in names]
        table.add_row(row.label, "" if row.iteration is None else f"{row.iteration:,}", *values)
    return Group(Text(title, style="bold"), table, "")  # a table's own title is broken at the table's width


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


def _value(name: str, value: float) -> str:
    return f"{value:,.0f}" if name.endswith("/truncated") else f"{value:.3f}"

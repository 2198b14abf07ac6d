"""Tables on the terminal, in Markdown and in HTML, and metrics as CSV."""

import csv
import html
import io
import re
import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from stochastok_cli.evaluation.results import EvalResult
from stochastok_cli.report.tables import Cell, Column, Table

_MARKDOWN = re.compile(r"[\\`*$~|]|(?<!\w)_|_(?!\w)|\[(?=[^\]]*\]\()|^(?=[#>+-]+ )")
LEAST_NAME = 6
"""The width on the terminal to which a column of names may shrink."""
LEAST_LABEL = 20
"""That to which the first column may: longer labels take two lines or three."""
SHORT = 8
"""A table of at most so many rows is not divided between two pages of paper."""


def to_rich(table: Table, width: int) -> Group:
    """The table for a terminal of `width` columns: transposed, or else as keys and values, where it would not fit.

    Brackets in a label are shown as they are, not read as rich markup.
    """
    if table.stack_intervals and _least_width(table) > width:
        table = _transposed(table)
    # A title inside the table would be broken at the table's width.
    title = Text(table.full_title, style="bold")
    if table.rows and _least_width(table, LEAST_NAME if table.stack_intervals else LEAST_LABEL) > width:
        return Group(title, *map(Text, _keys_and_values(table)), *map(Text, table.notes), "")
    rendered = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)  # six metrics must fit 80 columns
    for i, column in enumerate(table.columns):
        rendered.add_column(
            Text(column.narrow or column.heading),
            justify="right" if i else "left",
            no_wrap=not column.wrap,
            overflow="fold" if column.wrap else "ellipsis",
        )
    for row in table.rows:
        rendered.add_row(*(Text(_terminal_text(table, *pair)) for pair in zip(table.columns, row, strict=True)))
    return Group(title, rendered, *map(Text, table.notes), "")


def _keys_and_values(table: Table) -> list[str]:
    """For each row its name, and below it a line for each column that has a value, followed by an empty line."""
    length = max(len(column.heading) for column in table.columns[1:])
    lines = []
    for name, *cells in table.rows:
        lines.append(name.value)
        pairs = zip(table.columns[1:], cells, strict=True)
        lines += [f"  {column.heading.ljust(length)}  {cell}" for column, cell in pairs if str(cell)]
        lines.append("")
    return lines


def _terminal_text(table: Table, column: Column, cell: Cell) -> str:
    if not (cell.interval and column.show_intervals):
        return cell.value
    return f"{cell.value}{chr(10) if table.stack_intervals else ' '}{cell.interval}".strip()


def _least_width(table: Table, least_label: int = LEAST_NAME) -> int:
    """The width below which the terminal would cut numbers.

    A column that may wrap needs LEAST_NAME at most, the first one `least_label`.
    """
    widths: list[int] = []
    for column, cells in zip(table.columns, zip(*table.rows, strict=True), strict=True):
        texts = [column.narrow or column.heading, *(_terminal_text(table, column, cell) for cell in cells)]
        longest = max(len(line) for text in texts for line in text.split("\n"))
        least = LEAST_NAME if widths else least_label
        widths.append(min(longest, least) if column.wrap else longest)
    return sum(widths) + 3 * (len(widths) - 1)


def _transposed(table: Table) -> Table:
    """The table with its rows as columns."""
    columns = [Column("", wrap=True), *(Column(row[0].value, wrap=True) for row in table.rows)]
    rows = [[Cell(column.heading), *(row[i] for row in table.rows)] for i, column in enumerate(table.columns)]
    return Table(table.section, table.title, columns, rows[1:], table.notes)


def to_markdown(table: Table) -> str:
    """The table as a Markdown pipe table, without its titles."""
    lines = [_markdown_row([column.heading for column in table.columns])]
    lines += [_markdown_row(["---", *["---:"] * (len(table.columns) - 1)])]
    lines += [_markdown_row([str(cell) for cell in row]) for row in table.rows]
    return "\n".join([*lines, *(f"\n{escape_markdown(note)}" for note in table.notes)])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escape_markdown, cells))} |"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no HTML (which Markdown passes on), no emphasis, links, formulas or cells.

    >>> print(escape_markdown("<b> a|b $x$ *y* _z_ [l](u) starts_with [0.04 0.10]"))
    &lt;b&gt; a\\|b \\$x\\$ \\*y\\* \\_z\\_ \\[l](u) starts_with [0.04 0.10]
    """
    without_entities = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    return _MARKDOWN.sub(r"\\\g<0>", without_entities).replace("<", "&lt;").replace(">", "&gt;")


def code_span(text: str) -> str:
    """Text as code in Markdown, in one line.

    >>> print(code_span("a `b` c"))
    `` a `b` c ``
    """
    text = " ".join(text.splitlines())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def to_html(table: Table) -> str:
    """The table as an HTML element without its titles, intervals in small print."""
    head = "".join(f"<th{_html_class(column)}>{html.escape(column.heading)}</th>" for column in table.columns)
    make_row = _html_text_row if table.is_text else _html_row
    body = "".join(f"<tr>{make_row(table, row)}</tr>" for row in table.rows)
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in table.notes)
    if not table.rows:
        return notes
    kinds = [kind for kind, holds in (("text", table.is_text), ("short", len(table.rows) <= SHORT)) if holds]
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    # A head of its own is repeated on each page of paper.
    table_element = f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table_element}</div>{notes}'


def _html_row(table: Table, row: Sequence[Cell]) -> str:
    name, *cells = row
    pairs = zip(table.columns[1:], cells, strict=True)
    return f"<td>{html.escape(name.value)}</td>{''.join(_html_cell(*pair) for pair in pairs)}"


def _html_text_row(table: Table, row: Sequence[Cell]) -> str:
    """One cell for all columns where they are equal."""
    name, *cells = row
    first = f"<td>{_breakable(name.value)}</td>"
    if len({cell.value for cell in cells}) == 1:
        return f'{first}<td colspan="{len(cells)}">{html.escape(cells[0].value)}</td>'
    headings = [html.escape(column.heading) for column in table.columns[1:]]
    return first + "".join(
        f'<td data-column="{heading}">{html.escape(cell.value)}</td>'
        for heading, cell in zip(headings, cells, strict=True)
    )


def _breakable(name: str) -> str:
    """A name in HTML, which may be broken at its dots and underscores."""
    return re.sub(r"(?<=[._])", "<wbr>", html.escape(name))


def _html_cell(column: Column, cell: Cell) -> str:
    """A cell with the heading of its column, which a narrow page shows beside it."""
    interval = f"<small>{html.escape(cell.interval)}</small>" if cell.interval else ""
    text = " ".join(filter(None, (_breakable(cell.value) if column.is_name else html.escape(cell.value), interval)))
    return f'<td{_html_class(column)} data-column="{html.escape(column.heading)}">{text}</td>'


def _html_class(column: Column) -> str:
    return ' class="name"' if column.is_name else ""


def to_csv(results: Sequence[EvalResult]) -> str:
    """The metrics with a line for each checkpoint and metric: checkpoint, iteration, metric, value, low, high, n."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["checkpoint", "iteration", "metric", "value", "low", "high", "n"])
    for result in results:
        for metric in result.metrics:
            low, high = metric.interval or ("", "")
            iteration = "" if result.iteration is None else result.iteration
            n = "" if metric.n is None else metric.n
            writer.writerow([result.checkpoint, iteration, metric.key, metric.value, low, high, n])
    return text.getvalue()


def print_tables(tables: Sequence[Table]) -> None:
    """Prints tables on stdout."""
    console = Console()
    if not sys.stdout.isatty():
        console.width = 200  # a file or a pipe has no edge at which columns would have to be cut
    for table in tables:
        console.print(to_rich(table, console.width))

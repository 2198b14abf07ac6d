"""Tables on stdout: columns where the terminal has room for them, and else one value a line. No text is broken."""

import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

GAP = "  "
"""What stands between two columns."""
NO_EDGE = 1_000_000
"""The width of a file or a pipe."""
Entry = tuple[str, Sequence[tuple[str, str]]]
"""A title, and keys with values below it."""


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], entries: Sequence[Entry], *, numbers: bool = False
) -> None:
    """Prints rows in columns, or else the same as entries.

    Hundreds of rows take a table of rich a fifth of a second, and it breaks texts that have no room.

    Args:
        headings: Of the columns; they and cells may have several lines.
        rows: The cells of each row.
        entries: What stands for each row where the columns are wider than the terminal.
        numbers: All columns but the first hold numbers, which are aligned right.
    """
    columns = [[cell.split("\n") for cell in column] for column in zip(headings, *rows, strict=True)]
    widths = [max(_width(line) for lines in column for line in lines) for column in columns]
    total = sum(widths) + len(GAP) * (len(widths) - 1)
    if total > shutil.get_terminal_size((NO_EDGE, 0)).columns:
        print("\n\n".join(map(_entry, entries)))
        return
    head, *body = zip(*columns, strict=True)
    lines = [*_lines([[""] * (max(map(len, head)) - len(cell)) + cell for cell in head], widths, numbers), _rule(total)]
    for row in body:
        lines += _lines(row, widths, numbers)
    print("\n".join(lines))


def print_title(text: str) -> None:
    """Prints a line above a table, broken between words where the terminal is narrower."""
    print_paragraph(text)


def print_paragraph(text: str, *, indent: int = 0) -> None:
    """Prints a text that is broken between words where the terminal is narrower, with spaces before each line."""
    width, spaces = shutil.get_terminal_size((NO_EDGE, 0)).columns, " " * indent
    print(
        textwrap.fill(
            text,
            width,
            initial_indent=spaces,
            subsequent_indent=spaces,
            break_on_hyphens=False,
            break_long_words=False,
        )
    )


def _lines(row: Sequence[Sequence[str]], widths: Sequence[int], numbers: bool) -> list[str]:
    lines = []
    for line in zip_longest(*row, fillvalue=""):
        spaces = [" " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        padded = [
            space + cell if numbers and i else cell + space
            for i, (cell, space) in enumerate(zip(line, spaces, strict=True))
        ]
        lines.append(GAP.join(padded).rstrip())
    return lines


def _rule(width: int) -> str:
    try:
        "─".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return "-" * width
    return "─" * width


def _entry(entry: Entry) -> str:
    title, pairs = entry
    width = max((_width(key) for key, _ in pairs), default=0)
    return "\n".join([title, *(f"  {key}{' ' * (width - _width(key))}  {value}".rstrip() for key, value in pairs)])


def _width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)

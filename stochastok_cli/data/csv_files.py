"""Rows of comma- or tab-separated values."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple, cast

from stochastok_cli.data import text_files
from stochastok_cli.data.bad_documents import BadDocument, Location, encodable
from stochastok_cli.data.source_files import converted_by
from stochastok_cli.data.table_rows import Row, require_column
from stochastok_cli.data.text_files import OnBad
from stochastok_cli.errors import FAILED, UserError, count_of


def csv_rows(
    stream: BinaryIO, name: str, delimiter: str, columns: Mapping[str, str], errors: str, on_bad: OnBad
) -> Iterator[Row]:
    """Rows of separated values. The first row names the columns.

    Values in double quotes may hold line ends, but not where tabs separate them: most such files have no quotes, and a
    value that begins with one would swallow the rows up to the next one.

    Args:
        stream: the content of the file.
        name: its name, for errors.
        delimiter: what separates values.
        columns: the columns, each by the option that names it, for errors.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        on_bad: called with each row that can't be read, if it is known where it ends.

    Raises:
        UserError: the file has no such column, or quotes after which nobody knows where its rows begin, or
            is in UTF-16 or UTF-32.
    """
    text_files.require_utf8(cast(io.BufferedReader, stream).peek(4), name)
    csv.field_size_limit(max(csv.field_size_limit(), text_files.LONGEST_DOCUMENT))
    lines = _CsvLines(stream, errors)
    rows = _rows_of_fields(lines, name, delimiter)
    first = next(rows, None)
    if first is None:  # an empty file
        return
    header = first.fields
    _require_columns(header, columns, name)
    indices = [header.index(column) for column in columns.values()]
    for place, fields, num_lines in rows:
        if not fields:  # a blank line
            continue
        if bad := _bad_shape(fields, len(header), lines, place):
            if num_lines > 1:  # they may be rows of their own after a stray quote
                raise _broken(place, f"a row of {num_lines:,} lines with {bad.reason}")
            on_bad(bad)
            continue
        try:
            values = _csv_values(fields, indices, place)
        except BadDocument as bad:
            on_bad(bad)
        else:
            yield Row(place, values)


class _Fields(NamedTuple):
    """A row: where it begins, its values and its number of lines."""

    place: Location
    fields: list[str]
    num_lines: int


def _rows_of_fields(lines: "_CsvLines", name: str, delimiter: str) -> Iterator[_Fields]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        place = Location(name, reader.line_num + 1, "line")
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            never_closed = "a quote opens in this row and is never closed"
            what = never_closed if lines.at_end else f"no row of separated values ({error})"
            raise _broken(place, what, _ONE_LINE if delimiter == "\t" else _QUOTES) from None
        num_lines = reader.line_num + 1 - place.number
        if num_lines > 1 and delimiter == "\t":
            raise _broken(place, f"a quote opens in this row and closes in line {reader.line_num}", _ONE_LINE)
        yield _Fields(place, fields, num_lines)


_QUOTES = 'text with line ends, separators or quotes is written in quotes: "…""…"'
_ONE_LINE = (
    'a row of tab-separated values is one line, and a value that begins with a quote is written as "…""…"; '
    "convert the file to .jsonl, or to .csv"
)


def _broken(place: Location, what: str, fix: str = _QUOTES) -> UserError:
    """The error for quotes that hide where rows begin, so that no row after them can be read or left out."""
    return UserError(f"{place}: {what}", fix=fix, exit_code=FAILED)


def _require_columns(header: Sequence[str], columns: Mapping[str, str], name: str) -> None:
    all_there = all(column in header for column in columns.values())
    if any("\0" in column for column in header) or not (all_there or all(map(encodable, header))):
        fix = f"convert the file: {converted_by('UTF-16')}"
        raise UserError(f"{name}: its first row is not UTF-8 (UTF-16?)", fix=fix, exit_code=FAILED)
    for option, column in columns.items():
        require_column(option, column, header, column in header, name)
        if header.count(column) > 1:
            raise UserError(f"{name}: {header.count(column)} columns are named {column!r}", fix="rename one of them")


class _CsvLines:
    """The lines of a file. The rest of one that is too long is left away, and `too_long` is set.

    After the last line, `at_end` is set.
    """

    def __init__(self, stream: BinaryIO, errors: str):
        # Bytes that are not UTF-8 become lone surrogates, so that they are found in the row that they belong to.
        handler = "replace" if errors == "replace" else "surrogateescape"
        self._text = io.TextIOWrapper(stream, "utf-8-sig", handler, newline="")
        self.too_long = self.at_end = False

    def __iter__(self) -> Iterator[str]:
        longest = text_files.LONGEST_DOCUMENT
        while line := self._text.readline(longest + 1):
            if len(line) > longest:
                self.too_long = True
                rest = line
                while rest and not rest.endswith(("\n", "\r")):
                    rest = self._text.readline(2**20)
            yield line
        self.at_end = True


def _bad_shape(fields: Sequence[str], width: int, lines: _CsvLines, place: Location) -> BadDocument | None:
    """The error for a row that is too long, or has another number of values than there are columns."""
    too_long, lines.too_long = lines.too_long, False
    if too_long or max(map(len, fields)) > text_files.LONGEST_DOCUMENT:
        what = f"longer than {text_files.LONGEST_DOCUMENT:,} characters"
        return BadDocument(place, what, text_files.TOO_LONG)
    if len(fields) != width:
        what = f"{count_of(len(fields), 'value')}, and the first row names {count_of(width, 'column')}"
        return BadDocument(place, what, "another number of values than of columns", fix=_QUOTES)
    return None


def _csv_values(fields: Sequence[str], indices: Sequence[int], place: Location) -> tuple[str, ...]:
    values = tuple(fields[index] for index in indices)
    for value in values:
        if not encodable(value):
            fix = "convert the file, or give --errors replace"
            raise BadDocument(place, "its bytes are not UTF-8", text_files.NOT_UTF8, fix=fix)
    return values

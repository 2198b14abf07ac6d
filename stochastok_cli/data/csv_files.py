"""Rows of comma- or tab-separated values."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from stochastok_cli.data import text_files
from stochastok_cli.data.bad_documents import BadDocument, Location, encodable
from stochastok_cli.data.table_rows import Row, require_column
from stochastok_cli.data.text_files import OnBad
from stochastok_cli.errors import FAILED, UserError


def csv_rows(
    stream: BinaryIO, name: str, delimiter: str, columns: Mapping[str, str], errors: str, on_bad: OnBad
) -> Iterator[Row]:
    """Rows of separated values. The first row names the columns; values in double quotes may hold line ends."""
    csv.field_size_limit(max(csv.field_size_limit(), text_files.LONGEST_DOCUMENT))
    lines = _CsvLines(stream, errors)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise UserError(f"{name}: its first row is no row of separated values ({error})", exit_code=FAILED) from None
    if header is None:  # an empty file
        return
    for option, column in columns.items():
        require_column(option, column, header, column in header, name)
        if header.count(column) > 1:
            raise UserError(f"{name}: {header.count(column)} columns are named {column!r}", fix="rename one of them")
    indices = [header.index(column) for column in columns.values()]
    while True:
        place = Location(name, reader.line_num + 1, "line")
        try:
            fields = next(reader)
            if fields:  # not a blank line
                yield Row(place, _csv_values(fields, indices, len(header), lines, place))
        except StopIteration:
            return
        except csv.Error as error:
            on_bad(BadDocument(place, f"no row of separated values ({error})", "a line that is no row of values"))
        except BadDocument as bad:
            on_bad(bad)


class _CsvLines:
    """The lines of a file; the rest of one that is too long is left away, and `too_long` is set."""

    def __init__(self, stream: BinaryIO, errors: str):
        # Bytes that are not UTF-8 become lone surrogates, so that they are found in the row that they belong to.
        handler = "replace" if errors == "replace" else "surrogateescape"
        self._text = io.TextIOWrapper(stream, "utf-8-sig", handler, newline="")
        self.too_long = False

    def __iter__(self) -> Iterator[str]:
        longest = text_files.LONGEST_DOCUMENT
        while line := self._text.readline(longest + 1):
            if len(line) > longest:
                self.too_long = True
                rest = line
                while rest and not rest.endswith(("\n", "\r")):
                    rest = self._text.readline(2**20)
            yield line


def _csv_values(
    fields: Sequence[str], indices: Sequence[int], width: int, lines: _CsvLines, place: Location
) -> tuple[str, ...]:
    too_long, lines.too_long = lines.too_long, False
    if too_long or max(map(len, fields)) > text_files.LONGEST_DOCUMENT:
        what = f"longer than {text_files.LONGEST_DOCUMENT:,} characters"
        raise BadDocument(place, what, text_files.TOO_LONG)
    if len(fields) != width:
        raise BadDocument(
            place,
            f"{len(fields)} values, and the first row names {width} columns",
            "another number of values than of columns",
            fix='text with line ends, separators or quotes is written in quotes: "…""…"',
        )
    values = tuple(fields[index] for index in indices)
    for value in values:
        if not encodable(value):
            fix = "convert the file, or give --errors replace"
            raise BadDocument(place, "its bytes are not UTF-8", text_files.NOT_UTF8, fix=fix)
    return values

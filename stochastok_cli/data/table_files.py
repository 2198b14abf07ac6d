"""Rows of one file: JSON objects, comma- or tab-separated values, parquet, Arrow."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from stochastok_cli.data.arrow_files import arrow_rows, parquet_rows
from stochastok_cli.data.bad_documents import BadDocument, Location
from stochastok_cli.data.csv_files import csv_rows
from stochastok_cli.data.source_files import ARROW_SUFFIXES, CSV_SUFFIXES, file_format
from stochastok_cli.data.table_rows import MOST_COLUMNS, LongInteger, Row, no_column
from stochastok_cli.data.text_files import OnBad, open_decompressed, read_lines
from stochastok_cli.errors import FAILED, USAGE, UserError


def read_rows(
    file: Path, name: str, columns: Mapping[str, str], errors: str, on_bad: OnBad
) -> Iterator[tuple[Row, int]]:
    """The rows of a file, each with the number of bytes of the file read so far.

    Args:
        file: the file.
        name: its name, for errors.
        columns: the columns, each by the option that names it, for errors. One of a struct is `outer.inner`.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        on_bad: called with each row that can't be read.

    Raises:
        UserError: the file is damaged, or has no such column (files of JSON objects: a row has none).
    """
    kind = file_format(file)
    if kind == ".parquet":
        with open(file, "rb", buffering=1 << 20) as raw:
            yield from parquet_rows(raw, file, name, columns)
    elif kind in ARROW_SUFFIXES:
        with open(file, "rb") as raw:
            yield from arrow_rows(raw, file, name, columns)
    else:
        with open_decompressed(file, name) as (stream, raw):
            if kind in CSV_SUFFIXES:
                rows = csv_rows(stream, name, "\t" if kind == ".tsv" else ",", columns, errors, on_bad)
            else:
                rows = _json_rows(stream, name, columns, errors, on_bad)
            for row in rows:
                yield row, raw.tell()


def _json_rows(stream: BinaryIO, name: str, columns: Mapping[str, str], errors: str, on_bad: OnBad) -> Iterator[Row]:
    """One JSON object a line, as in `{"text": …}`."""
    is_first = True
    for place, line in read_lines(stream, name, errors):
        if is_first and isinstance(line, str) and line.strip():
            is_first = False
            if _ARRAY.match(line):
                fix = "convert it to one object a line: jq -c '.[]'"
                raise UserError(f"{name} is a JSON array", fix=fix, exit_code=FAILED)
        if isinstance(line, BadDocument):
            on_bad(line)
        elif line.strip():
            try:
                yield Row(place, _json_values(line, place, columns))
            except BadDocument as error:
                on_bad(error)


def _json_values(line: str, place: Location, columns: Mapping[str, str]) -> tuple[Any, ...]:
    try:
        row = _loads(line)
    except ValueError as error:
        what = f"not a JSON object ({error})"
        raise BadDocument(place, what, _NO_OBJECT, fix="expected one object a line") from None
    except RecursionError:
        what = "its objects or arrays are nested too deeply to be read"
        raise BadDocument(place, what, "values nested too deeply") from None
    if not isinstance(row, dict):
        raise BadDocument(place, f"{line.strip()[:40]!r} is not a JSON object", _NO_OBJECT)
    if twice := _key_given_twice(line, columns.values()):
        raise BadDocument(place, f"the key {twice!r} is there twice", "a key that is there twice")
    values = []
    for option, column in columns.items():
        value = row[column] if column in row else _inner(row, column)
        if value is _ABSENT:
            what, fix = no_column(option, column, tuple(itertools.islice(row, MOST_COLUMNS)))
            raise BadDocument(place, what, f"no column {column!r}", fix=fix, exit_code=USAGE)
        values.append(value)
    return tuple(values)


def _loads(line: str, **options: Any) -> Any:
    """The value of a line, in which a number may have more digits than Python makes an integer of.

    Raises ValueError where it is no JSON, and RecursionError where it is nested too deeply.
    """
    try:
        return json.loads(line, **options)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return json.loads(line, parse_int=_integer, **options)


def _integer(digits: str) -> int | LongInteger:
    try:
        return int(digits)
    except ValueError:
        return LongInteger(len(digits.lstrip("-")))


class _Twice(dict[str, Any]):
    """An object that has some keys more than once."""

    keys_twice: frozenset[str]


def _key_given_twice(line: str, columns: Iterable[str]) -> str:
    """A column whose key, or an outer one, is more than once in the object of a line; "" for none.

    JSON allows it, and readers take the last of the values.
    """
    keys = {key for column in columns for key in (column, *column.split("."))}
    if not any(line.count(json.dumps(key, ensure_ascii=False)) > 1 for key in keys):  # nearly all lines
        return ""
    row = _loads(line, object_pairs_hook=_object)
    return next((column for column in columns if _is_given_twice(row, column)), "")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        made = _Twice(made)
        made.keys_twice = frozenset(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    return made


def _is_given_twice(row: Any, column: str) -> bool:
    """Whether a key on the way to `outer.inner` is more than once in its object."""
    keys = row.keys_twice if isinstance(row, _Twice) else ()
    if column in keys or not isinstance(row, dict) or column in row:
        return column in keys
    prefixes = [column[:place] for place, character in enumerate(column) if character == "."]
    return any(
        prefix in keys or _is_given_twice(row[prefix], column[len(prefix) + 1 :])
        for prefix in prefixes
        if prefix in row
    )


_ARRAY = re.compile(r"\s*\[\s*([{\]]|$)")
"""The first line of an array of objects: in one line or in several, or empty."""
_NO_OBJECT = "a line that is no JSON object"
_ABSENT = object()


def _inner(row: Mapping[str, Any], column: str) -> Any:
    """The value of `outer.inner` in an object of objects; None where an outer one is null."""
    if column in row:
        return row[column]
    for place, character in enumerate(column):
        outer = row.get(column[:place], _ABSENT) if character == "." else _ABSENT
        if outer is None:
            return None
        if isinstance(outer, dict) and (value := _inner(outer, column[place + 1 :])) is not _ABSENT:
            return value
    return _ABSENT

"""Rows of one file: JSON objects, comma- or tab-separated values, parquet, Arrow."""

import csv
import functools
import io
import itertools
import json
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from stochastok_cli.arrow_columns import column_path, column_values, take_column
from stochastok_cli.data import text_files
from stochastok_cli.data.bad_documents import BadDocument, Location
from stochastok_cli.data.source_files import ARROW_SUFFIXES, CSV_SUFFIXES, file_format
from stochastok_cli.data.text_files import OnBad, open_decompressed, read_lines
from stochastok_cli.errors import FAILED, USAGE, UserError, did_you_mean

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

_BATCH_ROWS = 1000
_SMALL_CHUNK = 2**25  # bytes of a column of a row group that are decoded whatever their size in the file
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


class Row(NamedTuple):
    """A row of a table: where it is, for errors, and the values of its columns or what was made of them."""

    where: Location
    values: Any


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
            yield from _parquet_rows(raw, file, name, columns)
    elif kind in ARROW_SUFFIXES:
        with open(file, "rb") as raw:
            yield from _arrow_rows(raw, file, name, columns)
    else:
        with open_decompressed(file, name) as (stream, raw):
            if kind in CSV_SUFFIXES:
                rows = _csv_rows(stream, name, "\t" if kind == ".tsv" else ",", columns, errors, on_bad)
            else:
                rows = _json_rows(stream, name, columns, errors, on_bad)
            for row in rows:
                yield row, raw.tell()


# ------------------------------------------------------------------------------------------------ JSON


def _json_rows(stream: BinaryIO, name: str, columns: Mapping[str, str], errors: str, on_bad: OnBad) -> Iterator[Row]:
    """One JSON object a line, as in `{"text": …}`."""
    for place, line in read_lines(stream, name, errors):
        if isinstance(line, BadDocument):
            on_bad(line)
        elif line.strip():
            try:
                yield Row(place, _json_values(line, place, columns))
            except BadDocument as error:
                on_bad(error)


def _json_values(line: str, place: Location, columns: Mapping[str, str]) -> tuple[Any, ...]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = f"not a JSON object ({error})"
        raise BadDocument(place, what, _NO_OBJECT, fix="expected one object a line") from None
    if not isinstance(row, dict):
        raise BadDocument(place, f"{line.strip()[:40]!r} is not a JSON object", _NO_OBJECT)
    values = []
    for option, column in columns.items():
        value = row[column] if column in row else _inner(row, column)
        if value is _ABSENT:
            what, fix = _no_column(option, column, tuple(itertools.islice(row, 20)))
            raise BadDocument(place, what, f"no column {column!r}", fix=fix, exit_code=USAGE)
        values.append(value)
    return tuple(values)


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


@functools.lru_cache(maxsize=64)
def _no_column(option: str, column: str, present: tuple[str, ...]) -> tuple[str, str]:
    """What an error says about a missing column, and what to do."""
    names = [str(name)[:100] for name in present]
    what = f"there is no column {column!r}{did_you_mean(column, names)}"
    return what, f"name one of {', '.join(names)} with {option}"


def _require_column(option: str, column: str, names: Iterable[str], is_present: bool, file: str) -> None:
    if not is_present:
        what, fix = _no_column(option, column, tuple(itertools.islice(names, 20)))
        raise UserError(f"{file}: {what}", fix=fix)


# ------------------------------------------------------------------------------------------------ CSV


def _csv_rows(
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
        _require_column(option, column, header, column in header, name)
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


def encodable(text: str) -> bool:
    """Whether a string holds no lone surrogate (half a character)."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


# ------------------------------------------------------------------------------------------------ Arrow and parquet


def _parquet_rows(stream: BinaryIO, file: Path, name: str, columns: Mapping[str, str]) -> Iterator[tuple[Row, int]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(stream)
    except (pyarrow.ArrowException, OSError) as error:
        compressed = file.suffix.lower() != ".parquet"
        fix = "decompress it: parquet files compress their columns themselves" if compressed else ""
        raise UserError(f"{name} is no parquet file or is cut short: {error}", fix=fix, exit_code=FAILED) from None
    paths = _column_paths(columns, table.schema_arrow, name)
    as_dictionary = [path for path in map(".".join, paths) if _repeats_large_values(table, path)]
    if as_dictionary:
        table = parquet.ParquetFile(stream, read_dictionary=as_dictionary)
    size, rows = file.stat().st_size, max(table.metadata.num_rows, 1)
    batches = table.iter_batches(batch_size=_BATCH_ROWS, columns=[*map(".".join, paths)])
    for done, row in enumerate(_rows_of(batches, paths, name), 1):
        yield row, size * done // rows


def _repeats_large_values(table: "pyarrow.parquet.ParquetFile", path: str) -> bool:
    """Whether a column is compressed so much that a value of its dictionary may be too large to be held many times."""
    for group in range(table.num_row_groups):
        metadata = table.metadata.row_group(group)
        for chunk in map(metadata.column, range(metadata.num_columns)):
            size = chunk.total_uncompressed_size
            if chunk.path_in_schema == path and size > max(_SMALL_CHUNK, 100 * chunk.total_compressed_size):
                return True
    return False


def _arrow_rows(raw: BinaryIO, file: Path, name: str, columns: Mapping[str, str]) -> Iterator[tuple[Row, int]]:
    """The rows of an Arrow file (also Feather), or of an Arrow stream, as `datasets` saves it."""
    import pyarrow
    import pyarrow.ipc

    size = file.stat().st_size
    if not size:
        raise UserError(f"{name} is empty: no Arrow file", exit_code=FAILED)
    if file.suffix.lower() not in ARROW_SUFFIXES:
        raise UserError(f"{name}: compressed Arrow files are not read", fix="decompress it", exit_code=FAILED)
    content = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    is_file = content[:6] == b"ARROW1"
    source = pyarrow.BufferReader(pyarrow.py_buffer(content))
    count = None
    with _arrow_damage(name):
        if is_file:
            whole = pyarrow.ipc.open_file(source)
            schema, count = whole.schema, whole.num_record_batches
        else:
            schema = pyarrow.ipc.open_stream(source).schema
            if content[-len(_END_OF_STREAM) :] != _END_OF_STREAM:
                raise OSError("it does not end where its last rows do")
    paths = _column_paths(columns, schema, name)
    wanted = sorted({schema.names.index(path[0]) for path in paths})
    with _arrow_damage(name):
        source.seek(8 if is_file else 0)  # a file is a stream between two marks; as one, no column of it is copied
        reader = pyarrow.ipc.open_stream(source, options=pyarrow.ipc.IpcReadOptions(included_fields=wanted))

    def batches() -> Iterator["pyarrow.RecordBatch"]:
        number, before = 0, 0
        for number, batch in enumerate(reader, 1):  # noqa: B007
            yield from (batch.slice(start, _BATCH_ROWS) for start in range(0, len(batch), _BATCH_ROWS))
            before = _release(content, before, source.tell())
        if count is not None and number != count:
            raise OSError(f"{number} of its {count} batches of rows can be read")

    for row in _rows_of(batches(), paths, name, validate=True):
        yield row, source.tell()


def _release(content: mmap.mmap, start: int, stop: int) -> int:
    """Frees the memory of whole pages of a mapped file, which are read again if they are needed. Returns their end."""
    stop -= stop % mmap.PAGESIZE
    if stop > start and hasattr(mmap, "MADV_DONTNEED"):
        content.madvise(mmap.MADV_DONTNEED, start, stop - start)
    return max(start, stop)


def _rows_of(
    batches: "Iterator[pyarrow.RecordBatch]", paths: Sequence[Sequence[str]], name: str, *, validate: bool = False
) -> Iterator[Row]:
    done = 0
    while True:
        with _arrow_damage(name, done):
            batch = next(batches, None)
            if batch is None:
                return
            taken = [take_column(batch, path) for path in paths]
            if validate:
                _validate(taken)
        for values in zip(*map(column_values, taken), strict=True):
            done += 1
            yield Row(Location(name, done), values)


def _validate(columns: "Iterable[pyarrow.Array]") -> None:
    """Raises ArrowInvalid for an array that would read other memory than its own. Its text may be no UTF-8."""
    import pyarrow

    for column in columns:
        try:
            column.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            if "UTF8" not in str(error):
                raise


@contextmanager
def _arrow_damage(name: str, row: int | None = None) -> Iterator[None]:
    """A context that reads with pyarrow: damage is one UserError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        where = "no Arrow file or is cut short" if row is None else f"damaged after row {row}"
        raise UserError(f"{name} is {where}: {error}", exit_code=FAILED) from None


def _column_paths(columns: Mapping[str, str], schema: "pyarrow.Schema", name: str) -> list[list[str]]:
    paths = []
    for option, column in columns.items():
        path = column_path(schema, column)
        _require_column(option, column, schema.names, path is not None, name)
        assert path is not None
        if (count := schema.names.count(path[0])) > 1:
            raise UserError(f"{name}: {count} columns are named {path[0]!r}", fix="rename one of them")
        paths.append(path)
    return paths

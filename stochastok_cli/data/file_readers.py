"""Reads one file: the documents of a text, or the rows of a file of JSON objects or of a parquet file."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from stochastok_cli.data.source_files import DAMAGE, JSON_SUFFIXES, decompressed, file_format
from stochastok_cli.errors import FAILED, UserError, did_you_mean

LONGEST_DOCUMENT = 2**30  # bytes of a line, characters of a document; a small compressed file may hold far more
TABLES = (*JSON_SUFFIXES, ".parquet")
"""The formats of files that have rows."""


class Row(NamedTuple):
    """A row of a table: where it is, for errors, and the values of its columns."""

    where: str
    values: tuple[Any, ...]


def read_documents(file: Path, text_column: str, documents: str, errors: str) -> Iterator[tuple[str, int]]:
    """The documents of one file, each with the number of bytes of the file read so far."""
    if file_format(file) in TABLES:
        for row, position in read_rows(file, {"--text-column": text_column}, errors):
            yield require_text(row.values[0], text_column, row.where, errors), position
        return
    with open(file, "rb", buffering=1 << 20) as raw, _damage_named(file):
        stream = decompressed(raw, file)  # may close `raw` when nothing refers to it
        lines = _lines(stream, file, errors)
        for text in paragraphs(lines, str(file)) if documents == "paragraph" else _whole(lines, str(file)):
            yield text, raw.tell()


def read_rows(file: Path, columns: Mapping[str, str], errors: str) -> Iterator[tuple[Row, int]]:
    """The rows of a file of JSON objects or a parquet file, each with the number of bytes of the file read so far."""
    with open(file, "rb", buffering=1 << 20) as raw:
        if file_format(file) == ".parquet":
            yield from _parquet_rows(raw, file, columns)
            return
        with _damage_named(file):
            stream = decompressed(raw, file)  # may close `raw` when nothing refers to it
            for row in _json_rows(_lines(stream, file, errors), file, columns):
                yield row, raw.tell()


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """A context that reads a compressed file: damage is one UserError."""
    try:
        yield
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{file} is damaged or cut short: {error}", exit_code=FAILED) from None


def _lines(stream: BinaryIO, file: Path, errors: str) -> Iterator[str]:
    number = 0
    while raw := stream.readline(LONGEST_DOCUMENT + 1):
        number += 1
        if len(raw) > LONGEST_DOCUMENT:
            raise UserError(f"{file}, line {number}: longer than {LONGEST_DOCUMENT:,} bytes", exit_code=FAILED)
        yield _decode(raw, file, number, errors)


def paragraphs(lines: Iterable[str], where: str = "the text") -> Iterator[str]:
    """Documents that blank lines separate, from lines with their line ends, which are kept inside a document.

    Raises UserError, which names `where`, for a document of more than LONGEST_DOCUMENT characters.
    """
    paragraph: list[str] = []
    size = 0
    for line in lines:
        if line.strip():
            paragraph.append(line)
            size += len(line)
            if size > LONGEST_DOCUMENT:
                raise _too_long(where, "separate documents by blank lines")
        elif paragraph:
            yield "".join(paragraph).rstrip("\r\n")
            paragraph, size = [], 0
    if paragraph:
        yield "".join(paragraph).rstrip("\r\n")


def _whole(lines: Iterable[str], where: str) -> Iterator[str]:
    """All lines as one document, unless they are blank."""
    parts, size = [], 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size > LONGEST_DOCUMENT:
            raise _too_long(where, "divide the file")
    text = "".join(parts)
    if text.strip():
        yield text


def _too_long(where: str, fix: str) -> UserError:
    return UserError(f"{where}: a document is longer than {LONGEST_DOCUMENT:,} characters", fix=fix, exit_code=FAILED)


def _json_rows(lines: Iterable[str], file: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """One JSON object a line, as in `{"text": …}`."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{where}: not a JSON object ({error})", fix="expected one object a line", exit_code=FAILED
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: {line.strip()[:40]!r} is not a JSON object", exit_code=FAILED)
        _require_columns(columns, row, where)
        yield Row(where, tuple(row[column] for column in columns.values()))


def _parquet_rows(stream: BinaryIO, file: Path, columns: Mapping[str, str]) -> Iterator[tuple[Row, int]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(stream)
    except (pyarrow.ArrowInvalid, OSError) as error:
        compressed = file.suffix.lower() != ".parquet"
        fix = "decompress it: parquet files compress their columns themselves" if compressed else ""
        raise UserError(f"{file} is no parquet file or is cut short: {error}", fix=fix, exit_code=FAILED) from None
    _require_columns(columns, table.schema_arrow.names, str(file))
    size, rows, done = file.stat().st_size, max(table.metadata.num_rows, 1), 0
    batches = table.iter_batches(batch_size=1000, columns=list(columns.values()))
    while True:
        try:
            batch = next(batches)
            values = [batch[column].to_pylist() for column in columns.values()]
        except StopIteration:
            break
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{file} is damaged after row {done}: {error}", exit_code=FAILED) from None
        for row in zip(*values, strict=True):
            done += 1
            yield Row(f"{file}, row {done}", row), size * done // rows


def _require_columns(columns: Mapping[str, str], present: Iterable[str], where: str) -> None:
    for option, column in columns.items():
        if column not in present:
            names = [str(name)[:100] for name in itertools.islice(present, 20)]
            raise UserError(
                f"{where}: there is no column {column!r}{did_you_mean(column, names)}",
                fix=f"name one of {', '.join(names)} with {option}",
            )


def require_text(value: Any, name: str, where: str, errors: str) -> str:
    """Returns a value that is text. Lone surrogates are replaced if `errors` is "replace".

    Args:
        value: the value.
        name: the name of its column, for errors.
        where: where it is, for errors.
        errors: "strict" or "replace".

    Raises:
        UserError: the value is no text, or holds a lone surrogate.
    """
    if not isinstance(value, str):
        raise UserError(f"{where}: {name!r} holds {repr(value)[:100]}, not text")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        if errors == "replace":
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        raise UserError(
            f"{where}: the text holds a lone surrogate (half a character)",
            fix="mend it, or give --errors replace",
            exit_code=FAILED,
        )
    return value


def _decode(raw: bytes, file: Path, number: int, errors: str) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8", errors)  # drops a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}, line {number}: the byte {raw[error.start]:#04x} at {error.start} is not UTF-8",
            fix="convert the file, or give --errors replace",
            exit_code=FAILED,
        ) from None

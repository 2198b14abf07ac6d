"""Reads the documents of one file: those of a text, or the texts of a column of a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stochastok_cli.data.bad_documents import BadDocument, Location, encodable
from stochastok_cli.data.reading import parsed
from stochastok_cli.data.source_files import WARC_SUFFIXES, file_format, has_columns
from stochastok_cli.data.table_files import read_rows
from stochastok_cli.data.table_rows import LongInteger, Row
from stochastok_cli.data.text_files import NOT_UTF8, OnBad, open_decompressed, read_text
from stochastok_cli.data.warc_files import read_warc
from stochastok_cli.errors import short_json


def read_documents(
    file: Path, name: str, text_column: str, documents: str, errors: str, on_bad: OnBad
) -> Iterator[tuple[str, int]]:
    """The documents of one file, each with the number of bytes of the file read so far.

    Args:
        file: the file.
        name: its name, for errors.
        text_column: the column or JSON key that holds the text.
        documents: what a document of a text file is: one of DOCUMENTS.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        on_bad: called with each document that can't be read.
    """
    if not has_columns(file, documents):
        with open_decompressed(file, name) as (stream, raw):
            if file_format(file) in WARC_SUFFIXES:
                texts = read_warc(stream, name, errors, on_bad)
            else:
                texts = read_text(stream, name, documents, errors, on_bad)
            for text in texts:
                yield text, raw.tell()
        return

    def text_of(row: Row) -> str:
        return require_text(row.values[0], text_column, row.where, errors)

    for row, position in parsed(read_rows(file, name, {"--text-column": text_column}, errors, on_bad), text_of, on_bad):
        yield row.values, position


def require_text(value: Any, name: str, where: Location, errors: str) -> str:
    """Returns a value that is text, or the text in bytes. Lone surrogates are replaced if `errors` is "replace".

    Args:
        value: the value.
        name: the name of its column, for errors.
        where: where it is, for errors.
        errors: "strict" or "replace".

    Raises:
        BadDocument: the value is no text, or holds a lone surrogate or bytes that are not UTF-8.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8", errors)
        except UnicodeDecodeError as error:
            value = error
    if isinstance(value, UnicodeDecodeError):
        what = f"the byte {value.object[value.start]:#04x} at {value.start} of {name!r} is not UTF-8"
        raise BadDocument(where, what, NOT_UTF8, fix="convert it, or give --errors replace")
    if not isinstance(value, str):
        kind = int if isinstance(value, LongInteger) else type(value)
        held = "null" if value is None else f"a value of type {kind.__name__}"
        what = f"{name!r} holds {short_json(value)}, not text"
        raise BadDocument(where, what, f"{held} in {name!r}")
    if encodable(value):
        return value
    if errors == "replace":
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    raise BadDocument(
        where, "the text holds a lone surrogate (half a character)", "a lone surrogate", fix="give --errors replace"
    )

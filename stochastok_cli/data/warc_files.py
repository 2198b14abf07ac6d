"""Texts of web pages in WARC files, as Common Crawl's WET files have them: records of the type `conversion`.

The format: https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/
"""

import io
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, cast

from stochastok_cli.data import text_files
from stochastok_cli.data.bad_documents import BadDocument, Location
from stochastok_cli.data.compressed_files import GZIP_MAGIC, gunzipped
from stochastok_cli.errors import FAILED, UserError, short_repr

_WITHOUT_PAGES = ("warcinfo", "metadata", "request")
_VERSION = b"WARC/"
_LENGTH = re.compile("[0-9]{1,18}")
_LINE_ENDS = (b"\r\n", b"\n")
_LONGEST_LINE = 2**20  # of a header; an address in it may be long
_SKIPPED_AT_ONCE = 2**20


def read_warc(stream: BinaryIO, name: str, errors: str, on_bad: text_files.OnBad) -> Iterator[str]:
    """The texts of a WARC file, one for each record of the type `conversion`.

    Args:
        stream: the content of the file, decompressed.
        name: its name, for errors.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        on_bad: called with each record that can't be read.

    Raises:
        UserError: the file is damaged or cut short, or it holds pages that are not converted to text.
    """
    if cast(io.BufferedReader, stream).peek(2).startswith(GZIP_MAGIC):  # the name of the file does not say so
        stream = gunzipped(stream)
    for record in _records(stream, name):
        number = record.location.number
        if record.type in _WITHOUT_PAGES:
            _skip(stream, record)
            continue
        if record.type != "conversion":
            raise UserError(
                f"{name} holds pages as they were fetched (record {number}, of the type {short_repr(record.type)})",
                fix="extract their text first, or read the WET file of the same pages",
            )
        try:
            text = _text(stream, record, errors)
        except BadDocument as error:
            on_bad(error)
            continue
        yield text


class _Record(NamedTuple):
    """The header of a record.

    Args:
        location: where the record is.
        type: its type.
        media_type: the type of its content.
        length: the number of bytes of its content.
    """

    location: Location
    type: str
    media_type: str
    length: int


def _records(stream: BinaryIO, name: str) -> Iterator[_Record]:
    """The headers of the records. Before the next one is taken, the content of the last one must be read."""
    number = 0
    while version := _first_line(stream):
        number += 1
        location = Location(name, number, "record")
        if not version.startswith(_VERSION) and not _VERSION.startswith(version):  # the second: cut short there
            raise UserError(f"{location}: no WARC file, or a damaged one: {short_repr(version[:40])}", exit_code=FAILED)
        fields = _fields(stream, version, location)
        length = fields.get("content-length", "")
        if "warc-type" not in fields or not _LENGTH.fullmatch(length):
            raise _damaged(location)
        yield _Record(location, fields["warc-type"], fields.get("content-type") or "text/plain", int(length))
        end = stream.readline(_LONGEST_LINE)
        if end in (b"", b"\r"):
            raise _damaged(location)
        if end not in _LINE_ENDS:
            raise UserError(f"{location}: the file is damaged: the record is longer than it says", exit_code=FAILED)


def _first_line(stream: BinaryIO) -> bytes:
    """The next line that is not blank: the version, which begins a record. Nothing at the end of the file."""
    while line := stream.readline(_LONGEST_LINE):
        if line.strip():
            return line
    return b""


def _fields(stream: BinaryIO, version: bytes, location: Location) -> dict[str, str]:
    """The fields of a header by their names in lower case, up to the blank line that ends it."""
    fields: dict[str, str] = {}
    key, line = "", version
    while line.endswith(b"\n"):  # not so in the last line of a file that is cut short, and in one that is too long
        line = stream.readline(_LONGEST_LINE)
        if line in _LINE_ENDS:
            return fields
        text = line.decode("utf-8", "replace")
        if text[:1] in (" ", "\t") and key:  # the value goes on
            fields[key] += " " + text.strip()
            continue
        key, _, value = text.partition(":")
        key = key.strip().lower()
        fields.setdefault(key, value.strip())
    raise _damaged(location)


def _damaged(location: Location) -> UserError:
    return UserError(f"{location}: the file is damaged or cut short there", exit_code=FAILED)


def _skip(stream: BinaryIO, record: _Record) -> None:
    """Reads the content of a record that is left out."""
    left = record.length
    while left:
        content = stream.read(min(left, _SKIPPED_AT_ONCE))
        if not content:
            raise _damaged(record.location)
        left -= len(content)


def _text(stream: BinaryIO, record: _Record, errors: str) -> str:
    if record.length > text_files.LONGEST_DOCUMENT:
        _skip(stream, record)
        what = f"longer than {text_files.LONGEST_DOCUMENT:,} bytes"
        raise BadDocument(record.location, what, text_files.TOO_LONG)
    content = stream.read(record.length)
    if len(content) != record.length:
        raise _damaged(record.location)
    if not record.media_type.startswith("text/plain"):
        what = f"{short_repr(record.media_type)} is no plain text"
        raise BadDocument(record.location, what, "a type that is no plain text")
    try:
        return content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        what = f"the byte {content[error.start]:#04x} at {error.start} is not UTF-8"
        raise BadDocument(record.location, what, text_files.NOT_UTF8, fix="give --errors replace") from None

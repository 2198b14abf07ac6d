"""Texts of web pages in WARC files, as Common Crawl's WET files have them: records of the type `conversion`."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from stochastok_cli.data import text_files
from stochastok_cli.data.bad_documents import BadDocument, Location
from stochastok_cli.errors import FAILED, UserError, cannot_import, first_line, short_repr

_WITHOUT_PAGES = ("warcinfo", "metadata", "request")


def read_warc(stream: BinaryIO, name: str, errors: str, on_bad: text_files.OnBad) -> Iterator[str]:
    """The texts of a WARC file, one for each record of the type `conversion`.

    Args:
        stream: the content of the file, decompressed.
        name: its name, for errors.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        on_bad: called with each record that can't be read.

    Raises:
        UserError: `warcio` is not installed, the file is damaged, or it holds pages that are not converted to text.
    """
    for number, record in enumerate(_records(stream, name), 1):
        if record.rec_type in _WITHOUT_PAGES:
            continue
        if record.rec_type != "conversion":
            raise UserError(
                f"{name} holds pages as they were fetched (record {number}, of the type {short_repr(record.rec_type)})",
                fix="extract their text first, or read the WET file of the same pages",
            )
        try:
            text = _text(record, Location(name, number, "record"), errors)
        except BadDocument as error:
            on_bad(error)
            continue
        yield text


def _records(stream: BinaryIO, name: str) -> Iterator[Any]:
    try:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError as error:
        raise cannot_import(f"the text of {name}", "warcio", "warc", error) from None
    records = ArchiveIterator(stream, no_record_parse=True)
    try:
        for record in records:
            if records.err_count:  # warcio has warned that a record is longer than its length
                break
            yield record
    except ArchiveLoadFailed as error:
        raise UserError(f"{name} is damaged or no WARC file: {first_line(error)}", exit_code=FAILED) from None
    if records.err_count:
        raise UserError(f"{name} is damaged: a record is longer than it says", exit_code=FAILED)


def _text(record: Any, location: Location, errors: str) -> str:
    length = record.length
    if length is not None and length > text_files.LONGEST_DOCUMENT:
        raise BadDocument(location, f"longer than {text_files.LONGEST_DOCUMENT:,} bytes", text_files.TOO_LONG)
    kind = record.content_type or "text/plain"
    if not kind.startswith("text/plain"):
        raise BadDocument(location, f"{short_repr(kind)} is no plain text", "a type that is no plain text")
    content = b"" if length is None else record.raw_stream.read(length)
    if len(content) != length:
        raise UserError(f"{location}: the file is damaged or cut short there", exit_code=FAILED)
    try:
        return content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        what = f"the byte {content[error.start]:#04x} at {error.start} is not UTF-8"
        raise BadDocument(location, what, text_files.NOT_UTF8, fix="give --errors replace") from None

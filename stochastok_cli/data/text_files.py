"""Lines and paragraphs of text files, compressed or not."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stochastok_cli.data.bad_documents import BadDocument, Location
from stochastok_cli.data.compressed_files import DAMAGE, decompressed
from stochastok_cli.data.source_files import converted_by, encoding_of
from stochastok_cli.errors import FAILED, UserError

LONGEST_DOCUMENT = 2**30  # bytes of a line, characters of a document; a small compressed file may hold far more
NOT_UTF8 = "bytes that are not UTF-8"
"""The reason for which a document of bytes is left out."""
TOO_LONG = "more than 1 GiB"
"""The reason for which a long document is left out."""

OnBad = Callable[[BadDocument], None]
"""What is done with a document that can't be read: it returns, and the document is left out, or raises the error."""


@contextmanager
def open_decompressed(file: Path, name: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Opens a file: its content, decompressed as its name says, and the file itself, which tells how much is read.

    Damage to a compressed file while the context is open is one UserError, which names `name`.
    """
    with open(file, "rb", buffering=1 << 20) as raw:
        try:
            stream = decompressed(raw, file)
            yield stream, raw  # `stream` may close `raw` when nothing refers to it
        except DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise UserError(f"{name} is damaged or cut short: {error}", exit_code=FAILED) from None


def read_lines(stream: BinaryIO, name: str, errors: str) -> Iterator[tuple[Location, str | BadDocument]]:
    """The lines with their line ends; an error in the place of one that is too long or not UTF-8.

    Args:
        stream: the content of a file.
        name: the name of the file, for errors.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace". A file in UTF-16 or UTF-32, of which
            nothing readable would be left, is an error as a whole.
    """
    number = 0
    while raw := stream.readline(LONGEST_DOCUMENT + 1):
        number += 1
        place = Location(name, number, "line")
        if number == 1 and (encoding := encoding_of(raw)):
            what, fix = _in_other_encoding(encoding)
            yield place, BadDocument(place, what, NOT_UTF8, fix=fix)
            return
        if len(raw) <= LONGEST_DOCUMENT:
            yield place, _decode(raw, place, errors)
            continue
        yield place, BadDocument(place, f"longer than {LONGEST_DOCUMENT:,} bytes", TOO_LONG)
        while raw and not raw.endswith(b"\n"):
            raw = stream.readline(2**20)


def read_text(stream: BinaryIO, name: str, documents: str, errors: str, on_bad: OnBad) -> Iterator[str]:
    """The documents of a text file.

    Args:
        stream: The file.
        name: What errors call it.
        documents: "paragraph" for its paragraphs, "file" for the file as a whole.
        errors: As of `read_lines`.
        on_bad: Called with a document that can't be read.
    """
    lines = read_lines(stream, name, errors)
    yield from paragraphs(lines, on_bad) if documents == "paragraph" else _whole(lines, name, on_bad)


def paragraphs(lines: Iterable[tuple[Location, str | BadDocument]], on_bad: OnBad) -> Iterator[str]:
    """Documents that blank lines separate. The line ends inside of a document are kept.

    A line that can't be read makes its document one that can't be read, and so does a length of more than
    LONGEST_DOCUMENT characters.
    """
    paragraph: list[str] = []
    size, bad = 0, False
    for place, line in lines:
        if isinstance(line, BadDocument) or line.strip():
            size += 0 if isinstance(line, BadDocument) else len(line)
            if bad:
                continue
            if isinstance(line, BadDocument) or size > LONGEST_DOCUMENT:
                fix = "separate documents by blank lines"
                on_bad(line if isinstance(line, BadDocument) else _too_long(place, fix))
                paragraph, bad = [], True
            else:
                paragraph.append(line)
            continue
        if paragraph:
            yield "".join(paragraph).rstrip("\r\n")
        paragraph, size, bad = [], 0, False
    if paragraph:
        yield "".join(paragraph).rstrip("\r\n")


def _whole(lines: Iterable[tuple[Location, str | BadDocument]], name: str, on_bad: OnBad) -> Iterator[str]:
    """All lines as one document, unless they are blank."""
    parts, size = [], 0
    for place, line in lines:
        size += 0 if isinstance(line, BadDocument) else len(line)
        if isinstance(line, BadDocument) or size > LONGEST_DOCUMENT:
            on_bad(line if isinstance(line, BadDocument) else _too_long(place, "divide the file"))
            return
        parts.append(line)
    text = "".join(parts)
    if text.strip():
        yield text


def require_utf8(head: bytes, name: str) -> None:
    """Raises UserError for a file that begins as UTF-16 or UTF-32, whose every line would be damaged or left out."""
    if encoding := encoding_of(head):
        what, fix = _in_other_encoding(encoding)
        raise UserError(f"{name} is {what}", fix=fix, exit_code=FAILED)


def _in_other_encoding(encoding: str) -> tuple[str, str]:
    """What an error says about a file in UTF-16 or UTF-32, and what to do."""
    return f"text in {encoding}, not in UTF-8", f"convert the file: {converted_by(encoding)}"


def _too_long(place: Location, fix: str) -> BadDocument:
    return BadDocument(place, f"a document is longer than {LONGEST_DOCUMENT:,} characters", TOO_LONG, fix=fix)


def _decode(raw: bytes, place: Location, errors: str) -> str | BadDocument:
    try:
        return raw.decode("utf-8-sig" if place.number == 1 else "utf-8", errors)  # drops a byte order mark
    except UnicodeDecodeError as error:
        what = f"the byte {raw[error.start]:#04x} at {error.start} is not UTF-8"
        return BadDocument(place, what, NOT_UTF8, fix="convert the file, or give --errors replace")

"""What the readers of `datasets` would read wrongly, silently drop, or report without its line."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stochastok_cli.data.compressed_files import COMPRESSIONS
from stochastok_cli.data.source_files import converted_by, encoding_of
from stochastok_cli.data.text_files import open_decompressed
from stochastok_cli.errors import UserError, short_json, short_repr, shorten

_JSON_LINES = (".jsonl", ".ndjson")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class UnreadableFile(ValueError):
    """Why a file can't be read, with the line."""


class _InvalidValue(ValueError):
    """What is wrong with a JSON value that the standard library reads."""


def lost_data(file: Path) -> str:
    """What of a file would be lost without an error: "" for nothing.

    That is a column whose name occurs twice, text with a lone surrogate, for which the reader splits rows, bytes that
    are not UTF-8, which some readers pass on, and what follows the damage in a compressed file.
    """
    suffix = file.suffix.lower()
    if suffix in COMPRESSIONS:
        return _damage(file)
    if suffix in (*_JSON_LINES, *_DELIMITERS, ".json") and (problem := _not_utf8(file)):
        return problem
    if suffix in _DELIMITERS:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
            names = next(csv.reader(lines, delimiter=_DELIMITERS[suffix]), [])
        twice = next((name for name in names if names.count(name) > 1), None)
        return "" if twice is None else f"two columns have the name {short_repr(twice)}"
    for where, text in _json_texts(file):
        try:
            _parse(text)
        except _InvalidValue as error:
            return f"{where}{error}"
        except (ValueError, RecursionError):
            continue  # the reader reports it, or knows better
    return ""


def invalid_line(file: Path) -> str:
    """Which line of a JSON file is no JSON object, or where in it there is no JSON, and why; "" where all is well."""
    suffix = file.suffix.lower()
    if suffix == ".json":
        [(_, text)] = _json_texts(file)
        if text.lstrip()[:1] == "[" or _fault(text.lstrip().partition("\n")[0]):  # else it may be of JSON lines
            return _fault(text)
    elif suffix not in _JSON_LINES:
        return ""
    for where, text in _numbered_lines(file):
        if fault := _fault(text):
            return f"{where}{fault}"
        if not isinstance(value := json.loads(text), dict):
            return f"{where}{short_json(value)} is no JSON object"
    return ""


def _fault(text: str) -> str:
    """Why a text is no JSON value; "" where it is one."""
    try:
        _parse(text)
    except (ValueError, RecursionError) as error:
        return shorten(str(error).removesuffix("."))
    return ""


def _damage(file: Path) -> str:
    """What is wrong with a compressed file; "" where it can be read to its end."""
    try:
        with open_decompressed(file, "it") as (content, _):
            while content.read(2**20):
                pass
    except UserError as error:
        return str(error)
    return ""


def _not_utf8(file: Path) -> str:
    """Which byte of a file is not UTF-8; "" where all are."""
    with file.open("rb") as lines:
        if encoding := encoding_of(lines.peek(4)):
            return f"it is text in {encoding}, not in UTF-8; convert it: {converted_by(encoding)}"
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"the byte {line[error.start]:#04x} at {error.start} is not UTF-8"
                return f"line {number}: {byte}"
    return ""


def is_empty(file: Path) -> bool:
    """Whether a file has nothing but white space."""
    with file.open("rb") as content:
        return not any(block.strip() for block in iter(lambda: content.read(2**20), b""))


def _json_texts(file: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file of JSON lines that are not empty, with their place; the text of another JSON file."""
    suffix = file.suffix.lower()
    if suffix in _JSON_LINES:
        yield from _numbered_lines(file)
    elif suffix == ".json":
        yield "", file.read_text(encoding="utf-8-sig", errors="replace")


def _numbered_lines(file: Path) -> Iterator[tuple[str, str]]:
    with file.open(encoding="utf-8-sig", errors="replace", newline="\n") as lines:
        yield from ((f"line {i}: ", line) for i, line in enumerate(lines, 1) if line.strip())


def _parse(text: str) -> Any:
    value = json.loads(text, object_pairs_hook=_object)
    if "\\ud" in text.lower():
        _require_unicode(value)
    return value


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _InvalidValue(f"an object has the key {short_repr(twice)} twice")
    return names


def _require_unicode(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        lone = error.object[error.start]
        raise _InvalidValue(f"\\u{ord(lone):04x} is half of a surrogate pair, and no character") from None

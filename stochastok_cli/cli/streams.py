"""The standard streams of the command line, made safe before anything is printed.

A stream may be closed, its reader may be gone, and its encoding may lack characters. None of these is a bug of a
command, and where only messages are lost the command goes on.
"""

import codecs
import io
import os
import re
import sys
from typing import TextIO

from stochastok_cli.errors import shorten


def _escape(error: UnicodeError) -> tuple[str, int]:
    """What `backslashreplace` writes, but `\\u00e9` for é: `\\xe9` is how a byte that is no character is shown."""
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(f"\\U{ord(c):08x}" if ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in characters), error.end


codecs.register_error("stochastok_escape", _escape)


def prepare_streams() -> None:
    """Replaces `sys.stdout` and `sys.stderr` by streams that show characters which their encoding lacks as escapes.

    Messages that can't be written to stderr are dropped. A result that can't be written to stdout, also where stdout
    was closed, is an error that names it; one that nobody reads any more, as after `| head`, is a `NoReader`. Closed
    descriptors are opened on the null device, or a file of data would get the number 2 and with it the messages of
    libraries.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        if not _is_open(descriptor):
            os.open(os.devnull, mode)  # takes the lowest number that is free
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text_stream(sys.stdout, _ResultFile(1, "w", closefd=False), line_buffering=os.isatty(1))
    if sys.stderr is sys.__stderr__:
        # Its own descriptor, so that messages are shown also while what libraries write to the second is held back.
        sys.stderr = _text_stream(sys.stderr, _MessageFile(os.dup(2), "w", closefd=False), line_buffering=True)


def _text_stream(before: TextIO | None, file: io.FileIO, *, line_buffering: bool) -> io.TextIOWrapper:
    encoding = before.encoding if before is not None else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, "stochastok_escape", line_buffering=line_buffering)


def printable(text: str, most: int = 4000) -> str:
    """A message of bounded length without control characters other than line ends, which a terminal would obey."""
    text = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda match: repr(match[0])[1:-1], text)
    return shorten(text, most)


def escaped(text: str) -> str:
    """A text that others chose, such as a token or the name of a folder, without characters that would break its line
    or the order within it: they are shown as escapes.

    >>> print(escaped("a\\x1b[31mred\\n\\ttabs"))
    a\\x1b[31mred\\n\\ttabs
    """
    return printable(re.sub(r"[\n\u2028\u2029\u202a-\u202e\u2066-\u2069]", lambda match: repr(match[0])[1:-1], text))


def flush_stdout() -> OSError | None:
    """Writes what stdout still holds. Returns the error if it can't be written, and drops it then."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tries again at exit, and complains
        return error
    return None


class NoReader(BrokenPipeError):
    """Nobody reads stdout any more."""


class _ResultFile(io.FileIO):
    """Standard output. An error in writing names it."""

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            kind = NoReader if isinstance(error, BrokenPipeError) else OSError
            raise kind(error.errno, error.strerror, "stdout can't be written") from None


class _MessageFile(io.FileIO):
    """A file of messages. One that can't be written, because nobody reads it or the disk is full, is dropped."""

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

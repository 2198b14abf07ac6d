"""Reads compressed files whole, or says that they are damaged.

`gzip.open`, `bz2.open` and `lzma.open` read files of several streams, as pbzip2 or `cat a.xz b.xz` make them, but take
what follows a stream and is none for the end of the file (gzip: zeros for nothing), so that a damaged byte would hide
all that comes after it.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

DAMAGE = (EOFError, lzma.LZMAError, zlib.error, OSError)
"""What the decompressors raise for a damaged file; an OSError without a number is one of theirs."""

GZIP_MAGIC = b"\x1f\x8b"
"""The first bytes of a stream of gzip."""

_INPUT_BYTES = 2**15  # decompressed at once. The rest is copied after each stream, which may be one page of a WET file
_OUTPUT_BYTES = 2**20
_CUT_SHORT = "it ends before its compressed data do"


def decompressed(raw: BinaryIO, file: PurePath) -> BinaryIO:
    """The content of an open file, decompressed as its name says.

    Reading it raises one of DAMAGE for a file that is cut short, or holds anything but whole streams, one after
    another. At the end of the file, zeros may follow where the format allows padding.
    """
    suffix = file.suffix.lower()
    return _open(raw, suffix) if suffix in COMPRESSIONS else raw


def gunzipped(raw: BinaryIO) -> BinaryIO:
    """The content of an open file that is compressed with gzip."""
    return _open(raw, ".gz")


class _Stream(Protocol):
    """A decompressor of one stream, as `bz2` and `lzma` have them."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipStream:
    """A `_Stream` of gzip, with its header and checksum."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inflate.decompress(data or self._inflate.unconsumed_tail, max_length)


class _Format(NamedTuple):
    """How files of several streams are made.

    Args:
        first: makes the decompressor of the first stream.
        later: makes that of a later one.
        padding: zeros at the end of the file are allowed in multiples of so many; 0 if they are not.
    """

    first: Callable[[], _Stream]
    later: Callable[[], _Stream]
    padding: int


_FORMATS = {
    ".gz": _Format(_GzipStream, _GzipStream, 1),
    ".bz2": _Format(bz2.BZ2Decompressor, bz2.BZ2Decompressor, 0),
    # The first may be of the older format .lzma, as for `lzma.open`. That has no magic number: damage may look like it.
    ".xz": _Format(lzma.LZMADecompressor, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), 4),
}

COMPRESSIONS = (*_FORMATS, ".zst")
"""The suffixes of compressed files."""


def _open(raw: BinaryIO, suffix: str) -> BinaryIO:
    opened: Any
    if suffix == ".zst":
        import pyarrow

        if not cast(io.BufferedReader, raw).peek(1):
            raise EOFError(_CUT_SHORT)
        opened = pyarrow.CompressedInputStream(raw, "zstd")  # refuses what follows a frame and is none
    else:
        opened = _Streams(raw, _FORMATS[suffix])
    return io.BufferedReader(opened, _OUTPUT_BYTES)


class _Streams(io.RawIOBase):
    """The content of a file of one or more compressed streams.

    Args:
        raw: the file.
        format: the format of the streams.
    """

    def __init__(self, raw: BinaryIO, format: _Format):
        self._raw, self._format = raw, format
        self._stream = format.first()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills the beginning of a buffer and returns the number of bytes, which is 0 at the end of the file."""
        content = self._read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _read(self, size: int) -> bytes:
        content = b""
        while not content:
            data = b""
            if self._stream.eof:
                if not (data := self._after_stream()):
                    break
                self._stream = self._format.later()
            elif self._stream.needs_input and not (data := self._raw.read(_INPUT_BYTES)):
                raise EOFError(_CUT_SHORT)
            content = self._stream.decompress(data, size)
        return content

    def _after_stream(self) -> bytes:
        """The first bytes of the next stream; nothing at the end of the file."""
        data = self._stream.unused_data or self._raw.read(_INPUT_BYTES)
        padding = self._format.padding
        if not padding or not data.startswith(b"\0"):
            return data
        zeros = 0
        while data and not (rest := data.lstrip(b"\0")):
            zeros += len(data)
            data = self._raw.read(_INPUT_BYTES)
        if data:
            raise EOFError(f"there are {zeros + len(data) - len(rest):,} zeros between its compressed data")
        if zeros % padding:
            raise EOFError(f"{zeros:,} zeros follow its compressed data, which is no multiple of {padding}")
        return b""

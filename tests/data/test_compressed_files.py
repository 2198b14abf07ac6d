"""Compressed files are read whole, whatever number of streams they have, or are an error."""

import bz2
import gzip
import itertools
import json
import lzma
import zlib

import pyarrow as pa
import pytest

from stochastok_cli.data.file_readers import read_documents
from stochastok_cli.errors import FAILED, UserError


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}
HEADER_BYTES = {".gz": 10, ".bz2": 10, ".xz": 12}  # of bzip2, with the beginning of its first block
WRITERS = {
    ".txt": lambda texts: "".join(f"{text}\n\n" for text in texts),
    ".jsonl": lambda texts: "".join(json.dumps({"text": text}) + "\n" for text in texts),
    ".csv": lambda texts: "".join(f"{text}\n" for text in texts),
    ".wet": lambda texts: "".join(
        f"WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {len(text)}\r\n\r\n{text}\r\n\r\n" for text in texts
    ),
}
PARTS = [[f"text {part} {i}" for i in range(40)] for part in "abc"]
TEXTS = [text for part in PARTS for text in part]


def fail(error) -> None:
    raise error


def texts_of(file) -> list[str]:
    return [text for text, _ in read_documents(file, file.name, "text", "paragraph", "strict", fail)]


def refused(file, content: bytes) -> str:
    """The message with which a file is refused."""
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"{file.name} is damaged or cut short: ") as caught:
        texts_of(file)
    assert caught.value.exit_code == FAILED
    return str(caught.value)


@pytest.fixture(params=COMPRESS)
def suffix(request) -> str:
    return request.param


@pytest.fixture
def streams(suffix) -> list[bytes]:
    return [COMPRESS[suffix](WRITERS[".jsonl"](part).encode()) for part in PARTS]


@pytest.mark.parametrize("format", WRITERS)
def test_several_streams_are_read_whole_and_a_zeroed_one_is_an_error(tmp_path, format, suffix):
    """As `cat a.xz b.xz`, pbzip2 and writers that append make them. A crash may leave zeros where a stream was."""
    head = ["text\n" if format == ".csv" else ""]
    contents = [start + WRITERS[format](part) for start, part in itertools.zip_longest(head, PARTS, fillvalue="")]
    first, second, third = [COMPRESS[suffix](content.encode()) for content in contents]
    file = tmp_path / f"a{format}{suffix}"
    file.write_bytes(first + second + third)
    assert texts_of(file) == TEXTS
    refused(file, first + bytes(len(second)) + third)


def test_every_cut_is_an_error_but_between_streams(tmp_path, suffix, streams):
    """Also a file of which nothing is left. Nobody can tell a cut between streams from a file that has fewer."""
    first, second, _ = streams
    file = tmp_path / f"a.jsonl{suffix}"
    near_ends = [
        *range(14),
        *range(len(first) - 14, len(first) + 14),
        *range(len(first + second) - 14, len(first + second)),
    ]
    for cut in {*near_ends, *range(0, len(first + second), 11)} - {len(first)}:
        refused(file, (first + second)[:cut])
    file.write_bytes(first)
    assert texts_of(file) == PARTS[0]


@pytest.mark.parametrize("suffix", HEADER_BYTES)
def test_a_damaged_header_of_a_later_stream_loses_nothing_silently(tmp_path, suffix, streams):
    """Some bytes of a header, such as the time in that of gzip, may change and the content stays the same."""
    first, second, third = streams
    file = tmp_path / f"a.jsonl{suffix}"
    harmless = {".gz": {3, 4, 5, 6, 7, 8, 9}, ".bz2": {3}, ".xz": set()}[suffix]  # .bz2: the size of blocks
    for place, bit in itertools.product(range(HEADER_BYTES[suffix]), range(8)):
        damaged = bytearray(second)
        damaged[place] ^= 1 << bit
        file.write_bytes(first + damaged + third)
        try:
            texts = texts_of(file)
        except UserError:
            continue
        assert texts == TEXTS and place in harmless


def test_padding_and_what_is_none(tmp_path, suffix, streams):
    """Tapes and block devices pad files with zeros: gzip ignores any number of them, xz a multiple of four."""
    file = tmp_path / f"a.jsonl{suffix}"
    content = b"".join(streams)
    for zeros in (1, 4, 100_000):
        if suffix == ".gz" or (suffix == ".xz" and zeros % 4 == 0):
            file.write_bytes(content + bytes(zeros))
            assert texts_of(file) == TEXTS
        else:
            refused(file, content + bytes(zeros))
        refused(file, content + bytes(zeros) + b"x")
        refused(file, content + bytes(zeros) + streams[0])
    for garbage in (b"x", b"garbage " * 10_000, content[5:]):
        refused(file, content + garbage)


def test_the_message_says_what_is_wrong(tmp_path):
    first, second = gzip.compress(b'{"text": "a"}\n'), lzma.compress(b'{"text": "b"}\n')
    assert "there are 70,000 zeros between its" in refused(tmp_path / "a.jsonl.gz", first + bytes(70_000) + first)
    assert "3 zeros follow its compressed data, which is no multiple" in refused(
        tmp_path / "a.jsonl.xz", second + b"\0\0\0"
    )
    assert "it ends before its compressed data do" in refused(tmp_path / "a.jsonl.xz", second[:-1])


def test_the_older_format_of_xz(tmp_path):
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(b"one\n\ntwo", lzma.FORMAT_ALONE))
    assert texts_of(tmp_path / "a.txt.xz") == ["one", "two"]


def test_streams_of_every_size(tmp_path, suffix):
    """Sizes around those of the buffers, content that is far larger than its stream, and streams of nothing."""
    if suffix == ".bz2":
        contents = [b"", b"a" * 300_000, b"b\n\nc"]
    else:
        contents = [b"", b"a" * 3_000_000, b"b\n\nc", zlib.compress(b"noise" * 9).hex().encode() * 2000, b""]
    file = tmp_path / f"a.txt{suffix}"
    file.write_bytes(b"".join(map(COMPRESS[suffix], contents)))
    assert "\n\n".join(texts_of(file)) == b"".join(contents).decode()

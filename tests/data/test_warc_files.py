"""WET files: which records are documents, and what is damaged or refused."""

import gzip
import sys

import pytest

from stochastok_cli.data.source_files import dataset_name, find_files
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.errors import FAILED, USAGE, UserError

PAGES = ["naïve one\n\nsecond paragraph", "line\n" * 50_000, ""]


def record(kind: str, body: bytes, content_type: str = "text/plain") -> bytes:
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body + b"\r\n\r\n"


INFO = record("warcinfo", b"Software: test\r\n", "application/warc-fields")
TEXTS = [record("conversion", page.encode()) for page in PAGES]


def texts_of(source, **options) -> list[str]:
    return [text for texts, _ in open_source(str(source), **options).batches() for text in texts]


@pytest.mark.parametrize("name", ["CC-MAIN-00000.warc.wet.gz", "a.wet", "a.warc.gz"])
def test_the_texts_of_a_wet_file(tmp_path, name):
    """Each record is compressed on its own."""
    pytest.importorskip("warcio")
    parts = [INFO, *TEXTS, record("metadata", b"x")]
    file = tmp_path / name
    file.write_bytes(b"".join(map(gzip.compress, parts) if name.endswith("gz") else parts))
    assert texts_of(file) == texts_of(file, documents="file") == PAGES
    assert dataset_name(file) in ("CC-MAIN-00000", "a")
    (tmp_path / "b.txt").write_text("b")
    assert (find_files(tmp_path).files[0] == file) == (".wet" in name)


@pytest.mark.parametrize(
    ("content", "message", "left"),
    [
        (record("conversion", b"caf\xe9"), "record 2: the byte 0xe9 at 3 is not UTF-8", PAGES),
        (record("conversion", b"<p>", "text/html"), "record 2: 'text/html' is no plain text", PAGES),
        (record("conversion", b"x" * 300_000), "record 2: longer than 260,000 bytes", PAGES),
        (record("response", b"HTTP/1.1 200 OK"), "holds pages as they were fetched .record 2, of the type 'resp", None),
        (b"nonsense\r\n\r\n", "a.wet is damaged", None),
        (record("conversion", b"short").replace(b": 5", b": 3"), "a record is longer than it says", None),
        (record("conversion", b"long").replace(b"Content-Length: 4\r\n", b""), "record 2: the file is damaged", None),
    ],
)
def test_bad_records(tmp_path, monkeypatch, content, message, left):
    pytest.importorskip("warcio")
    monkeypatch.setattr("stochastok_cli.data.text_files.LONGEST_DOCUMENT", 260_000)
    file = tmp_path / "a.wet"
    file.write_bytes(INFO + content + b"".join(TEXTS))
    with pytest.raises(UserError, match=message) as caught:
        texts_of(file)
    assert caught.value.exit_code == (USAGE if "fetched" in message else FAILED)
    if left is not None:
        assert texts_of(file, on_bad_document="skip") == left
    else:
        with pytest.raises(UserError, match=message):
            texts_of(file, on_bad_document="skip")


@pytest.mark.parametrize("cut", [1, 100_000, 250_000])
def test_a_file_that_is_cut_short(tmp_path, cut):
    pytest.importorskip("warcio")
    file = tmp_path / "a.wet"
    file.write_bytes((INFO + TEXTS[0] + TEXTS[1])[: -cut - 4])
    with pytest.raises(UserError, match="damaged or cut short there"):
        texts_of(file, on_bad_document="skip")


def test_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.wet").write_bytes(INFO)
    monkeypatch.setitem(sys.modules, "warcio.archiveiterator", None)
    with pytest.raises(UserError, match=r"needs warcio, which is not installed; pip install 'stochastok\[warc\]'"):
        texts_of(tmp_path / "a.wet")

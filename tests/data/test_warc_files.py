"""WET files: which records are documents, and what is damaged or refused."""

import bz2
import gzip
import lzma

import pytest

from stochastok_cli.data.file_readers import read_documents
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
        (b"nonsense\r\n\r\n", "a.wet, record 2: no WARC file, or a damaged one: b'nonsense", None),
        (
            record("conversion", b"short").replace(b": 5", b": 3"),
            "record 2: the file is damaged: the record is longer than it says",
            None,
        ),
        (record("conversion", b"long").replace(b"Content-Length: 4\r\n", b""), "record 2: the file is damaged", None),
        (record("conversion", b"long").replace(b"Length: 4", b"Length: "), "record 2: the file is damaged", None),
        (record("conversion", b"long").replace(b"Length: 4", b"Length: 4x"), "record 2: the file is damaged", None),
        (record("conversion", b"long")[:-4], "record 2: the file is damaged: the record is longer", None),
        (record("metadata", b"long").replace(b"Length: 4", b"Length: 999999"), "record 2: the file is damaged", None),
    ],
)
def test_bad_records(tmp_path, monkeypatch, content, message, left):
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
def test_a_long_record_that_is_cut_short(tmp_path, cut):
    file = tmp_path / "a.wet"
    file.write_bytes((INFO + TEXTS[0] + TEXTS[1])[: -cut - 4])
    with pytest.raises(UserError, match="record 3: the file is damaged or cut short there"):
        texts_of(file, on_bad_document="skip")


def texts_or_error(file) -> list[str]:
    """As `texts_of`, in a tenth of the time."""
    return [text for text, _ in read_documents(file, file.name, "text", "paragraph", "strict", print)]


SMALL = [INFO, *(record(kind, b"page %d" % i) for i, kind in enumerate(["conversion", "metadata", "conversion"]))]


@pytest.mark.parametrize(
    "compress", [lambda part: part, gzip.compress, bz2.compress, lzma.compress], ids=["", ".gz", ".bz2", ".xz"]
)
@pytest.mark.parametrize("is_one_stream", [False, True])
def test_every_cut_is_an_error_but_between_records(tmp_path, request, compress, is_one_stream):
    """Nobody can tell a cut after a record from a file that has fewer; one of the two line ends after it is enough."""
    suffix = request.node.callspec.id.split("-")[-1]
    parts = [compress(part) for part in SMALL]
    content = compress(b"".join(SMALL)) if is_one_stream else b"".join(parts)
    ends = {sum(map(len, parts[: i + 1])): i + 1 for i in range(len(parts))}
    if not suffix:
        ends |= {end - short: i for end, i in ends.items() for short in (1, 2)}
    elif is_one_stream:
        ends = {}
    file = tmp_path / f"a.wet{suffix}"
    near_ends = {end + near for end in ends for near in range(-3, 4)} & {*range(1, len(content))}
    for cut in near_ends | {*range(1, len(content), 6 if suffix else 1)}:
        file.write_bytes(content[:cut])
        if cut in ends:
            assert texts_or_error(file) == [["page 0", "page 2"][:n] for n in (0, 1, 1, 2)][ends[cut] - 1]
            continue
        with pytest.raises(UserError, match="damaged or cut short") as caught:
            texts_or_error(file)
        assert caught.value.exit_code == FAILED


def test_a_name_that_does_not_say_that_the_file_is_compressed(tmp_path):
    file = tmp_path / "a.wet"
    content = b"".join(map(gzip.compress, [INFO, *TEXTS]))
    file.write_bytes(content)
    assert texts_of(file) == PAGES
    file.write_bytes(content[:-3])
    with pytest.raises(UserError, match="a.wet is damaged or cut short"):
        texts_of(file)


def test_the_same_texts_as_of_warcio(tmp_path):
    """With the spellings of headers that the standard allows, and lines that end as in Unix."""
    archiveiterator = pytest.importorskip("warcio.archiveiterator")
    long_header = record("conversion", b"long").replace(b"Content-Type: text/plain", b"X: a\r\n b: c\r\n\td")
    odd = [
        record("conversion", b"upper").replace(b"Content-Length", b"CONTENT-LENGTH"),
        record("conversion", b"tight\r\n\r\n").replace(b": ", b":").replace(b"WARC/1.0", b"WARC/1.1"),
        long_header,
        record("conversion", b"unix\r\n").replace(b"\r\n\r\n", b"\n\n"),
        record("conversion", b"more blank lines") + b"\r\n\r\n",
        record("conversion", b"last", "text/plain; charset=utf-8"),
    ]
    file = tmp_path / "a.wet"
    file.write_bytes(INFO + b"".join(TEXTS) + b"".join(odd))
    with open(file, "rb") as stream:
        records = archiveiterator.ArchiveIterator(stream, no_record_parse=True)
        expected = [each.raw_stream.read().decode() for each in records if each.rec_type == "conversion"]
    assert texts_of(file) == expected and len(expected) == 9

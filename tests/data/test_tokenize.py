"""From text to a corpus on disk: formats, the corpus split, the layout, and bad input."""

import bz2
import gzip
import json
import lzma
import os
import shutil
import threading
from itertools import chain

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from stochastok_cli.data.hub_datasets import pull_corpus, push_corpus
from stochastok_cli.data.memmap import Corpus, require_counts
from stochastok_cli.data.source_files import SourceFiles
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.data.tokenize import copy_documents
from stochastok_cli.data.tokenize import tokenize as make_corpus
from stochastok_cli.errors import FAILED, Notice, UserError
from stochastok_cli.manifest import SplitInfo, read_manifest
from stochastok_cli.progress import no_progress
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.vocabulary import Vocabulary

GPT2 = load_vocabulary("gpt2")
TEXTS = [f"Document {i}: " + "word " * (i % 7) + "naïve <|endoftext|> 日本\nsecond line" for i in range(150)] + [""]


def jsonl(texts, key="text"):
    return "".join(json.dumps({"id": i, key: text}) + "\n" for i, text in enumerate(texts)).encode()


def _parquet(texts) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"text": texts}), sink, use_dictionary=False)
    return sink.getvalue().to_pybytes()


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


def documents(corpus: Corpus, split: str) -> list[str]:
    ids = corpus.ids(split)
    ends = np.flatnonzero(ids == corpus.end_of_text)
    assert ends[-1] == len(ids) - 1
    return [GPT2.decode(part[:-1]) for part in np.split(ids, ends + 1)[:-1]]


def tokenize(path, tmp_path, **options):
    return make_corpus(path, tokenizer=GPT2, data_dir=tmp_path / "data", **{"num_proc": 1, **options})


def test_the_split_is_the_one_that_datasets_makes(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(jsonl(TEXTS))
    made = tokenize(file, tmp_path, num_proc=2)
    assert made.path == tmp_path / "data" / "data_as_memmaps" / "corpus-tokenized"
    corpus = Corpus(made.path)
    theirs = datasets.Dataset.from_dict({"text": TEXTS}).train_test_split(test_size=0.01, seed=489, shuffle=True)
    assert documents(corpus, "train") == theirs["train"]["text"]
    assert documents(corpus, "val") == theirs["test"]["text"]
    assert made.manifest.splits == {
        split: SplitInfo(len(documents(corpus, split)), len(corpus.ids(split))) for split in ("train", "val")
    }
    assert made.manifest.dtype == "uint16"
    assert not list(made.path.glob(".*"))


@pytest.mark.parametrize("seconds", [-1e6, 5])
def test_a_text_that_has_changed_at_equal_length_is_noticed(tmp_path, seconds):
    """Also with an older time, as after `cp -p`, or with a clock that was put back."""
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(jsonl(TEXTS))
    made = tokenize(file, tmp_path)
    other_time = (made.path / "manifest.json").stat().st_mtime + seconds
    os.utime(file, (other_time, other_time))
    assert not tokenize(file, tmp_path).created  # touched, and the same
    file.write_bytes(jsonl(TEXTS).replace(b"Document 7", b"Document X"))
    os.utime(file, (other_time, other_time))
    with pytest.raises(UserError, match="corpus.jsonl held another text; --force makes it again"):
        tokenize(file, tmp_path)
    assert tokenize(file, tmp_path, force=True).created
    assert not tokenize(file, tmp_path).created


@pytest.mark.parametrize("limit", [None, 20])
def test_another_spelling_of_a_path_is_the_same_source(tmp_path, monkeypatch, recwarn, limit):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.jsonl").write_bytes(jsonl(TEXTS))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "texts").symlink_to(tmp_path / "texts")
    (tmp_path / "links" / "a.jsonl").symlink_to(tmp_path / "texts" / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    for first, *others in (
        ["texts", "texts/", "./texts", tmp_path / "texts", "links/../texts", "links/texts"],
        ["texts/a.jsonl", "./texts/a.jsonl", tmp_path / "texts" / "a.jsonl", "links/a.jsonl", "texts//a.jsonl"],
    ):
        made = tokenize(first, tmp_path, limit=limit)
        assert made.created and made.manifest.options["source"] == first
        for other in others:
            again = tokenize(other, tmp_path, limit=limit)
            assert not again.created and again.manifest == made.manifest
    assert not [warning for warning in recwarn if warning.category is Notice]
    with pytest.raises(UserError, match="exists, made with other options: seed"):  # and not of another source
        tokenize("./texts", tmp_path, limit=limit, seed=1)


def test_another_file_with_the_same_content_is_the_same_source(tmp_path, monkeypatch):
    for folder in ("here", "there", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "c.jsonl").write_bytes(jsonl(TEXTS))
        os.utime(tmp_path / folder / "c.jsonl", (1e9, 1e9))
    (tmp_path / "elsewhere" / "c.jsonl").write_bytes(jsonl(TEXTS).replace(b"Document 7", b"Document X"))
    os.utime(tmp_path / "elsewhere" / "c.jsonl", (1e9, 1e9))  # nothing but the content tells it from the others
    monkeypatch.chdir(tmp_path / "here")
    made = tokenize("c.jsonl", tmp_path)
    monkeypatch.chdir(tmp_path)
    for same in ("here/c.jsonl", "there/c.jsonl"):  # what "c.jsonl" was is not known in another folder
        with pytest.warns(Notice, match=f"was made of c.jsonl, and {same} holds the same"):
            assert not tokenize(same, tmp_path).created
    refusal = "exists, made of 'c.jsonl' and not of 'elsewhere/c.jsonl'; give it another name .--name., or .* --force"
    with pytest.raises(UserError, match=refusal):
        tokenize("elsewhere/c.jsonl", tmp_path)
    (tmp_path / "there" / "c.jsonl").write_bytes(jsonl([*TEXTS, "one more"]))
    with pytest.raises(UserError, match="not of 'there/c.jsonl', with other options: seed .there 489, now 1.; give"):
        tokenize("there/c.jsonl", tmp_path, seed=1)
    assert read_manifest(made.path) == made.manifest


@pytest.mark.parametrize("link", [True, False])
def test_the_same_bytes_in_another_format_are_another_source(tmp_path, link):
    (tmp_path / "c.jsonl").write_bytes(jsonl(TEXTS))
    tokenize(tmp_path / "c.jsonl", tmp_path)
    (tmp_path / "c.txt").symlink_to(tmp_path / "c.jsonl") if link else shutil.copy2(
        tmp_path / "c.jsonl", tmp_path / "c.txt"
    )
    with pytest.raises(UserError, match=r"made of '.*c.jsonl' and not of '.*c.txt'"):
        tokenize(tmp_path / "c.txt", tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["a.txt", "b.txt"], ["b.txt", "a.txt"]),  # another order
        (["a.txt", "b.txt"], ["a.jsonl", "b.jsonl"]),  # another format
        (["a.txt", "x/b.txt"], ["a.txt", "y/b.txt"]),
    ],
)
def test_renamed_files_of_a_folder_are_noticed(tmp_path, before, after):
    folder = tmp_path / "folder"
    texts = ['{"text": "one"}', '{"text": "two"}']
    for name, text in zip(before, texts, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    times = [(folder / name).stat().st_mtime_ns for name in before]
    made = tokenize(folder, tmp_path)
    assert not tokenize(folder, tmp_path).created
    for i, name in enumerate(before):
        (folder / name).rename(folder / f"{i}.away")
    for i, name in enumerate(after):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{i}.away").rename(folder / name)
        os.utime(folder / name, ns=(times[i], times[i]))
    with pytest.raises(UserError, match="held another text"):
        tokenize(folder, tmp_path)
    assert made.manifest == read_manifest(made.path)


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(jsonl(TEXTS))

    def change_it(description, completed, total):
        file.write_bytes(jsonl(TEXTS).replace(b"Document 7", b"Document X"))

    with pytest.raises(UserError, match="changed while it was read") as caught:
        tokenize(file, tmp_path, progress=change_it)
    assert caught.value.exit_code == FAILED
    assert not (tmp_path / "data" / "data_as_memmaps" / "corpus-tokenized").exists()


def test_the_bytes_are_the_references(tmp_path):
    """Flat little-endian uint16, each document followed by 50256: what the reference's loader maps."""
    file = tmp_path / "corpus.jsonl"
    file.write_bytes(jsonl(TEXTS))
    path = tokenize(file, tmp_path).path
    order = np.random.default_rng(489).permutation(len(TEXTS))
    expected = [[*GPT2._encoder._encoding.encode_ordinary(TEXTS[i]), 50256] for i in order]
    val, train = expected[:2], expected[2:]  # ceil(0.01 * 151) == 2
    assert np.memmap(path / "train.bin", dtype=np.uint16, mode="r").tolist() == list(chain(*train))
    assert np.memmap(path / "val.bin", dtype=np.uint16, mode="r").tolist() == list(chain(*val))


def open_zstd(path, mode):
    return pa.CompressedOutputStream(open(path, mode), "zstd")


def write_text(path, opener=open):
    body = "\n\n".join(text for text in TEXTS if text).encode() + b"\n"
    with opener(path, "wb") as stream:
        stream.write(body)


@pytest.mark.parametrize(
    "name",
    [
        "c.txt",
        "c.txt.gz",
        "c.txt.bz2",
        "c.txt.xz",
        "c.txt.zst",
        "c.JSONL",
        "c.TXT.GZ",
        "c.jsonl",
        "c.jsonl.gz",
        "c.parquet",
        "c",
    ],
)
def test_every_format_gives_the_same_documents(tmp_path, name):
    texts = [text for text in TEXTS if text]
    path = tmp_path / name
    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": open_zstd}
    if ".txt" in name.lower():
        write_text(path, openers.get(path.suffix.lower(), open))
    elif ".jsonl" in name.lower():
        with openers.get(path.suffix, open)(path, "wb") as stream:
            stream.write(jsonl(texts))
    elif name == "c.parquet":
        pyarrow.parquet.write_table(pa.table({"id": range(len(texts)), "text": texts}), path, row_group_size=40)
    else:
        (path / "deep").mkdir(parents=True)
        (path / "a.jsonl").write_bytes(jsonl(texts[:60]))
        (path / "deep" / "b.jsonl").write_bytes(jsonl(texts[60:]))
        (path / "notes.pdf").write_bytes(b"not text")
        (path / "README.md").write_text("a card, no document")
        (path / "dataset_infos.json").write_text("{}")
    made = tokenize(path, tmp_path, name="same")
    corpus = Corpus(made.path)
    assert made.path.name == "same-tokenized"
    assert sorted(documents(corpus, "train") + documents(corpus, "val")) == sorted(texts)


def test_two_documents_are_enough(tmp_path):
    """The reference needed the whole corpus on the Hub and at least 1,024 documents in each split."""
    (tmp_path / "two.txt").write_text("one\n\ntwo\n")
    corpus = Corpus(tokenize(tmp_path / "two.txt", tmp_path).path)
    assert len(documents(corpus, "train")) == len(documents(corpus, "val")) == 1


def test_batches_and_threads_change_nothing(tmp_path, monkeypatch):
    (tmp_path / "c.jsonl").write_bytes(jsonl(TEXTS))
    one = tokenize(tmp_path / "c.jsonl", tmp_path, name="one")
    monkeypatch.setattr("stochastok_cli.data.reading._BATCH_CHARACTERS", 500)
    two = tokenize(tmp_path / "c.jsonl", tmp_path, name="two", num_proc=3)
    assert one.manifest.files == two.manifest.files


def test_the_bundled_sample(tmp_path):
    made = make_corpus("sample", tokenizer="sample2k", data_dir=tmp_path)
    assert made.path.name == "sample-tokenized"
    assert made.manifest.splits["train"].tokens > 300_000
    assert Corpus(made.path).vocabulary.name == "sample2k"


@pytest.mark.parametrize(
    ("content", "name", "message", "code"),
    [
        (b"", "empty.jsonl", "is empty: it has no documents", 2),
        (b"\n \n\n", "blank.txt", "is empty: it has no documents", 2),
        (b"only one", "one.txt", "too few", 2),
        (b'{"txt": "a"}\n', "c.jsonl", "no column 'text'; did you mean 'txt'", 2),
        (b'{"text": "a"}\n{"text": 3}\n', "c.jsonl", "line 2: 'text' holds 3, not text", FAILED),
        (b'{"text": "a"}\n{"text": "b"\n', "c.jsonl", "line 2: not a JSON object", FAILED),
        (b'{"text": "a"}\n["b"]\n', "c.jsonl", "line 2: .* is not a JSON object", FAILED),
        (b"fine\n\nbad \xff byte\n", "c.txt", "line 3: the byte 0xff at 4 is not UTF-8", FAILED),
        (b'{"text": "a"}\n{"text": "\\ud800"}\n', "c.jsonl", "line 2: .*lone surrogate", FAILED),
        (b"not gzip", "c.txt.gz", "damaged or cut short", FAILED),
        (gzip.compress(b"a\n\nb" * 5000, mtime=0)[:-30], "c.txt.gz", "damaged or cut short", FAILED),
        (b"\x28\xb5\x2f\xfd" + b"0" * 50, "c.jsonl.zst", "c.jsonl.zst is damaged or cut short", FAILED),
        (_flipped(gzip.compress(bytes(range(10, 127)) * 5000, mtime=0), 200), "c.txt.gz", "damaged", FAILED),
        (b"PAR1 not really", "c.parquet", "no parquet file", FAILED),
        (_flipped(_parquet(["some text"] * 2000), 100), "c.parquet", "c.parquet is damaged after row 0: ", FAILED),
        (gzip.compress(b"PAR1", mtime=0), "c.parquet.gz", "decompress it", FAILED),
        (b'{"text": "a"}\n{"text": ' + b"[" + b"1," * 5000 + b"1]}\n", "c.jsonl", "line 2: .{,130}, not text", FAILED),
        (
            b"{" + b",".join(b'"k%d": 1' % i for i in range(5000)) + b"}",
            "c.jsonl",
            "k9 and others; name one with --text-column",
            2,
        ),
        (b"x", "c.docx", "type are not known.*--documents file", 2),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(tmp_path, content, name, message, code):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        tokenize(file, tmp_path)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    root = tmp_path / "data" / "data_as_memmaps"
    assert not root.exists() or [f for f in root.iterdir() if not f.name.endswith(".lock")] == []


@pytest.mark.parametrize(
    ("name", "content", "documents", "message"),
    [
        ("c.txt.xz", b"one\n\n" + b"a" * 5000, "paragraph", "c.txt.xz, line 3: longer than 4,000 bytes"),
        ("c.jsonl.xz", b'{"text": "' + b"a" * 5000 + b'"}', "paragraph", "c.jsonl.xz, line 1: longer than 4,000 bytes"),
        (
            "c.txt.xz",
            b"one\n\n" + b"a\n" * 2500,
            "paragraph",
            "c.txt.xz, line 2003: a document is longer",
        ),
        ("c.txt.xz", b"a\n\n" * 2500, "file", "c.txt.xz, line 2667: a document is longer than 4,000 characters"),
    ],
)
def test_small_files_that_are_very_long_decompressed(tmp_path, monkeypatch, name, content, documents, message):
    monkeypatch.setattr("stochastok_cli.data.text_files.LONGEST_DOCUMENT", 4000)
    (tmp_path / name).write_bytes(lzma.compress(content))
    with pytest.raises(UserError, match=message) as caught:
        tokenize(tmp_path / name, tmp_path, documents=documents)
    assert caught.value.exit_code == FAILED
    (tmp_path / name).write_bytes(lzma.compress(b'{"text": "a"}\n\n{"text": "a"}\n' * 250))  # longer in all, and fine
    assert tokenize(tmp_path / name, tmp_path, val_fraction=0).created


def test_bad_text_can_be_replaced(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "a\\ud800b"}\n{"text": "c\xffd"}\n')
    corpus = Corpus(tokenize(tmp_path / "c.jsonl", tmp_path, errors="replace").path)
    assert sorted(documents(corpus, "train") + documents(corpus, "val")) == ["a\ufffdb", "c\ufffdd"]


def test_a_missing_source_and_an_empty_folder(tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="holds no"):
        open_source(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="neither a file"):
        open_source(str(tmp_path / "absent" / "file.txt"))
    (tmp_path / "c.jsonl").write_bytes(jsonl(TEXTS))
    with pytest.raises(UserError, match="share of validation"):
        tokenize(tmp_path / "c.jsonl", tmp_path, val_fraction=1.5)


def test_a_source_that_has_grown_is_noticed(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(jsonl(TEXTS))
    tokenize(tmp_path / "c.jsonl", tmp_path)
    assert not tokenize(tmp_path / "c.jsonl", tmp_path).created
    (tmp_path / "c.jsonl").write_bytes(jsonl([*TEXTS, "one more"]))
    with pytest.raises(UserError, match="bytes of the source"):
        tokenize(tmp_path / "c.jsonl", tmp_path)


def test_a_byte_order_mark_is_no_text(tmp_path):
    for name, body in (("c.txt", "one\n\ntwo\n"), ("c.jsonl", jsonl(["one", "two"]).decode())):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + body.encode())
        corpus = Corpus(tokenize(tmp_path / name, tmp_path, name=name).path)
        assert sorted(documents(corpus, "train") + documents(corpus, "val")) == ["one", "two"]


def test_a_limit_that_leaves_too_few_documents_is_named(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(jsonl(TEXTS))
    message = "^--limit 1 reads 1 document of .*c.jsonl, too few for .*; raise --limit; --val-fraction sets"
    with pytest.raises(UserError, match=message):
        tokenize(tmp_path / "c.jsonl", tmp_path, limit=1)
    (tmp_path / "one.jsonl").write_bytes(jsonl(TEXTS[:1]))
    with pytest.raises(UserError, match="^.*one.jsonl holds 1 document, too few"):
        tokenize(tmp_path / "one.jsonl", tmp_path, limit=2)


def test_a_negative_seed_is_one_of_its_own(tmp_path):
    """As in the other commands; NumPy's generators take none."""
    (tmp_path / "c.jsonl").write_bytes(jsonl(TEXTS))
    made = [tokenize(tmp_path / "c.jsonl", tmp_path, name=f"c{seed}", seed=seed).path for seed in (-1, -2, 1)]
    assert len({(folder / "train.bin").read_bytes() for folder in made}) == 3
    again = tokenize(tmp_path / "c.jsonl", tmp_path, name="again", seed=-1).path
    assert (again / "train.bin").read_bytes() == (made[0] / "train.bin").read_bytes()


def test_an_error_does_not_wait_for_the_checksum_of_the_source(tmp_path, monkeypatch):
    (tmp_path / "c.jsonl").write_bytes(jsonl(TEXTS) + b"{")
    end = threading.Event()
    monkeypatch.setattr(SourceFiles, "fingerprint", lambda files: str(end.wait()))
    with pytest.raises(UserError, match="line 152: not a JSON object"):
        tokenize(tmp_path / "c.jsonl", tmp_path)
    end.set()


def test_a_checksum_that_fails_ends_the_work(tmp_path, monkeypatch):
    (tmp_path / "c.jsonl").write_bytes(jsonl(TEXTS))
    failing, threads, steps = threading.Event(), [], []

    def fail(files):
        threads.append(threading.current_thread())
        failing.set()
        raise UserError("no checksum")

    def progress(*step):
        failing.wait()
        threads[0].join()
        steps.append(step)

    monkeypatch.setattr(SourceFiles, "fingerprint", fail)
    monkeypatch.setattr("stochastok_cli.data.reading._BATCH_CHARACTERS", 1)  # each document is a batch
    with pytest.raises(UserError, match="no checksum"):
        tokenize(tmp_path / "c.jsonl", tmp_path, progress=progress)
    assert len(steps) <= 1


def test_documents_are_copied_whole_or_not_at_all(tmp_path, monkeypatch):
    """Linux gives at most 2 GiB less a page of a file at once, and a file may end before its time."""
    monkeypatch.setattr("stochastok_cli.data.tokenize._COPY_BYTES", 5)
    source, copy = tmp_path / "encoded", tmp_path / "train.bin"
    source.write_bytes(bytes(range(40)))
    starts, sizes = np.array([30, 3, 3, 0]), np.array([10, 12, 0, 3])
    copy_documents(source, starts, sizes, copy, "train", no_progress)
    assert list(copy.read_bytes()) == [*range(30, 40), *range(3, 15), *range(3)]
    with pytest.raises(UserError, match="encoded is cut short") as caught:
        copy_documents(source, starts, np.array([11, 12, 0, 3]), copy, "train", no_progress)
    assert caught.value.exit_code == FAILED


def test_a_full_disk_is_said_as_such(tmp_path):
    """Every write fails as on a full device."""
    from stochastok_cli.data import tokenize as module

    (tmp_path / "c.jsonl").write_bytes(jsonl(TEXTS))
    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "open", lambda *a, **k: full, raising=False)
        with pytest.raises(UserError, match="no space is left"):
            tokenize(tmp_path / "c.jsonl", tmp_path)
    assert [f for f in (tmp_path / "data" / "data_as_memmaps").iterdir() if not f.name.endswith(".lock")] == []


# ------------------------------------------------------------------------------------------------ counts


class _WronglyEncoding:
    """An encoder that gives end-of-text ids for text."""

    def encode(self, text):
        return [100, GPT2.end_of_text]

    def encode_batch(self, texts, threads):
        lengths = np.full(len(texts), 2)
        return np.tile(np.array([100, GPT2.end_of_text], np.uint32), len(texts)), lengths

    def unknown(self):
        return None


def test_documents_are_counted_in_the_files(tmp_path):
    vocabulary = Vocabulary(
        name="wrong", pieces=GPT2.pieces, special=GPT2.special, end_of_text=GPT2.end_of_text, encoder=_WronglyEncoding
    )
    (tmp_path / "text.txt").write_text("one\n\ntwo\n\nthree")
    with pytest.raises(UserError, match="train holds 4 documents with 6 ids, and 2 documents with 6 ids were counted"):
        make_corpus(tmp_path / "text.txt", tokenizer=vocabulary, data_dir=tmp_path)
    assert not [folder for folder in (tmp_path / "data_as_memmaps").iterdir() if folder.is_dir()]


def test_a_folder_whose_manifest_counts_others_is_not_pushed(tmp_path, hub_server):
    (tmp_path / "text.txt").write_text("one\n\ntwo\n\nthree")
    made = make_corpus(tmp_path / "text.txt", tokenizer=GPT2, data_dir=tmp_path)
    manifest = json.loads((made.path / "manifest.json").read_text())
    manifest["splits"]["train"]["documents"] += 1
    (made.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="train holds 2 documents with 4 ids, and 3 documents") as error:
        push_corpus(made.path, repo="someone/counted")
    assert error.value.exit_code == FAILED
    assert "datasets/someone/counted" not in hub_server.repos


def test_documents_of_a_pulled_row_are_counted(tmp_path, hub_server):
    rows = [{"ids": [1, 50256, 2, 50256]}, {"ids": [3]}]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    hub_server.add_dataset("anyone/several", {"data/train.jsonl": lines, "data/val.jsonl": lines})
    made = pull_corpus("several", repo="anyone/several", data_dir=tmp_path)
    assert made.manifest.splits["train"] == SplitInfo(3, 6)
    require_counts(made.path, made.manifest)

"""Tables of every format: what their rows are, nested columns, bytes, and what is damaged."""

import bz2
import csv
import json
import os

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from stochastok_cli.data import arrow_files
from stochastok_cli.data.text_sources import open_rows, open_source
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.errors import FAILED, USAGE, Notice, UserError

TEXTS = ["plain, with a comma\tand a tab", 'two\nlines\r\nand "quotes"', "naïve 日本", "", "\n\nblank lines\n\n", "NA"]


def texts_of(source, **options) -> list[str]:
    return [text for texts, _ in open_source(str(source), **options).batches() for text in texts]


def write_csv(file, rows, **options):
    with open(file, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, **options).writerows(rows)
    return file


def write_stream(file, table):
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return file


def write_file(file, table, compression="zstd"):
    pyarrow.feather.write_feather(table, str(file), compression=compression, chunksize=2)
    return file


def write_parquet(file, table):
    pyarrow.parquet.write_table(table, file)
    return file


def save_dataset(folder, table):
    datasets.Dataset(table).save_to_disk(folder, num_shards=2)
    return folder


WRITERS = {"a.parquet": write_parquet, "a.arrow": write_stream, "a.feather": write_file, "saved": save_dataset}


# ------------------------------------------------------------------------------------------------ separated values


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t"), ("A.CSV.bz2", ",")])
def test_separated_values(tmp_path, name, delimiter):
    texts = [text.replace("\n", " ").replace("\r", " ") if delimiter == "\t" else text for text in TEXTS]
    file = write_csv(tmp_path / "rows", [["id", "text"], *enumerate(texts)], delimiter=delimiter)
    content = b"\xef\xbb\xbf" + file.read_bytes() + b"\r\n"  # with a byte order mark and a blank line
    (tmp_path / name).write_bytes(bz2.compress(content) if name.endswith("bz2") else content)
    assert texts_of(tmp_path / name) == texts
    assert texts_of(tmp_path / name, text_column="id") == [str(i) for i in range(len(TEXTS))]
    (tmp_path / name).write_bytes(bz2.compress(b"") if name.endswith("bz2") else b"")
    assert texts_of(tmp_path / name) == []


@pytest.mark.parametrize(
    ("content", "message", "left"),
    [
        (b"id,text\n1,a\n2\n3,c\n", "line 3: 1 value, and the first row names 2 columns; text with", ["a", "c"]),
        (b"id,text\n1,a,b\n3,c\n", "line 2: 3 values, and the first row names 2 columns", ["c"]),
        (b'id,text\n1,a\n3,"c\n\xe9"\n4,"d\ne"\n', "line 3: its bytes are not UTF-8", ["a", "d\ne"]),
        (b"id,text\n1,caf\xe9\n3,c\n", "line 2: its bytes are not UTF-8; convert", ["c"]),
    ],
)
def test_bad_rows_of_separated_values(tmp_path, content, message, left):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=f"a.csv, {message}") as caught:
        texts_of(tmp_path / "a.csv")
    assert caught.value.exit_code == FAILED
    assert texts_of(tmp_path / "a.csv", on_bad_document="skip") == left


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b'id,text\n1,"a"b\n3,"c\nd"\n4,e\n', "line 2: no row of separated values"),
        ("a.csv", b'id,text\n1,"a\nb"\n3,"c\nd', "line 4: a quote opens in this row and is never closed"),
        ("a.csv", b'text,x\n"opened,1\n' + b"good,1\n" * 500, "line 2: a quote opens in this row and is never closed"),
        ("a.csv", b'text,x\nr,1\n"He said "hi" to me\nand then, left\nEND",1\nr,3\n', "line 3: no row of separated"),
        ("a.csv", b'text,x\n"opened,1\ngood,1\nclosed,"\n', "line 2: a row of 3 lines with another number of values"),
        (
            "a.tsv",
            b'text\tx\nr\t1\n"q\t2\nr\t3\n"\t5\nr\t6\n',
            "line 3: a quote opens in this row and closes in line 5",
        ),
        ("a.tsv", b'text\tx\nr\t1\n"Hi," she said\t2\n', "line 3: no row of separated values"),
        ("a.tsv", b'text\tx\nr\t1\n"q\t2\nr\t3\n', "line 3: a quote opens in this row and is never closed"),
        ("a.tsv", b'text\t"x\ny"\nr\t1\n', "line 1: a quote opens in this row and closes in line 2"),
    ],
)
@pytest.mark.parametrize("mode", ["error", "skip"])
def test_broken_quotes_are_never_left_out(tmp_path, name, content, message, mode):
    """Nobody knows where rows begin after them: rows would be lost, or parts of rows become documents."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}, {message}") as caught:
        texts_of(tmp_path / name, on_bad_document=mode)
    assert caught.value.exit_code == FAILED and "--on-bad-document" not in str(caught.value)


def test_long_values_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("stochastok_cli.data.text_files.LONGEST_DOCUMENT", 4000)
    rows = [["text"], ["a" * 5000], ["c" * 3990]]
    file = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(UserError, match="line 2: longer than 4,000 characters"):
        texts_of(file)
    assert texts_of(file, on_bad_document="skip") == ["c" * 3990]
    for value in ("b\n" * 2500, "b" * 4100 + "\nb"):
        file = write_csv(tmp_path / "a.csv", [["text"], [value], ["c"]])
        with pytest.raises(
            UserError, match=r"line 2: (a row of [\d,]+ lines with more than|a quote opens in this row)"
        ):
            texts_of(file, on_bad_document="skip")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"id,txt\n1,a\n", {}, "a.csv: there is no column 'text'; did you mean 'txt'.*--text-column"),
        (b"text,text\na,b\n", {}, "a.csv: 2 columns are named 'text'"),
        (b'"text"x\na\n', {}, "a.csv, line 1: no row of separated values"),
        ("text,x\na,1\n".encode("utf-16"), {}, "a.csv is text in UTF-16, not in UTF-8; convert .*-f UTF-16 -t UTF-8$"),
        ("text,x\na,1\n".encode("utf-16-le"), {}, "a.csv is text in UTF-16LE, not in UTF-8"),
        (b"t\xe9xt,x\na,1\n", {}, "a.csv: its first row is not UTF-8"),
    ],
)
def test_the_first_row_must_name_the_column_in_any_case(tmp_path, content, options, message):
    (tmp_path / "a.csv").write_bytes(content)
    for mode in ("error", "skip"):
        with pytest.raises(UserError, match=message):
            texts_of(tmp_path / "a.csv", on_bad_document=mode)


def test_separated_values_are_text_where_a_document_is_a_file(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    assert texts_of(tmp_path, documents="file") == ["x,y\n1,2\n"]


# ------------------------------------------------------------------------------------------------ Arrow and parquet


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "large_binary", "dictionary", "string_view"])
@pytest.mark.parametrize("name", WRITERS)
def test_columns_of_text_and_of_bytes(tmp_path, name, kind):
    if kind == "string_view" and name == "saved":
        pytest.skip("datasets does not know it")
    column = pa.array(TEXTS)
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(getattr(pa, kind)())
    path = tmp_path / name
    try:
        WRITERS[name](path, pa.table({"id": range(len(TEXTS)), "text": column}))
    except (pa.ArrowNotImplementedError, NotImplementedError):
        pytest.skip("the library can't write it")
    assert texts_of(path) == TEXTS


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", ["string", "binary", "nested"])
def test_bytes_that_are_not_utf8(tmp_path, name, kind):
    column = pa.array([b"a", b"caf\xe9", b"c", None], pa.binary())
    if kind != "binary":
        column = pa.Array.from_buffers(pa.string(), 4, column.buffers())  # as `cast`, which looks at the text
    option = {}
    if kind == "nested":
        column, option = pa.StructArray.from_arrays([column], ["in"]), {"text_column": "text.in"}
    WRITERS[name](tmp_path / name, pa.table({"text": column}))
    with pytest.raises(UserError, match=r", row \d: the byte 0xe9 at 3 of '.*' is not UTF-8") as caught:
        texts_of(tmp_path / name, **option)
    assert caught.value.exit_code == FAILED
    assert texts_of(tmp_path / name, on_bad_document="skip", **option) == ["a", "c"]
    assert texts_of(tmp_path / name, on_bad_document="skip", errors="replace", **option) == ["a", "caf\ufffd", "c"]


ROWS = [{"meta": {"text": "in", "x.y": {"z": "deep"}}, "a.b": "dots", "a": {"b": "other"}}, {"meta": None, "a.b": "s"}]


@pytest.mark.parametrize("name", [*WRITERS, "a.jsonl"])
def test_nested_columns(tmp_path, name):
    """A column whose own name has a dot comes first."""
    if name == "a.jsonl":
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        WRITERS[name](tmp_path / name, pa.Table.from_pylist(ROWS))
    options = {"on_bad_document": "skip"}
    assert texts_of(tmp_path / name, text_column="meta.text", **options) == ["in"]
    assert texts_of(tmp_path / name, text_column="meta.x.y.z", **options) == ["deep"]
    assert texts_of(tmp_path / name, text_column="a.b") == ["dots", "s"]
    with pytest.raises(UserError, match=r"'meta.text' holds null, not text"):
        texts_of(tmp_path / name, text_column="meta.text")
    with pytest.raises(UserError, match=r"there is no column 'meta.txt'"):
        texts_of(tmp_path / name, text_column="meta.txt")
    source = open_rows(str(tmp_path / name), {"--text-column": "meta.text", "--id-column": "a.b"})
    assert [row.values for rows, _ in source.batches() for row in rows] == [("in", "dots"), (None, "s")]


def test_progress_reaches_the_size(tmp_path):
    for name, write in WRITERS.items():
        source = open_source(str(write(tmp_path / name, pa.table({"text": TEXTS}))))
        *_, (_, done) = source.batches()
        assert 0.5 < done / source.total <= 1


def test_a_saved_dataset_is_read_as_datasets_reads_it(tmp_path):
    """Without the cached rows that `datasets` keeps beside it."""
    saved = datasets.Dataset.from_dict({"text": TEXTS})
    saved.save_to_disk(tmp_path / "one", num_shards=3)
    opened = datasets.load_from_disk(tmp_path / "one").map(lambda row: {"text": row["text"] + "!"})
    assert opened.cache_files and list((tmp_path / "one").glob("cache-*"))
    with pytest.warns(Notice, match="not read in .*1 file: 1 .arrow"):
        assert texts_of(tmp_path / "one") == TEXTS
    (tmp_path / "one" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(UserError, match=r"data-00001-of-00003.arrow is missing, which .*state.json names"):
        texts_of(tmp_path / "one")


def test_splits_of_a_saved_dataset(tmp_path):
    splits = {"train": datasets.Dataset.from_dict({"text": TEXTS}), "test": datasets.Dataset.from_dict({"text": ["t"]})}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert texts_of(tmp_path / "saved") == TEXTS
    assert texts_of(tmp_path / "saved", split="test") == ["t"]
    assert (
        open_source(str(tmp_path / "saved")).name == open_rows(str(tmp_path / "saved"), {"--x": "text"}).name == "saved"
    )
    options = {"tokenizer": "sample2k", "data_dir": tmp_path, "name": "corpus"}
    assert tokenize(tmp_path / "saved", **options).manifest.options["split"] == "train"
    with pytest.raises(UserError, match="made with other options: .*split .there 'train', now 'test'"):
        tokenize(tmp_path / "saved", split="test", **options)
    with pytest.raises(UserError, match="no split 'val'; name one with --split; there are: train, test"):
        open_source(str(tmp_path / "saved"), split="val")
    with pytest.raises(UserError, match="no subset; drop --subset$"):
        open_source(str(tmp_path / "saved"), subset="en")
    with pytest.raises(UserError, match="saved is a saved dataset with splits; name it itself"):
        open_source(str(tmp_path))
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["../train"]}')
    with pytest.raises(UserError, match="leads out of"):
        open_source(str(tmp_path / "saved"), split="../train")


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
def test_damaged_arrow_files(tmp_path, name):
    table = pa.table({"text": [f"text {i}" * 20 for i in range(100)]})
    options = {"compression": "uncompressed"} if name == "a.feather" else {}
    file = WRITERS[name](tmp_path / name, table, **options)
    content = file.read_bytes()
    batches = [i for i in range(len(content)) if content.startswith(b"\xff\xff\xff\xff", i)]
    cuts = {batches[5], len(content) - 8, len(content) // 2, 4, 0}  # the first is where rows begin
    for cut in cuts:
        file.write_bytes(content[:cut])
        with pytest.raises(UserError, match="is (no Arrow file or is cut short|damaged after row|empty)") as caught:
            texts_of(file, on_bad_document="skip")
        assert caught.value.exit_code == FAILED
    place = content.index(np.array([0, 120, 240], np.int32).tobytes()) + 4  # where the first text ends
    file.write_bytes(content[:place] + b"\xff\xff\xff\x7f" + content[place + 4 :])
    with pytest.raises(UserError, match="is damaged after row 0"):
        texts_of(file, on_bad_document="skip")


@pytest.mark.parametrize("name", ["a.arrow", "a.feather", "a.parquet"])
def test_changed_bytes_never_end_the_process(tmp_path, name):
    """Rows, or one line: neither a crash of the library nor another error."""
    rows = [{"m": {"t": "é" * i, "n": [{"c": "y"}] * (i % 3)}, "d": "ab"[i % 2]} for i in range(40)]
    content = WRITERS[name](tmp_path / name, pa.Table.from_pylist(rows)).read_bytes()
    random, read, messages = np.random.default_rng(0), 0, []
    for number in range(60):
        changed = bytearray(content)
        for place in random.integers(len(content), size=1 + number % 8):
            changed[place] = random.choice([0, 127, 255])
        (tmp_path / name).write_bytes(changed)
        for column in ("m", "m.t"):
            source = open_rows(str(tmp_path / name), {"--text-column": column}, on_bad_document="skip")
            try:
                read += sum(len(batch) for batch, _ in source.batches())
            except UserError as error:
                messages.append(str(error))
    assert read > 0 and not any("\n" in message for message in messages)


def test_feather_files_of_version_1_are_named(tmp_path):
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(60) + b"FEA1")
    with pytest.raises(UserError, match="a.feather is a Feather file of version 1, which is not read; write it again"):
        texts_of(tmp_path / "a.feather")


def test_arrow_files_are_not_compressed_once_more(tmp_path):
    (tmp_path / "a.arrow.gz").write_bytes(b"x")
    with pytest.raises(UserError, match="compressed Arrow files are not read; decompress it"):
        texts_of(tmp_path / "a.arrow.gz")


def test_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    for name in ("a.parquet", "a.arrow"):
        with pytest.raises(UserError, match="2 columns are named 'text'"):
            texts_of(WRITERS[name](tmp_path / name, table))


def test_a_large_value_of_a_dictionary_is_not_held_for_every_row(tmp_path, monkeypatch):
    """A thousand rows of 100 MB would not fit into memory; here they are small."""
    monkeypatch.setattr(arrow_files, "_SMALL_GROUP", 1000)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["x" * 100_000]))
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"text": text}), file, compression="zstd", store_schema=False)
    before = pa.total_allocated_bytes()
    batches = open_source(str(file)).batches()
    assert set(next(batches)[0]) == {"x" * 100_000}
    assert pa.total_allocated_bytes() - before < 2_000_000


# ------------------------------------------------------------------------------------------------ folders


def test_all_formats_of_a_folder_are_read(tmp_path):
    table = pa.table({"text": ["a"]})
    for name in ("b.parquet", "c.arrow"):
        WRITERS[name.replace(name[0], "a", 1)](tmp_path / name, table)
    write_csv(tmp_path / "d.tsv", [["text"], ["d"]])
    (tmp_path / "e.jsonl").write_text('{"text": "e"}')
    assert texts_of(tmp_path) == ["a", "a", "d", "e"]


def test_rows_of_separated_values_are_completions_too(tmp_path):
    file = write_csv(tmp_path / "a.csv", [["p", "c"], ["x", "y"]])
    source = open_rows(str(file), {"--prompt-column": "p", "--completion-column": "c"})
    [([row], _)] = source.batches()
    assert (row.values, str(row.where)) == (("x", "y"), f"{file}, line 2")
    assert os.fspath(file) == row.where.file
    with pytest.raises(UserError) as caught:
        list(open_rows(str(file), {"--prompt-column": "q"}).batches())
    assert caught.value.exit_code == USAGE


# ------------------------------------------------------------------------------------------------ compression


def zstd_frame(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def test_zstd_of_several_frames(tmp_path):
    """As `pzstd`, `cat a.zst b.zst` and logs that are appended to write it, with an empty and a skippable frame."""
    frames = [zstd_frame(json.dumps({"text": text}).encode() + b"\n") for text in TEXTS]
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0notes"
    file = tmp_path / "a.jsonl.zst"
    file.write_bytes(skippable + b"".join(frames) + zstd_frame(b"") + skippable)
    assert texts_of(file) == TEXTS
    for content in (b"".join(frames)[:-3], b"".join(frames) + frames[0][:4], b"".join(frames) + b"no frame"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="a.jsonl.zst is damaged or cut short"):
            texts_of(file, on_bad_document="skip")

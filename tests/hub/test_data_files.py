"""The files of a Hub dataset: checksums, columns that differ between files, rows that would fill the memory."""

import gzip
import json
import multiprocessing
import re
import warnings

import huggingface_hub
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from stochastok_cli import hub
from stochastok_cli.data.hub_datasets import pull_corpus
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.errors import FAILED, USAGE, Notice, UserError
from stochastok_cli.hub import data_files, tabular_files
from stochastok_cli.hub.locate import CONVERTED
from stochastok_cli.hub.temporary import temporary_folder


def parquet(table: pyarrow.Table, **options) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def texts_of(repo: str, **options) -> list[str]:
    return [text for batch, _ in open_source(repo, **options).batches() for text in batch]


def ids_of(repo: str) -> list[list[int]]:
    batches = hub.stream_ids(repo).ids("train")
    return [part.tolist() for ids, lengths in batches for part in np.split(ids, np.cumsum(lengths)[:-1])]


# ------------------------------------------------------------------------------------------------ checksums


def serve_damaged(repo, path: str) -> None:
    """The server goes on listing the checksum of a file whose last bytes it damages."""
    content = repo.files[path]
    repo.damaged[path] = content[: len(content) // 2] + b"\xff" + content[len(content) // 2 + 1 :]


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("name", ["train.parquet", "train.jsonl", "train.txt"])
def test_a_file_that_differs_from_its_checksum_is_not_read(hub_server, name, large):
    content = {
        "train.parquet": parquet(pyarrow.table({"text": ["a" * 50, "b" * 50]}), compression="none"),
        "train.jsonl": json.dumps({"text": "a" * 50}).encode(),
        "train.txt": b"a" * 50,
    }[name]
    source = f"anyone/damaged-{name.split('.')[1]}-{large}"
    repo = hub_server.add_dataset(source, {name: content})
    repo.lfs_paths = {name} if large else set()
    assert "a" * 50 in texts_of(source)
    opened = open_source(source)
    serve_damaged(repo, name)
    with pytest.raises(UserError, match=f"^{name} of {source} is damaged: its checksum is not the one") as caught:
        list(opened.batches())
    assert caught.value.exit_code == FAILED


def test_what_a_dataset_names_elsewhere_is_not_read():
    url = "hf://datasets/a/b@0123/folder/x y.txt"
    assert data_files.paths_in_repo("a/b", "0123", [url]) == ["folder/x y.txt"]
    for other in ("/etc/passwd", "hf://datasets/a/b@4567/x.txt", "https://example.com/hf://datasets/a/b@0123/x"):
        with pytest.raises(UserError, match="the card of a/b on the Hub names data outside of the repository"):
            data_files.paths_in_repo("a/b", "0123", [other])


@pytest.mark.parametrize("content", ["", "[]", '{"a": -1}', '{"a": true}', '{"a": "1"}', "[" * 100_000])
def test_damaged_numbers_of_rows_are_passed_over(tmp_path, content):
    (tmp_path / "num_rows.json").write_text(content)
    assert data_files.DataFiles("a/b", "0123", ["a"], tmp_path).num_rows("a") is None


@pytest.mark.parametrize("large", [True, False])
@pytest.mark.parametrize("revision", ["main", CONVERTED])
def test_questions_that_differ_from_their_checksum_are_not_read(hub_server, large, revision):
    content = parquet(pyarrow.table({"question": ["a" * 50, "b" * 50]}), compression="none")
    source, name = f"anyone/questions-{large}-{revision[:4]}", "default/train/0000.parquet"
    repo = hub_server.add_dataset(source, {f"{source.split('/')[1]}.py": b""} if revision == CONVERTED else {})
    if revision == CONVERTED:
        repo.commit_to(CONVERTED, {name: content})
    else:
        name = "data/train.parquet"
        repo.commit({name: content})
    repo.lfs_paths = {name} if large else set()
    repo.damaged[name] = content.replace(b"a" * 50, b"a" * 49 + b"x")
    for _ in range(2):
        with pytest.raises(UserError, match=f"^{name} of {source} is damaged: its checksum is not the one") as caught:
            hub.load_rows(source, split="train")
        assert caught.value.exit_code == FAILED
    repo.damaged.clear()
    for _ in range(2):
        assert hub.load_rows(source, split="train")["question"][:] == ["a" * 50, "b" * 50]


# ------------------------------------------------------------------------------------------------ columns


def lines(*rows: object) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("json", {"a.jsonl": lines({"text": "a"}), "b.jsonl": lines({"text": "b", "extra": 1})}),
        ("less", {"a.jsonl": lines({"text": "a", "extra": 1}), "b.jsonl": lines({"text": "b"})}),
        ("type", {"a.jsonl": lines({"text": "a", "n": 1}), "b.jsonl": lines({"text": "b", "n": {"deep": []}})}),
        ("order", {"a.csv": b"text,n\na,1\n", "b.csv": b"other,text\n2,b\n"}),
        (
            "parquet",
            {
                "a.parquet": parquet(pyarrow.table({"text": ["a"]})),
                "b.parquet": parquet(pyarrow.table({"n": [1], "text": ["b"]})),
            },
        ),
        ("gz", {"a.jsonl.gz": gzip.compress(lines({"text": "a"})), "b.jsonl.gz": gzip.compress(lines({"text": "b"}))}),
        (
            "declared",
            {
                "README.md": b"---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n---\n",
                "a.jsonl": lines({"text": "a"}),
                "b.jsonl": lines({"text": "b", "extra": 1}),
            },
        ),
    ],
)
def test_other_columns_may_differ_between_files(hub_server, name, files):
    hub_server.add_dataset(f"anyone/columns-{name}", files)
    assert texts_of(f"anyone/columns-{name}") == ["a", "b"]


def test_other_columns_may_differ_within_a_file(hub_server):
    """`datasets` reads JSON in pieces of 10 MB and takes the columns from the first of them."""
    rows = [{"text": "x" * 1_000_000} for _ in range(12)]
    hub_server.add_dataset("anyone/within", {"a.jsonl": lines(*rows, {"text": "end", "extra": 1})})
    assert texts_of("anyone/within") == [*(row["text"] for row in rows), "end"]


def test_texts_of_separated_values_are_read_as_from_a_local_file(hub_server, tmp_path):
    content = b'text,x\nNA,1\nNone,2\n,3\n"two\nlines",4\n'
    (tmp_path / "train.csv").write_bytes(content)
    hub_server.add_dataset("anyone/separated", {"train.csv": content})
    assert texts_of("anyone/separated") == texts_of(str(tmp_path / "train.csv")) == ["NA", "None", "", "two\nlines"]


@pytest.mark.parametrize(
    ("name", "second", "message"),
    [
        ("absent", lines({"txt": "b"}), "b.jsonl of {} has no column 'text'; did you mean 'txt'?; there are: txt"),
        ("number", lines({"text": 1}), "column 'text' of b.jsonl of {} holds int64, not text"),
        ("null", lines({"text": "b"}, {"text": None}), "b.jsonl of {}, row 3 of train: 'text' holds null, not text"),
        ("nulls", lines({"text": None}), "b.jsonl of {}, row 2 of train: 'text' holds null, not text"),
    ],
)
def test_a_file_whose_column_can_not_be_read_is_named(hub_server, name, second, message):
    repo = f"anyone/named-{name}"
    hub_server.add_dataset(repo, {"a.jsonl": lines({"text": "a"}), "b.jsonl": second})
    with pytest.raises(UserError, match=f"^{re.escape(message.format(repo))}(; --on-bad-document skip .*)?$") as caught:
        texts_of(repo)
    assert caught.value.exit_code == (FAILED if "row" in str(caught.value) else USAGE)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("floats", {"ids": [[1.5]]}, "column 'ids' of b.parquet of anyone/later-floats holds list<element: double>"),
        ("absent", {"tokens": [[1]]}, "b.parquet of anyone/later-absent has no column 'ids'"),
        ("none", {"ids": pyarrow.array([None, [1]])}, "b.parquet of anyone/later-none: ids are missing in rows 1 to 3"),
    ],
)
def test_every_file_of_ids_is_looked_at(hub_server, name, column, message):
    files = {"a.parquet": parquet(pyarrow.table({"ids": [[1, 2]]})), "b.parquet": parquet(pyarrow.table(column))}
    hub_server.add_dataset(f"anyone/later-{name}", files)
    with pytest.raises(UserError, match=re.escape(message)):
        ids_of(f"anyone/later-{name}")


def test_files_of_empty_documents_are_no_error(hub_server):
    files = {"a.jsonl": lines({"ids": [1]}), "b.jsonl": lines({"ids": []}, {"ids": []}), "c.jsonl": lines({"ids": [2]})}
    hub_server.add_dataset("anyone/empty-documents", files)
    assert ids_of("anyone/empty-documents") == [[1], [], [], [2]]


# ------------------------------------------------------------------------------------------------ text files


TEXT = "\ufefffirst doc\r\nsecond line\r\n\r\n \t\r\nthird doc\n\n\nfourth doc\n\nfifth".encode()


@pytest.mark.parametrize("documents", ["paragraph", "file"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_text_files_are_split_as_on_disk(hub_server, tmp_path, documents, suffix):
    """Also with two files, the first of which has no blank line at its end."""
    pack = gzip.compress if suffix else bytes
    repo = f"anyone/text-{documents}{suffix.replace('.', '-')}"
    hub_server.add_dataset(repo, {f"{name}.txt{suffix}": pack(TEXT) for name in "ab"})
    for name in "ab":
        (tmp_path / f"{name}.txt{suffix}").write_bytes(pack(TEXT))
    there = texts_of(repo, documents=documents)
    assert there == texts_of(str(tmp_path), documents=documents)
    assert there[:2] == (["first doc\r\nsecond line", "third doc"] if documents == "paragraph" else [there[0]] * 2)
    source = open_source(repo, documents=documents)
    assert source.options["documents"] == documents and source.total == 2 * len(pack(TEXT))
    *_, (_, done) = source.batches()
    assert done == source.total


def test_wrong_use_of_text_files(hub_server):
    hub_server.add_dataset("anyone/latin", {"data/train.txt": b"one\n\ncaf\xe9"})
    with pytest.raises(UserError, match=r"^data/train\.txt of anyone/latin, line 3: the byte 0xe9 at 3 is not UTF-8"):
        texts_of("anyone/latin")
    assert texts_of("anyone/latin", errors="replace") == ["one", "caf\ufffd"]
    hub_server.add_dataset("anyone/rows", {"train.jsonl": lines({"text": "a"})})
    with pytest.raises(UserError, match="--documents file is for text files, and anyone/rows has columns; drop it"):
        texts_of("anyone/rows", documents="file")


# ------------------------------------------------------------------------------------------------ memory


def rows_of_equal_ids(rows: int, length: int) -> bytes:
    offsets = np.arange(rows + 1, dtype=np.int32) * length
    ids = pyarrow.ListArray.from_arrays(offsets, np.zeros(rows * length, np.uint16))
    return parquet(pyarrow.table({"ids": ids}), compression="zstd")


def test_a_small_file_of_many_ids_is_not_decoded(hub_server, monkeypatch):
    content = rows_of_equal_ids(1, 5_000_000)
    assert len(content) < 1000
    hub_server.add_dataset("anyone/bomb", {"train.parquet": content})
    before = pyarrow.total_allocated_bytes()
    message = r"^train\.parquet of anyone/bomb holds 5,000,000 values of 'ids' in \d+ bytes; more than 100 a byte"
    with pytest.raises(UserError, match=message) as caught:
        ids_of("anyone/bomb")
    assert caught.value.exit_code == FAILED and pyarrow.total_allocated_bytes() - before < 1_000_000
    hub_server.add_dataset("anyone/no-bomb", {"train.parquet": rows_of_equal_ids(4, 1_000_000)})
    assert sum(len(ids) for ids, _ in hub.stream_ids("anyone/no-bomb").ids("train")) == 4_000_000


def test_long_rows_are_decoded_a_few_at_a_time(tmp_path, monkeypatch):
    file = tmp_path / "x.parquet"
    file.write_bytes(rows_of_equal_ids(64, 1000))
    monkeypatch.setattr(tabular_files, "_BATCH_BYTES", 100_000)
    tables = [*tabular_files.read_parquet(file, "x", ["ids"], 5)]
    assert max(map(len, tables)) == 100_000 // 8000 and sum(map(len, tables)) == 59


# ------------------------------------------------------------------------------------------------ temporary folders


def die_in_a_temporary_folder(home: str) -> None:
    import os

    huggingface_hub.constants.HF_HOME = home
    with temporary_folder() as folder:
        (folder / "shard.parquet").write_bytes(b"half")
        os._exit(9)


def test_what_a_killed_process_has_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path))
    killed = multiprocessing.get_context("fork").Process(target=die_in_a_temporary_folder, args=(str(tmp_path),))
    killed.start()
    killed.join()
    assert killed.exitcode == 9 and len([*tmp_path.rglob("shard.parquet")]) == 1
    with temporary_folder() as first:
        (first / "mine").write_bytes(b"")
        with temporary_folder() as second:
            assert {*tmp_path.rglob("*.parquet")} == set()
            assert first != second and (first / "mine").exists()
    assert [file.name for file in (tmp_path / "stochastok").iterdir()] == [".lock"]


# ------------------------------------------------------------------------------------------------ not read

ONE_SUBSET = b"---\nconfigs: [{config_name: a, data_files: a/*.jsonl}]\n---\n"
THREE_SUBSETS = b"""---
configs:
- config_name: a
  data_files: a/*.jsonl
  default: true
- config_name: b
  data_files: [{split: train, path: [b.jsonl, "b/**/y*.jsonl"]}]
- config_name: c
  data_dir: c
---
"""
LINE = b'{"text": "a b", "ids": [1, 2]}\n'
SUBSETS = {
    "README.md": THREE_SUBSETS,
    "a/1.jsonl": LINE,
    "b.jsonl": LINE,
    "b/y1.jsonl": LINE,
    "b/q/y.jsonl": LINE,
    "c/x.csv": b"",
}
LONG = "y." + "z" * 300


@pytest.mark.parametrize(
    ("name", "files", "counts"),
    [
        ("formats", {"a.jsonl": LINE, "b.jsonl": LINE, "c.parquet": b"", "d.txt.gz": b""}, "1 .parquet, 1 .txt.gz"),
        ("all", {"a.jsonl": LINE, "README.md": b"# A card", "dataset_infos.json": b"{}", ".x/y.txt": b""}, ""),
        ("named", {"README.md": ONE_SUBSET, "a/1.jsonl": LINE, "b.jsonl": LINE, "c": LINE}, "1 .jsonl, 1 without"),
        ("subsets", {**SUBSETS, "b/z.jsonl": b"", "LICENSE": b"", "x.jsonl": b""}, "2 .jsonl, 1 without a suffix"),
        ("folders", {**SUBSETS, "c/deep/z.csv": b"", "c/z.csv": b""}, ""),
        ("hostile", {"a.jsonl": LINE, "x.\x1b[31m": b"", LONG: b""}, r"1 '.\\x1b\[31m', 1 '.z{45,60}\.\.\.z{45,60}'$"),
    ],
)
def test_files_that_are_not_read_are_counted(hub_server, name, files, counts):
    hub_server.add_dataset(f"anyone/unread-{name}", files)
    with warnings.catch_warnings(record=True) as caught:
        unread = open_source(f"anyone/unread-{name}").made_from().unread
    notes = [str(one.message) for one in caught if one.category is Notice]
    assert len(notes) == bool(unread) == bool(counts)
    for note in notes:
        assert re.match(rf"not read in anyone/unread-{name} on the Hub: {sum(unread.values())} files?: {counts}", note)


def test_a_pull_names_what_it_does_not_read(hub_server, tmp_path):
    hub_server.add_dataset("anyone/two-formats", {"train.jsonl": LINE, "val.jsonl": LINE, "other.parquet": b""})
    with pytest.warns(Notice, match="not read in anyone/two-formats on the Hub: 1 file: 1 .parquet"):
        made = pull_corpus("pulled", repo="anyone/two-formats", data_dir=tmp_path)
    assert made.manifest.made_from.unread == {".parquet": 1}

"""Which files of a folder are read: hidden ones never, and whatever else is not read is counted by type."""

import gzip
import json
import os
import socket
import sys
import warnings
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest

from stochastok_cli.cli import app
from stochastok_cli.cli.tokenize import tokenize as tokenize_command
from stochastok_cli.data.formats import holds_ids
from stochastok_cli.data.source_files import find_files
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.data.tokenize_instructions import tokenize_instructions
from stochastok_cli.errors import FAILED, Notice, UserError


def texts_of(source, **options) -> list[str]:
    return [text for texts, _ in open_source(str(source), **options).batches() for text in texts]


def rows(count: int) -> str:
    return "".join(json.dumps({"text": f"document {i}"}) + "\n" for i in range(count))


def names(path, *arguments) -> list[str]:
    return [file.relative_to(path).as_posix() for file in find_files(path, *arguments).files]


def test_hidden_files_and_folders_are_ignored(tmp_path):
    folder = tmp_path / ".cache" / "corpus"  # only what is hidden inside of the source counts
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / ".ipynb_checkpoints" / "part-checkpoint.jsonl").write_text(rows(5))
    (folder / ".part.jsonl.swp").write_text("x")
    (folder / ".old.jsonl").write_text(rows(5))
    (folder / "part.jsonl").write_text(rows(10))
    listed = find_files(folder)
    assert names(folder) == ["part.jsonl"]
    assert (listed.unread, listed.note) == ({}, "")
    assert texts_of(folder) == [f"document {i}" for i in range(10)]
    assert len(texts_of(folder / ".old.jsonl")) == 5  # named itself


def test_known_formats_are_read_in_any_case(tmp_path):
    (tmp_path / "C.JSONL").write_text(rows(10))
    (tmp_path / "a.jsonl").write_text(rows(10))
    (tmp_path / "b.Txt.GZ").write_bytes(gzip.compress(b"one\n\ntwo"))
    assert names(tmp_path) == ["C.JSONL", "a.jsonl", "b.Txt.GZ"]
    assert len(texts_of(tmp_path)) == 22
    (tmp_path / "d.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"0" * 50)
    with pytest.raises(UserError, match="d.jsonl.zst is damaged") as caught:
        texts_of(tmp_path)
    assert caught.value.exit_code == FAILED


@pytest.fixture
def project(tmp_path):
    """A folder with three programs, a word list and more."""
    folder = tmp_path / "project"
    (folder / "deep").mkdir(parents=True)
    for i, place in enumerate((folder, folder, folder / "deep")):
        (place / f"{i}.py").write_text(f"def f():\n\n    return {i}\n")
    (folder / "README.md").write_text("# Title\n\nA paragraph.\n")
    (folder / "words.txt").write_text("one\n\ntwo\n")
    (folder / "part.jsonl").write_text(rows(2))
    (folder / "settings.json").write_text("{}")
    (folder / "Makefile").write_text("all:\n")
    (folder / "empty.py").write_text("\n")
    (folder / "part.jsonl.zip").write_bytes(b"PK\0\0")
    (folder / "image.png").write_bytes(b"\x89PNG\0")
    (folder / "latin.c").write_bytes(b"// caf\xe9")
    os.mkfifo(folder / "pipe")
    (folder / "lost").symlink_to("nowhere")
    (folder / "again").symlink_to(folder)
    return folder


def test_what_is_not_read_is_counted(project):
    listed = find_files(project)
    assert names(project) == ["part.jsonl", "words.txt"]
    assert listed.unread == {
        ".py": 4,
        ".c": 1,
        ".json": 1,
        ".jsonl.zip": 1,
        ".md": 1,
        ".png": 1,
        "broken link": 1,
        "link to a folder": 1,
        "pipe": 1,
        "without a suffix": 1,
    }
    assert listed.note == (
        f"not read in {project}: 13 files: 1 broken link (lost), 4 .py, 1 .c, 1 .json, 1 .jsonl.zip, 1 .md, "
        "4 of other types; "
        "--documents file reads text files of any type, each as one document"
    )


def test_what_may_be_lost_data_is_named_first(tmp_path):
    """Beside more common types, which would leave it among "others"."""
    (tmp_path / "read.txt").write_text("text")
    assert find_files(tmp_path).note == ""
    (tmp_path / "b.txt").touch()
    assert find_files(tmp_path).note == f"in {tmp_path}, empty: b.txt"
    (tmp_path / "deep").mkdir()
    for name in ("a.txt", "deep/b.txt", "c.jsonl", "d.txt"):
        (tmp_path / name).symlink_to(tmp_path / "not mounted" / name)
    assert find_files(tmp_path).note == (
        f"not read in {tmp_path}: 4 files: 4 broken links (a.txt, c.jsonl, d.txt and 1 more); empty: b.txt"
    )
    for i, suffix in enumerate((".c", ".h", ".py", ".md", ".png", ".pdf", ".log")):
        for number in range(6 + i):
            (tmp_path / f"{number}{suffix}").touch()
    for name in ("x", "y"):
        (tmp_path / name).symlink_to(tmp_path / "deep")
    listed = find_files(tmp_path, "file")
    assert "4 broken links (a.txt, c.jsonl, d.txt and 1 more)" in listed.note and "2 links to folders" in listed.note
    assert listed.unread == {"broken link": 4, "link to a folder": 2}
    assert ": 69 files: 4 broken links (a.txt, c" in find_files(tmp_path).note


def test_one_file_as_one_document(project):
    assert names(project, "file") == [
        "0.py",
        "1.py",
        "Makefile",
        "README.md",
        "deep/2.py",
        "empty.py",
        "part.jsonl",
        "words.txt",
    ]
    with pytest.warns(Notice):
        texts = texts_of(project, documents="file")
    assert texts == [
        "def f():\n\n    return 0\n",
        "def f():\n\n    return 1\n",
        "all:\n",
        "# Title\n\nA paragraph.\n",
        "def f():\n\n    return 2\n",
        "document 0",
        "document 1",
        "one\n\ntwo\n",
    ]
    unread = find_files(project, "file").unread
    assert unread.keys() == {".c", ".json", ".jsonl.zip", ".png", "broken link", "link to a folder", "pipe"}
    assert "latin.c" in names(project, "file", "replace")
    with pytest.warns(Notice):
        assert "// caf\ufffd" in texts_of(project, documents="file", errors="replace")


def test_the_note_comes_before_the_work_and_the_manifest_keeps_it(project, tmp_path, capfd, monkeypatch):
    argv = ["stochastok", "tokenize", project, "--tokenizer", "sample2k", "--data-dir", tmp_path]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command replaces it
    with warnings.catch_warnings(), pytest.raises(SystemExit):
        app.main()
    notes = capfd.readouterr().err.splitlines()
    assert notes[0] == f"note: {find_files(project).note}"
    with pytest.warns(Notice, match="not read in .*13 files: 1 broken link .lost., 4 .py"):
        made = tokenize(project, tokenizer="sample2k", data_dir=tmp_path)
    assert not made.created
    assert made.manifest.made_from.unread == find_files(project).unread
    with pytest.warns(Notice, match="7 files: 1 broken link .lost., 1 .c"):
        whole = tokenize(project, tokenizer="sample2k", data_dir=tmp_path, documents="file", name="whole")
    assert sum(split.documents for split in whole.manifest.splits.values()) == 8
    with pytest.raises(UserError, match="documents .there 'file', now not given"), pytest.warns(Notice):
        tokenize(project, tokenizer="sample2k", data_dir=tmp_path, name="whole")


def test_a_folder_without_text_names_what_it_has(tmp_path):
    (tmp_path / "a.py").write_text("pass")
    with pytest.raises(UserError, match=r"holds no \.txt, .* file .*1 file: 1 \.py; --documents file"):
        find_files(tmp_path)
    assert names(tmp_path, "file") == ["a.py"]


@pytest.mark.parametrize("name", ["new\nline", "a\tb", "a\u202eb"])
def test_a_source_whose_name_no_folder_can_have_takes_another(tmp_path, name):
    source = tmp_path / f"{name}.jsonl"
    source.write_text('{"text": "a", "prompt": "b"}\n' * 4)
    options = {"tokenizer": "sample2k", "data_dir": tmp_path / "data", "val_fraction": 0.5}
    columns = {"prompt_column": "prompt", "completion_column": "text"}
    for make, more, folder in [(tokenize, {}, "named-tokenized"), (tokenize_instructions, columns, "named")]:
        message = r"^the name by default: .* can't be the name of a folder; .* \(--name\)$"
        with pytest.raises(UserError, match=message) as caught:
            make(source, **options, **more)
        assert str(caught.value).isprintable()
        assert make(source, name="named", **options, **more).path.name == folder
        with pytest.raises(UserError, match="^'b/d.*' can't be the name of a folder"):
            make(source, name="b/d", **options, **more)


@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_path_without_a_name_holds_no_ids(tmp_path, monkeypatch, path):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    assert not holds_ids(Path(path))
    if path == ".":
        (tmp_path / "inner" / "README.md").write_text("no data\n")
        with pytest.raises(UserError, match=r"the folder \. holds no \.txt, .* file"):
            find_files(Path(path))
        (tmp_path / "inner.idx").touch()
        (tmp_path / "inner.bin").touch()  # the pair that `tokenize ../inner` finds, too
        with pytest.raises(UserError, match=r"\. holds ids, no text; give it to stochastok expand"):
            find_files(Path(path))


def test_files_named_themselves(tmp_path):
    (tmp_path / "a.py").write_text("a\n\nb\n")
    assert texts_of(tmp_path / "a.py", documents="file") == ["a\n\nb\n"]
    (tmp_path / "b.md").write_text("a\n\nb\n")
    assert texts_of(tmp_path / "b.md") == ["a", "b"]
    assert texts_of(tmp_path / "b.md", documents="file") == ["a\n\nb\n"]
    (tmp_path / "c.bin").write_bytes(np.arange(100).tobytes())
    with pytest.raises(UserError, match="c.bin holds no UTF-8 text"):
        open_source(str(tmp_path / "c.bin"), documents="file")
    with pytest.raises(UserError, match="--documents 'page' is not known; give paragraph or file"):
        open_source(str(tmp_path / "b.md"), documents="page")


def test_a_link_gives_a_dataset_its_name(tmp_path, monkeypatch):
    """Files in the cache of the Hub are links to files that are named by their checksums."""
    (tmp_path / "blob.5eb6").write_text("one\n\ntwo\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part.txt").symlink_to("../blob.5eb6")
    (tmp_path / "corpus.txt").symlink_to("blob.5eb6")
    (tmp_path / "texts").symlink_to("folder")
    for source, name in (("corpus.txt", "corpus"), ("texts", "texts"), ("folder", "folder")):
        assert open_source(str(tmp_path / source)).name == name
        assert texts_of(tmp_path / source) == ["one", "two"]
    monkeypatch.chdir(tmp_path / "folder")
    assert open_source(".").name == "folder"


def test_what_is_no_regular_file_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.symlink("nowhere", "lost")
    server = socket.socket(socket.AF_UNIX)
    server.bind("server")
    read, write = os.pipe()
    expected = {"pipe": "pipe", "lost": "broken link", "server": "socket", os.devnull: "device"}
    for path, kind in {**expected, f"/dev/fd/{read}": "pipe"}.items():  # the last as in <(command) and /dev/stdin
        with pytest.raises(UserError, match=f"{path} is a {kind}; give a file"):
            open_source(path)
    server.close()
    os.close(read)
    os.close(write)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_listed_is_no_empty_folder(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(PermissionError):
        find_files(tmp_path)


@pytest.mark.filterwarnings("ignore::Warning")  # pytest-xdist can't send a message that is not UTF-8
@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text on other systems")
def test_names_that_are_not_utf8(tmp_path, capfdbinary, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stochastok", "tokenize", os.fsdecode(b"\xff")])
    folder = tmp_path / os.fsdecode(b"source\xff")
    folder.mkdir()
    (folder / os.fsdecode(b"a\xff.jsonl")).write_text(rows(2))
    with open(folder / os.fsdecode(b"b\xff.parquet"), "wb") as file:
        pyarrow.parquet.write_table(pyarrow.table({"text": ["last"]}), file)
    (folder / os.fsdecode(b"c.\xff")).write_text("x")
    data_dir = tmp_path / os.fsdecode(b"data\xff")
    with pytest.raises(UserError, match="can't be the name of a folder"):
        tokenize(folder, tokenizer="sample2k", data_dir=data_dir)
    assert not data_dir.exists()
    options = {"tokenizer": "sample2k", "data_dir": data_dir, "name": "good", "quiet": False, "debug": False}
    for _ in range(2):
        with pytest.warns(Notice, match=r"1 file: 1 \.\udcff"):
            tokenize_command(str(folder), **options)
        printed, _ = capfdbinary.readouterr()
        assert printed == os.fsencode(data_dir) + b"/data_as_memmaps/good-tokenized\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "is empty: it has no documents$"),
        ("a.csv", "text,x\n", "is empty: it has no documents$"),
        ("a.txt", "\n\n", "is empty: it has no documents$"),
        (
            "a.jsonl",
            '{"text": "a"}',
            r"holds 1 document, too few for .*; --val-fraction 0 makes no such split$",
        ),
        ("a.txt", "a", "validation split; blank lines separate the documents of text files, unless --documents file"),
    ],
)
def test_too_few_documents(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        tokenize(tmp_path / name, tokenizer="sample2k", data_dir=tmp_path)


def test_tables_without_rows(tmp_path):
    table = datasets.Dataset.from_dict({"text": [], "prompt": []})
    table.to_parquet(tmp_path / "a.parquet")
    table.save_to_disk(tmp_path / "saved")
    options = {"tokenizer": "sample2k", "data_dir": tmp_path}
    with pytest.raises(UserError, match="a.parquet is empty: it has no documents$"):
        tokenize(tmp_path / "a.parquet", **options)
    with pytest.raises(UserError, match="a.parquet is empty: it has no rows$"):
        tokenize_instructions(tmp_path / "a.parquet", prompt_column="prompt", completion_column="text", **options)
    with pytest.raises(UserError, match="the saved dataset .*saved has no rows$"):
        tokenize(tmp_path / "saved", **options)


def test_options_without_effect(tmp_path):
    (tmp_path / "a.txt").write_text("a\n\nb")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}')
    with pytest.raises(UserError, match="--text-column foo is for tables, and .*a.txt has no columns; drop it"):
        open_source(str(tmp_path / "a.txt"), "foo")
    with pytest.raises(UserError, match="--documents file is for text files, and .*a.jsonl has columns; drop it"):
        open_source(str(tmp_path / "a.jsonl"), documents="file")
    with pytest.raises(UserError, match="the name of the dataset is empty"):
        tokenize(tmp_path / "a.txt", tokenizer="sample2k", data_dir=tmp_path, name="", val_fraction=0.5)

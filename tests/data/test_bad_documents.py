"""Documents that can't be read, and how many are read: `--on-bad-document` and `--limit`."""

import gzip
import json
import sys
import warnings

import pyarrow as pa
import pyarrow.parquet
import pytest

from stochastok_cli.cli import app
from stochastok_cli.data.bad_documents import LeftOut, Location
from stochastok_cli.data.memmap import Corpus
from stochastok_cli.data.source_files import SourceFiles
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.data.tokenize_instructions import tokenize_instructions
from stochastok_cli.errors import FAILED, USAGE, Notice, UserError
from stochastok_cli.manifest import LeftOutPlaces, read_manifest
from tests.data.chat_tokenizers import save_tokenizer, template

GOOD = b'{"text": "one"}\n'
LINES = [
    (b'{"text": null}', "'text' holds null, not text", "null in 'text'", FAILED),
    (b'{"text": 3}', "'text' holds 3, not text", "a value of type int in 'text'", FAILED),
    (b'{"txt": "a"}', "there is no column 'text'; did you mean 'txt'", "no column 'text'", USAGE),
    (b'{"text": "a"', "not a JSON object", "a line that is no JSON object", FAILED),
    (b'["a"]', ".* is not a JSON object", "a line that is no JSON object", FAILED),
    (b'{"text": "a", "text": "b"}', "the key 'text' is there twice", "a key that is there twice", FAILED),
    (b'{"text": "caf\xe9"}', "the byte 0xe9 at 13 is not UTF-8", "bytes that are not UTF-8", FAILED),
    (b'{"text": "\\ud800"}', "the text holds a lone surrogate", "a lone surrogate", FAILED),
    (b'{"text": "' + b"a" * 5000 + b'"}', "longer than 4,000 bytes", "more than 1 GiB", FAILED),
]


@pytest.fixture(autouse=True)
def short_documents(monkeypatch):
    monkeypatch.setattr("stochastok_cli.data.text_files.LONGEST_DOCUMENT", 4000)


def make(source, tmp_path, **options):
    return tokenize(source, **{"tokenizer": "sample2k", "data_dir": tmp_path / "data", "val_fraction": 0, **options})


def texts(made) -> list[str]:
    corpus = Corpus(made.path)
    return sorted(corpus.vocabulary.decode(corpus.ids("train")).split("<|endoftext|>")[:-1])


def read(source, **options) -> list[str]:
    return [text for texts, _ in open_source(str(source), **options).batches() for text in texts]


def test_long_integers_and_deep_values(tmp_path, monkeypatch):
    """Python converts no integer of more than 4,300 digits, and a text beside one is a text."""
    monkeypatch.setattr("stochastok_cli.data.text_files.LONGEST_DOCUMENT", 200_000)
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"n": ' + b"1" * 5000 + b', "text": "one"}\n{"text": "two", "n": [-' + b"2" * 5000 + b"]}\n")
    assert read(file, on_bad_document="error") == ["one", "two"]
    file.write_bytes(b'{"n": ' + b"1" * 5000 + b', "text": "one", "text": "two"}\n')
    with pytest.raises(UserError, match="line 1: the key 'text' is there twice"):
        read(file)
    lines = [b'{"text": ' + b"1" * 5000 + b"}", b'{"text": ' + b"[" * 100_000]
    messages = [
        "'text' holds an integer of 5,000 digits, not text",
        "its objects or arrays are nested too deeply to be",
    ]
    for line, message in zip(lines, messages, strict=True):
        file.write_bytes(line)
        with pytest.raises(UserError, match=f"line 1: {message}"):
            read(file)
    file.write_bytes(GOOD + b"\n".join(lines))
    with pytest.warns(Notice):
        made = make(file, tmp_path, on_bad_document="skip")
    assert made.manifest.left_out == {"a value of type int in 'text'": 1, "values nested too deeply": 1}
    assert texts(made) == ["one"]


@pytest.mark.parametrize(("line", "message", "reason", "code"), LINES)
def test_a_bad_line_is_an_error_or_is_left_out(tmp_path, line, message, reason, code):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(GOOD + line + b"\n\n" + GOOD + line))
    with pytest.raises(UserError, match=f"^{file}, line 2: {message}.*; --on-bad-document skip leaves") as caught:
        make(file, tmp_path)
    assert caught.value.exit_code == code
    with pytest.warns(Notice, match=f"^2 documents left out: 2 with {reason} .first {file}, line 2.$"):
        made = make(file, tmp_path, on_bad_document="skip")
    assert texts(made) == ["one", "one"]
    manifest = read_manifest(made.path)
    assert manifest == made.manifest
    assert manifest.left_out == {reason: 2}
    places = [{"file": str(file), "line": number, "reason": reason} for number in (2, 5)]
    assert manifest.left_out_places == LeftOutPlaces(2, places)
    assert manifest.options["on_bad_document"] == "skip"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not make(file, tmp_path, on_bad_document="skip").created
    with pytest.raises(UserError, match="made with other options: on_bad_document .there 'skip', now not given"):
        make(file, tmp_path)


@pytest.mark.parametrize(
    ("content", "documents", "left", "lines"),
    [
        (b"one\n\ntwo\n\xff\nmore\n\xff\n\nthree", "paragraph", ["one", "three"], [4]),
        (b"\xff\none\n\ntwo\n\n\xff", "paragraph", ["two"], [1, 6]),
        (b"one\n\n" + b"a\n" * 2001 + b"\xff\n\ntwo", "paragraph", ["one", "two"], [2003]),
        (b"one\n\n" + b"a" * 4001 + b"\nmore\n\ntwo", "paragraph", ["one", "two"], [3]),
        (b"one\n\n\xff", "file", [], [3]),
        (b"a\n" * 2001, "file", [], [2001]),
    ],
)
def test_a_bad_line_of_a_text_makes_its_document_bad(tmp_path, content, documents, left, lines):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=f"a.txt, line {lines[0]}: "):
        read(tmp_path / "a.txt", documents=documents)
    source = open_source(str(tmp_path / "a.txt"), documents=documents, on_bad_document="skip")
    for _ in range(2):  # counted anew
        assert [text for batch, _ in source.batches() for text in batch] == left
        assert [place["line"] for place in source.left_out.places] == lines


def test_a_damaged_file_is_never_left_out(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(GOOD * 1000)[:-10])
    with pytest.raises(UserError, match="damaged or cut short"):
        make(tmp_path / "a.jsonl.gz", tmp_path, on_bad_document="skip")


@pytest.mark.parametrize(
    "content", ['[{"text": "a"}]', '\n[\n  {\n    "text": "a"\n  }\n]', '\ufeff [{"text": "a"},\n', "[]"]
)
@pytest.mark.parametrize("mode", ["error", "skip"])
def test_a_json_array_is_no_file_of_bad_lines(tmp_path, content, mode):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a.json is a JSON array; convert it to one object a line: jq -c '.\[\]'$"):
        read(tmp_path / "a.json", on_bad_document=mode)


def test_if_nothing_is_left_the_reasons_are_said(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"txt": "a"}\n' * 3)
    with pytest.raises(UserError, match=r"holds 0 documents \(3 left out: 3 with no column 'text' \(first .*1\)"):
        make(tmp_path / "a.jsonl", tmp_path, on_bad_document="skip")


def test_places_and_reasons_are_bounded():
    left_out = LeftOut("skip")
    for number in range(1, 1001):
        left_out.add(Location("a", number), f"reason {number % 50}")
    assert left_out.total() == 1000
    assert len(left_out.reasons) == 21 and left_out.reasons["other reasons"] == 600
    assert [place["row"] for place in left_out.places] == [*range(1, 101)]
    both = left_out + left_out
    assert (both.total(), len(both.places)) == (2000, 100)


def test_rows_of_parquet_and_of_the_hub(tmp_path, hub_server):
    file = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pa.table({"m": [{"t": "a"}, None, {"t": "b"}, {"t": None}, {"t": "c"}]}), file)
    hub_server.add_dataset("anyone/texts", {"train.parquet": file.read_bytes()})
    options = {"text_column": "m.t", "on_bad_document": "skip"}
    for source, name, part in ((file, str(file), ""), ("anyone/texts", "train.parquet of anyone/texts", " of train")):
        with pytest.raises(UserError, match=f"{name}, row 2{part}: 'm.t' holds null, not text"):
            read(source, text_column="m.t")
        opened = open_source(str(source), **options)
        assert [text for batch, _ in opened.batches() for text in batch] == ["a", "b", "c"]
        assert [(place["file"], place["row"]) for place in opened.left_out.places] == [(name, 2), (name, 4)]
        assert read(source, limit=2, **options) == ["a", "b"]
    with pytest.raises(UserError, match="anyone/texts has no column 'm.x' in train"):
        read("anyone/texts", text_column="m.x")
    hub_server.add_dataset("anyone/json", {"train.jsonl": b'{"m": {"t": "a", "n": 1}, "x": 2}\n{"m": null, "x": 2}'})
    assert read("anyone/json", **options) == ["a"]
    hub_server.add_dataset("anyone/lines", {"train.txt": b"one\n\n\xff\n\ntwo"})
    with pytest.raises(UserError, match="^train.txt of anyone/lines, line 3: the byte 0xff"):
        read("anyone/lines")
    assert read("anyone/lines", on_bad_document="skip") == ["one", "two"]


# ------------------------------------------------------------------------------------------------ limit


def test_the_first_documents_that_can_be_read(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b'{"text": "1"}\n{}\n{"text": "2"}\n')
    (folder / "b.jsonl").write_bytes(b'{"text": "3"}\n{"text": "4"}\n{}\n')
    for name, content in (("c.jsonl", b"never read"), ("d.jsonl.gz", b"no gzip")):
        (folder / name).write_bytes(content)
    monkeypatch.setattr(SourceFiles, "fingerprint", lambda files: pytest.fail("all files are read"))
    options = {"on_bad_document": "skip", "limit": 4}
    with pytest.warns(Notice, match="1 document left out"):
        made = make(folder, tmp_path, **options)
    assert texts(made) == ["1", "2", "3", "4"]
    assert made.manifest.options["limit"] == 4
    assert not make(folder, tmp_path, **options).created
    with pytest.raises(UserError, match="limit .there 4, now 3"):
        make(folder, tmp_path, on_bad_document="skip", limit=3)
    (folder / "d.jsonl.gz").write_bytes(b"no zip!")  # what is not read may change
    assert not make(folder, tmp_path, **options).created
    with open(folder / "b.jsonl", "ab") as grown:
        grown.write(b'{"text": "5"}\n')
    (folder / "d.jsonl.gz").write_bytes(b"of another size")
    (folder / "e.jsonl").write_bytes(b"new")
    assert not make(folder, tmp_path, **options).created
    (folder / "b.jsonl").write_bytes(b'{"text": "x"}\n{"text": "4"}\n{}\n')
    with pytest.raises(UserError, match="held another text"):
        make(folder, tmp_path, **options)
    with pytest.raises(UserError, match="limit is 0; it must be at least 1, or None"):
        make(folder, tmp_path, limit=0)
    with pytest.raises(UserError, match="--on-bad-document 'drop' is not known; give error or skip"):
        make(folder, tmp_path, on_bad_document="drop")


# ------------------------------------------------------------------------------------------------ instructions

TURNS = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return save_tokenizer(tmp_path_factory.mktemp("chat"), template("chatml"))


def test_conversations_of_another_form(tmp_path, tokenizer):
    rows = [{"m": TURNS}, {"m": None}, {"m": "hi"}, {"m": [{"from": "x"}]}, {"m": TURNS[:1]}, {"m": TURNS}, {"n": 1}]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{\n")
    options = {"messages_column": "m", "tokenizer": tokenizer, "data_dir": tmp_path, "val_fraction": 0}
    with pytest.raises(
        UserError, match=r"line 2: 'm' holds null, no list of messages; --on-bad-document skip"
    ) as caught:
        tokenize_instructions(file, **options)
    assert caught.value.exit_code == FAILED
    with pytest.warns(Notice, match=r"^6 of 8 rows are left out: 2 with no list of messages in 'm' \(first .*line 2\)"):
        made = tokenize_instructions(file, **options, on_bad_document="skip")
    assert made.manifest.splits["train"].documents == 2
    assert made.manifest.left_out == {
        "no list of messages in 'm'": 2,
        "a message without a role": 1,
        "no column 'm'": 1,
        "a line that is no JSON object": 1,
        "no turn of an assistant": 1,
    }
    assert [place["line"] for place in made.manifest.left_out_places.first] == [2, 3, 4, 7, 8, 5]
    with pytest.warns(Notice, match="^4 of 6 rows are left out"):
        made = tokenize_instructions(file, **options, on_bad_document="skip", limit=3, name="first")
    assert made.manifest.splits["train"].documents == 2  # and one without a turn of the assistant
    assert made.manifest.options["limit"] == 3


def test_completions_of_another_form(tmp_path):
    file = tmp_path / "a.parquet"
    columns = {"p": pa.array([b"a", b"\xff", None, b"b"]), "c": ["x", "y", "z", "w"]}
    pyarrow.parquet.write_table(pa.table(columns), file)
    options = {"prompt_column": "p", "completion_column": "c", "tokenizer": "sample2k", "data_dir": tmp_path}
    with pytest.raises(UserError, match="row 2: the byte 0xff at 0 of 'p' is not UTF-8"):
        tokenize_instructions(file, **options)
    with pytest.raises(UserError, match="--prompt-column and --completion-column are both 'p'; a completion has"):
        tokenize_instructions(file, **{**options, "completion_column": "p"})
    with pytest.warns(Notice, match="2 of 4 rows"):
        made = tokenize_instructions(file, **options, on_bad_document="skip")
    assert made.manifest.left_out == {"bytes that are not UTF-8": 1, "null in 'p'": 1}


# ------------------------------------------------------------------------------------------------ command line


def run(monkeypatch, capfd, *arguments):
    monkeypatch.setattr(sys, "argv", ["stochastok", "tokenize", *map(str, arguments), "--tokenizer", "sample2k"])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command replaces it
    with warnings.catch_warnings(), pytest.raises(SystemExit) as caught:
        app.main()
    return caught.value.code, *capfd.readouterr()


def test_the_command(tmp_path, monkeypatch, capfd):
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD + b"{}\n" + GOOD * 3 + b"{}\n")
    arguments = [file, "--data-dir", tmp_path, "--val-fraction", "0.5"]
    code, printed, errors = run(monkeypatch, capfd, *arguments)
    assert (code, printed) == (USAGE, "")
    assert errors.splitlines()[-1].startswith(f"error: {file}, line 2: there is no column 'text'; there are none; ")
    code, printed, errors = run(monkeypatch, capfd, *arguments, "--on-bad-document=skip", "--limit=3", "--json")
    assert code == 0
    result = json.loads(printed)
    assert result["left_out"] == {"no column 'text'": 1}
    assert sum(split["documents"] for split in result["splits"].values()) == 3
    assert f"note: 1 document left out: 1 with no column 'text' (first {file}, line 2)" in errors
    _, _, errors = run(monkeypatch, capfd, *arguments, "--on-bad-document=skip", "--limit=3")
    assert "1 row of its source is left out" in errors
    code, _, errors = run(monkeypatch, capfd, *arguments, "--pull", "--limit=3")
    assert (code, "--limit would have no effect beside --pull" in errors) == (USAGE, True)


@pytest.mark.parametrize("encoding", ["UTF-16", "UTF-32", "UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
@pytest.mark.parametrize("suffix", ["txt", "txt.gz", "jsonl", "csv"])
def test_text_in_utf16_is_not_damaged(encoding, suffix, tmp_path):
    """Not all have a byte order mark. Without it, a line would be ASCII characters with zeros between them."""
    (tmp_path / "texts").mkdir()
    file = tmp_path / "texts" / f"a.{suffix}"
    content = '{"text": "hi"}\n'.encode(encoding)
    file.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    place = "" if suffix == "csv" else ", line 1:"
    for options in ({}, {"errors": "replace"}):
        with pytest.raises(UserError) as raised:
            make(file, tmp_path, **options)
        assert str(raised.value).startswith(f"{file}{place}")
        assert f"text in {encoding}, not in UTF-8; convert the file: iconv -f {encoding} -t UTF-8" in str(raised.value)
    if suffix != "csv":
        (tmp_path / "texts" / "b.txt").write_text("Good.\n\nAlso good.\n")
        made = make(tmp_path / "texts", tmp_path, on_bad_document="skip")
        assert texts(made) == ["Also good.", "Good."]
        assert made.manifest.left_out == {"bytes that are not UTF-8": 1}


def test_columns_that_are_there_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "b.csv").write_text(",".join(f"c{i}" for i in range(12)) + "\n")
    (tmp_path / "c.csv").write_text("q,a\n1,2\n")
    for name, named in (
        ("a.jsonl", "there is only prompt; name it with --text-column"),
        ("b.csv", "there are c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and others; name one with --text-column"),
        ("c.csv", "there are q, a; name one with --text-column"),
    ):
        with pytest.raises(UserError, match=f"there is no column 'foo'; {named}"):
            tokenize(tmp_path / name, data_dir=tmp_path, text_column="foo")


def test_stdin_is_no_source(tmp_path):
    for source in ("-", "/dev/null"):
        with pytest.raises(UserError, match=r"^(- is stdin|/dev/null is a device); give a file that can be read more"):
            tokenize(source, data_dir=tmp_path)
        with pytest.raises(UserError, match=r"^(- is stdin|/dev/null is a device); give a file that can be read more"):
            tokenize_instructions(source, prompt_column="q", completion_column="a", data_dir=tmp_path)


def test_a_value_that_is_no_number_is_shown_as_in_json(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": [null, true, NaN]}\n')
    with pytest.raises(UserError, match=r"line 2: 'text' holds \[null, true, NaN\], not text"):
        tokenize(tmp_path / "a.jsonl", data_dir=tmp_path)

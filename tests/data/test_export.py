"""From a dataset of ids to the formats of other trainers: what is kept, what is refused, what is left on the disk."""

import json
import sys

import datasets
import numpy as np
import pytest

from stochastok_cli.artifacts import create_artifact
from stochastok_cli.cli.app import main
from stochastok_cli.data.expand import expand
from stochastok_cli.data.export import export
from stochastok_cli.data.formats import FORMATS
from stochastok_cli.data.memmap import Corpus, memmap_dir
from stochastok_cli.data.sft_dataset import write_sft_dataset
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.data.tokenize_instructions import tokenize_instructions
from stochastok_cli.errors import FAILED, USAGE, Notice, UserError
from stochastok_cli.manifest import Manifest, SplitInfo, TokenizerInfo
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.data.test_sft_dataset import GPT2, PAIRS, examples

END = 7
DOCUMENTS = {"train": [[1, 2, 3, END], [END], [4, END], [5, 6, 8, 9, END]], "val": [[10, END], [11, 12, END]]}


def make_corpus(data_dir, documents=DOCUMENTS, vocabulary_size=50_000, name="corpus", counts=None, kind="tokenized"):
    """A folder of ids with a manifest, whose tokenizer is nowhere."""
    dtype = np.uint16 if vocabulary_size <= 2**16 else np.uint32

    def build(folder):
        for split, lists in documents.items():
            np.array([i for ids in lists for i in ids], dtype).tofile(folder / f"{split}.bin")
        splits = {split: SplitInfo(len(lists), sum(map(len, lists))) for split, lists in documents.items()}
        tokenizer = TokenizerInfo("nowhere", "0", vocabulary_size)
        return Manifest(
            kind=kind,
            tokenizer=tokenizer,
            dtype=np.dtype(dtype).name,
            end_of_text=END,
            splits={**splits, **(counts or {})},
        )

    return create_artifact(memmap_dir(data_dir) / name, {}, build).path


def make_questions(data_dir):
    blocks = {split: [examples(pairs)] for split, pairs in PAIRS.items()}
    folder = memmap_dir(data_dir) / "questions"
    folder.mkdir(parents=True)
    write_sft_dataset(folder, blocks, GPT2)


def test_a_saved_dataset(tmp_path):
    make_corpus(tmp_path)
    made = export("corpus", format="arrow", data_dir=tmp_path)
    assert made.path == tmp_path / "data_as_arrow" / "corpus"
    loaded = datasets.load_from_disk(made.path)
    assert {split: rows["input_ids"][:] for split, rows in loaded.items()} == {
        "train": DOCUMENTS["train"],
        "validation": DOCUMENTS["val"],
    }
    assert loaded["train"].column_names == ["input_ids"]
    assert made.manifest.splits == {"train": SplitInfo(4, 12), "val": SplitInfo(2, 5)}
    assert made.manifest.made_from.name == "corpus"
    again = export("corpus", format="arrow", data_dir=tmp_path, out=tmp_path / "again")
    assert again.manifest.files == made.manifest.files
    assert not export("corpus", format="arrow", data_dir=tmp_path).created
    hidden = [path.name for path in made.path.rglob(".*")]
    assert hidden == []


def test_questions_have_labels(tmp_path):
    make_questions(tmp_path)
    made = export("questions", format="arrow", data_dir=tmp_path)
    loaded = datasets.load_from_disk(made.path)
    for split, pairs in PAIRS.items():
        rows = loaded[{"train": "train", "val": "validation"}[split]]
        assert rows["input_ids"][:] == [question + answer for question, answer in pairs]
        assert rows["labels"][:] == [[-100] * len(question) + answer for question, answer in pairs]
    assert made.manifest.splits["train"] == SplitInfo(3, 13)


def test_completions_have_labels(tmp_path):
    source = tmp_path / "pairs.jsonl"
    pairs = [(f"Prompt {i}:", f" answer{' word' * i}") for i in range(4)]
    source.write_text("".join(json.dumps({"prompt": prompt, "completion": text}) + "\n" for prompt, text in pairs))
    columns = {"prompt_column": "prompt", "completion_column": "completion"}
    tokenize_instructions(source, **columns, tokenizer="sample2k", data_dir=tmp_path, val_fraction=0.25)
    rows = datasets.load_from_disk(export("pairs", format="arrow", data_dir=tmp_path).path)
    sample = load_vocabulary("sample2k")
    found = [*rows["train"], *rows["validation"]]
    expected = []
    for prompt, text in pairs:
        head, tail = sample.encode(prompt), [*sample.encode(text), sample.end_of_text]
        expected.append({"input_ids": [*head, *tail], "labels": [-100] * len(head) + tail})
    assert sorted(found, key=str) == sorted(expected, key=str)


@pytest.mark.parametrize("batch_tokens", [1, 6, 1000])
def test_batches_change_no_byte(tmp_path, monkeypatch, batch_tokens):
    make_corpus(tmp_path)
    make_questions(tmp_path)
    monkeypatch.setattr("stochastok_cli.data.export._BATCH_TOKENS", batch_tokens)
    export("corpus", format="arrow", data_dir=tmp_path, split="train")
    assert datasets.load_from_disk(tmp_path / "data_as_arrow/corpus")["train"]["input_ids"][:] == DOCUMENTS["train"]
    export("questions", format="arrow", data_dir=tmp_path, split="train")
    rows = datasets.load_from_disk(tmp_path / "data_as_arrow/questions")["train"]
    assert rows["input_ids"][:] == [question + answer for question, answer in PAIRS["train"]]


@pytest.mark.parametrize(("size", "dtype"), [(50_000, np.uint16), (65_499, np.uint16), (65_500, np.int32)])
def test_megatron(tmp_path, size, dtype):
    last = [[1, END], [size - 1, END], [3]]
    make_corpus(tmp_path, {"train": last, "val": []}, size)
    with pytest.warns(Notice, match="val of corpus has no documents"):
        made = export("corpus", format="megatron", data_dir=tmp_path)
    assert [*made.manifest.files] == ["train.bin", "train.idx"]
    ids = np.fromfile(made.path / "train.bin", dtype)
    assert ids.tolist() == [1, END, size - 1, END, 3]
    index = (made.path / "train.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\0\0"
    assert index[17] == {np.uint16: 8, np.int32: 4}[dtype]
    assert np.frombuffer(index, "<i8", 2, 18).tolist() == [3, 4]
    assert np.frombuffer(index, "<i4", 3, 34).tolist() == [2, 2, 1]
    assert np.frombuffer(index, "<i8", 3, 46).tolist() == [0, 2 * ids.itemsize, 4 * ids.itemsize]
    assert np.frombuffer(index, "<i8", 4, 70).tolist() == [0, 1, 2, 3]
    assert len(index) == 102
    assert Corpus(made.path).ids("train").tolist() == ids.tolist()  # the manifest says of which type they are


def test_formats_without_a_mask_refuse_questions(tmp_path):
    make_questions(tmp_path)
    for name, target in FORMATS.items():
        if not target.has_loss_mask and target.package is None:  # a missing package would be named first
            with pytest.raises(UserError, match="can't say which ids have a loss"):
                export("questions", format=name, data_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data_as_memmaps"]


@pytest.mark.parametrize("name", ["arrow", "megatron"])
def test_a_fault_leaves_nothing(tmp_path, name):
    make_corpus(tmp_path, name="counts", counts={"train": SplitInfo(5, 12)})
    make_corpus(tmp_path, {"train": [[1, END], [50_000, END]], "val": []}, name="ids")
    make_corpus(tmp_path, {"train": [], "val": []}, name="empty")
    for dataset, message in (
        ("counts", "4 documents with 12 ids were read from train of counts, and it holds 5 with 12"),
        ("ids", "holds the id 50,000, and its tokenizer has 50,000 entries"),
        ("empty", "nothing to export"),
    ):
        with pytest.raises(UserError, match=message):
            export(dataset, format=name, data_dir=tmp_path)
    assert [path for path in (tmp_path / f"data_as_{name}").iterdir() if path.is_dir()] == []


def test_only_exports_are_replaced(tmp_path):
    make_corpus(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    export("corpus", format="megatron", data_dir=tmp_path, out=out)  # an empty folder is taken
    with pytest.raises(UserError, match="made with other options: .*format"):
        export("corpus", format="arrow", data_dir=tmp_path, out=out)
    export("corpus", format="arrow", data_dir=tmp_path, out=out, force=True)
    for taken in (tmp_path, memmap_dir(tmp_path) / "corpus"):
        with pytest.raises(UserError, match="exists and is no export"):
            export("corpus", format="arrow", data_dir=tmp_path, out=taken, force=True)
    assert Corpus(memmap_dir(tmp_path) / "corpus").num_tokens["train"] == 12


def test_a_link_to_a_folder_stays_one(tmp_path):
    make_corpus(tmp_path)
    elsewhere = tmp_path / "disk" / "target"
    elsewhere.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    for format in ("megatron", "arrow"):
        assert export("corpus", format=format, data_dir=tmp_path, out=link, force=True).path == link
        assert link.is_symlink()
        assert json.loads((elsewhere / "manifest.json").read_text())["options"]["format"] == format
    assert not export("corpus", format="arrow", data_dir=tmp_path, out=link).created
    left = [path.name for path in (*tmp_path.iterdir(), *elsewhere.parent.iterdir())]
    assert not [name for name in left if name.endswith((".old", ".partial"))]
    dangling = tmp_path / "dangling"
    dangling.symlink_to("nowhere")
    with pytest.raises(UserError, match="dangling is a link to nowhere, which is not there"):
        export("corpus", format="arrow", data_dir=tmp_path, out=dangling)


def test_no_export_inside_of_a_dataset(tmp_path):
    folder = make_corpus(tmp_path)
    with pytest.raises(UserError, match="is inside of .*corpus, which --force would replace"):
        export("corpus", format="megatron", data_dir=tmp_path, out=folder / "deeper" / "out")
    assert not (folder / "deeper").exists()
    site = tmp_path / "site"
    site.mkdir()
    (site / "manifest.json").write_text('{"name": "a web site"}')  # of another program
    assert export("corpus", format="megatron", data_dir=tmp_path, out=site / "out").created


def make_unrecorded(data_dir, train, val=()):
    """A folder of ids as the reference code leaves it, without a manifest."""
    folder = memmap_dir(data_dir) / "unrecorded"
    folder.mkdir(parents=True)
    for split, ids in (("train", train), ("val", val)):
        np.array(ids, np.uint16).tofile(folder / f"{split}.bin")
    return folder


def test_a_changed_source_without_a_manifest(tmp_path):
    end = load_vocabulary("sample2k").end_of_text
    folder = make_unrecorded(tmp_path, [5, 6, end], [8, end])
    export("unrecorded", format="megatron", data_dir=tmp_path, tokenizer="sample2k")
    assert not export("unrecorded", format="megatron", data_dir=tmp_path, tokenizer="sample2k").created
    with pytest.raises(UserError, match="made with other options"):
        export("unrecorded", format="megatron", data_dir=tmp_path, split="train", tokenizer="sample2k")
    with pytest.raises(UserError, match="made with other options: .*tokenizer"):
        export("unrecorded", format="megatron", data_dir=tmp_path, tokenizer="gpt2")
    np.array([1, end], np.uint16).tofile(folder / "val.bin")
    with pytest.raises(UserError, match="held another text|made with other options: source"):
        export("unrecorded", format="megatron", data_dir=tmp_path, tokenizer="sample2k")


@pytest.mark.parametrize("tail", [[1, 2, 3], [1, 50256, 2]])
def test_ids_that_no_end_of_text_ends(tmp_path, tail):
    make_unrecorded(tmp_path, [1, 50256], tail)
    with pytest.raises(UserError, match="val of unrecorded does not end with the end-of-text id 50,256 of") as refused:
        export("unrecorded", format="megatron", data_dir=tmp_path)
    assert refused.value.exit_code == FAILED
    assert not any(path.is_dir() for path in tmp_path.glob("data_as_megatron/*"))
    assert export("unrecorded", format="megatron", data_dir=tmp_path, split="train").created


def test_addition_is_refused_by_its_kind(tmp_path):
    make_corpus(tmp_path, kind="addition")
    with pytest.raises(UserError, match="holds additions") as refused:
        export("corpus", format="megatron", data_dir=tmp_path)
    assert refused.value.exit_code == USAGE


def test_another_tokenizer_than_that_of_the_manifest(tmp_path):
    make_corpus(tmp_path)
    with pytest.raises(UserError, match="was made with the tokenizer 'nowhere'; 'sample2k' is another one"):
        export("corpus", format="megatron", data_dir=tmp_path, tokenizer="sample2k")


def run(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stochastok", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr()


def test_the_command(tmp_path, capsys, monkeypatch):
    make_corpus(tmp_path)
    options = ("--data-dir", tmp_path, "--out", tmp_path / "out")
    code, shown = run(
        capsys, monkeypatch, "export", "corpus", "--format", "megatron", "--split", "val", "--json", *options
    )
    result = json.loads(shown.out)
    assert code == 0
    assert result["path"] == str(tmp_path / "out")
    assert result["splits"] == {"val": {"documents": 2, "tokens": 5}}
    assert "made out: val 2 documents, 5 tokens" in shown.err
    for arguments, message in (
        (("corpus", "--format", "megatro"), "error: unknown format 'megatro'; did you mean 'megatron'?"),
        (("corpus", "--format", "arrow", "--split", "test"), "error: there is no split 'test'"),
        (("corpis", "--format", "arrow"), "did you mean 'corpus'?"),
    ):
        code, shown = run(capsys, monkeypatch, "export", *arguments, "--data-dir", tmp_path)
        assert code == USAGE
        assert message in shown.err
        assert shown.out == "" and shown.err.count("\n") == 1


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    make_corpus(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="the format litdata needs the package litdata; pip install") as caught:
        export("corpus", format="litdata", data_dir=tmp_path)
    assert caught.value.exit_code == USAGE


def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    make_corpus(tmp_path)
    (tmp_path / "datatrove").mkdir()
    (tmp_path / "datatrove" / "__init__.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "datatrove"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match="needs datatrove, which can't be imported: No module named 'no_such_module'"):
        export("corpus", format="datatrove", data_dir=tmp_path)
    assert not (tmp_path / "data_as_datatrove" / "corpus").exists()


def test_ids_altered_under_unchanged_counts_are_taken_as_they_are(tmp_path):
    """The rule of the documentation, the same for `expand` and `export`: a result that is there is left alone."""
    (tmp_path / "texts.txt").write_text("one two\n\nthree four\n\nfive\n")
    file = (
        tokenize(tmp_path / "texts.txt", tokenizer="sample2k", val_fraction=0.4, data_dir=tmp_path).path / "train.bin"
    )
    commands = [
        lambda **options: expand("texts-tokenized", p=0, data_dir=tmp_path, **options),
        lambda **options: export("texts-tokenized", format="megatron", data_dir=tmp_path, **options),
    ]
    before = file.read_bytes()
    for command in commands:
        assert (command().path / "train.bin").read_bytes() == before
    ids = np.frombuffer(before, np.uint16).copy()
    ids[0] = 300 + (ids[0] == 300)
    ids.tofile(file)
    for command in commands:
        assert not command().created
        assert (command(force=True).path / "train.bin").read_bytes() == ids.tobytes() != before
    ids[0] = ids[-1]  # one more document, which both refuse
    ids.tofile(file)
    for command in commands:
        with pytest.raises(UserError, match="documents"):
            command(force=True)

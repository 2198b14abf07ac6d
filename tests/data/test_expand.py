"""From a corpus to an expanded one, document by document."""

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli import StochasTok, make_langgame
from stochastok_cli.data.expand import expand
from stochastok_cli.data.memmap import Corpus, document_batches
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.errors import FAILED, Notice, UserError
from stochastok_cli.tokenization.loaders import load_vocabulary


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    made = tokenize("sample", data_dir=tmp_path_factory.mktemp("data"))
    return Corpus(made.path)


def split_documents(ids, end_of_text):
    return np.split(ids, np.flatnonzero(ids == end_of_text) + 1)


def test_document_by_document(corpus):
    made = expand(corpus, p=0.3, seed=4)
    assert made.path.name == "sample-tokenized-stochastok0.3"
    expanded, stochastok = Corpus(made.path), StochasTok(corpus.vocabulary, p=0.3, seed=4)
    train = split_documents(corpus.ids("train"), corpus.end_of_text)[:-1]
    val = split_documents(corpus.ids("val"), corpus.end_of_text)[:-1]
    theirs = split_documents(expanded.ids("train"), corpus.end_of_text)[:-1]
    for i in [0, 1, 2, len(train) - 1]:
        assert theirs[i].tolist() == stochastok(train[i], i).tolist()
    first_val = split_documents(expanded.ids("val"), corpus.end_of_text)[0]
    assert first_val.tolist() == stochastok(val[0], len(train)).tolist()
    decode = corpus.vocabulary.decode_bytes
    for split in ("train", "val"):
        assert decode(expanded.ids(split)) == decode(corpus.ids(split))
        assert made.manifest.splits[split].tokens == len(expanded.ids(split)) > len(corpus.ids(split))
    assert made.manifest.made_from.name == "sample-tokenized"
    assert made.manifest.made_from.fingerprint == corpus.fingerprint


def test_neither_threads_nor_batches_change_a_byte(corpus, monkeypatch):
    one = expand(corpus, p=1.0, out_name="one", num_proc=1)
    monkeypatch.setattr("stochastok_cli.data.expand._BATCH_TOKENS", 10_000)
    many = expand(corpus, p=1.0, out_name="many", num_proc=4)
    assert one.manifest.files == many.manifest.files
    other = expand(corpus, p=1.0, out_name="other", seed=1)
    assert one.manifest.files != other.manifest.files


def test_the_proportion_is_honoured(corpus):
    """The paper's code always expanded with p = 0.1."""
    growth = {}
    for p in (0.05, 0.1, 0.8):
        tokens = expand(corpus, p=p, out_name=f"p{p}").manifest.splits["train"].tokens
        growth[p] = tokens / len(corpus.ids("train")) - 1
    assert growth[0.05] < growth[0.1] < growth[0.8]
    assert growth[0.05] < 0.05 < growth[0.1] + 0.05
    assert growth[0.8] > 0.3


def test_p_zero_copies(corpus):
    made = expand(corpus, p=0.0)
    assert made.path.name == "sample-tokenized-stochastok0.0"
    for split in ("train", "val"):
        assert (Corpus(made.path).ids(split) == corpus.ids(split)).all()


def test_a_copy_is_noted(corpus, recwarn):
    with pytest.warns(Notice, match="stochastok with p = 1e-06 splits no token of sample-tokenized: n p is below 1"):
        made = expand(corpus, p=1e-6)
    assert made.manifest.splits["train"].tokens == corpus.num_tokens["train"]
    recwarn.clear()
    expand(corpus, p=0.5, out_name="split")
    assert not recwarn.list


def test_a_copy_is_noted_with_its_cause(tmp_path):
    gpt2 = load_vocabulary("gpt2")

    def corpus_of(name, text):
        folder = tmp_path / name
        folder.mkdir()
        for split in ("train", "val"):
            np.array([*gpt2.encode(text), 50256], "<u2").tofile(folder / f"{split}.bin")
        return Corpus(folder)

    words, digits = corpus_of("words", "An unbelievable text."), corpus_of("digits", "1,2")
    kept = ": --keep leaves every token alone that can be split; give another pattern"
    whole = ": the tokenizer 'gpt2' has no smaller tokens for any of them"
    for corpus, method, options, reason in (
        (words, "stochastok", {"p": 2.0, "keep": "."}, kept),
        (words, "uniform-k", {"p": 2.0, "keep": ""}, kept),
        (words, "stochastok-uni", {"p": 2.0, "keep": "."}, kept),
        (words, "uniform", {"p": 0.9, "keep": "[a-z]"}, kept),
        (words, "stochastok", {"p": 2.0, "max_splits": 0}, ": --max-splits is 0; give a larger one"),
        (words, "uniform-k", {"p": 0.1}, ": n p is below 1 in documents of n tokens; give a larger p"),
        (words, "uniform", {"p": 1e-9}, "; give a larger p"),
        (digits, "stochastok", {"p": 2.0}, whole),
        (digits, "uniform", {"p": 1.0}, whole),
        (digits, "character", {}, whole),
    ):
        with pytest.warns(Notice) as noted:
            expand(corpus, method=method, out_name=f"{corpus.name}-copy", force=True, **options)
        notes = [str(note.message) for note in noted if "compiling kernels" not in str(note.message)]
        assert len(notes) == 1 and notes[0].endswith(f"splits no token of {corpus.name}{reason}"), (method, options)


def test_a_folder_of_the_references(tmp_path):
    """No manifest: gpt2 and uint16; ids after the last end-of-text are a document too."""
    folder = tmp_path / "openwebtext-tokenized"
    folder.mkdir()
    gpt2 = load_vocabulary("gpt2")
    ids = [*gpt2.encode("A first document."), 50256, *gpt2.encode("And a second without an end")]
    np.array(ids, dtype=np.uint16).tofile(folder / "train.bin")
    np.array(ids[:6], dtype=np.uint16).tofile(folder / "val.bin")
    corpus = Corpus(folder, "gpt2")
    with pytest.warns(Notice, match="does not end with the end-of-text id 50,256 of 'gpt2'; are its ids those of"):
        made = expand(corpus, p=2.0)
    assert gpt2.decode(Corpus(made.path).ids("train")) == gpt2.decode(ids)
    assert made.manifest.splits["train"].documents == 2
    with pytest.raises(UserError, match="not in the vocabulary"), pytest.warns(Notice, match="of 'sample2k'"):
        expand(Corpus(folder, "sample2k"), p=0.1, out_name="other")


def test_a_folder_without_a_manifest_that_is_not_gpt2s(tmp_path):
    """Read as gpt2's, it would be a single document, and splits would change its text."""
    folder = tmp_path / "data_as_memmaps" / "unrecorded"
    folder.mkdir(parents=True)
    sample2k = load_vocabulary("sample2k")
    ids = [i for text in ("First.", "Second.") for i in (*sample2k.encode(text), sample2k.end_of_text)]
    for split in ("train", "val"):
        np.array(ids, dtype=np.uint16).tofile(folder / f"{split}.bin")
    with pytest.raises(UserError, match="train of unrecorded .* id 50,256 of 'gpt2'.*; name the tok") as caught:
        expand("unrecorded", data_dir=tmp_path)
    assert caught.value.exit_code == FAILED
    made = expand("unrecorded", p=2.0, tokenizer="sample2k", data_dir=tmp_path)
    assert made.manifest.splits["train"].documents == 2
    assert sample2k.decode(Corpus(made.path).ids("train")) == sample2k.decode(ids)


def test_another_tokenizer_is_another_option(tmp_path):
    """Also for a folder of an earlier version, whose options lack the tokenizer."""
    folder = tmp_path / "data_as_memmaps" / "unrecorded"
    folder.mkdir(parents=True)
    gpt2, sample2k = load_vocabulary("gpt2"), load_vocabulary("sample2k")
    ids = [sample2k.end_of_text, 11, gpt2.end_of_text % 2000]
    for split in ("train", "val"):
        np.array(ids, dtype=np.uint16).tofile(folder / f"{split}.bin")
    with pytest.warns(Notice, match="of 'gpt2'"):
        made = expand("unrecorded", tokenizer="gpt2", data_dir=tmp_path)
    for is_recorded in (True, False):
        if not is_recorded:
            manifest = json.loads((made.path / "manifest.json").read_text(encoding="utf-8"))
            del manifest["options"]["tokenizer"]
            (made.path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        with pytest.warns(Notice, match="of 'gpt2'"):
            assert not expand("unrecorded", tokenizer="gpt2", data_dir=tmp_path).created
        with (
            pytest.warns(Notice, match="of 'sample2k'"),
            pytest.raises(UserError, match="tokenizer .there 'gpt2', now"),
        ):
            expand("unrecorded", tokenizer="sample2k", data_dir=tmp_path)


def test_a_folder_without_a_manifest_that_has_changed_is_noticed(tmp_path):
    """Its fingerprint is that of the first and last bytes; a change between them keeps it."""
    folder = tmp_path / "reference"
    folder.mkdir()
    ids = np.full(2**21, 464, np.uint16)
    ids[999::1000] = ids[-1] = 50256
    for split in ("train", "val"):
        ids.tofile(folder / f"{split}.bin")
    made = expand(folder, p=0)
    before = (folder / "val.bin").stat()
    assert not expand(folder, p=0).created
    os.utime(folder / "val.bin", ns=(before.st_atime_ns, before.st_mtime_ns - 10**12))
    assert not expand(folder, p=0).created  # touched, and the same
    ids[2**20 : 2**20 + 3] = 262
    ids.tofile(folder / "val.bin")
    assert Corpus(folder).fingerprint == made.manifest.options["source"]
    with pytest.raises(UserError, match="made when reference held another text; --force makes it again"):
        expand(folder, p=0)
    assert expand(folder, p=0, force=True).created


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 3), max_size=60), batch=st.integers(1, 20))
def test_batches_are_whole_documents(ids, batch):
    array = np.array(ids, dtype=np.uint16)
    seen, lengths = [], []
    for start, stop, parts in document_batches(array, 0, batch):
        assert parts.sum() == stop - start > 0
        seen += array[start:stop].tolist()
        lengths += parts.tolist()
    assert seen == ids
    ends = [i + 1 for i, token in enumerate(ids) if token == 0 or i == len(ids) - 1]
    assert lengths == np.diff([0, *ends]).tolist()


def test_damaged_folders(corpus, tmp_path):
    folder = expand(corpus, p=0.01, out_name="damaged").path
    with open(folder / "train.bin", "r+b") as stream:
        stream.truncate(1001)
    with pytest.raises(UserError, match=r"1,001 bytes, not") as caught:
        Corpus(folder)
    assert caught.value.exit_code == FAILED
    (folder / "train.bin").unlink()
    with pytest.raises(UserError, match="is missing"):
        Corpus(folder)
    (folder / "manifest.json").unlink()
    (folder / "train.bin").write_bytes(b"abc")
    with pytest.raises(UserError, match="cut short"):
        Corpus(folder).ids("train")
    with pytest.raises(UserError, match="did you mean 'damaged'"):
        Corpus(folder.parent / "damagd")


def test_a_manifest_without_a_tokenizer(corpus, tmp_path):
    """The ids could be those of any tokenizer, so gpt2 is not assumed."""
    folder = tmp_path / "data_as_memmaps" / "incomplete"
    shutil.copytree(corpus.path, folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["tokenizer"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(UserError, match=r"the manifest of .*incomplete names no tokenizer; name the one"):
        expand(Corpus(folder), p=0.1)
    assert Corpus(folder, "gpt2").vocabulary.name == "gpt2"


def test_another_tokenizer_than_the_manifests(corpus):
    with pytest.raises(UserError, match="made with the tokenizer 'gpt2'"):
        _ = Corpus(corpus.path, "sample2k").vocabulary


def test_questions_are_not_expanded_on_disk(tmp_path):
    made = make_langgame("sample2k", tmp_path, train_size=20, val_size=5)
    with pytest.raises(UserError, match="holds questions with answers, which training .*expand_prop"):
        expand(made.path.name, data_dir=tmp_path)


def test_a_result_never_replaces_its_source(corpus):
    before = corpus.ids("train").tolist()
    with pytest.raises(UserError, match="replace its own source"):
        expand(corpus, p=1.0, out_name=corpus.name, force=True)
    with pytest.raises(UserError, match="name of a folder"):
        expand(corpus, p=1.0, out_name="../elsewhere")
    assert corpus.ids("train").tolist() == before


def test_a_source_is_not_replaced_through_a_link(corpus, tmp_path):
    (tmp_path / corpus.name).symlink_to(corpus.path)
    (tmp_path / "link").symlink_to(corpus.path)
    with pytest.raises(UserError, match="replace its own source"):
        expand(tmp_path / "link", p=1.0, out_name=corpus.name, force=True)


def test_the_result_is_written_into_the_data_directory_that_is_given(tmp_path):
    gpt2 = load_vocabulary("gpt2")
    shared = tmp_path / "shared" / "group"
    folder = shared / "texts"
    folder.mkdir(parents=True)
    for split in ("train", "val"):
        np.array([*gpt2.encode("An unbelievable text."), 50256], "<u2").tofile(folder / f"{split}.bin")
    memmaps = tmp_path / "own" / "data_as_memmaps"
    of_path = expand(str(folder), p=1.0, data_dir=tmp_path / "own")
    assert of_path.path == memmaps / "texts-stochastok1.0" and of_path.created
    assert expand(Corpus(folder), p=2.0, data_dir=str(tmp_path / "own")).path.parent == memmaps
    assert expand(str(folder), p=1.0).path == shared / "texts-stochastok1.0"
    (memmaps / "group").mkdir()
    of_path.path.rename(memmaps / "group" / "texts")
    assert expand("group/texts", p=1.0, data_dir=tmp_path / "own").path.parent == memmaps / "group"


@pytest.fixture
def few_texts(tmp_path):
    """The folder of a small corpus."""
    (tmp_path / "texts.txt").write_text("\n\n".join(f"An understandable text, number {i}" for i in range(40)))
    return tokenize(tmp_path / "texts.txt", tokenizer="sample2k", data_dir=tmp_path).path


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"max_splits": 1}, {"keep": "x"}, {"p": 0.4}, {"method": "uniform"}], ids=str
)
def test_a_result_of_one_option_is_not_taken_for_that_of_another(few_texts, other):
    made = expand(few_texts, p=0.5, out_name="expanded")
    assert not expand(few_texts, p=0.5, out_name="expanded").created
    ((option, value),) = other.items()
    with pytest.raises(UserError, match=option):
        expand(few_texts, **{"p": 0.5, **other}, out_name="expanded")
    again = expand(few_texts, **{"p": 0.5, **other}, out_name="expanded", force=True)
    assert again.manifest.options[option] == value
    assert again.manifest.files != made.manifest.files


def test_a_corpus_with_other_documents_than_its_manifest_counts_is_not_expanded(few_texts):
    manifest = json.loads((few_texts / "manifest.json").read_text())
    manifest["splits"]["train"]["documents"] += 1
    (few_texts / "manifest.json").write_text(json.dumps(manifest))
    counted = manifest["splits"]["train"]["documents"]
    with pytest.raises(
        UserError, match=f"train of .* holds {counted - 1} documents, and its manifest counts {counted}; make it again"
    ) as caught:
        expand(few_texts, p=0.5, out_name="expanded")
    assert caught.value.exit_code == FAILED
    assert not few_texts.with_name("expanded").exists()


def test_a_folder_without_a_manifest_is_known_by_both_ends_of_its_files(tmp_path):
    """Its validation split may be empty."""
    ids = np.full(600_000, 50256, "<u2")  # more than 1 MiB
    (tmp_path / "val.bin").touch()
    fingerprints = set()
    for changed in (None, 0, -1):
        content = ids.copy()
        if changed is not None:
            content[changed] = 7
        content.tofile(tmp_path / "train.bin")
        fingerprints.add(Corpus(tmp_path).fingerprint)
    assert len(fingerprints) == 3
    Corpus(tmp_path).require_end_of_text("val")


def test_a_place_where_nothing_can_be_written(corpus):
    with pytest.raises(
        UserError, match=r"sample.*-stochastok1.0 can't be made: .*; give another place \(--data-dir\)"
    ) as error:
        expand(corpus, p=1.0, data_dir="/sys/data")  # the kernel makes no folder there, not even for root
    assert error.value.exit_code == FAILED


def test_a_name_of_another_kind_of_dataset(corpus, tmp_path):
    """It is no earlier result, so `--force` is not offered; given, it replaces the folder all the same."""
    made = make_langgame("sample2k", tmp_path, train_size=20, val_size=5)
    there = rf"{made.path} exists and holds questions of langgame, not an expanded dataset; give another name"
    with pytest.raises(UserError, match=there + r" \(--out-name\)$"):
        expand(corpus, p=1.0, out_name="langgame", data_dir=tmp_path)
    folder = tmp_path / "data_as_memmaps" / "mine"
    made.path.rename(tmp_path / "data_as_memmaps" / "texts-tokenized")
    (tmp_path / "texts.txt").write_text("one\n\ntwo\n")
    with pytest.raises(UserError, match=r"holds questions of langgame, not a tokenized dataset; .* \(--name\)$"):
        tokenize(tmp_path / "texts.txt", tokenizer="sample2k", data_dir=tmp_path, val_fraction=0.5)
    expand(corpus, p=1.0, out_name=folder.name, data_dir=tmp_path)
    with pytest.raises(UserError, match=r"mine exists and holds an expanded dataset, not questions of langgame"):
        make_langgame("sample2k", tmp_path, name="mine", train_size=20, val_size=5)
    assert not (tmp_path / "data_as_datasets" / "mine").exists()
    expand(corpus, p=1.0, out_name="texts-tokenized", data_dir=tmp_path, force=True)

"""Ids of other programs as corpora: what is kept, what is added, and damage."""

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from stochastok_cli.cli.app import main
from stochastok_cli.data.expand import expand, open_corpus
from stochastok_cli.data.export import export
from stochastok_cli.data.formats import DocumentBatch, require_format
from stochastok_cli.data.import_corpus import import_corpus
from stochastok_cli.data.memmap import Corpus, memmap_dir
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.errors import FAILED, USAGE, Notice, UserError
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.data.test_export import make_corpus

SAMPLE = load_vocabulary("sample2k")
END = SAMPLE.end_of_text
TEXTS = ["Some text about anything", "", "The next document", "and a last one"]
DOCUMENTS = [[*SAMPLE.encode(text), END] for text in TEXTS]


@pytest.fixture
def pair(tmp_path):
    """A pair of `DOCUMENTS`, as `export` writes it."""
    (tmp_path / "texts.txt").write_text("\n\n".join(f"Paragraph {i}: {'many words ' * (i % 7)}" for i in range(60)))
    tokenize(tmp_path / "texts.txt", tokenizer="sample2k", data_dir=tmp_path / "data")
    return export("texts-tokenized", format="megatron", data_dir=tmp_path / "data").path / "train.idx"


def write_pair(folder, documents, dtype=np.int32, code=4, sequences=None, modes=b""):
    """Writes a pair by hand. `sequences` are the numbers of sequences up to the end of each document."""
    np.array([i for ids in documents for i in ids], dtype).tofile(folder / "pair.bin")
    lengths = np.array([len(ids) for ids in documents])
    ends = sequences or [*range(len(documents) + 1)]
    content = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, code, len(documents), len(ends))
    content += lengths.astype("<i4").tobytes()
    content += ((np.cumsum(lengths) - lengths) * np.dtype(dtype).itemsize).astype("<i8").tobytes()
    (folder / "pair.idx").write_bytes(content + np.array(ends, "<i8").tobytes() + modes)
    return folder / "pair.idx"


def documents_of(folder):
    ids = Corpus(folder).ids("train")
    return [part.tolist() for part in np.split(ids, np.flatnonzero(ids == END) + 1)[:-1]]


def test_there_and_back(tmp_path, pair):
    source = memmap_dir(tmp_path / "data") / "texts-tokenized"
    made = import_corpus(pair, tokenizer="sample2k", data_dir=tmp_path)
    assert made.path == memmap_dir(tmp_path) / "train-tokenized"
    assert not import_corpus(pair, data_dir=tmp_path).created  # the manifest beside says the tokenizer
    assert (made.path / "train.bin").read_bytes() == (source / "train.bin").read_bytes()
    assert (made.path / "val.bin").read_bytes() == b""
    assert made.manifest.made_from.name == str(pair)
    assert made.manifest.extra == {}
    assert not import_corpus(pair, tokenizer="sample2k", data_dir=tmp_path).created
    with pytest.warns(Notice, match="val of train-tokenized has no documents"):
        again = export("train-tokenized", format="megatron", data_dir=tmp_path).path
    for suffix in (".bin", ".idx"):
        assert (again / f"train{suffix}").read_bytes() == pair.with_suffix(suffix).read_bytes()


@pytest.mark.parametrize("suffix", [".idx", ""])
def test_it_is_expanded(tmp_path, pair, suffix):
    """A document's expansion depends on its ids and on its index alone, so it is that of the same corpus."""
    made = expand(str(pair.with_suffix(suffix)), p=0.5, tokenizer="sample2k", data_dir=tmp_path)
    assert made.path == memmap_dir(tmp_path) / "train-tokenized-stochastok0.5"
    expected = expand("texts-tokenized", p=0.5, data_dir=tmp_path / "data")
    assert (made.path / "train.bin").read_bytes() == (expected.path / "train.bin").read_bytes()
    assert made.manifest.splits["train"] == expected.manifest.splits["train"]


@pytest.mark.parametrize("batch_tokens", [1, 10, 1000])
@pytest.mark.parametrize(
    ("dtype", "code"), [(np.uint8, 1), (np.int16, 3), (np.int32, 4), (np.int64, 5), (np.uint16, 8)]
)
def test_documents_without_end_of_text_get_one(tmp_path, monkeypatch, dtype, code, batch_tokens):
    monkeypatch.setattr("stochastok_cli.data.import_corpus._BATCH_TOKENS", batch_tokens)
    documents = [[5, 6], [], [7, 8, 9], [10]]
    index = write_pair(tmp_path, documents, dtype, code)
    with pytest.warns(Notice, match="4 of 4 documents of .* did not end with end-of-text"):
        made = import_corpus(index, tokenizer="sample2k", data_dir=tmp_path)
    assert documents_of(made.path) == [[*ids, END] for ids in documents]
    assert made.manifest.to_json()["end_of_text_added"] == 4
    assert made.manifest.splits["train"].tokens == 10


def test_sequences_of_a_document_are_joined(tmp_path):
    parts = [[5], [6, END], [END], [7], [8], [9, END]]
    index = write_pair(tmp_path, parts, sequences=[0, 2, 3, 6], modes=b"\0" * 6)  # with the modes of a multimodal pair
    made = import_corpus(index, tokenizer="sample2k", data_dir=tmp_path)
    assert documents_of(made.path) == [[5, 6, END], [END], [7, 8, 9, END]]


def damage(name):
    def pointers(data):
        data[34 + 4 * 4] ^= 1

    def documents(data):
        data[34 + 12 * 4] ^= 1

    def magic(data):
        data[0] ^= 1

    def version(data):
        data[9] = 2

    def floats(data):
        data[17] = 7

    def kind(data):
        data[17] = 99

    def cut(data):
        del data[-3:]

    def other(data):
        data[17] = 8

    return locals()[name]


@pytest.mark.parametrize(
    ("name", "message", "code"),
    [
        ("magic", "is no index of Megatron-LM", FAILED),
        ("version", "has the version 2", FAILED),
        ("kind", "the type 99", FAILED),
        ("floats", "float32, which are no ids", USAGE),
        ("cut", "is damaged: it has", FAILED),
        ("pointers", "its sequences do not lie one after another", FAILED),
        ("documents", "its documents are not those of its sequences", FAILED),
        ("other", "its sequences do not lie one after another", FAILED),
    ],
)
def test_damage(tmp_path, name, message, code):
    index = write_pair(tmp_path, DOCUMENTS)
    content = bytearray(index.read_bytes())
    damage(name)(content)
    index.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        import_corpus(index, tokenizer="sample2k", data_dir=tmp_path / "data")
    assert caught.value.exit_code == code
    assert not (tmp_path / "data").exists()


def test_refusals(tmp_path):
    index = write_pair(tmp_path, [*DOCUMENTS, [5, END, 6, END]])
    with pytest.raises(UserError, match="documents 0 to 4 .* hold end-of-text .* not only at their ends"):
        import_corpus(index, tokenizer="sample2k", data_dir=tmp_path)
    with pytest.raises(UserError, match="does not say which tokenizer"):
        expand(str(index), data_dir=tmp_path)
    write_pair(tmp_path, [[SAMPLE.size, END]])
    with pytest.raises(UserError, match="holds the id 2,048, which 'sample2k' of 2,048 entries has not"):
        import_corpus(index, tokenizer="sample2k", data_dir=tmp_path)
    write_pair(tmp_path, [[-1, END]])
    with pytest.raises(UserError, match="holds the id -1"):
        import_corpus(index, tokenizer="sample2k", data_dir=tmp_path)
    assert [path for path in memmap_dir(tmp_path).iterdir() if path.is_dir()] == []
    (tmp_path / "pair.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pair.bin is damaged: it has 0 bytes, and its index 2 ids"):
        import_corpus(index, tokenizer="sample2k", data_dir=tmp_path)
    (tmp_path / "pair.bin").unlink()
    with pytest.raises(UserError, match="there is no file .*pair.bin"):
        import_corpus(index, tokenizer="sample2k", data_dir=tmp_path)


def test_another_pair_under_the_same_name_is_noticed(tmp_path):
    index = write_pair(tmp_path, DOCUMENTS)
    import_corpus(index, tokenizer="sample2k", data_dir=tmp_path)
    write_pair(tmp_path, DOCUMENTS[::-1])
    with pytest.raises(UserError, match="held another text"):
        import_corpus(index, tokenizer="sample2k", data_dir=tmp_path)
    made = import_corpus(index, tokenizer="sample2k", data_dir=tmp_path, force=True)
    assert documents_of(made.path) == DOCUMENTS[::-1]


def test_another_spelling_of_a_pair_is_the_same(tmp_path, monkeypatch):
    made = import_corpus(write_pair(tmp_path, DOCUMENTS), tokenizer="sample2k", data_dir=tmp_path)
    monkeypatch.chdir(tmp_path)
    for spelling in ("pair.idx", "./pair.idx", f"../{tmp_path.name}/pair.idx"):
        again = import_corpus(spelling, tokenizer="sample2k", data_dir=tmp_path)
        assert not again.created and again.manifest == made.manifest


def run(monkeypatch, capsys, tmp_path, *arguments):
    """The exit code, stdout and stderr of `expand`."""
    command = ["stochastok", "expand", *map(str, arguments), "--tokenizer", "sample2k", "--data-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def test_the_command(tmp_path, monkeypatch, capsys):
    index = write_pair(tmp_path, DOCUMENTS)
    code, out, _ = run(monkeypatch, capsys, tmp_path, index, "-p", "0.5")
    folder = memmap_dir(tmp_path) / "pair-tokenized-stochastok0.5"
    assert (code, out.strip()) == (0, str(folder))
    assert [SAMPLE.decode(ids[:-1]) for ids in documents_of(folder)] == TEXTS


def test_files_of_the_same_name(tmp_path, monkeypatch, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, documents in ((one, DOCUMENTS), (two, [*DOCUMENTS, [5]])):
        folder.mkdir()
        write_pair(folder, documents)
    assert run(monkeypatch, capsys, tmp_path, one / "pair.idx")[0] == 0
    code, _, err = run(monkeypatch, capsys, tmp_path, two / "pair.idx", "--out-name", "other")
    assert code == USAGE
    assert "give it another name (--name)" in err
    code, out, _ = run(monkeypatch, capsys, tmp_path, two / "pair.idx", "--name", "second", "--json")
    made = json.loads(out)
    assert (code, made["path"]) == (0, str(memmap_dir(tmp_path) / "second-tokenized-stochastok0.1"))
    assert made["end_of_text_added"] == 1
    assert json.loads((Path(made["path"]) / "manifest.json").read_text())["end_of_text_added"] == 1
    code, _, err = run(monkeypatch, capsys, tmp_path, "second-tokenized", "--name", "third")
    assert (code, "drop --name" in err) == (USAGE, True)
    save(tmp_path / "pulled", input_ids=DOCUMENTS)
    monkeypatch.chdir(tmp_path)
    code, _, err = run(monkeypatch, capsys, tmp_path, "pulled", "--pull", "--repo", "not a repository")
    assert (code, "no effect" in err) == (USAGE, False)
    code, _, err = run(monkeypatch, capsys, tmp_path, one / "pair.idx", "--pull")
    assert (code, "--pull would have no effect for" in err) == (USAGE, True)


def test_files_without_ids(tmp_path):
    for file in (write_pair(tmp_path, []), write_tokenized_file(tmp_path, [])):
        with pytest.raises(UserError, match="holds no ids") as refused:
            expand(str(file), tokenizer="sample2k", data_dir=tmp_path)
        assert refused.value.exit_code == USAGE
    assert not memmap_dir(tmp_path).exists()


def write_tokenized_file(folder, documents, dtype=np.uint16):
    np.array([i for ids in documents for i in ids], dtype).tofile(folder / "00000.ds")
    np.cumsum([len(ids) for ids in documents]).astype("<u8").tofile(folder / "00000.ds.index")
    return folder / "00000.ds"


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_a_tokenized_file(tmp_path, dtype):
    file = write_tokenized_file(tmp_path, [*DOCUMENTS, [5]], dtype)
    with pytest.warns(Notice, match="1 of 5 documents"):
        made = import_corpus(file, tokenizer="sample2k", data_dir=tmp_path)
    assert made.path.name == "00000-tokenized"
    assert documents_of(made.path) == [*DOCUMENTS, [5, END]]
    expanded = expand(str(file), p=1.0, tokenizer="sample2k", data_dir=tmp_path)
    assert [SAMPLE.decode(ids[:-1]) for ids in documents_of(expanded.path)][:-1] == TEXTS


def test_a_folder_of_several_formats_is_refused(tmp_path):
    write_tokenized_file(tmp_path, DOCUMENTS, np.uint16)
    write_pair(tmp_path, DOCUMENTS)
    with pytest.raises(UserError, match="holds data of datatrove and megatron; keep each in a folder of its own"):
        import_corpus(tmp_path, tokenizer="sample2k", name="both", data_dir=tmp_path)


def test_a_tokenized_file_that_is_missing(tmp_path):
    file = write_tokenized_file(tmp_path, DOCUMENTS, np.uint16)
    (tmp_path / "00001.ds.index").write_bytes(file.with_name(f"{file.name}.index").read_bytes())
    with pytest.raises(UserError, match=r"there is no file .*00001.ds, to which 00001.ds.index belongs"):
        import_corpus(tmp_path, tokenizer="sample2k", name="part", data_dir=tmp_path)


def test_an_empty_name_is_refused(tmp_path, pair):
    with pytest.raises(UserError, match="'' can't be the name of a folder"):
        import_corpus(pair, name="", data_dir=tmp_path)


def test_a_path_that_is_not_there_is_not_imported(tmp_path):
    with pytest.raises(UserError, match="there is no .*absent, so nothing is imported as 'new'"):
        open_corpus(str(tmp_path / "absent"), None, name="new", data_dir=tmp_path)


def test_damaged_and_refused_tokenized_files(tmp_path):
    file = write_tokenized_file(tmp_path, DOCUMENTS)
    index = file.with_name("00000.ds.index")

    def refuse(message):
        with pytest.raises(UserError, match=message):
            import_corpus(file, tokenizer="sample2k", data_dir=tmp_path)

    file.with_name("00000.ds.loss").touch()
    refuse("can't hold that")
    file.with_name("00000.ds.loss").unlink()
    ends = np.fromfile(index, "<u8")
    metadata = file.with_name("00000.ds.metadata")
    for recorded in (ends[-1] + 1, 0):
        metadata.write_text(f"gpt2|2\n{recorded}\n{recorded} T")
        refuse(f"00000.ds is damaged: it holds {ends[-1]} ids, and 00000.ds.metadata counts {recorded}")
    metadata.write_text(f"gpt2|2\n{ends[-1]}\n{ends[-1]} T")
    content = file.read_bytes()
    for part in (file, index):
        part.write_bytes(b"")
    with pytest.raises(
        UserError, match=f"00000.ds is damaged: it holds 0 ids, and 00000.ds.metadata counts {ends[-1]}"
    ):
        import_corpus(tmp_path, name="folder", tokenizer="sample2k", data_dir=tmp_path)
    file.write_bytes(content)
    for wrong in (ends[:-1], ends[::-1], np.append(ends, ends[-1] * 3)):
        wrong.tofile(index)
        refuse("is damaged")
    index.write_bytes(ends.tobytes()[:-1])
    refuse("is damaged")
    index.unlink()
    refuse("there is no file .*00000.ds.index")
    assert not memmap_dir(tmp_path).exists()


def test_it_is_not_tokenized(tmp_path):
    with pytest.raises(UserError, match="pair.idx holds ids, no text; give it to stochastok expand"):
        tokenize(write_pair(tmp_path, DOCUMENTS), tokenizer="sample2k", data_dir=tmp_path)
    make_corpus(tmp_path)
    messages = {"arrow": "no column 'text'.* for stochastok expand"}
    for format in ("arrow", "mds", "megatron"):
        folder = export("corpus", format=format, data_dir=tmp_path, out=tmp_path / format).path
        for path in (folder, folder / "train"):
            if path.is_dir():
                with pytest.raises(UserError, match=messages.get(format, "ids, no text")):
                    tokenize(path, tokenizer="sample2k", data_dir=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("multimodal", [False, True])
def test_a_pair_of_its_own_builder(tmp_path, multimodal):
    pytest.importorskip("megatron.core")
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(tmp_path / "built.bin"), multimodal=multimodal)
    for ids in DOCUMENTS:
        for start in range(0, len(ids), 2):  # several sequences in a document
            builder.add_item(torch.tensor(ids[start : start + 2]))
        builder.end_document()
    builder.finalize(str(tmp_path / "built.idx"))
    expand(str(tmp_path / "built"), p=0.0, tokenizer="sample2k", data_dir=tmp_path)
    assert documents_of(memmap_dir(tmp_path) / "built-tokenized-stochastok0.0") == DOCUMENTS
    expand(str(tmp_path / "built"), p=1.0, tokenizer="sample2k", data_dir=tmp_path)
    with pytest.warns(Notice):
        made = export("built-tokenized-stochastok1.0", format="megatron", data_dir=tmp_path)
    expanded = IndexedDataset(str(made.path / "train"))
    assert [SAMPLE.decode(ids[:-1].tolist()) for ids in expanded[:]] == TEXTS
    assert sum(expanded.sequence_lengths) > sum(map(len, DOCUMENTS))


@pytest.mark.parametrize(
    "format",
    [
        "arrow",
        "mds",
        "megatron",
        pytest.param("datatrove", marks=pytest.mark.slow),
        pytest.param("litdata", marks=pytest.mark.slow),
    ],
)
def test_an_export_comes_back(tmp_path, format):
    """Both splits, byte for byte, with the tokenizer of the manifest, and the same expansion."""
    if format in ("datatrove", "litdata"):
        pytest.importorskip(format)
    (tmp_path / "texts.txt").write_text("\n\n".join(f"Paragraph {i}: {'many words ' * (i * 9)}" for i in range(30)))
    tokenize(tmp_path / "texts.txt", tokenizer="sample2k", val_fraction=0.2, data_dir=tmp_path)
    out = export("texts-tokenized", format=format, data_dir=tmp_path, out=tmp_path / "out").path
    made = import_corpus(out, name="back", data_dir=tmp_path)
    source = Corpus(memmap_dir(tmp_path) / "texts-tokenized").manifest
    assert made.manifest.splits == source.splits
    for split in ("train", "val"):
        before = (memmap_dir(tmp_path) / "texts-tokenized" / f"{split}.bin").read_bytes()
        assert (made.path / f"{split}.bin").read_bytes() == before
    val = {"arrow": "validation"}.get(format, "val")
    alone = import_corpus(out / val, name="alone", data_dir=tmp_path)
    assert alone.manifest.splits["train"] == source.splits["val"]
    expanded = expand(str(out), p=0.5, data_dir=tmp_path).manifest
    assert expanded.splits == expand("texts-tokenized", p=0.5, data_dir=tmp_path).manifest.splits


def save(folder, **columns):
    import datasets

    datasets.Dataset.from_dict(columns).save_to_disk(folder)
    return folder


def test_saved_datasets(tmp_path):
    """Columns without information are accepted; labels and masks that leave ids out are refused, never dropped."""
    masks = [[1] * len(ids) for ids in DOCUMENTS]
    folder = save(tmp_path / "rows", input_ids=DOCUMENTS, attention_mask=masks, labels=DOCUMENTS)
    with pytest.raises(UserError, match="does not say which tokenizer"):
        import_corpus(folder, data_dir=tmp_path)
    made = import_corpus(folder, tokenizer="sample2k", data_dir=tmp_path)
    assert (made.path.name, documents_of(made.path)) == ("rows-tokenized", DOCUMENTS)

    def refuse(message, **columns):
        folder = save(tmp_path / message.split()[0], input_ids=DOCUMENTS, **columns)
        with pytest.raises(UserError, match=message):
            import_corpus(folder, tokenizer="sample2k", data_dir=tmp_path)

    refuse("labels of .* leaves ids out", labels=[[-100] * len(ids) for ids in DOCUMENTS])
    refuse("attention_mask of .* leaves ids out", attention_mask=[[0] * len(ids) for ids in DOCUMENTS])
    refuse("has the column word_ids beside", word_ids=masks)
    assert [path.name for path in memmap_dir(tmp_path).iterdir() if path.is_dir()] == ["rows-tokenized"]


def test_splits_of_other_names_are_named(tmp_path):
    save(tmp_path / "many" / "test", input_ids=DOCUMENTS)
    with pytest.raises(UserError, match="holds test, and none is called train"):
        import_corpus(tmp_path / "many", tokenizer="sample2k", data_dir=tmp_path)
    save(tmp_path / "many" / "train", input_ids=DOCUMENTS)
    with pytest.warns(Notice, match="test of .* is not read"):
        import_corpus(tmp_path / "many", tokenizer="sample2k", data_dir=tmp_path)


def write_chunks(folder, documents=DOCUMENTS):
    """The index and the chunk of litdata's `TokensLoader`, without litdata."""
    folder.mkdir()
    ends = 4 * (len(documents) + 2) + 2 * np.cumsum([0, *map(len, documents)])
    ids = np.concatenate([np.array(ids, "<u2") for ids in documents])
    (folder / "chunk-0-0.bin").write_bytes(np.array([len(documents), *ends], "<u4").tobytes() + ids.tobytes())
    chunk = {"filename": "chunk-0-0.bin", "chunk_size": len(documents)}
    config = {"compression": None, "data_format": ["no_header_tensor:20"]}
    (folder / "index.json").write_text(json.dumps({"chunks": [chunk], "config": config}))
    return folder


def write_mds(folder):
    class Split(list):
        name, dtype, has_loss_mask = folder.name, np.dtype(np.uint16), False

    ids = np.array([i for ids in DOCUMENTS for i in ids], np.uint16)
    lengths = np.array([len(ids) for ids in DOCUMENTS])
    require_format("mds").write(folder.parent, [Split([DocumentBatch(ids, lengths, None)])], "sample2k")
    return folder


WRITERS = {"arrow": lambda folder: save(folder, input_ids=DOCUMENTS), "litdata": write_chunks, "mds": write_mds}


@pytest.mark.parametrize("format", ["litdata", "mds"])
def test_a_damaged_index_is_named(tmp_path, format):
    """Whatever is left of it, the files beside it tell the format."""
    folder = WRITERS[format](tmp_path / "train")
    index = folder / "index.json"
    content = index.read_bytes()
    for wrong in (b"", content[:6], bytes(len(content)), b"{}", b"[]", content[1:]):
        index.write_bytes(wrong)
        for named in (folder, tmp_path):
            with pytest.raises(UserError, match="index.json is damaged: ") as caught:
                open_corpus(str(named), "sample2k", data_dir=tmp_path / "data")
            assert caught.value.exit_code == FAILED
    index.unlink()
    with pytest.raises(UserError, match="there is no file .*index.json, which lists the files of ids beside it"):
        open_corpus(str(folder), "sample2k", data_dir=tmp_path / "data")


@pytest.mark.parametrize("format", WRITERS)
def test_damage_of_folders(tmp_path, format):
    """A file that is cut, longer or missing, and an index that counts other documents, leave nothing behind."""
    folder = WRITERS[format](tmp_path / "stored")

    def import_again(**options):
        return import_corpus(folder, tokenizer="sample2k", data_dir=tmp_path / "data", **options)

    assert documents_of(import_again().path) == DOCUMENTS
    file = max(folder.iterdir(), key=lambda path: path.suffix in (".arrow", ".bin", ".mds"))
    content = file.read_bytes()
    cuts = [content[: len(content) // 2], content[:6]]
    for wrong in [*cuts, content + b"\0\0"] if format != "arrow" else cuts:
        file.write_bytes(wrong)
        with pytest.raises(UserError, match=f"{file.name} is damaged") as caught:
            import_again(name="wrong")
        assert caught.value.exit_code == FAILED
    file.write_bytes(content)
    index = folder / "index.json"
    if index.is_file():
        index.write_text(index.read_text().replace(f": {len(DOCUMENTS)}", ": 3"))
        with pytest.raises(UserError, match=f"{file.name} is damaged: it does not hold 3"):
            import_again(name="wrong")
        index.write_text(index.read_text()[:-1])
        with pytest.raises(UserError, match="index.json"):
            import_again(name="wrong")
    file.unlink()
    with pytest.raises(UserError):
        import_again(name="wrong")
    assert [path.name for path in memmap_dir(tmp_path / "data").iterdir() if path.is_dir()] == ["stored-tokenized"]

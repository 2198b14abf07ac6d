"""MosaicML Streaming's own classes read what `export` writes, and write the same bytes."""

import importlib.util
import sys
import types

import numpy as np
import pytest

from stochastok_cli.data.export import export
from stochastok_cli.data.formats import require_format
from stochastok_cli.errors import UserError
from tests.data.test_export import DOCUMENTS, END, make_corpus, make_questions
from tests.data.test_sft_dataset import PAIRS

LONG = [[*range(8, 8 + length), END] for length in (254, 255, 70_000, 3)]  # lengths of one, two and four bytes


@pytest.fixture
def streaming(monkeypatch):
    """`streaming.base`, without the models and images of `streaming`, which need torchvision."""
    package = importlib.util.find_spec("streaming")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("mosaicml-streaming is not installed")
    module = types.ModuleType("streaming")
    module.__path__ = [*package.submodule_search_locations]
    monkeypatch.setitem(sys.modules, "streaming", module)
    return importlib.import_module("streaming.base")


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dtype"), [(65_536, np.uint16), (128_000, np.int32)])
@pytest.mark.parametrize("shard_bytes", [2**26, 1000])
def test_a_corpus(tmp_path, streaming, monkeypatch, size, dtype, shard_bytes):
    monkeypatch.setattr("stochastok_cli.data.formats.mds.SHARD_BYTES", shard_bytes)
    documents = {"train": [*DOCUMENTS["train"], *LONG, [size - 1, END]], "val": DOCUMENTS["val"]}
    documents["train"] = [[i % size for i in ids] for ids in documents["train"]]
    documents["train"] = [[*(i if i != END else 1 for i in ids[:-1]), END] for ids in documents["train"]]
    make_corpus(tmp_path, documents, size)
    made = export("corpus", format="mds", data_dir=tmp_path)
    for split, lists in documents.items():
        columns = {"tokens": f"ndarray:{dtype.__name__}"}
        with streaming.MDSWriter(columns=columns, out=str(tmp_path / split), size_limit=shard_bytes) as writer:
            for ids in lists:
                writer.write({"tokens": np.array(ids, dtype)})
        assert files_of(made.path / split) == files_of(tmp_path / split)
        dataset = streaming.StreamingDataset(local=str(made.path), split=split, shuffle=False, batch_size=1)
        assert [dataset[i]["tokens"].tolist() for i in range(len(dataset))] == lists


@pytest.mark.slow
def test_questions(tmp_path, streaming):
    make_questions(tmp_path)
    made = export("questions", format="mds", data_dir=tmp_path)
    for split, pairs in PAIRS.items():
        dataset = streaming.StreamingDataset(local=str(made.path), split=split, shuffle=False, batch_size=1)
        samples = [dataset[i] for i in range(len(dataset))]
        assert [sample["input_ids"].tolist() for sample in samples] == [q + a for q, a in pairs]
        assert [sample["labels"].tolist() for sample in samples] == [[-100] * len(q) + a for q, a in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["bytes", "ndarray", "ndarray:uint32", "ndarray:int64:4", "ndarray:int32:2,2"])
def test_other_encodings_are_read(tmp_path, streaming, encoding):
    """Bytes are int64, as llm-foundry writes them; an array of two axes is refused."""
    dtype = [*encoding.split(":"), "int64"][1]
    documents = [[5, 6, 7, END], [*range(3), END]]
    with streaming.MDSWriter(columns={"tokens": encoding}, out=str(tmp_path / "train")) as writer:
        for ids in documents:
            array = np.array(ids, dtype).reshape([2, 2] if "," in encoding else [4])
            writer.write({"tokens": array.tobytes() if encoding == "bytes" else array})
    mds = require_format("mds")
    if "," in encoding:
        with pytest.raises(UserError, match="is encoded as ndarray:int32:2,2, which is no array of ids"):
            mds.read(mds.find(tmp_path / "train"))
        return
    stored = mds.read(mds.find(tmp_path / "train"))
    read = [ids.tolist() for batch in stored.batches() for ids in np.split(batch.ids, np.cumsum(batch.lengths)[:-1])]
    assert (stored.num_documents, read) == (2, documents)

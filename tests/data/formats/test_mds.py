"""MosaicML Streaming's own classes read what `export` writes, and write the same bytes."""

import importlib.util
import sys
import types

import numpy as np
import pytest

from stochastok_cli.data.export import export
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

"""Megatron-LM's own classes read what `export` writes, and write the same bytes."""

import numpy as np
import pytest

from stochastok_cli.data.export import export
from tests.data.test_export import DOCUMENTS, END, make_corpus


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dtype"), [(50_000, np.uint16), (65_536, np.int32), (128_000, np.int32)])
def test_the_files_are_those_of_its_builder(tmp_path, size, dtype):
    pytest.importorskip("megatron.core")
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

    documents = {"train": [*DOCUMENTS["train"], [size - 1, END]], "val": DOCUMENTS["val"]}
    make_corpus(tmp_path, documents, size)
    made = export("corpus", format="megatron", data_dir=tmp_path)
    assert DType.optimal_dtype(size) is dtype
    for split, lists in documents.items():
        builder = IndexedDatasetBuilder(str(tmp_path / "built.bin"), dtype=dtype)
        for ids in lists:  # as `tools/preprocess_data.py --append-eod` adds them
            builder.add_document(torch.tensor(ids), [len(ids)])
        builder.finalize(str(tmp_path / "built.idx"))
        for suffix in ("bin", "idx"):
            assert (made.path / f"{split}.{suffix}").read_bytes() == (tmp_path / f"built.{suffix}").read_bytes()
        dataset = IndexedDataset(str(made.path / split))
        assert [ids.tolist() for ids in dataset[:]] == lists
        assert dataset.index.dtype is dtype
        assert dataset.document_indices.tolist() == [*range(len(lists) + 1)]

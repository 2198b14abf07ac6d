"""Megatron-LM's own classes read what `export` writes, and write the same bytes."""

from itertools import pairwise

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


@pytest.mark.slow
def test_its_training_dataset_sees_the_documents(tmp_path):
    pytest.importorskip("megatron.core")
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    class Tokenizer:
        eod, pad, vocab_size, unique_identifiers = END, 0, 50_000, {"class": "test"}

    documents = [[*range(100 * i, 100 * i + i + 9), END] for i in range(1, 40)]
    make_corpus(tmp_path, {"train": documents, "val": DOCUMENTS["val"]})
    prefix = str(export("corpus", format="megatron", data_dir=tmp_path).path / "train")
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=16,
        blend=([prefix], None),
        split="1,0,0",
        reset_position_ids=True,
        reset_attention_mask=False,
        eod_mask_loss=True,
        tokenizer=Tokenizer(),
        path_to_cache=str(tmp_path / "cache"),
        mid_level_dataset_surplus=0.005,
    )
    files = IndexedDataset(prefix)
    windows = GPTDataset(files, prefix, np.arange(len(documents), dtype=np.int32), None, Split.train, config)
    assert len(windows) == (sum(map(len, documents)) - 1) // 16
    follows = {(ids[i], ids[i + 1]) for ids in documents for i in range(len(ids) - 1)}
    follows |= {(END, ids[0]) for ids in documents}
    for window in (windows[i] for i in range(len(windows))):
        tokens, positions = window["tokens"].tolist(), window["position_ids"].tolist()
        assert {*pairwise(tokens)} <= follows
        assert all((here == 0) == (before == END) for before, here in zip(tokens, positions[1:], strict=False))
        assert window["loss_mask"].tolist() == [float(token != END) for token in tokens]

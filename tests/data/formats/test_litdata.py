"""litdata's own loader reads what `export` writes."""

import pytest

from stochastok_cli.data.export import export
from tests.data.test_export import DOCUMENTS, END, make_corpus


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dtype"), [(65_536, "uint16"), (128_000, "int32")])
def test_every_token_in_order(tmp_path, size, dtype):
    litdata = pytest.importorskip("litdata")
    import torch

    documents = {"train": [*DOCUMENTS["train"], [size - 1, END]], "val": DOCUMENTS["val"]}
    make_corpus(tmp_path, documents, size)
    made = export("corpus", format="litdata", data_dir=tmp_path)
    assert made.manifest.dtype == dtype
    for split, lists in documents.items():
        loader = litdata.TokensLoader(block_size=1)
        dataset = litdata.StreamingDataset(str(made.path / split), item_loader=loader, shuffle=False)
        blocks = [dataset[i] for i in range(len(dataset))]
        assert blocks[0].dtype == getattr(torch, dtype)
        assert [int(block[0]) for block in blocks] == [i for ids in lists for i in ids]
    dataset = litdata.StreamingDataset(str(made.path / "train"), item_loader=litdata.TokensLoader(block_size=3))
    batch = next(iter(litdata.StreamingDataLoader(dataset, batch_size=2)))
    assert batch.long().tolist() == [[1, 2, 3], [END, END, 4]]


@pytest.mark.slow
def test_chunks_hold_whole_documents(tmp_path, monkeypatch):
    litdata = pytest.importorskip("litdata")
    monkeypatch.setattr("stochastok_cli.data.formats.litdata.CHUNK_BYTES", 20)
    documents = {"train": [[i + 10, 1, 2, END] for i in range(9)], "val": [[END]]}
    make_corpus(tmp_path, documents)
    made = export("corpus", format="litdata", data_dir=tmp_path, split="train")
    assert len([*(made.path / "train").glob("chunk-0-*.bin")]) > 1
    dataset = litdata.StreamingDataset(str(made.path / "train"), item_loader=litdata.TokensLoader(block_size=2))
    assert [dataset[i].tolist() for i in range(18)] == [pair for i in range(9) for pair in ([i + 10, 1], [2, END])]


@pytest.mark.slow
def test_litgpt_trains_on_it(tmp_path):
    pytest.importorskip("litdata")
    pytest.importorskip("litgpt")
    from litgpt.data import LitData

    documents = {split: [[i, i + 1, i + 2, END] for i in range(10, 50)] for split in ("train", "val")}
    make_corpus(tmp_path, documents)
    made = export("corpus", format="litdata", data_dir=tmp_path)
    data = LitData(made.path, split_names=("train", "val"), num_workers=0)
    data.connect(batch_size=2, max_seq_length=7)
    batch = next(iter(data.val_dataloader()))
    assert batch.long().reshape(-1).tolist() == [i for ids in documents["val"][:4] for i in ids]
    rows = [row.tolist() for batch in data.train_dataloader() for row in batch.long()]
    tokens = [i for ids in documents["train"] for i in ids]
    assert sorted(rows) == [tokens[i : i + 8] for i in range(0, 160, 8)]  # each block once

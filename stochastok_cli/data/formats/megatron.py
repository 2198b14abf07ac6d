"""Megatron-LM's indexed datasets: `<split>.bin` holds the ids, `<split>.idx` where each document is.

The files equal those that `megatron.core.datasets.indexed_dataset.IndexedDatasetBuilder` writes. They are written with
numpy: the builder needs PyTorch and seconds to import, and keeps Python integers for every document.
"""

import struct
from pathlib import Path

from stochastok_cli.data.formats.base import Format, SplitDocuments, register_format
from stochastok_cli.errors import UserError

HEADER = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPE_CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "float64": 6, "float32": 7, "uint16": 8}
_LARGEST_UINT16_VOCABULARY = 65_499  # Megatron takes int32 from 65,500 on (`DType.optimal_dtype`)


def _dtype(vocabulary_size: int) -> str:
    return "uint16" if vocabulary_size <= _LARGEST_UINT16_VOCABULARY else "int32"


def _write(folder: Path, splits: list[SplitDocuments], tokenizer: str) -> None:
    for split in splits:
        _write_split(folder, split)


def _write_split(folder: Path, split: SplitDocuments) -> None:
    import numpy as np

    lengths = []
    with open(folder / f"{split.name}.bin", "wb") as out:
        for batch in split:
            longest = int(batch.lengths.max())
            if longest >= 2**31:
                raise UserError(f"a document of {split.name} has {longest:,} ids, and Megatron's index takes 2^31 - 1")
            out.write(np.ascontiguousarray(batch.ids).data)
            lengths.append(batch.lengths.astype("<i4"))
    all_lengths = np.concatenate(lengths)
    documents = len(all_lengths)
    ends = np.cumsum(all_lengths, dtype="<i8") * split.dtype.itemsize  # in bytes
    with open(folder / f"{split.name}.idx", "wb") as index:
        index.write(HEADER)
        index.write(struct.pack("<QBQQ", VERSION, DTYPE_CODES[split.dtype.name], documents, documents + 1))
        index.write(all_lengths.data)
        index.write((ends - all_lengths * np.int64(split.dtype.itemsize)).data)
        index.write(np.arange(documents + 1, dtype="<i8").data)  # each document is one sequence


register_format(
    Format(
        name="megatron",
        description="<split>.bin and <split>.idx of Megatron-LM and NeMo",
        dtype=_dtype,
        write=_write,
    )
)

"""Megatron-LM's indexed datasets: `<split>.bin` holds the ids, `<split>.idx` where each document is.

The files equal those that `megatron.core.datasets.indexed_dataset.IndexedDatasetBuilder` writes. They are written with
numpy: the builder needs PyTorch and seconds to import, and keeps Python integers for every document.
"""

import struct
from pathlib import Path

from stochastok_cli.data.formats.base import (
    Format,
    SplitDocuments,
    StoredBatch,
    StoredDocuments,
    damaged,
    register_format,
)
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.paths import path_with_name

HEADER = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPE_CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "float64": 6, "float32": 7, "uint16": 8}
_COUNTS = struct.Struct("<QBQQ")  # version, code of the type, sequences, entries of the list of documents
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
        index.write(_COUNTS.pack(VERSION, DTYPE_CODES[split.dtype.name], documents, documents + 1))
        index.write(all_lengths.data)
        index.write((ends - all_lengths * np.int64(split.dtype.itemsize)).data)
        index.write(np.arange(documents + 1, dtype="<i8").data)  # each document is one sequence


def _find(path: Path) -> Path | None:
    """The `.idx` file of a pair: the path itself, or with the suffix that it lacks."""
    if path.suffix == ".idx":
        return path
    index = Path(f"{path_with_name(path)}.idx")
    return index if index.is_file() and index.with_suffix(".bin").is_file() else None


def _read(index: Path) -> StoredDocuments:
    import numpy as np

    data = index.with_suffix(".bin")
    for file in (index, data):
        if not file.is_file():
            raise UserError(f"there is no file {file}", fix="a pair of Megatron-LM is PREFIX.bin and PREFIX.idx")
    content = np.fromfile(index, np.uint8)
    start = len(HEADER) + _COUNTS.size
    if content[: len(HEADER)].tobytes() != HEADER or len(content) < start:
        raise UserError(f"{index} is no index of Megatron-LM", exit_code=FAILED)
    version, code, sequences, entries = _COUNTS.unpack(content[len(HEADER) : start].tobytes())
    types = {value: name for name, value in DTYPE_CODES.items()}
    if version != VERSION or code not in types:
        raise UserError(f"{index} has the version {version} and the type {code}, which are not known", exit_code=FAILED)
    dtype = np.dtype(types[code]).newbyteorder("<")
    if dtype.kind == "f":
        raise UserError(f"{index} says that {data.name} holds numbers of the type {dtype}, which are no ids")
    size = start + 12 * sequences + 8 * entries
    if len(content) not in (size, size + sequences):  # a byte for each sequence in multimodal pairs
        raise damaged(index, f"it has {len(content):,} bytes, and {size:,} for {sequences:,} sequences")
    lengths = content[start : start + 4 * sequences].view("<i4").astype(np.int64)
    pointers = content[start + 4 * sequences : start + 12 * sequences].view("<i8")
    documents = content[size - 8 * entries : size].view("<i8")
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if sequences else 0
    if (lengths < 0).any() or not np.array_equal(pointers, (ends - lengths) * dtype.itemsize):
        raise damaged(index, "its sequences do not lie one after another")
    if not entries or documents[0] != 0 or documents[-1] != sequences or (np.diff(documents) < 0).any():
        raise damaged(index, "its documents are not those of its sequences")
    if data.stat().st_size != total * dtype.itemsize:
        raise damaged(data, f"it has {data.stat().st_size:,} bytes, and its index {total:,} ids of the type {dtype}")
    ids = np.memmap(data, dtype, "r") if total else np.empty(0, dtype)
    batch = StoredBatch(ids, np.diff(np.concatenate([[0], ends])[documents]))
    return StoredDocuments([data, index], len(batch.lengths), ids.nbytes, lambda: iter([batch]))


register_format(
    Format(
        name="megatron",
        description="<split>.bin and <split>.idx of Megatron-LM and NeMo",
        dtype=_dtype,
        write=_write,
        find=_find,
        read=_read,
    )
)

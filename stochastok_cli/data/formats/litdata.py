"""Chunks of tokens of `litdata`, which litgpt and Lightning read with `TokensLoader`: one folder for each split.

The documents of a chunk lie end to end. `TokensLoader` cuts each chunk into blocks of one length and drops the rest.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from stochastok_cli.data.formats.base import (
    Format,
    SplitDocuments,
    StoredBatch,
    StoredDocuments,
    damaged,
    has_index,
    read_index,
    register_format,
    require_named_files,
    uint16_or_int32,
)
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    import numpy as np

CHUNK_BYTES = 2**26
"""The most bytes of a chunk, unless one document is longer."""
_TENSOR = "no_header_tensor:"
# The numbers of the types of ids in `litdata.constants`; two names of one type have a number each.
_TYPES = {11: "uint8", 12: "int8", 13: "int16", 14: "int16", 15: "int32", 16: "int32", 17: "int64", 18: "int64"}
_TYPES[20] = "uint16"


class _Chunk(TypedDict):
    """A chunk in `index.json`."""

    filename: str
    chunk_size: int


class _Index(TypedDict):
    """The file `index.json` of a folder of chunks."""

    chunks: list[_Chunk]
    config: dict[str, Any]


def _write(folder: Path, splits: list[SplitDocuments], tokenizer: str) -> None:
    import torch
    from litdata.streaming.item_loader import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    with warnings.catch_warnings():
        # A chunk of short documents exceeds its size by their offsets, and one of a long document by the document.
        warnings.filterwarnings("ignore", "An item was larger than the target chunk size")
        for split in splits:
            writer = BinaryWriter(str(folder / split.name), chunk_bytes=CHUNK_BYTES, item_loader=TokensLoader())
            written = 0
            for batch in split:
                ids = torch.from_numpy(batch.ids.copy())
                for document in ids.split(batch.lengths.tolist()):
                    writer[written] = document
                    written += 1
            writer.done()
            writer.merge(1)


def _find(path: Path) -> Path | None:
    """A folder with an `index.json` of chunks, or with chunks."""
    return path if has_index(path, "chunks", "chunk-*-*.bin") else None


def _read(folder: Path) -> StoredDocuments:
    import numpy as np

    from stochastok_cli.paths import path_inside

    index = folder / "index.json"
    content = read_index(folder, _Index)
    config = content["config"]
    if config.get("compression") or config.get("encryption"):
        raise UserError(f"{folder} is compressed or encrypted", fix="write its chunks without, to read them here")
    formats = config.get("data_format") or []
    code = formats[0].removeprefix(_TENSOR) if len(formats) == 1 and str(formats[0]).startswith(_TENSOR) else ""
    if not code.isdigit() or int(code) not in _TYPES:
        raise UserError(f"{folder} holds {', '.join(map(str, formats))}, and not one tensor of ids for each document")
    dtype = np.dtype(_TYPES[int(code)]).newbyteorder("<")
    files = [path_inside(folder, chunk["filename"]) for chunk in content["chunks"]]
    counts = [chunk["chunk_size"] for chunk in content["chunks"]]
    require_named_files(index, files)

    def batches() -> Iterator[StoredBatch]:
        for file, count in zip(files, counts, strict=True):
            yield _read_chunk(file, count, dtype)

    return StoredDocuments([index, *files], sum(counts), sum(file.stat().st_size for file in files), batches)


def _read_chunk(file: Path, count: int, dtype: "np.dtype") -> StoredBatch:
    """A chunk: the number of documents, where each begins and the last ends (uint32), and their ids."""
    import numpy as np

    size = file.stat().st_size
    head = np.fromfile(file, "<u4", count + 2).astype(np.int64)
    ends = head[1:]
    if len(head) != count + 2 or head[0] != count or ends[0] != 4 * len(head) or ends[-1] != size:
        raise damaged(file, f"it does not hold {count:,} documents in {size:,} bytes")
    sizes = np.diff(ends)
    if (sizes < 0).any() or (sizes % dtype.itemsize).any():
        raise damaged(file, f"its documents are not made of ids of the type {dtype}")
    total = size - int(ends[0])
    ids = np.memmap(file, dtype, "r", int(ends[0])) if total else np.empty(0, dtype)
    return StoredBatch(ids, sizes // dtype.itemsize)


register_format(
    Format(
        name="litdata",
        description="chunks of litgpt and Lightning, for litdata's TokensLoader",
        dtype=uint16_or_int32,
        write=_write,
        find=_find,
        read=_read,
        package="litdata",
        extra="litdata",
    )
)

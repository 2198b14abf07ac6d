"""MDS of MosaicML Streaming: `<split>/index.json` and shards of whole samples, one document a sample.

The files equal those that `streaming.MDSWriter` writes. They are written with numpy, because
`mosaicml-streaming` 0.13 can't be installed beside current versions of numpy, transformers and huggingface_hub.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from stochastok_cli.data.formats.base import (
    DocumentBatch,
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

SHARD_BYTES = 2**26
"""The most bytes of a shard, unless one document is longer: the default of `MDSWriter`."""


_COLUMNS = ("tokens", "input_ids")
"""The columns that hold ids: those of llm-foundry and of Hugging Face."""


class _File(TypedDict):
    """The file of a shard in `index.json`."""

    basename: str


class _Shard(TypedDict):
    """A shard in `index.json`."""

    format: str
    samples: int
    raw_data: _File
    compression: str | None
    column_names: list[str]
    column_encodings: list[str]
    column_sizes: list[int | None]


class _Index(TypedDict):
    """The file `index.json` of a folder of shards."""

    shards: list[_Shard]


def _write(folder: Path, splits: list[SplitDocuments], tokenizer: str) -> None:
    for split in splits:
        columns = {"tokens": f"ndarray:{split.dtype.name}"}
        if split.has_loss_mask:
            columns = {"input_ids": f"ndarray:{split.dtype.name}", "labels": "ndarray:int32"}
        writer = _ShardWriter(folder / split.name, columns)
        for batch in split:
            for sample in _samples(batch):
                writer.write(sample)
        writer.finish()


class _ShardWriter:
    """Collects samples and writes them as shards, with the sizes that `MDSWriter` gives them.

    Args:
        folder: the folder of the split, which is made.
        columns: the encoding of each column, in alphabetical order.
    """

    def __init__(self, folder: Path, columns: dict[str, str]):
        folder.mkdir()
        self._folder = folder
        self._config = {
            "version": 2,
            "format": "mds",
            "compression": None,
            "hashes": [],
            "size_limit": SHARD_BYTES,
            "column_names": [*columns],
            "column_encodings": [*columns.values()],
            "column_sizes": [None] * len(columns),
        }
        self._header = json.dumps(self._config, sort_keys=True).encode()
        self._written: list[dict[str, Any]] = []
        self._start()

    def _start(self) -> None:
        self._samples: list[bytes] = []
        self._size = 8 + len(self._header)  # the number of samples, the offset of the first, and the header

    def write(self, sample: bytes) -> None:
        size = len(sample) + 4  # with its offset
        if self._samples and self._size + size > SHARD_BYTES:
            self._flush()
        self._samples.append(sample)
        self._size += size

    def _flush(self) -> None:
        import numpy as np

        count = len(self._samples)
        offsets = np.cumsum([4 + 4 * (count + 1) + len(self._header), *map(len, self._samples)], dtype=np.int64)
        if offsets[-1] >= 2**32:
            raise UserError(f"a document has {offsets[-1]:,} bytes, and a shard of MDS holds less than 4 GiB")
        name = f"shard.{len(self._written):05}.mds"
        content = [np.uint32(count).tobytes(), offsets.astype("<u4").tobytes(), self._header, *self._samples]
        (self._folder / name).write_bytes(b"".join(content))
        raw = {"basename": name, "bytes": int(offsets[-1]), "hashes": {}}
        self._written.append({"samples": count, "raw_data": raw, "zip_data": None, **self._config})
        self._start()

    def finish(self) -> None:
        if self._samples:
            self._flush()
        index = {"version": 2, "shards": self._written}
        (self._folder / "index.json").write_text(json.dumps(index, sort_keys=True))


def _samples(batch: DocumentBatch) -> Iterator[bytes]:
    """The encoded sample of each document."""
    import numpy as np

    columns = [batch.ids]
    if batch.loss_mask is not None:
        columns.append(batch.labels())
    start = 0
    for length in batch.lengths.tolist():
        values = [_encoded(column[start : start + length]) for column in columns]
        sizes = np.array([len(value) for value in values], "<u4").tobytes()
        yield b"".join([sizes, *values])
        start += length


def _encoded(values: "np.ndarray") -> bytes:
    """An array of one axis: how many axes and how wide the length is, the length, the values."""
    length = len(values)
    if length == 0:
        raise UserError("a row of the dataset has no ids, which MDS can't hold")
    width = 0 if length < 2**8 else 1 if length < 2**16 else 2  # the length has 2 ** width bytes
    return bytes([1 << 2 | width]) + length.to_bytes(2**width, "little") + values.tobytes()


def _find(path: Path) -> Path | None:
    """A folder with an `index.json` of shards, or with shards."""
    return path if has_index(path, "shards", "shard.*.mds*") else None


def _read(folder: Path) -> StoredDocuments:
    from stochastok_cli.paths import path_inside

    index = folder / "index.json"
    entries = read_index(folder, _Index)["shards"]
    files = [path_inside(folder, shard["raw_data"]["basename"]) for shard in entries]
    for file, shard in zip(files, entries, strict=True):
        if shard["format"] != "mds":
            raise UserError(f"{index} names shards of the format {shard['format']}", fix="write them with MDSWriter")
        if not file.is_file() and shard["compression"]:
            raise UserError(f"{file} is compressed ({shard['compression']})", fix="decompress its shards")
        require_named_files(index, [file])
        _require_ids(folder, shard)

    def batches() -> Iterator[StoredBatch]:
        for file, shard in zip(files, entries, strict=True):
            yield _read_shard(file, shard)

    num_documents = sum(shard["samples"] for shard in entries)
    return StoredDocuments([index, *files], num_documents, sum(file.stat().st_size for file in files), batches)


def _require_ids(folder: Path, shard: _Shard) -> None:
    """Raises UserError if samples have more or other columns than one of ids."""
    names, encodings = shard["column_names"], shard["column_encodings"]
    if len(names) != 1 or names[0] not in _COLUMNS:
        raise UserError(
            f"the samples of {folder} have the columns {', '.join(names)}, and a corpus holds ids alone",
            fix=f"write them with one column, {' or '.join(_COLUMNS)}",
        )
    kind, *details = encodings[0].split(":")
    is_list = len(details) < 2 or details[1].isdigit()  # and no array of more axes
    if kind not in ("ndarray", "bytes") or not is_list or (details and details[0] not in _TYPES.values()):
        raise UserError(f"the column {names[0]} of {folder} is encoded as {encodings[0]}, which is no array of ids")


_TYPES = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 32: "uint32", 33: "int32", 64: "uint64", 65: "int64"}
"""The types of ids by the number before a value of the encoding `ndarray`, which names no type."""


def _read_shard(file: Path, shard: _Shard) -> StoredBatch:
    """A shard: the number of samples, where each begins and the last ends (uint32), its description, the samples."""
    import numpy as np

    content, count = file.read_bytes(), shard["samples"]
    is_whole = len(content) >= 8 + 4 * count and int.from_bytes(content[:4], "little") == count
    offsets = np.frombuffer(content[4 : 8 + 4 * count], "<u4").tolist() if is_whole else [0]
    if not is_whole or offsets[-1] != len(content) or offsets != sorted(offsets):
        raise damaged(file, f"it does not hold {count:,} samples in {len(content):,} bytes")
    head = 0 if shard["column_sizes"][0] else 4  # the size of the value
    kind, *details = shard["column_encodings"][0].split(":")
    try:
        documents = [_decoded(content[a + head : b], kind, details) for a, b in itertools.pairwise(offsets)]
    except (ValueError, KeyError, IndexError) as error:
        raise damaged(file, f"a sample is no array of ids ({error})") from None
    lengths = np.array([len(ids) for ids in documents], np.int64)
    return StoredBatch(np.concatenate(documents) if documents else np.empty(0, np.int64), lengths)


def _decoded(value: bytes, kind: str, details: list[str]) -> "np.ndarray":
    """The ids of one value; `bytes` are int64, as llm-foundry writes them. Raises ValueError for anything else."""
    import numpy as np

    if kind == "bytes":
        return np.frombuffer(value, "<i8")
    start = 0 if details else 1
    dtype = np.dtype(details[0] if details else _TYPES[value[0]]).newbyteorder("<")
    axes = 1
    if len(details) > 1:  # the encoding says the length
        length = int(details[1])
    else:
        axes, width = value[start] >> 2, 1 << (value[start] & 3)
        length = int.from_bytes(value[start + 1 : start + 1 + width], "little")
        start += 1 + width
    if axes != 1 or len(value) != start + length * dtype.itemsize:
        raise ValueError(f"{axes} axes, {len(value):,} bytes")
    return np.frombuffer(value[start:], dtype)


register_format(
    Format(
        name="mds",
        description="shards of MosaicML Streaming",
        dtype=uint16_or_int32,
        write=_write,
        find=_find,
        read=_read,
        has_loss_mask=True,
    )
)

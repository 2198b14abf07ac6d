"""MDS of MosaicML Streaming: `<split>/index.json` and shards of whole samples, one document a sample.

The files equal those that `streaming.MDSWriter` writes. They are written with numpy, because
`mosaicml-streaming` 0.13 can't be installed beside current versions of numpy, transformers and huggingface_hub.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.data.formats.base import DocumentBatch, Format, SplitDocuments, register_format, uint16_or_int32
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    import numpy as np

SHARD_BYTES = 2**26
"""The most bytes of a shard, unless one document is longer: the default of `MDSWriter`."""


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


register_format(
    Format(
        name="mds",
        description="shards of MosaicML Streaming",
        dtype=uint16_or_int32,
        write=_write,
        has_loss_mask=True,
    )
)

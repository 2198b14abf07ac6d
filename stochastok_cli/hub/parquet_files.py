"""Writes a corpus as parquet files with the columns `ids` and `len`. The batches of documents do not change a byte."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stochastok_cli.manifest import Manifest
from stochastok_cli.progress import ProgressCallback

if TYPE_CHECKING:
    import pyarrow

Documents = tuple[np.ndarray, np.ndarray]
"""A batch of documents: their ids end to end, and the length of each (int64)."""

ROW_GROUP_TOKENS = 2**22  # a reader or writer of the files has one row group in memory
SHARD_ROW_GROUPS = 32  # about 256 MiB of uint16 ids per file, which is on the disk while it is uploaded
SMALL_FILE = 16 * 2**20  # bytes; the Hub takes smaller files in the commit itself


def write_shards(
    split: str, documents: Iterable[Documents], manifest: Manifest, folder: Path, progress: ProgressCallback
) -> Iterator[tuple[str, Path | bytes]]:
    """Writes one parquet file after another; each is removed when the next one is requested.

    Args:
        split: The name of the split.
        documents: Its documents, in batches.
        manifest: That of the dataset, which has the split's size.
        folder: Where files are written.
        progress: Called with how many documents are written.

    Yields:
        The path in the repository, and the file or (if it is small) its content.
    """
    import pyarrow
    import pyarrow.parquet

    rows, tokens = manifest.splits[split].documents, manifest.splits[split].tokens or 0
    groups = min(rows, max(1, math.ceil(tokens / ROW_GROUP_TOKENS)))
    num_shards = math.ceil(groups / SHARD_ROW_GROUPS)
    ids_type = pyarrow.list_(pyarrow.from_numpy_dtype(np.dtype(manifest.dtype)))
    schema = pyarrow.schema({"ids": ids_type, "len": pyarrow.int64()})
    tables = _row_groups(documents, rows, groups, schema)
    done = 0
    for shard in range(num_shards):
        name = f"{split}-{shard:05d}-of-{num_shards:05d}.parquet"
        with pyarrow.parquet.ParquetWriter(folder / name, schema, compression="zstd") as writer:
            for _ in range(min(SHARD_ROW_GROUPS, groups - shard * SHARD_ROW_GROUPS)):
                table = next(tables)
                writer.write_table(table)
                done += len(table)
                progress(f"push {split}", done, rows)
        small = (folder / name).stat().st_size < SMALL_FILE
        yield f"data/{name}", (folder / name).read_bytes() if small else folder / name
        (folder / name).unlink()
    assert next(tables, None) is None


def _row_groups(
    documents: Iterable[Documents], rows: int, groups: int, schema: "pyarrow.Schema"
) -> Iterator["pyarrow.Table"]:
    """The documents as `groups` tables whose numbers of rows differ by one at most."""
    import pyarrow

    batches = iter(documents)
    waiting = schema.empty_table()
    for group in range(groups):
        size = rows * (group + 1) // groups - rows * group // groups
        parts, have = [waiting], len(waiting)
        while have < size:
            ids, lengths = next(batches)
            have += len(lengths)
            offsets = np.concatenate(([0], np.cumsum(lengths)), dtype=np.int32)
            lists = pyarrow.ListArray.from_arrays(offsets, ids, type=schema.field("ids").type)
            parts.append(pyarrow.table([lists, np.asarray(lengths, np.int64)], schema=schema))
        table = pyarrow.concat_tables(parts)
        yield table.slice(0, size).combine_chunks()
        waiting = table.slice(size)
    assert not len(waiting), "more documents than the manifest counts"

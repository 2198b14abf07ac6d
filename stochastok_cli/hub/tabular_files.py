"""Reads some columns of a file of a dataset: parquet files with pyarrow, the other formats as `datasets` does."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.arrow_columns import column_path
from stochastok_cli.errors import FAILED, UserError, did_you_mean, one_line

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

READ_ROWS = 256  # rows in a batch at most
_READ_BYTES = 2**22  # read at once of a column of a parquet file
_BATCH_BYTES = 2**25  # decoded at once of a parquet file, except that a row is decoded as a whole
_SMALL_GROUP = 2**22  # values of a row group that are decoded whatever their size in the file
_VALUES_PER_BYTE = 100  # text takes about a byte of a parquet file for each id


def read_parquet(file: Path, name: str, columns: Sequence[str], start: int = 0) -> Iterator["pyarrow.Table"]:
    """The rows of some columns from row `start` on; row groups before it are not read.

    The number of rows in a batch follows from their average size. A row is decoded as a whole, so its size must be
    possible for its size in the file: a few hundred bytes can encode a row of 200 million equal ids.

    Args:
        file: the file on this machine.
        name: the file as errors name it.
        columns: the columns.
        start: the row.

    Raises:
        UserError: there is no such column, or a row group holds more than 100 values for each of its bytes, and more
            than 4 million.
        pyarrow.ArrowException: the file is damaged.
    """
    import pyarrow
    from pyarrow.parquet import ParquetFile

    # `datasets` would read all columns, with a scanner whose threads may abort the process when it exits
    # (apache/arrow#45214).
    with ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False) as parquet:
        leaves = [".".join(require_column(column, parquet.schema_arrow, name)) for column in dict.fromkeys(columns)]
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if start >= rows:
                start -= rows
                continue
            batch_rows = _batch_rows(parquet, group, columns, file.stat().st_size, name)
            for batch in parquet.iter_batches(batch_rows, [group], leaves):
                if start < len(batch):
                    yield pyarrow.Table.from_batches([batch.slice(start)])
                start = max(start - len(batch), 0)


def _batch_rows(
    parquet: "pyarrow.parquet.ParquetFile", group: int, columns: Sequence[str], file_bytes: int, name: str
) -> int:
    """How many rows of a row group are decoded at once. Raises UserError if the group is too large for its bytes."""
    metadata = parquet.metadata.row_group(group)
    size = sum(_decoded_bytes(metadata, column, file_bytes, name) for column in dict.fromkeys(columns))
    return min(max(_BATCH_BYTES * metadata.num_rows // size, 1), READ_ROWS)


def _decoded_bytes(metadata: "pyarrow.parquet.RowGroupMetaData", column: str, file_bytes: int, name: str) -> int:
    """About how many bytes a column of a row group has in memory; at least 1."""
    chunks = [metadata.column(i) for i in range(metadata.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column.split(".")[0]]
    values = max((chunk.num_values for chunk in chunks), default=0)
    compressed = min(sum(chunk.total_compressed_size for chunk in chunks), file_bytes)
    if values > max(_SMALL_GROUP, _VALUES_PER_BYTE * compressed):
        raise UserError(
            f"{name} holds {values:,} values of {column!r} in {compressed:,} bytes; more than {_VALUES_PER_BYTE} a "
            "byte could fill the memory and are not decoded",
            fix="write the file with less compression if the data are right",
            exit_code=FAILED,
        )
    return max(8 * values, sum(chunk.total_uncompressed_size for chunk in chunks), 1)


def parquet_rows(file: Path) -> int:
    """The number of rows of a parquet file."""
    from pyarrow.parquet import read_metadata

    return read_metadata(file).num_rows


def read_with_datasets(
    builder: Any, split: str, files: list[Path], name: str, columns: Sequence[str]
) -> Iterator["pyarrow.Table"]:
    """The rows of some columns of files on this machine.

    `datasets` casts all rows to the columns of the first ones, and fails where later rows have one more. So the columns
    are taken out of each of its tables before it casts them.

    Args:
        builder: the `datasets.DatasetBuilder` of the dataset, which knows the format and its options.
        split: the split.
        files: the files on this machine.
        name: the files as errors name them.
        columns: the columns.

    Raises UserError if one of the columns is not there.
    """
    own = _copy(builder)
    own.config.data_files = {split: [str(file) for file in files]}
    cast = getattr(own, "_cast_table", None)
    if cast is not None:
        for known in (own.info, own.config):
            declared = getattr(known, "features", None)
            if declared is not None:
                paths = [column_path(declared.arrow_schema, column) for column in columns]
                outermost = {path[0]: declared[path[0]] for path in paths if path}
                known.features = type(declared)(outermost) if all(paths) else None

        def cast_columns(table: "pyarrow.Table", *_: Any, **__: Any) -> "pyarrow.Table":
            outermost = dict.fromkeys(require_column(column, table.schema, name)[0] for column in columns)
            return cast(table.select([*outermost]))

        own._cast_table = cast_columns
    for table in own.as_streaming_dataset(split).with_format("arrow").iter(READ_ROWS):
        for column in columns:
            require_column(column, table.schema, name)
        yield table


def schema_of_first_row(builder: Any, split: str) -> "pyarrow.Schema":
    """The columns of a split and their types as its first row tells them."""
    import pyarrow

    rows = _copy(builder).as_streaming_dataset(split).with_format("arrow").iter(1)
    return next((table.schema for table in rows), pyarrow.schema([]))


def _copy(builder: Any) -> Any:
    """A `datasets.DatasetBuilder` that can be changed; it keeps the columns that it finds in the files it reads."""
    own = copy.copy(builder)
    own.config, own.info = copy.copy(builder.config), copy.copy(builder.info)
    if hasattr(own.config, "keep_default_na"):  # separated values: texts such as "NA" and "None" are texts
        own.config.keep_default_na = False
    return own


def require_column(column: str, schema: "pyarrow.Schema", where: str, part: str = "") -> list[str]:
    """The path to a column (see `column_path`).

    Raises UserError, which names `where` and the part of it, if there is no such column.
    """
    path = column_path(schema, column)
    if path is None:
        known = [one_line(name, 100) for name in schema.names[:20]]
        raise UserError(
            f"{where} has no column {column!r}{part}{did_you_mean(column, known)}",
            fix=f"there are: {', '.join(known) or 'none'}",
        )
    return path

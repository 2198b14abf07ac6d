"""Rows of parquet and Arrow files."""

import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stochastok_cli.arrow_columns import column_path, column_values, take_column
from stochastok_cli.data.bad_documents import Location
from stochastok_cli.data.source_files import ARROW_SUFFIXES
from stochastok_cli.data.table_rows import Row, require_column
from stochastok_cli.errors import FAILED, UserError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

_BATCH_ROWS = 1000
_SMALL_CHUNK = 2**25  # bytes of a column of a row group that are decoded whatever their size in the file
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def parquet_rows(stream: BinaryIO, file: Path, name: str, columns: Mapping[str, str]) -> Iterator[tuple[Row, int]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(stream)
    except (pyarrow.ArrowException, OSError) as error:
        compressed = file.suffix.lower() != ".parquet"
        fix = "decompress it: parquet files compress their columns themselves" if compressed else ""
        raise UserError(f"{name} is no parquet file or is cut short: {error}", fix=fix, exit_code=FAILED) from None
    paths = _column_paths(columns, table.schema_arrow, name)
    as_dictionary = [path for path in map(".".join, paths) if _repeats_large_values(table, path)]
    if as_dictionary:
        table = parquet.ParquetFile(stream, read_dictionary=as_dictionary)
    size, rows = file.stat().st_size, max(table.metadata.num_rows, 1)
    batches = table.iter_batches(batch_size=_BATCH_ROWS, columns=[*map(".".join, paths)])
    for done, row in enumerate(_rows_of(batches, paths, name), 1):
        yield row, size * done // rows


def _repeats_large_values(table: "pyarrow.parquet.ParquetFile", path: str) -> bool:
    """Whether a column is compressed so much that a value of its dictionary may be too large to be held many times."""
    for group in range(table.num_row_groups):
        metadata = table.metadata.row_group(group)
        for chunk in map(metadata.column, range(metadata.num_columns)):
            size = chunk.total_uncompressed_size
            if chunk.path_in_schema == path and size > max(_SMALL_CHUNK, 100 * chunk.total_compressed_size):
                return True
    return False


def arrow_rows(raw: BinaryIO, file: Path, name: str, columns: Mapping[str, str]) -> Iterator[tuple[Row, int]]:
    """The rows of an Arrow file (also Feather), or of an Arrow stream, as `datasets` saves it."""
    import pyarrow
    import pyarrow.ipc

    size = file.stat().st_size
    if not size:
        raise UserError(f"{name} is empty: no Arrow file", exit_code=FAILED)
    if file.suffix.lower() not in ARROW_SUFFIXES:
        raise UserError(f"{name}: compressed Arrow files are not read", fix="decompress it", exit_code=FAILED)
    content = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    is_file = content[:6] == b"ARROW1"
    source = pyarrow.BufferReader(pyarrow.py_buffer(content))
    count = None
    with _arrow_damage(name):
        if is_file:
            whole = pyarrow.ipc.open_file(source)
            schema, count = whole.schema, whole.num_record_batches
        else:
            schema = pyarrow.ipc.open_stream(source).schema
            if content[-len(_END_OF_STREAM) :] != _END_OF_STREAM:
                raise OSError("it does not end where its last rows do")
    paths = _column_paths(columns, schema, name)
    wanted = sorted({schema.names.index(path[0]) for path in paths})
    with _arrow_damage(name):
        source.seek(8 if is_file else 0)  # a file is a stream between two marks; as one, no column of it is copied
        reader = pyarrow.ipc.open_stream(source, options=pyarrow.ipc.IpcReadOptions(included_fields=wanted))

    def batches() -> Iterator["pyarrow.RecordBatch"]:
        number, before = 0, 0
        for number, batch in enumerate(reader, 1):  # noqa: B007
            yield from (batch.slice(start, _BATCH_ROWS) for start in range(0, len(batch), _BATCH_ROWS))
            before = _release(content, before, source.tell())
        if count is not None and number != count:
            raise OSError(f"{number} of its {count} batches of rows can be read")

    for row in _rows_of(batches(), paths, name, validate=True):
        yield row, source.tell()


def _release(content: mmap.mmap, start: int, stop: int) -> int:
    """Frees the memory of whole pages of a mapped file, which are read again if they are needed. Returns their end."""
    stop -= stop % mmap.PAGESIZE
    if stop > start and hasattr(mmap, "MADV_DONTNEED"):
        content.madvise(mmap.MADV_DONTNEED, start, stop - start)
    return max(start, stop)


def _rows_of(
    batches: "Iterator[pyarrow.RecordBatch]", paths: Sequence[Sequence[str]], name: str, *, validate: bool = False
) -> Iterator[Row]:
    done = 0
    while True:
        with _arrow_damage(name, done):
            batch = next(batches, None)
            if batch is None:
                return
            taken = [take_column(batch, path) for path in paths]
            if validate:
                _validate(taken)
        for values in zip(*map(column_values, taken), strict=True):
            done += 1
            yield Row(Location(name, done), values)


def _validate(columns: "Iterable[pyarrow.Array]") -> None:
    """Raises ArrowInvalid for an array that would read other memory than its own. Its text may be no UTF-8."""
    import pyarrow

    for column in columns:
        try:
            column.validate(full=True)
        except pyarrow.ArrowInvalid as error:
            if "UTF8" not in str(error):
                raise


@contextmanager
def _arrow_damage(name: str, row: int | None = None) -> Iterator[None]:
    """A context that reads with pyarrow: damage is one UserError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        where = "no Arrow file or is cut short" if row is None else f"damaged after row {row}"
        raise UserError(f"{name} is {where}: {error}", exit_code=FAILED) from None


def _column_paths(columns: Mapping[str, str], schema: "pyarrow.Schema", name: str) -> list[list[str]]:
    paths = []
    for option, column in columns.items():
        path = column_path(schema, column)
        require_column(option, column, schema.names, path is not None, name)
        assert path is not None
        if (count := schema.names.count(path[0])) > 1:
            raise UserError(f"{name}: {count} columns are named {path[0]!r}", fix="rename one of them")
        paths.append(path)
    return paths

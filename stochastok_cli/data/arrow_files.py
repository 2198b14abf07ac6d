"""Rows of parquet and Arrow files."""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stochastok_cli.arrow_columns import column_path, column_values, take_column
from stochastok_cli.data.bad_documents import Location
from stochastok_cli.data.source_files import ARROW_SUFFIXES
from stochastok_cli.data.table_rows import Row, require_column
from stochastok_cli.errors import FAILED, UserError, first_line

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

_BATCH_ROWS = 1000
_SMALL_GROUP = 2**25  # bytes of a row group that are decoded whatever their size in the file
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def parquet_rows(stream: BinaryIO, file: Path, name: str, columns: Mapping[str, str]) -> Iterator[tuple[Row, int]]:
    """The rows of a Parquet file, each with how many bytes of the file are done.

    Args:
        stream: The decompressed file.
        file: The file, whose size is what there is to do.
        name: What errors call it.
        columns: The columns that are read, by the option that names them.

    Raises:
        UserError: The file is damaged, or a column is not there.
    """
    from pyarrow import parquet

    size = file.stat().st_size
    compressed = file.suffix.lower() != ".parquet"
    fix = "decompress it: parquet files compress their columns themselves" if compressed else ""
    with _damage(name, "no parquet file or is cut short", fix):
        table = parquet.ParquetFile(stream)
        paths = _column_paths(columns, table.schema_arrow, name)
        leaves = [*map(".".join, paths)]
        if _repeats_large_values(table, size):
            table = parquet.ParquetFile(stream, read_dictionary=leaves)
    rows = max(table.metadata.num_rows, 1)
    batches = table.iter_batches(batch_size=_BATCH_ROWS, columns=leaves)
    for done, row in enumerate(_rows_of(batches, paths, name), 1):
        yield row, size * done // rows


def _repeats_large_values(table: "pyarrow.parquet.ParquetFile", size: int) -> bool:
    """Whether a file of so many bytes holds so much that a value of a dictionary may be too large to be held often.

    What its columns hold is not asked for: pyarrow ends the process where that part of a file is damaged.
    """
    groups = [table.metadata.row_group(group).total_byte_size for group in range(table.num_row_groups)]
    return max(groups, default=0) > max(_SMALL_GROUP, 100 * size // max(len(groups), 1))


def arrow_rows(raw: BinaryIO, file: Path, name: str, columns: Mapping[str, str]) -> Iterator[tuple[Row, int]]:
    """The rows of an Arrow file (also Feather), or of an Arrow stream, as `datasets` saves it.

    The arguments and the result are those of `parquet_rows`, but `raw` is the file as it is.
    """
    import pyarrow
    import pyarrow.ipc

    size = file.stat().st_size
    if not size:
        raise UserError(f"{name} is empty: no Arrow file", exit_code=FAILED)
    if file.suffix.lower() not in ARROW_SUFFIXES:
        raise UserError(f"{name}: compressed Arrow files are not read", fix="decompress it", exit_code=FAILED)
    content = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    if content[:4] == b"FEA1":
        fix = "write it again: pyarrow.feather.write_feather(pyarrow.feather.read_table(OLD), NEW)"
        raise UserError(f"{name} is a Feather file of version 1, which is not read", fix=fix, exit_code=FAILED)
    is_file = content[:6] == b"ARROW1"
    source = pyarrow.BufferReader(pyarrow.py_buffer(content))
    count = None
    with _damage(name, "no Arrow file or is cut short"):
        if is_file:
            whole = pyarrow.ipc.open_file(source)
            schema, count = whole.schema, whole.num_record_batches
        else:
            schema = pyarrow.ipc.open_stream(source).schema
            if content[-len(_END_OF_STREAM) :] != _END_OF_STREAM:
                raise OSError("it does not end where its last rows do")
        paths = _column_paths(columns, schema, name)
        wanted = sorted({schema.names.index(path[0]) for path in paths})
        source.seek(8 if is_file else 0)  # a file is a stream between two marks; as one, no column of it is copied
        reader = pyarrow.ipc.open_stream(source, options=pyarrow.ipc.IpcReadOptions(included_fields=wanted))

    def batches() -> Iterator["pyarrow.RecordBatch"]:
        number, before = 0, 0
        for number, batch in enumerate(reader, 1):  # noqa: B007
            batch.validate()  # before it is cut: a negative length would end the process
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
        with _damage(name, f"damaged after row {done}"):
            batch = next(batches, None)
            if batch is None:
                return
            taken = [take_column(batch, path) for path in paths]
            for column in taken if validate else ():
                _validate(column)
            for values in zip(*map(column_values, taken), strict=True):
                done += 1
                yield Row(Location(name, done), values)


def _validate(column: "pyarrow.Array") -> None:
    """Raises ArrowInvalid for an array that would read other memory than its own. Its text may be no UTF-8."""
    import pyarrow

    try:
        column.validate(full=True)
    except pyarrow.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        column.view(_of_bytes(column.type)).validate(full=True)  # the first error hides those of other parts


def _of_bytes(kind: "pyarrow.DataType") -> "pyarrow.DataType":
    """A type with bytes in the place of text."""
    import pyarrow
    from pyarrow import types

    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_of_bytes(field.type)) for field in kind])
    if types.is_list(kind):
        return pyarrow.list_(kind.value_field.with_type(_of_bytes(kind.value_type)))
    if types.is_large_list(kind):
        return pyarrow.large_list(kind.value_field.with_type(_of_bytes(kind.value_type)))
    bytes_of = {
        pyarrow.string(): pyarrow.binary(),
        pyarrow.large_string(): pyarrow.large_binary(),
        pyarrow.string_view(): pyarrow.binary_view(),
    }
    return bytes_of.get(kind, kind)


@contextmanager
def _damage(name: str, state: str, fix: str = "") -> Iterator[None]:
    """A context that reads with pyarrow: damage, in names of columns too, is one UserError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, LookupError) as error:
        raise UserError(f"{name} is {state}: {first_line(error)}", fix=fix, exit_code=FAILED) from None


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

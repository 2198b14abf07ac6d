"""A saved `datasets.DatasetDict`, which Hugging Face's Trainer, LLaMA-Factory and axolotl read.

Each document is a row with `input_ids` (int32, as tokenizers give them). Questions and conversations have `labels` too:
the ids that have a loss, and -100 elsewhere. The split `val` is called `validation`, as these programs expect it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from stochastok_cli.data.formats.base import (
    Format,
    SplitDocuments,
    StoredBatch,
    StoredDocuments,
    damaged,
    register_format,
)
from stochastok_cli.errors import UserError
from stochastok_cli.manifest import file_checksum
from stochastok_cli.quiet_libraries import quiet

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import pyarrow as pa

_SPLIT_NAMES = {"val": "validation"}


def _write(folder: Path, splits: list[SplitDocuments], tokenizer: str) -> None:
    import datasets

    written = {split.name: folder / f".{split.name}.arrow" for split in splits}
    with quiet("datasets"):
        for split in splits:
            _write_table(written[split.name], split)
        tables = {_SPLIT_NAMES.get(name, name): _open(file) for name, file in written.items()}
        datasets.DatasetDict(tables).save_to_disk(folder)
    for file in written.values():
        file.unlink()


def _write_table(file: Path, split: SplitDocuments) -> None:
    """Writes a split as one Arrow stream, of which `datasets` makes the files of a saved dataset."""
    import pyarrow as pa

    from stochastok_cli.data.arrow_datasets import list_column

    names = ["input_ids", "labels"] if split.has_loss_mask else ["input_ids"]
    schema = pa.schema([(name, pa.list_(pa.int32())) for name in names])
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, schema) as stream:
        for batch in split:
            columns = [list_column(batch.ids, batch.lengths)]
            if batch.loss_mask is not None:
                columns.append(list_column(batch.labels(), batch.lengths))
            stream.write_batch(pa.record_batch(columns, schema=schema))


def _open(file: Path) -> "datasets.Dataset":
    """The dataset of an Arrow stream, not loaded into memory. Its fingerprint, which is saved, is of its content."""
    import datasets
    from datasets.table import MemoryMappedTable

    return datasets.Dataset(MemoryMappedTable.from_file(str(file)), fingerprint=str(file_checksum(file).sha256)[:16])


class _Info(TypedDict):
    """The file `dataset_info.json` of a saved dataset."""

    features: dict[str, Any] | None


def _find(path: Path) -> Path | None:
    """A folder of a saved `datasets.Dataset` with a column `input_ids`."""
    from stochastok_cli.json_files import read_json

    info = path / "dataset_info.json"
    if not info.is_file() or not (path / "state.json").is_file():
        return None
    return path if "input_ids" in (read_json(info, _Info)["features"] or {}) else None


def _read(folder: Path) -> StoredDocuments:
    from stochastok_cli.data.arrow_datasets import SAVED_METADATA, saved_files
    from stochastok_cli.json_files import read_json

    names = read_json(folder / "dataset_info.json", _Info)["features"] or {}
    other = sorted({*names} - {"input_ids", *_REDUNDANT})
    if other:
        raise UserError(
            f"{folder} has the column{'s' if len(other) > 1 else ''} {', '.join(other)} beside input_ids, and a corpus "
            "holds ids alone",
            fix="remove_columns, or expand it with stochastok_cli.integrations.transformers.MapExamples",
        )
    files = [folder / name for name in sorted(saved_files(folder))]
    num_rows = sum(batch.num_rows for file in files for batch in _record_batches(file))

    def batches() -> Iterator[StoredBatch]:
        for file in files:
            for batch in _record_batches(file):
                yield _stored_batch(batch, file)

    metadata = [folder / name for name in SAVED_METADATA]
    num_bytes = sum(file.stat().st_size for file in files) if num_rows else 0
    return StoredDocuments([*metadata, *files], num_rows, num_bytes, batches)


_REDUNDANT = ("attention_mask", "labels")
"""Columns that tokenizers and collators add, which are read where they say that every id counts."""


def _record_batches(file: Path) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            yield from stream
    except (pa.ArrowInvalid, OSError) as error:
        raise damaged(file, str(error).splitlines()[0]) from None


def _stored_batch(batch: "pa.RecordBatch", file: Path) -> StoredBatch:
    ids, lengths = _lists(batch, "input_ids", file)
    for name in _REDUNDANT:
        if name not in batch.schema.names:
            continue
        values, sizes = _lists(batch, name, file)
        expected = ids if name == "labels" else 1
        if not (sizes == lengths).all() or not (values == expected).all():
            raise UserError(
                f"{name} of {file.parent} leaves ids out, and a corpus can't hold that",
                fix=f"remove_columns({name!r}) if all ids are text to train on, or expand it with MapExamples",
            )
    return StoredBatch(ids, lengths)


def _lists(batch: "pa.RecordBatch", name: str, file: Path) -> "tuple[np.ndarray, np.ndarray]":
    """The numbers of a column of lists, and the length of each list (int64)."""
    import numpy as np
    import pyarrow as pa

    if name not in batch.schema.names:
        raise damaged(file, f"it has no column {name}, which dataset_info.json names")
    column = batch.column(name)
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    if not is_list or not pa.types.is_integer(column.type.value_type):
        raise UserError(f"the column {name} of {file.parent} holds {column.type}, and not lists of ids")
    values = column.flatten()
    if column.null_count or values.null_count:
        raise UserError(f"the column {name} of {file.parent} has rows or ids that are null", fix="filter them out")
    return values.to_numpy(), column.value_lengths().to_numpy().astype(np.int64)


register_format(
    Format(
        name="arrow",
        description="a saved datasets.DatasetDict of Hugging Face, LLaMA-Factory and axolotl",
        dtype=lambda vocabulary_size: "int32",
        write=_write,
        find=_find,
        read=_read,
        has_loss_mask=True,
    )
)

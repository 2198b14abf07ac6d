"""A saved `datasets.DatasetDict`, which Hugging Face's Trainer, LLaMA-Factory and axolotl read.

Each document is a row with `input_ids` (int32, as tokenizers give them). Questions and conversations have `labels` too:
the ids that have a loss, and -100 elsewhere. The split `val` is called `validation`, as these programs expect it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from stochastok_cli.artifacts import file_checksum
from stochastok_cli.data.formats.base import Format, SplitDocuments, register_format

if TYPE_CHECKING:
    import datasets

_SPLIT_NAMES = {"val": "validation"}


def _write(folder: Path, splits: list[SplitDocuments], tokenizer: str) -> None:
    import datasets

    from stochastok_cli.data.arrow_datasets import no_progress_bars

    written = {split.name: folder / f".{split.name}.arrow" for split in splits}
    with no_progress_bars():
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


register_format(
    Format(
        name="arrow",
        description="a saved datasets.DatasetDict of Hugging Face, LLaMA-Factory and axolotl",
        dtype=lambda vocabulary_size: "int32",
        write=_write,
        has_loss_mask=True,
    )
)

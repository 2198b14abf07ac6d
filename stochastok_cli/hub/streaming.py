"""Streams token ids and texts of datasets on the Hub.

A repository is pinned to a commit, and its splits and columns are checked, before anything is read.
"""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stochastok_cli.artifacts import MANIFEST, Manifest
from stochastok_cli.errors import UserError, did_you_mean
from stochastok_cli.hub.client import hub_errors, import_datasets, retry
from stochastok_cli.hub.locate import explain_value_error, license_in, locate_dataset
from stochastok_cli.hub.parquet_files import Documents
from stochastok_cli.json_files import parse_json

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

READ_ROWS = 256  # rows in a batch
READ_BYTES = 2**22  # read at once of a column of a parquet file


class HubDataset:
    """A dataset on the Hub, pinned to a commit and read in batches of rows.

    Args:
        repo: the dataset repository.
        revision: the SHA of the commit.
        license: as its card states it.
        manifest: its manifest, if the repository has one that this package wrote.
        builder: the `datasets.DatasetBuilder` that maps splits to files.
    """

    def __init__(self, repo: str, revision: str, license: str | None, manifest: Manifest | None, builder: Any):
        self.repo = repo
        self.revision = revision
        self.license = license
        self.manifest = manifest
        self._builder = builder

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(map(str, self._builder.config.data_files))

    def num_rows(self, split: str) -> int | None:
        """The number of rows of a split, if it is known before they are read."""
        known = self._builder.info.splits
        if known and split in known:
            return known[split].num_examples
        recorded = self.manifest.splits.get(split) if self.manifest else None
        return recorded.documents if recorded else None

    def schema(self, split: str) -> "pyarrow.Schema":
        """The columns of a split and their types, from its first file or rows."""
        import pyarrow

        with hub_errors(self.repo):
            for file in self._parquet_files(split):
                return file.schema_arrow
            return next((table.schema for table in self._tables(split, None)), pyarrow.schema([]))

    def ids(self, split: str, start: int = 0) -> Iterator[Documents]:
        """The documents in the column `ids` from row `start` on, in batches, with the dtype of the files."""
        import pyarrow.compute

        row = start
        for table in self._tables(split, "ids", start):
            for chunk in table["ids"].chunks:
                if chunk.null_count or chunk.flatten().null_count:
                    raise UserError(f"{self.repo}: ids are missing in rows {row} to {row + len(chunk)} of {split}")
                lengths = pyarrow.compute.list_value_length(chunk).to_numpy(zero_copy_only=False)
                yield chunk.flatten().to_numpy(), lengths.astype(np.int64)
                row += len(chunk)

    def texts(self, split: str, column: str) -> Iterator[list[str]]:
        """The texts of a column, in batches."""
        row = 0
        for table in self._tables(split, column):
            if table[column].null_count:
                row += table[column].to_pylist().index(None)
                raise UserError(f"{self.repo}: row {row} of {split} holds no text in {column!r}")
            yield table[column].to_pylist()
            row += len(table)

    def _tables(self, split: str, column: str | None, start: int = 0) -> Iterator["pyarrow.Table"]:
        """The rows of a split from row `start` on, of one column or of all."""
        columns = None if column is None else [column]
        with hub_errors(self.repo):
            if self._is_parquet(split):
                # `datasets` would read all columns, with a scanner whose threads may abort the process when it exits
                # (apache/arrow#45214).
                for file in self._parquet_files(split):
                    yield from _rows_from(file, start, columns)
                    start = max(start - file.metadata.num_rows, 0)
            else:
                dataset = self._builder.as_streaming_dataset(split).skip(start)
                dataset = dataset if columns is None else dataset.select_columns(columns)
                yield from dataset.with_format("arrow").iter(READ_ROWS)

    def _is_parquet(self, split: str) -> bool:
        return all(str(file).endswith(".parquet") for file in self._builder.config.data_files[split])

    def _parquet_files(self, split: str) -> Iterator["pyarrow.parquet.ParquetFile"]:
        """The open parquet files of a split one after another; none if it has files of another format."""
        from huggingface_hub import HfFileSystem
        from pyarrow.parquet import ParquetFile

        for url in self._builder.config.data_files[split] if self._is_parquet(split) else []:
            with HfFileSystem().open(str(url)) as file:
                yield ParquetFile(_RetryingFile(file), buffer_size=READ_BYTES, pre_buffer=False)


class TextRows(NamedTuple):
    """The texts of one column.

    Args:
        batches: starts the iteration over them, in batches.
        total: the number of texts; 0 where it is unknown.
        revision: the SHA of the commit.
    """

    batches: Callable[[], Iterator[list[str]]]
    total: int
    revision: str


def stream_ids(repo: str, revision: str | None = None, subset: str | None = None) -> HubDataset:
    """Opens a tokenized dataset: each of its splits has a column `ids` of lists of integers.

    Raises UserError if a split has no such column (exit code 2), or if the Hub can't be reached or refuses the request
    (exit code 1).
    """
    import pyarrow.types as kinds

    dataset = _open(repo, revision, subset)
    for split in dataset.splits:
        kind = _column(dataset, split, "ids").type
        is_list = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
        if not (is_list and kinds.is_integer(kind.value_type)):
            raise UserError(f"column 'ids' of {repo} ({split}) holds {kind}, not lists of token ids")
    return dataset


def load_text_dataset(repo: str, column: str = "text", *, subset: str | None = None, split: str = "train") -> TextRows:
    """Opens the texts of a split and column, without reading them yet.

    Raises UserError if there is no such split or no such column of text.
    """
    import pyarrow.types as kinds

    dataset = _open(repo, None, subset)
    if split not in dataset.splits:
        known = ", ".join(dataset.splits)
        raise UserError(
            f"{repo} has no split {split!r}{did_you_mean(split, dataset.splits)}", fix=f"there are: {known}"
        )
    kind = _column(dataset, split, column).type
    if not (kinds.is_string(kind) or kinds.is_large_string(kind)):
        raise UserError(f"column {column!r} of {repo} holds {kind}, not text")
    return TextRows(lambda: dataset.texts(split, column), dataset.num_rows(split) or 0, dataset.revision)


def _open(repo: str, revision: str | None, subset: str | None = None) -> HubDataset:
    with hub_errors(repo, revision):
        from huggingface_hub import hf_hub_download

        info, arguments = locate_dataset(repo, revision, subset)
        manifest = None
        if any(file.rfilename == MANIFEST for file in info.siblings or []):
            file = retry(lambda: hf_hub_download(repo, MANIFEST, repo_type="dataset", revision=info.sha))
            manifest = _our_manifest(Path(file).read_bytes())
        load = import_datasets().load_dataset_builder
        builder = retry(lambda: explain_value_error(repo, lambda: load(repo, **arguments)))
        return HubDataset(repo, info.sha, license_in(info), manifest, builder)


def _our_manifest(content: bytes) -> Manifest | None:
    """The manifest in a repository's `manifest.json`; None if the file is of another kind."""
    try:
        manifest = Manifest.from_json(parse_json(content, MANIFEST))
    except UserError:
        return None
    return manifest if manifest.splits and manifest.tokenizer else None


def _column(dataset: HubDataset, split: str, name: str) -> "pyarrow.Field":
    schema = dataset.schema(split)
    if name not in schema.names:
        raise UserError(
            f"{dataset.repo} has no column {name!r} in {split}{did_you_mean(name, schema.names)}",
            fix=f"there are: {', '.join(schema.names) or 'none'}",
        )
    return schema.field(name)


def _rows_from(file: "pyarrow.parquet.ParquetFile", start: int, columns: list[str] | None) -> Iterator["pyarrow.Table"]:
    """The rows of a parquet file from row `start` on; row groups before it are not read."""
    import pyarrow

    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    groups = np.flatnonzero(ends > start).tolist()
    if not groups:
        return
    start -= int(ends[groups[0] - 1]) if groups[0] else 0
    for batch in file.iter_batches(READ_ROWS, groups, columns):
        if start < len(batch):
            yield pyarrow.Table.from_batches([batch.slice(start)])
        start = max(start - len(batch), 0)


class _RetryingFile(io.RawIOBase):
    """A remote file whose reads are repeated while the Hub is overloaded, so that a download of hours goes on."""

    def __init__(self, file: Any):
        self._file = file

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        position = self._file.tell()

        def read() -> bytes:
            self._file.seek(position)
            return self._file.read(len(buffer))

        data = retry(read)
        buffer[: len(data)] = data
        return len(data)

"""Streams token ids and texts of datasets on the Hub.

A repository is pinned to a commit, and its splits and columns are checked, before anything is read. Files are
downloaded one after another, compared with their checksums, read and removed.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stochastok_cli.arrow_columns import column_type, column_values, take_column
from stochastok_cli.errors import UserError, did_you_mean, one_line
from stochastok_cli.hub.client import hub_errors, retry
from stochastok_cli.hub.data_files import DataFiles, paths_in_repo, unread_paths
from stochastok_cli.hub.locate import explain_value_error, license_in, locate_dataset
from stochastok_cli.hub.parquet_files import Documents
from stochastok_cli.hub.tabular_files import (
    parquet_rows,
    read_parquet,
    read_with_datasets,
    require_column,
    schema_of_first_row,
)
from stochastok_cli.hub.temporary import temporary_folder
from stochastok_cli.json_files import parse_json
from stochastok_cli.manifest import MANIFEST, Manifest, NewerFormatError
from stochastok_cli.quiet_libraries import quiet

if TYPE_CHECKING:
    import pyarrow

READ_BYTES = 2**20  # read at once of the end of a parquet file, which holds its schema
ONE_BY_ONE = ("parquet", "json", "csv", "text", "arrow")  # formats of `datasets` in which a file stands for itself


class HubDataset:
    """A dataset on the Hub, pinned to a commit and read in batches of rows.

    Args:
        repo: the dataset repository.
        revision: the SHA of the commit.
        license: as its card states it.
        manifest: its manifest, if the repository has one that this package wrote.
        builder: the `datasets.DatasetBuilder` that maps splits to files.
        unread: the files of the repository that belong to no subset of the dataset.
    """

    def __init__(
        self,
        repo: str,
        revision: str,
        license: str | None,
        manifest: Manifest | None,
        builder: Any,
        unread: Sequence[str] = (),
    ):
        self.repo = repo
        self.revision = revision
        self.license = license
        self.manifest = manifest
        self.unread = unread
        self._builder = builder

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(map(str, self._builder.config.data_files))

    def num_rows(self, split: str) -> int | None:
        """The number of rows of a split, if it is known before they are read."""
        known = self._builder.info.splits
        if known and split in known:
            rows = known[split].num_examples
            return rows if type(rows) is int and rows >= 0 else None
        recorded = self.manifest.splits.get(split) if self.manifest else None
        return recorded.documents if recorded else None

    def schema(self, split: str) -> "pyarrow.Schema":
        """The columns of a split and their types, from its first file or row."""
        urls = self._builder.config.data_files[split]
        with hub_errors(self.repo):
            if _all_end_with(urls, ".parquet"):
                from huggingface_hub import HfFileSystem
                from pyarrow.parquet import ParquetFile

                with HfFileSystem().open(str(urls[0])) as file:
                    return ParquetFile(_RetryingFile(file), buffer_size=READ_BYTES, pre_buffer=False).schema_arrow
            return schema_of_first_row(self._builder, split)

    def ids(self, split: str, start: int = 0, folder: Path | None = None) -> Iterator[Documents]:
        """The documents in the column `ids` from row `start` on, in batches, with the integer type of the files.

        Args:
            split: the split.
            start: the row.
            folder: where the files lie while they are read. With the same folder, an interrupted download is continued.

        Raises UserError if ids are missing or no integers, or if a file is damaged (exit code 1).
        """
        import pyarrow.compute

        row = start
        for name, table in self._tables(split, ["ids"], start, folder):
            _require_ids(table.schema.field("ids").type, name)
            for chunk in table["ids"].chunks:
                if chunk.null_count or chunk.flatten().null_count:
                    raise UserError(f"{name}: ids are missing in rows {row} to {row + len(chunk)} of {split}")
                lengths = pyarrow.compute.list_value_length(chunk).to_numpy(zero_copy_only=False)
                nothing = pyarrow.types.is_null(chunk.type.value_type)  # a JSON file whose lists are all empty
                ids = np.empty(0, np.int64) if nothing else chunk.flatten().to_numpy()
                yield ids, lengths.astype(np.int64)
                row += len(chunk)

    def values(self, split: str, columns: Sequence[str]) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The values of some columns, a tuple for each row, with the file of the row as errors name it."""
        for name, table in self._tables(split, columns):
            paths = [require_column(column, table.schema, name) for column in columns]
            for values in zip(*(column_values(take_column(table, path)) for path in paths), strict=True):
                yield name, values

    def texts(self, split: str, column: str) -> Iterator[tuple[str, tuple[Any]]]:
        """The values of a column of text, as `values` gives them. Single ones may be missing, or may not be UTF-8.

        Raises UserError for a file whose column is of another type.
        """
        for name, table in self._tables(split, [column]):
            path = require_column(column, table.schema, name)
            _require_text(column_type(table.schema, path), column, name)
            for value in column_values(take_column(table, path)):
                yield name, (value,)

    def is_text(self, split: str) -> bool:
        """Whether the files of a split are `.txt` files, compressed or not.

        Raises UserError for archives of them.
        """
        if not type(self._builder).__module__.endswith(".text"):
            return False
        for url in self._builder.config.data_files[split]:
            if not re.search(r"\.txt(\.(gz|bz2|xz|zst))?$", str(url), re.IGNORECASE):
                raise UserError(
                    f"{self.repo} holds text files in an archive", fix="download and unpack it, and name that"
                )
        return True

    def num_bytes(self, split: str) -> int:
        """The size of all files of a split."""
        with hub_errors(self.repo):
            return self._files(split, Path()).num_bytes()

    def text_files(self, split: str) -> Iterator[tuple[str, Path]]:
        """The files of a split one after another: the path in the repository, and the file on this machine."""
        with hub_errors(self.repo), temporary_folder() as folder:
            files = self._files(split, folder)
            for path in files.paths:
                with files.download([path]) as [local]:
                    yield path, local

    def _files(self, split: str, folder: Path) -> DataFiles:
        paths = paths_in_repo(self.repo, self.revision, self._builder.config.data_files[split])
        return DataFiles(self.repo, self.revision, paths, folder)

    def _tables(
        self, split: str, columns: Sequence[str], start: int = 0, folder: Path | None = None
    ) -> Iterator[tuple[str, "pyarrow.Table"]]:
        """The rows of some columns from row `start` on, in tables, each with its file as errors name it."""
        with hub_errors(self.repo), nullcontext(folder) if folder else temporary_folder() as folder:
            files = self._files(split, folder)
            one_by_one = type(self._builder).__module__.rpartition(".")[2] in ONE_BY_ONE
            for paths in [[path] for path in files.paths] if one_by_one else [files.paths]:
                num_rows = files.num_rows(paths[0])
                if num_rows is not None and num_rows <= start:
                    start -= num_rows
                    continue
                name = f"{one_line(paths[0]) if one_by_one else 'a file'} of {self.repo}"
                row = 0
                with files.download(paths) as local:
                    if _all_end_with(paths, ".parquet"):
                        row = min(start, parquet_rows(local[0]))
                        tables = read_parquet(local[0], name, columns, start)
                    else:
                        tables = read_with_datasets(self._builder, split, local, name, columns)
                    for table in tables:
                        row += len(table)
                        if row > start:
                            yield name, table.slice(max(start - (row - len(table)), 0))
                files.record_rows(paths[0], row)
                start = max(start - row, 0)


class TextRows(NamedTuple):
    """The texts of a split: those of a column, or those in `.txt` files.

    Args:
        rows: starts the iteration over the values of the column, as `HubDataset.texts` gives them; None for text files.
        files: starts the iteration over the text files, each as its path in the repository and the file on this
            machine; None for columns.
        total: the number of texts, or of bytes of the files; 0 where it is unknown.
        revision: the SHA of the commit.
        license: as the card of that commit states it.
        unread: the files of the repository that belong to no subset of the dataset.
    """

    rows: Callable[[], Iterator[tuple[str, tuple[Any]]]] | None
    files: Callable[[], Iterator[tuple[str, Path]]] | None
    total: int
    revision: str
    license: str | None
    unread: Sequence[str]


class RowValues(NamedTuple):
    """The values of some columns.

    Args:
        rows: starts the iteration over them, as `HubDataset.values` gives them.
        total: the number of rows; 0 where it is unknown.
        revision: the SHA of the commit.
        license: as the card of that commit states it.
        unread: the files of the repository that belong to no subset of the dataset.
    """

    rows: Callable[[], Iterator[tuple[str, tuple[Any, ...]]]]
    total: int
    revision: str
    license: str | None
    unread: Sequence[str]


def stream_ids(repo: str, revision: str | None = None, subset: str | None = None) -> HubDataset:
    """Opens a tokenized dataset: each of its splits has a column `ids` of lists of integers.

    Raises UserError if a split has no such column (exit code 2), or if the Hub can't be reached or refuses the request
    (exit code 1).
    """
    dataset = _open(repo, revision, subset)
    for split in dataset.splits:
        _require_ids(_column(dataset, split, "ids"), f"{repo} ({split})")
    return dataset


def load_text_dataset(repo: str, column: str = "text", *, subset: str | None = None, split: str = "train") -> TextRows:
    """Opens the texts of a split and column, without reading them yet.

    Raises UserError if there is no such split or no such column of text.
    """
    dataset = _open_split(repo, subset, split)
    if dataset.is_text(split):
        import pyarrow

        require_column(column, pyarrow.schema({"text": pyarrow.string()}), repo, f" in {split}")
        size = dataset.num_bytes(split)
        files = partial(dataset.text_files, split)
        return TextRows(None, files, size, dataset.revision, dataset.license, dataset.unread)
    _require_text(_column(dataset, split, column), column, repo)
    size = dataset.num_rows(split) or 0
    return TextRows(lambda: dataset.texts(split, column), None, size, dataset.revision, dataset.license, dataset.unread)


def load_columns(repo: str, columns: Sequence[str], *, subset: str | None = None, split: str = "train") -> RowValues:
    """Opens some columns of a split, whatever they hold, without reading them yet.

    Raises UserError if there is no such split or column.
    """
    dataset = _open_split(repo, subset, split)
    for column in columns:
        _column(dataset, split, column)
    size = dataset.num_rows(split) or 0
    return RowValues(lambda: dataset.values(split, columns), size, dataset.revision, dataset.license, dataset.unread)


def _open_split(repo: str, subset: str | None, split: str) -> HubDataset:
    """Opens a dataset. Raises UserError if it has no such split."""
    dataset = _open(repo, None, subset)
    if split not in dataset.splits:
        known = ", ".join(dataset.splits)
        raise UserError(
            f"{repo} has no split {split!r}{did_you_mean(split, dataset.splits)}", fix=f"there are: {known}"
        )
    return dataset


def _open(repo: str, revision: str | None, subset: str | None = None) -> HubDataset:
    with hub_errors(repo, revision):
        from huggingface_hub import hf_hub_download

        info, arguments = locate_dataset(repo, revision, subset)
        manifest = None
        if any(file.rfilename == MANIFEST for file in info.siblings or []):
            file = retry(lambda: hf_hub_download(repo, MANIFEST, repo_type="dataset", revision=info.sha))
            manifest = _our_manifest(Path(file).read_bytes(), f"{MANIFEST} of {repo}")
        with quiet("datasets"):
            from datasets import load_dataset_builder

            builder = retry(lambda: explain_value_error(repo, lambda: load_dataset_builder(repo, **arguments)))
        for urls in builder.config.data_files.values():
            paths_in_repo(repo, info.sha, urls)
        listed = [file.rfilename for file in info.siblings or []]
        unread = unread_paths(repo, info.sha, listed, builder, arguments.get("data_dir", ""))
        return HubDataset(repo, info.sha, license_in(info), manifest, builder, unread)


def _our_manifest(content: bytes, source: str) -> Manifest | None:
    """The manifest in a repository's `manifest.json`; None if the file is of another kind.

    Raises NewerFormatError for one of a later version, since the ids may have another layout.
    """
    try:
        manifest = Manifest.from_json(parse_json(content, source), source)
    except NewerFormatError:
        raise
    except UserError:
        return None
    return manifest if manifest.splits and manifest.tokenizer else None


def _column(dataset: HubDataset, split: str, name: str) -> "pyarrow.DataType":
    """The type of a column. Raises UserError if there is no such column."""
    schema = dataset.schema(split)
    return column_type(schema, require_column(name, schema, dataset.repo, f" in {split}"))


def _require_ids(kind: "pyarrow.DataType", where: str) -> None:
    import pyarrow.types as kinds

    is_list = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
    # A file of nothing but missing or empty lists has the type null there; missing ones are reported with their rows.
    if not ((is_list and (kinds.is_integer(kind.value_type) or kinds.is_null(kind.value_type))) or kinds.is_null(kind)):
        raise UserError(f"column 'ids' of {where} holds {kind}, not lists of token ids")


def _require_text(kind: "pyarrow.DataType", column: str, where: str) -> None:
    import pyarrow.types as kinds

    is_text = kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)
    is_bytes = kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind)
    if not (is_text or is_bytes or kinds.is_null(kind)):
        raise UserError(f"column {column!r} of {where} holds {kind}, not text")


def _all_end_with(names: Iterable[Any], suffix: str) -> bool:
    return all(str(name).endswith(suffix) for name in names)


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

"""From the Hub: token ids and texts as they stream in, and small tables of questions.

A repository is pinned to a commit, and what is wanted of it checked, before anything is read.
"""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stochastok_cli.artifacts import MANIFEST, Manifest
from stochastok_cli.errors import UserError, did_you_mean
from stochastok_cli.hub.client import Result, hub_errors, import_datasets, none_if_unreachable, retry
from stochastok_cli.hub.parquet_files import Documents

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

READ_ROWS = 256  # rows taken at once
READ_BYTES = 2**22  # of a column of a parquet file
CONVERTED = "refs/convert/parquet"  # the revision where the Hub keeps what a repository's script made of its files


class HubDataset:
    """A dataset on the Hub, pinned to a commit and read in batches of rows as it streams in.

    `builder` is the `datasets.DatasetBuilder` that knows which files are which split.
    """

    def __init__(self, repo: str, revision: str, license: str | None, manifest: Manifest | None, builder: Any):
        self.repo = repo
        self.revision = revision  # the commit's sha
        self.license = license  # as its card states it
        self.manifest = manifest  # ours, where the repository carries one
        self._builder = builder

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(map(str, self._builder.config.data_files))

    def num_rows(self, split: str) -> int | None:
        """How many rows the split has, where that is known before reading them."""
        known = self._builder.info.splits
        if known and split in known:
            return known[split].num_examples
        recorded = self.manifest.splits.get(split) if self.manifest else None
        return recorded.documents if recorded else None

    def schema(self, split: str) -> "pyarrow.Schema":
        """The columns of a split and their types, from its first file or rows."""
        import pyarrow

        with hub_errors(self.repo):
            for file in self._parquet(split):
                return file.schema_arrow
            return next((table.schema for table in self._tables(split, None)), pyarrow.schema([]))

    def ids(self, split: str, start: int = 0) -> Iterator[Documents]:
        """The documents of column `ids` from row `start` on, some hundred at a time, in the type they are stored in."""
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
        """The texts of a column, some hundred at a time."""
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
                # `datasets` would read all columns, and by a scanner whose threads may abort the process when it
                # exits (apache/arrow#45214).
                for file in self._parquet(split):
                    yield from _rows_from(file, start, columns)
                    start = max(start - file.metadata.num_rows, 0)
            else:
                dataset = self._builder.as_streaming_dataset(split).skip(start)
                dataset = dataset if columns is None else dataset.select_columns(columns)
                yield from dataset.with_format("arrow").iter(READ_ROWS)

    def _is_parquet(self, split: str) -> bool:
        return all(str(file).endswith(".parquet") for file in self._builder.config.data_files[split])

    def _parquet(self, split: str) -> Iterator["pyarrow.parquet.ParquetFile"]:
        """The parquet files of a split one after another; none if it is kept in another format."""
        from huggingface_hub import HfFileSystem
        from pyarrow.parquet import ParquetFile

        for url in self._builder.config.data_files[split] if self._is_parquet(split) else []:
            with HfFileSystem().open(str(url)) as file:
                yield ParquetFile(_PatientFile(file), buffer_size=READ_BYTES, pre_buffer=False)


def _rows_from(file: "pyarrow.parquet.ParquetFile", start: int, columns: list[str] | None) -> Iterator["pyarrow.Table"]:
    """The rows of a parquet file from row `start` on; row groups before it are not read."""
    import pyarrow

    ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
    wanted = np.flatnonzero(ends > start).tolist()
    if not wanted:
        return
    start -= int(ends[wanted[0] - 1]) if wanted[0] else 0
    for batch in file.iter_batches(READ_ROWS, wanted, columns):
        if start < len(batch):
            yield pyarrow.Table.from_batches([batch.slice(start)])
        start = max(start - len(batch), 0)


class _PatientFile(io.RawIOBase):
    """A remote file of which each read is repeated while the Hub is overloaded: a pull of hours outlives that."""

    def __init__(self, file: Any):
        self._file = file

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(place, whence)

    def readinto(self, buffer: Any) -> int:
        place = self._file.tell()

        def read() -> bytes:
            self._file.seek(place)
            return self._file.read(len(buffer))

        data = retry(read)
        buffer[: len(data)] = data
        return len(data)


class TextRows(NamedTuple):
    """The texts of one column, and how many there are (0 where that is unknown) at which commit."""

    batches: Callable[[], Iterator[list[str]]]
    total: int
    revision: str


def stream_ids(repo: str, revision: str | None = None, subset: str | None = None) -> HubDataset:
    """A tokenized dataset: all of its splits have a column `ids` of lists of integers.

    Raises UserError if that isn't so, with exit code 1 if the Hub can't be reached or refuses.
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
    """The texts of a dataset's split and column, without reading them yet.

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


def license_of(repo: str) -> str | None:
    """The license that the card of a dataset states, as the Hub's identifier (`cc0-1.0`)."""
    from huggingface_hub import HfApi

    with hub_errors(repo):
        return _license(retry(lambda: HfApi().dataset_info(repo)))


def load_rows(repo: str, *, subset: str | None = None, split: str) -> Any:
    """One split of a small dataset (a benchmark) as a sequence of dictionaries, kept in the cache of `datasets`.

    Once it is there it loads without a network.
    """
    with hub_errors(repo, or_cache=True):
        from huggingface_hub import constants

        datasets = import_datasets()

        def load(**where: str | None) -> Any:
            return _readable(repo, lambda: datasets.load_dataset(repo, split=split, **where))

        # `datasets` would knock for 20 seconds at a Hub that isn't there before it looks into its cache.
        located = None if constants.HF_HUB_OFFLINE else none_if_unreachable(lambda: _located(repo, None, subset))
        if located is not None:
            _, where = located
            if "data_dir" not in where:
                return load(**where)
            rows = _converted_rows(repo, where["data_dir"], split)
            if rows is None:
                raise UserError(f"{repo} has no split {split!r}")
            return rows
        with _offline(datasets.config):
            try:
                return load(name=subset)
            except (UserError, ConnectionError):
                rows = _converted_rows(repo, subset or "*", split, local_files_only=True)
                if rows is None:
                    raise
                return rows


def _converted_rows(repo: str, folder: str, split: str, *, local_files_only: bool = False) -> Any:
    """A split of what the Hub has converted, kept in its own cache; None if it isn't there."""
    from huggingface_hub import errors, snapshot_download

    files = f"{folder}/{split}/*.parquet"
    try:
        root = snapshot_download(
            repo, repo_type="dataset", revision=CONVERTED, allow_patterns=files, local_files_only=local_files_only
        )
    except errors.LocalEntryNotFoundError:
        return None
    paths = sorted(map(str, Path(root).glob(files)))
    return import_datasets().load_dataset("parquet", data_files=paths, split="train") if paths else None


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


def _open(repo: str, revision: str | None, subset: str | None = None) -> HubDataset:
    with hub_errors(repo, revision):
        from huggingface_hub import hf_hub_download

        info, where = _located(repo, revision, subset)
        manifest = None
        if any(file.rfilename == MANIFEST for file in info.siblings or []):
            file = retry(lambda: hf_hub_download(repo, MANIFEST, repo_type="dataset", revision=info.sha))
            manifest = _our_manifest(Path(file).read_bytes())
        load = import_datasets().load_dataset_builder
        builder = retry(lambda: _readable(repo, lambda: load(repo, **where)))
        return HubDataset(repo, info.sha, _license(info), manifest, builder)


def _located(repo: str, revision: str | None, subset: str | None) -> tuple[Any, dict[str, Any]]:
    """What the Hub says about a repository at a commit, and what `datasets` must be told to find the subset there.

    Of a dataset that its own script loads, which is somebody's code and is never run, it is the parquet files that
    the Hub has made of it, one folder for each subset.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    def ask(at: str | None) -> Any:
        return retry(lambda: HfApi().dataset_info(repo, revision=at, timeout=10))

    info = ask(revision)
    if f"{repo.split('/')[-1]}.py" not in (file.rfilename for file in info.siblings or []):
        return info, {"name": subset, "revision": info.sha}
    unread = UserError(
        f"{repo} is loaded by a script of its own, which is not run", fix="download its files and name them instead"
    )
    if revision is not None:
        raise unread
    try:
        converted = ask(CONVERTED)
    except RevisionNotFoundError:
        raise unread from None
    files = [file.rfilename for file in converted.siblings or []]
    folders = sorted({file.split("/")[0] for file in files if "/" in file})
    folder = subset or (folders[0] if len(folders) == 1 else "default")
    if folder not in folders:
        wanted = f"no subset {subset!r}{did_you_mean(subset, folders)}" if subset else "several subsets"
        raise UserError(f"{repo} has {wanted}", fix=f"there are: {', '.join(folders)}")
    if any(file.startswith(f"{folder}/partial-") for file in files):  # so it calls a split that was too large for it
        raise unread
    converted.card_data = info.card_data
    return converted, {"data_dir": folder, "revision": converted.sha}


def _license(info: Any) -> str | None:
    license = getattr(info.card_data, "license", None)
    return license if isinstance(license, str) else None


def _our_manifest(content: bytes) -> Manifest | None:
    """The manifest in a repository's `manifest.json`, or None if that file is somebody else's."""
    try:
        manifest = Manifest.from_json(json.loads(content))
    except (ValueError, TypeError, AttributeError):
        return None
    return manifest if manifest.splits and manifest.tokenizer else None


def _readable(repo: str, load: Callable[[], Result]) -> Result:
    """`load()`, in which a ValueError is how `datasets` says that a subset or split isn't there."""
    try:
        return load()
    except ValueError as error:
        if type(error) is not ValueError:  # many other errors of the libraries are ValueErrors too
            raise
        what = " ".join(str(error).split("\nExample")[0].split())
        raise UserError(f"{repo} on the Hub: {what}") from error


def _column(dataset: HubDataset, split: str, name: str) -> "pyarrow.Field":
    schema = dataset.schema(split)
    if name not in schema.names:
        raise UserError(
            f"{dataset.repo} has no column {name!r} in {split}{did_you_mean(name, schema.names)}",
            fix=f"there are: {', '.join(schema.names) or 'none'}",
        )
    return schema.field(name)

"""Sources of text to tokenize: local files, the bundled sample, or a dataset on the Hub.

A source yields batches of documents, or of rows with several values, in a fixed order and never holds the whole corpus
in memory.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from stochastok_cli.artifacts import SourceInfo
from stochastok_cli.data.file_readers import TABLES, Row, read_documents, read_rows
from stochastok_cli.data.source_files import DOCUMENTS, SourceFiles, dataset_name, file_format, find_files
from stochastok_cli.errors import Notice, UserError

SAMPLE = "sample"
DEFAULT_SPLIT = "train"
"""The split of a dataset on the Hub."""
_BATCH_CHARACTERS = 4_000_000


T = TypeVar("T")


class TextSource(NamedTuple, Generic[T]):
    """Documents to tokenize: strings, or rows with several values.

    Args:
        name: the name of the dataset.
        batches: starts the iteration over `(documents, done)`, where `done` counts towards `total`.
        total: bytes of the files, or rows of a dataset on the Hub; 0 where it is unknown.
        options: what decides the documents, for the manifest.
        made_from: computes the manifest's entry on the source, with a fingerprint of the content.
        listing: computes a hash that differs when a file was changed or renamed; None for datasets on the Hub, whose
            options name the commit.
    """

    name: str
    batches: Callable[[], Iterator[tuple[list[T], int]]]
    total: int
    options: dict[str, Any]
    made_from: Callable[[], SourceInfo]
    listing: Callable[[], str | None] = lambda: None


def open_source(
    source: str,
    text_column: str = "text",
    *,
    documents: str = "paragraph",
    errors: str = "strict",
    subset: str | None = None,
    split: str = DEFAULT_SPLIT,
) -> TextSource[str]:
    """Opens a source of text.

    Args:
        source: `sample`, a local file or folder, else a dataset id on the Hub.
        text_column: the column or JSON key that holds the text.
        documents: what a document of a text file is: "paragraph" (blank lines separate them) or "file".
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        subset: the subset (configuration) of a dataset on the Hub.
        split: the split of a dataset on the Hub.

    Raises:
        UserError: the source does not exist, or its files are of an unknown type.
    """
    _require_known("--errors", errors, ("strict", "replace"))
    _require_known("--documents", documents, DOCUMENTS)
    path = Path(source)
    if source == SAMPLE and not path.exists():
        path = cast(Path, resources.files("stochastok_cli") / "assets" / "sample.txt.gz")
    elif not path.exists() and not path.is_symlink():
        return _hub_source(source, text_column, documents, errors, subset, split)
    _require_no_hub_options(source, subset, split)
    name = SAMPLE if source == SAMPLE else dataset_name(path)
    options = {"text_column": text_column, "errors": errors}
    if documents != DOCUMENTS[0]:  # absent from folders made before there was a choice
        options["documents"] = documents

    def read(file: Path) -> Iterator[tuple[list[str], int]]:
        return _batched(read_documents(file, text_column, documents, errors), len)

    return _file_source(name, source, find_files(path, documents, errors), options, read)


def open_rows(
    source: str,
    columns: Mapping[str, str],
    *,
    errors: str = "strict",
    subset: str | None = None,
    split: str = DEFAULT_SPLIT,
) -> TextSource[Row]:
    """Opens a source of rows, whose values may be of any type.

    Args:
        source: a file of JSON objects, a parquet file, a folder of these, or a dataset id on the Hub.
        columns: the columns or JSON keys, each by the option that names it (`{"--text-column": "text"}`), for errors.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        subset: the subset (configuration) of a dataset on the Hub.
        split: the split of a dataset on the Hub.

    Raises:
        UserError: the source does not exist, or its files hold no rows.
    """
    _require_known("--errors", errors, ("strict", "replace"))
    path = Path(source)
    if not path.exists() and not path.is_symlink():
        return _hub_rows(source, columns, subset, split)
    _require_no_hub_options(source, subset, split)
    files = find_files(path, DOCUMENTS[0], errors)
    if text := next((file for file in files.files if file_format(file) not in TABLES), None):
        options = " and ".join(columns)
        raise UserError(f"{text} has no columns", fix=f"{options} takes rows of {', '.join(TABLES)} files")
    return _file_source(
        dataset_name(path),
        source,
        files,
        {"errors": errors},
        lambda file: _batched(read_rows(file, columns, errors), _size),
    )


def _require_known(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{option} {value!r} is not known", fix=f"give {' or '.join(known)}")


def _require_no_hub_options(source: str, subset: str | None, split: str) -> None:
    if subset is not None or split != DEFAULT_SPLIT:
        raise UserError(
            f"{source} is no dataset on the Hub, and has no {'subset' if subset is not None else f'split {split!r}'}",
            fix="drop --subset and --split",
        )


def _file_source(
    name: str,
    source: str,
    files: SourceFiles,
    options: dict[str, Any],
    read: Callable[[Path], Iterator[tuple[list[T], int]]],
) -> TextSource[T]:
    """A source of local files. `read` yields batches of one file, each with the number of its bytes read so far."""
    if files.note:
        warnings.warn(files.note, Notice, stacklevel=3)
    sizes = [file.stat().st_size for file in files.files]

    def batches() -> Iterator[tuple[list[T], int]]:
        before = 0
        for file, size in zip(files.files, sizes, strict=True):
            for documents, done in read(file):
                yield documents, before + done
            before += size

    def made_from() -> SourceInfo:
        return SourceInfo(source, files.fingerprint(), unread=files.unread or None)

    # Sizes are among the options, so that a source that has grown is noticed before it is read.
    sizes_of = {"source": source, "source_files": len(files.files), "source_bytes": sum(sizes)}
    return TextSource(name, batches, sum(sizes), sizes_of | options, made_from, files.listing)


def _hub_source(
    repo: str, text_column: str, documents: str, errors: str, subset: str | None, split: str
) -> TextSource[str]:
    from stochastok_cli import hub

    _require_repo_id(repo, "or give `sample`")
    texts = hub.load_text_dataset(repo, text_column, subset=subset, split=split)
    options = {"source": repo, "subset": subset, "split": split, "revision": texts.revision}
    options["text_column"] = text_column
    if texts.files is not None:
        options["documents"] = documents
    elif documents != DOCUMENTS[0]:
        raise UserError(f"--documents {documents} is for text files, and {repo} has columns", fix="drop it")

    def made_from() -> SourceInfo:
        return SourceInfo(repo, texts.revision, hub.license_of(repo))

    def rows() -> Iterator[tuple[list[str], int]]:
        done = 0
        for batch in texts.batches() if texts.batches else ():
            done += len(batch)
            yield batch, done

    def text_files() -> Iterator[tuple[list[str], int]]:
        before = 0
        for path, file in texts.files() if texts.files else ():
            try:
                for batch, done in _batched(read_documents(file, text_column, documents, errors), len):
                    yield batch, before + done
            except UserError as error:
                message = str(error).replace(str(file), f"{path} of {repo}")
                raise UserError(message, exit_code=error.exit_code) from error
            before += file.stat().st_size

    batches = rows if texts.files is None else text_files
    return TextSource(repo.rpartition("/")[2], batches, texts.total, options, made_from)


def _hub_rows(repo: str, columns: Mapping[str, str], subset: str | None, split: str) -> TextSource[Row]:
    from stochastok_cli import hub

    _require_repo_id(repo)
    values = hub.load_columns(repo, list(columns.values()), subset=subset, split=split)

    def made_from() -> SourceInfo:
        return SourceInfo(repo, values.revision, hub.license_of(repo))

    def rows() -> Iterator[tuple[Row, int]]:
        for number, row in enumerate(values.rows(), 1):
            yield Row(f"{repo}, row {number} of {split}", row), number

    options = {"source": repo, "subset": subset, "split": split, "revision": values.revision}
    return TextSource(repo.rpartition("/")[2], lambda: _batched(rows(), _size), values.total, options, made_from)


def _require_repo_id(repo: str, *more: str) -> None:
    from stochastok_cli import hub

    if not hub.is_repo_id(repo):
        raise UserError(
            f"{repo!r} is neither a file, nor a folder, nor a dataset id on the Hub",
            fix=", ".join(["check the path; a dataset id looks like Skylion007/openwebtext", *more]),
        )


def _batched(documents: Iterator[tuple[T, int]], length: Callable[[T], int]) -> Iterator[tuple[list[T], int]]:
    """Batches of about equally many characters, which `length` counts."""
    batch: list[T] = []
    size, position = 0, 0
    for document, position in documents:
        batch.append(document)
        size += length(document) + 100
        if size >= _BATCH_CHARACTERS:
            yield batch, position
            batch, size = [], 0
    if batch:
        yield batch, position


def _size(value: Any) -> int:
    """The number of characters of all texts in a value; a mark or a number counts as one."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 1

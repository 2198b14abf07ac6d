"""Sources of text to tokenize: local files, the bundled sample, or a dataset on the Hub.

A source yields batches of documents, or of rows with several values, in a fixed order and never holds the whole corpus
in memory.
"""

import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast

from stochastok_cli.artifacts import SourceInfo
from stochastok_cli.data.bad_documents import ON_BAD_DOCUMENT, BadDocument, LeftOut, Location
from stochastok_cli.data.file_readers import read_documents, require_text
from stochastok_cli.data.source_files import (
    DOCUMENTS,
    TABLES,
    SourceFiles,
    dataset_name,
    file_format,
    find_files,
    saved_split,
)
from stochastok_cli.data.table_files import read_rows
from stochastok_cli.data.table_rows import Row
from stochastok_cli.data.text_files import OnBad
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
        left_out: the documents that the iteration has left out so far because they can't be read.
        total: bytes of the files, or rows of a dataset on the Hub; 0 where it is unknown.
        options: what decides the documents, for the manifest.
        made_from: computes the manifest's entry on the source, with a fingerprint of the content.
        listing: computes a hash that differs when a file was changed or renamed; None for datasets on the Hub, whose
            options name the commit.
        files: the local files in the order in which they are read; None for datasets on the Hub.
        read_file: the batches of one of the files, each with the number of its bytes read so far; it takes what is
            called with documents that can't be read.
    """

    name: str
    batches: Callable[[], Iterator[tuple[list[T], int]]]
    left_out: LeftOut
    total: int
    options: dict[str, Any]
    made_from: Callable[[], SourceInfo]
    listing: Callable[[], str | None] = lambda: None
    files: list[Path] | None = None
    read_file: Callable[[Path, OnBad], Iterator[tuple[list[T], int]]] | None = None


def open_source(
    source: str,
    text_column: str = "text",
    *,
    documents: str = "paragraph",
    errors: str = "strict",
    on_bad_document: str = "error",
    limit: int | None = None,
    subset: str | None = None,
    split: str = DEFAULT_SPLIT,
) -> TextSource[str]:
    """Opens a source of text.

    Args:
        source: `sample`, a local file or folder, else a dataset id on the Hub.
        text_column: the column or JSON key that holds the text; `outer.inner` for one of a struct or object.
        documents: what a document of a text file is: "paragraph" (blank lines separate them) or "file".
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        on_bad_document: what to do with a document that can't be read: "error", or "skip" to leave it out.
        limit: read only so many documents, the first; None for all.
        subset: the subset (configuration) of a dataset on the Hub.
        split: the split of a dataset on the Hub, or of one that `datasets` has saved.

    Raises:
        UserError: the source does not exist, or its files are of an unknown type.
    """
    _require_known("--documents", documents, DOCUMENTS)
    reading = _Reading(errors, on_bad_document, limit)
    reading.check()
    path = Path(source)
    if source == SAMPLE and not path.exists():
        path = cast(Path, resources.files("stochastok_cli") / "assets" / "sample.txt.gz")
    elif not path.exists() and not path.is_symlink():
        return _hub_source(source, text_column, documents, reading, subset, split)
    path, options = _split_of(path, source, subset, split)
    name = SAMPLE if source == SAMPLE else dataset_name(path)
    options |= {"text_column": text_column, "errors": errors}
    if documents != DOCUMENTS[0]:  # absent from folders made before there was a choice
        options["documents"] = documents

    def read(file: Path, on_bad: OnBad) -> Iterator[tuple[str, int]]:
        return read_documents(file, str(file), text_column, documents, errors, on_bad)

    return _file_source(name, source, find_files(path, documents, errors), options, reading, read)


def open_rows(
    source: str,
    columns: Mapping[str, str],
    parse: Callable[[Row], Any] = lambda row: row.values,
    *,
    errors: str = "strict",
    on_bad_document: str = "error",
    limit: int | None = None,
    subset: str | None = None,
    split: str = DEFAULT_SPLIT,
) -> TextSource[Row]:
    """Opens a source of rows, whose values may be of any type.

    Args:
        source: a file of JSON objects, separated values, a parquet or Arrow file, a folder of these, or a dataset id on
            the Hub.
        columns: the columns or JSON keys, each by the option that names it (`{"--text-column": "text"}`), for errors.
        parse: makes of a row what stands in the place of its values. It raises BadDocument for a row of another form.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        on_bad_document: what to do with a row that can't be read: "error", or "skip" to leave it out.
        limit: read only so many rows, the first; None for all.
        subset: the subset (configuration) of a dataset on the Hub.
        split: the split of a dataset on the Hub, or of one that `datasets` has saved.

    Raises:
        UserError: the source does not exist, or its files hold no rows.
    """
    reading = _Reading(errors, on_bad_document, limit)
    reading.check()
    path = Path(source)
    if not path.exists() and not path.is_symlink():
        return _hub_rows(source, columns, parse, reading, subset, split)
    path, options = _split_of(path, source, subset, split)
    files = find_files(path, DOCUMENTS[0], errors)
    if text := next((file for file in files.files if file_format(file) not in TABLES), None):
        named = " and ".join(columns)
        raise UserError(f"{text} has no columns", fix=f"{named} takes rows of {', '.join(TABLES)} files")

    def read(file: Path, on_bad: OnBad) -> Iterator[tuple[Row, int]]:
        return _parsed(read_rows(file, str(file), columns, errors, on_bad), parse, on_bad)

    return _file_source(dataset_name(path), source, files, options | {"errors": errors}, reading, read)


class _Reading(NamedTuple):
    """How documents are read."""

    errors: str
    on_bad_document: str
    limit: int | None

    def check(self) -> None:
        """Raises UserError for a value that is not possible."""
        _require_known("--errors", self.errors, ("strict", "replace"))
        _require_known("--on-bad-document", self.on_bad_document, ON_BAD_DOCUMENT)
        if self.limit is not None and self.limit < 1:
            raise UserError(f"--limit is {self.limit}", fix="it must be at least 1")

    def options(self) -> dict[str, Any]:
        """What decides the documents besides `errors`; nothing for the defaults, which older folders were made with."""
        skip = {"on_bad_document": self.on_bad_document} if self.on_bad_document != ON_BAD_DOCUMENT[0] else {}
        return skip | ({"limit": self.limit} if self.limit is not None else {})

    def source(
        self,
        name: str,
        stream: Callable[[OnBad], Iterator[tuple[T, int]]],
        total: int,
        options: dict[str, Any],
        made_from: Callable[[], SourceInfo],
        listing: Callable[[], str | None] = lambda: None,
    ) -> TextSource[T]:
        """A source of the first documents of a stream.

        Args:
            name: the name of the dataset.
            stream: starts the iteration over documents, each with the bytes or rows read so far. It calls a function
                with documents that can't be read.
            total: as in `TextSource`, like the others.
            options: without those of this object.
            made_from: computes the manifest's entry on the source.
            listing: computes a hash of the state of the files.
        """
        left_out = LeftOut(self.on_bad_document)

        def batches() -> Iterator[tuple[list[T], int]]:
            left_out.clear()
            return _batched(itertools.islice(stream(left_out.bad), self.limit))

        return TextSource(name, batches, left_out, total, options | self.options(), made_from, listing)


def _parsed(rows: Iterator[tuple[Row, int]], parse: Callable[[Row], Any], on_bad: OnBad) -> Iterator[tuple[Row, int]]:
    """Rows with what `parse` makes of them in the place of their values."""
    for row, position in rows:
        try:
            parsed = row._replace(values=parse(row))
        except BadDocument as error:
            on_bad(error)
            continue
        yield parsed, position


def _split_of(path: Path, source: str, subset: str | None, split: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a split of a saved dataset, with an option for the manifest; any other path as it is."""
    has_splits = (path / "dataset_dict.json").is_file()
    if subset is not None or (split != DEFAULT_SPLIT and not has_splits):
        raise UserError(
            f"{source} is no dataset on the Hub, and has no {'subset' if subset is not None else f'split {split!r}'}",
            fix="drop --subset" if has_splits else "drop --subset and --split",
        )
    return (saved_split(path, split), {"split": split}) if has_splits else (path, {})


def _require_known(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{option} {value!r} is not known", fix=f"give {' or '.join(known)}")


def _file_source(
    name: str,
    source: str,
    files: SourceFiles,
    options: dict[str, Any],
    reading: _Reading,
    read: Callable[[Path, OnBad], Iterator[tuple[T, int]]],
) -> TextSource[T]:
    """A source of local files. `read` yields documents of one file, each with the number of its bytes read so far."""
    if files.note:
        warnings.warn(files.note, Notice, stacklevel=3)
    sizes = [file.stat().st_size for file in files.files]

    def stream(on_bad: OnBad) -> Iterator[tuple[T, int]]:
        before = 0
        for file, size in zip(files.files, sizes, strict=True):
            for document, done in read(file, on_bad):
                yield document, before + done
            before += size

    def made_from() -> SourceInfo:
        if reading.limit is None:
            fingerprint = files.fingerprint()
        else:  # of the documents that are read, which may be a small part of large files
            first = itertools.islice(stream(LeftOut(reading.on_bad_document).bad), reading.limit)
            fingerprint = _fingerprint(document for document, _ in first)
        return SourceInfo(source, fingerprint, unread=files.unread or None)

    # Sizes are among the options, so that a source that has grown is noticed before it is read.
    sizes_of = {"source": source, "source_files": len(files.files), "source_bytes": sum(sizes)}
    source_of_files = reading.source(name, stream, sum(sizes), sizes_of | options, made_from, files.listing)
    return source_of_files._replace(files=files.files, read_file=lambda file, on_bad: _batched(read(file, on_bad)))


def _fingerprint(documents: Iterator[Any]) -> str:
    """A hash of documents, or of the values of rows."""
    content = hashlib.sha256()
    for document in documents:
        content.update(repr(document.values if isinstance(document, Row) else document).encode())
    return content.hexdigest()[:32]


def _hub_source(
    repo: str, text_column: str, documents: str, reading: _Reading, subset: str | None, split: str
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

    def rows(on_bad: OnBad) -> Iterator[tuple[str, int]]:
        assert texts.rows is not None
        for row, done in _hub_values(texts.rows(), split, text_of, on_bad):
            yield row.values, done

    def text_of(row: Row) -> str:
        return require_text(row.values[0], text_column, row.where, reading.errors)

    def text_files(on_bad: OnBad) -> Iterator[tuple[str, int]]:
        before = 0
        for path, file in texts.files() if texts.files else ():
            name = f"{path} of {repo}"
            for document, done in read_documents(file, name, text_column, documents, reading.errors, on_bad):
                yield document, before + done
            before += file.stat().st_size

    stream = rows if texts.files is None else text_files
    return reading.source(repo.rpartition("/")[2], stream, texts.total, options, made_from)


def _hub_rows(
    repo: str,
    columns: Mapping[str, str],
    parse: Callable[[Row], Any],
    reading: _Reading,
    subset: str | None,
    split: str,
) -> TextSource[Row]:
    from stochastok_cli import hub

    _require_repo_id(repo)
    values = hub.load_columns(repo, list(columns.values()), subset=subset, split=split)

    def made_from() -> SourceInfo:
        return SourceInfo(repo, values.revision, hub.license_of(repo))

    def stream(on_bad: OnBad) -> Iterator[tuple[Row, int]]:
        return _hub_values(values.rows(), split, parse, on_bad)

    options = {"source": repo, "subset": subset, "split": split, "revision": values.revision}
    return reading.source(repo.rpartition("/")[2], stream, values.total, options, made_from)


def _hub_values(
    rows: Iterator[tuple[str, tuple[Any, ...]]], split: str, parse: Callable[[Row], Any], on_bad: OnBad
) -> Iterator[tuple[Row, int]]:
    """The rows of a dataset on the Hub, which come with the names of their files, and the number of rows so far."""
    part = f" of {split}"
    numbered = ((Row(Location(name, i, part=part), values), i) for i, (name, values) in enumerate(rows, 1))
    return _parsed(numbered, parse, on_bad)


def _require_repo_id(repo: str, *more: str) -> None:
    from stochastok_cli import hub

    if not hub.is_repo_id(repo):
        raise UserError(
            f"{repo!r} is neither a file, nor a folder, nor a dataset id on the Hub",
            fix=", ".join(["check the path; a dataset id looks like Skylion007/openwebtext", *more]),
        )


def _batched(documents: Iterator[tuple[T, int]]) -> Iterator[tuple[list[T], int]]:
    """Batches of about equally many characters."""
    batch: list[T] = []
    size, position = 0, 0
    for document, position in documents:
        batch.append(document)
        size += _size(document) + 100
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

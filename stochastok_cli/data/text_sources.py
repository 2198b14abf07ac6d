"""Sources of text to tokenize: local files, the bundled sample, or a dataset on the Hub.

A source yields batches of documents, or of rows with several values, in a fixed order and never holds the whole corpus
in memory.
"""

import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

from stochastok_cli.argument_checks import one_of
from stochastok_cli.data.arrow_datasets import saved_split
from stochastok_cli.data.bad_documents import LeftOut, Location
from stochastok_cli.data.file_readers import read_documents, require_text
from stochastok_cli.data.reading import Reading, TextSource, batched, parsed
from stochastok_cli.data.source_files import (
    DOCUMENTS,
    READ_TWICE,
    TABLES,
    WARC_SUFFIXES,
    SourceFiles,
    count_types,
    dataset_name,
    file_format,
    find_files,
    has_columns,
    unread_note,
)
from stochastok_cli.data.table_files import read_rows
from stochastok_cli.data.table_rows import Row
from stochastok_cli.data.text_files import OnBad
from stochastok_cli.errors import Notice, UserError, similar_path
from stochastok_cli.manifest import SourceInfo

SAMPLE = "sample"
DEFAULT_SPLIT = "train"
"""The split of a dataset on the Hub."""
TEXT_COLUMN = "text"
"""The column of the text, unless another is named."""

T = TypeVar("T")


def open_source(
    source: str,
    text_column: str = TEXT_COLUMN,
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
    one_of("--documents", documents, DOCUMENTS)
    reading = Reading(errors, on_bad_document, limit)
    reading.check()
    path = _source_path(source)
    if source == SAMPLE and not path.exists():
        path = cast(Path, resources.files("stochastok_cli") / "assets" / "sample.txt.gz")
    elif not path.exists() and not path.is_symlink():
        return _hub_source(source, text_column, documents, reading, subset, split)
    name = SAMPLE if source == SAMPLE else dataset_name(path)
    path, options = _split_of(path, source, subset, split)
    options |= {"text_column": text_column, "errors": errors}
    if documents != DOCUMENTS[0]:  # absent from folders made before there was a choice
        options["documents"] = documents

    def read(file: Path, on_bad: OnBad) -> Iterator[tuple[str, int]]:
        return read_documents(file, str(file), text_column, documents, errors, on_bad)

    files = find_files(path, documents, errors)
    tables = [has_columns(file, documents) for file in files.files]
    _require_effect(source, text_column, documents, any(tables), not all(tables))
    texts = _file_source(name, source, files, options, reading, read)
    return texts._replace(has_paragraphs=documents == DOCUMENTS[0] and not all(map(_has_no_paragraphs, files.files)))


def require_source(source: str) -> None:
    """Raises UserError for an empty source, which as a path would be the working directory."""
    if not source:
        raise UserError("the source is empty", fix=f"give a file, a folder, a dataset id on the Hub, or {SAMPLE}")


def _source_path(source: str) -> Path:
    """Raises UserError for an empty source, and for stdin by the name that other programs have for it."""
    require_source(source)
    path = Path(source)
    if source == "-" and not path.exists():
        raise UserError("- is stdin", fix=READ_TWICE)
    return path


def _has_no_paragraphs(file: Path) -> bool:
    return file_format(file) in (*TABLES, *WARC_SUFFIXES)


def _require_effect(source: str, text_column: str, documents: str, has_rows: bool, has_texts: bool) -> None:
    """Raises UserError for an option that no file of a source has a use for."""
    if text_column != TEXT_COLUMN and not has_rows:
        raise UserError(f"--text-column {text_column} is for tables, and {source} has no columns", fix="drop it")
    if documents != DOCUMENTS[0] and not has_texts:
        raise UserError(f"--documents {documents} is for text files, and {source} has columns", fix="drop it")


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
    reading = Reading(errors, on_bad_document, limit)
    reading.check()
    path = _source_path(source)
    if not path.exists() and not path.is_symlink():
        return _hub_rows(source, columns, parse, reading, subset, split)
    name = dataset_name(path)
    path, options = _split_of(path, source, subset, split)
    files = find_files(path, DOCUMENTS[0], errors)
    if text := next((file for file in files.files if file_format(file) not in TABLES), None):
        named = " and ".join(columns)
        raise UserError(f"{text} has no columns", fix=f"{named} takes rows of {', '.join(TABLES)} files")

    def read(file: Path, on_bad: OnBad) -> Iterator[tuple[Row, int]]:
        return parsed(read_rows(file, str(file), columns, errors, on_bad), parse, on_bad)

    return _file_source(name, source, files, options | {"errors": errors}, reading, read)


def _split_of(path: Path, source: str, subset: str | None, split: str) -> tuple[Path, dict[str, Any]]:
    """The folder of a split of a saved dataset, with an option for the manifest; any other path as it is."""
    has_splits = (path / "dataset_dict.json").is_file()
    if subset is not None or (split != DEFAULT_SPLIT and not has_splits):
        raise UserError(
            f"{source} is no dataset on the Hub, and has no {'subset' if subset is not None else f'split {split!r}'}",
            fix="drop --subset" if has_splits else "drop --subset and --split",
        )
    return (saved_split(path, split), {"split": split}) if has_splits else (path, {})


def _file_source(
    name: str,
    source: str,
    files: SourceFiles,
    options: dict[str, Any],
    reading: Reading,
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

    options = {"source": source, **options}
    if reading.limit is None:  # so that a source that has grown is noticed before it is read
        options |= {"source_files": len(files.files), "source_bytes": sum(sizes)}
    source_of_files = reading.source(name, stream, sum(sizes), options, made_from, files.listing)
    return source_of_files._replace(files=files.files, read_file=lambda file, on_bad: batched(read(file, on_bad)))


def _fingerprint(documents: Iterator[Any]) -> str:
    """A hash of documents, or of the values of rows."""
    content = hashlib.sha256()
    for document in documents:
        content.update(repr(document.values if isinstance(document, Row) else document).encode())
    return content.hexdigest()[:32]


def _hub_source(
    repo: str, text_column: str, documents: str, reading: Reading, subset: str | None, split: str
) -> TextSource[str]:
    from stochastok_cli import hub

    _require_repo_id(repo, "or give `sample`")
    with hub.no_path(repo):
        texts = hub.load_text_dataset(repo, text_column, subset=subset, split=split)
    options = {"source": repo, "subset": subset, "split": split, "revision": texts.revision}
    options["text_column"] = text_column
    unread = _note_unread(repo, texts.unread)
    is_text = texts.files is not None
    _require_effect(repo, text_column, documents, not is_text, is_text)
    if is_text:
        options["documents"] = documents

    def made_from() -> SourceInfo:
        return SourceInfo(repo, texts.revision, texts.license, unread=unread)

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
    source = reading.source(repo.rpartition("/")[2], stream, texts.total, options, made_from)
    return source._replace(has_paragraphs=is_text and documents == DOCUMENTS[0])


def _hub_rows(
    repo: str,
    columns: Mapping[str, str],
    parse: Callable[[Row], Any],
    reading: Reading,
    subset: str | None,
    split: str,
) -> TextSource[Row]:
    from stochastok_cli import hub

    _require_repo_id(repo)
    with hub.no_path(repo):
        values = hub.load_columns(repo, list(columns.values()), subset=subset, split=split)
    unread = _note_unread(repo, values.unread)

    def made_from() -> SourceInfo:
        return SourceInfo(repo, values.revision, values.license, unread=unread)

    def stream(on_bad: OnBad) -> Iterator[tuple[Row, int]]:
        return _hub_values(values.rows(), split, parse, on_bad)

    options = {"source": repo, "subset": subset, "split": split, "revision": values.revision}
    return reading.source(repo.rpartition("/")[2], stream, values.total, options, made_from)


def _note_unread(repo: str, paths: Sequence[str]) -> dict[str, int] | None:
    """Says how many files of each type in a repository are not read, and returns that; None if all are read."""
    unread = count_types(map(PurePosixPath, paths))
    if unread:
        warnings.warn(unread_note(f"{repo} on the Hub", unread), Notice, stacklevel=3)
    return unread or None


def _hub_values(
    rows: Iterator[tuple[str, tuple[Any, ...]]], split: str, parse: Callable[[Row], Any], on_bad: OnBad
) -> Iterator[tuple[Row, int]]:
    """The rows of a dataset on the Hub, which come with the names of their files, and the number of rows so far."""
    part = f" of {split}"
    numbered = ((Row(Location(name, i, part=part), values), i) for i, (name, values) in enumerate(rows, 1))
    return parsed(numbered, parse, on_bad)


def _require_repo_id(repo: str, *more: str) -> None:
    from stochastok_cli import hub

    if not hub.is_repo_id(repo):
        raise UserError(
            f"{repo!r} is neither a file, nor a folder, nor a dataset id on the Hub{similar_path(repo)}",
            fix=", ".join(["check the path; a dataset id looks like Skylion007/openwebtext", *more]),
        )

"""Sources of text to tokenize: local files, the bundled sample, or a dataset on the Hub.

A source yields batches of documents in a fixed order and never holds the whole corpus in memory.
"""

import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from stochastok_cli.artifacts import SourceInfo
from stochastok_cli.data.source_files import (
    DAMAGE,
    DOCUMENTS,
    JSON_SUFFIXES,
    dataset_name,
    decompressed,
    file_format,
    find_files,
)
from stochastok_cli.errors import FAILED, Notice, UserError, did_you_mean

SAMPLE = "sample"
DEFAULT_SPLIT = "train"
"""The split of a dataset on the Hub."""
LONGEST_DOCUMENT = 2**30  # bytes of a line, characters of a document; a small compressed file may hold far more
_BATCH_CHARACTERS = 4_000_000


class TextSource(NamedTuple):
    """Documents to tokenize.

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
    batches: Callable[[], Iterator[tuple[list[str], int]]]
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
) -> TextSource:
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
    for option, value, known in (("--errors", errors, ("strict", "replace")), ("--documents", documents, DOCUMENTS)):
        if value not in known:
            raise UserError(f"{option} {value!r} is not known", fix=f"give {' or '.join(known)}")
    path = Path(source)
    if source == SAMPLE and not path.exists():
        path = cast(Path, resources.files("stochastok_cli") / "assets" / "sample.txt.gz")
    elif not path.exists() and not path.is_symlink():
        return _hub_source(source, text_column, documents, errors, subset, split)
    if subset is not None or split != DEFAULT_SPLIT:
        raise UserError(
            f"{source} is no dataset on the Hub, and has no {'subset' if subset is not None else f'split {split!r}'}",
            fix="drop --subset and --split",
        )
    files = find_files(path, documents, errors)
    if files.note:
        warnings.warn(files.note, Notice, stacklevel=2)
    sizes = [file.stat().st_size for file in files.files]

    def batches() -> Iterator[tuple[list[str], int]]:
        before = 0
        for file, size in zip(files.files, sizes, strict=True):
            for texts, done in _batched(_documents(file, text_column, documents, errors)):
                yield texts, before + done
            before += size

    def made_from() -> SourceInfo:
        return SourceInfo(source, files.fingerprint(), unread=files.unread or None)

    # Sizes are among the options, so that a source that has grown is noticed before it is read.
    options = {"source": source, "source_files": len(files.files), "source_bytes": sum(sizes)}
    options |= {"text_column": text_column, "errors": errors}
    if documents != DOCUMENTS[0]:  # absent from folders made before there was a choice
        options["documents"] = documents
    name = SAMPLE if source == SAMPLE else dataset_name(path)
    return TextSource(name, batches, sum(sizes), options, made_from, files.listing)


def _hub_source(repo: str, text_column: str, documents: str, errors: str, subset: str | None, split: str) -> TextSource:
    from stochastok_cli import hub

    if not hub.is_repo_id(repo):
        raise UserError(
            f"{repo!r} is neither a file, nor a folder, nor a dataset id on the Hub",
            fix="check the path; a dataset id looks like Skylion007/openwebtext, or give `sample`",
        )
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
                for batch, done in _batched(_documents(file, text_column, documents, errors)):
                    yield batch, before + done
            except UserError as error:
                message = str(error).replace(str(file), f"{path} of {repo}")
                raise UserError(message, exit_code=error.exit_code) from error
            before += file.stat().st_size

    batches = rows if texts.files is None else text_files
    return TextSource(repo.rpartition("/")[2], batches, texts.total, options, made_from)


def _batched(documents: Iterator[tuple[str, int]]) -> Iterator[tuple[list[str], int]]:
    batch: list[str] = []
    size, position = 0, 0
    for text, position in documents:
        batch.append(text)
        size += len(text) + 100
        if size >= _BATCH_CHARACTERS:
            yield batch, position
            batch, size = [], 0
    if batch:
        yield batch, position


def _documents(file: Path, text_column: str, documents: str, errors: str) -> Iterator[tuple[str, int]]:
    """The documents of one file, each with the number of bytes of the file read so far."""
    kind = file_format(file)
    with open(file, "rb", buffering=1 << 20) as raw:
        if kind == ".parquet":
            yield from _parquet_documents(raw, file, text_column)
            return
        try:
            stream = decompressed(raw, file)
            lines = _lines(stream, file, errors)
            if kind in JSON_SUFFIXES:
                texts = _json_documents(lines, file, text_column, errors)
            else:
                texts = paragraphs(lines, str(file)) if documents == "paragraph" else _whole(lines, str(file))
            for text in texts:
                yield text, raw.tell()
        except DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise UserError(f"{file} is damaged or cut short: {error}", exit_code=FAILED) from None


def _lines(stream: BinaryIO, file: Path, errors: str) -> Iterator[str]:
    number = 0
    while raw := stream.readline(LONGEST_DOCUMENT + 1):
        number += 1
        if len(raw) > LONGEST_DOCUMENT:
            raise UserError(f"{file}, line {number}: longer than {LONGEST_DOCUMENT:,} bytes", exit_code=FAILED)
        yield _decode(raw, file, number, errors)


def paragraphs(lines: Iterable[str], where: str = "the text") -> Iterator[str]:
    """Documents that blank lines separate, from lines with their line ends, which are kept inside a document.

    Raises UserError, which names `where`, for a document of more than LONGEST_DOCUMENT characters.
    """
    paragraph: list[str] = []
    size = 0
    for line in lines:
        if line.strip():
            paragraph.append(line)
            size += len(line)
            if size > LONGEST_DOCUMENT:
                raise _too_long(where, "separate documents by blank lines")
        elif paragraph:
            yield "".join(paragraph).rstrip("\r\n")
            paragraph, size = [], 0
    if paragraph:
        yield "".join(paragraph).rstrip("\r\n")


def _whole(lines: Iterable[str], where: str) -> Iterator[str]:
    """All lines as one document, unless they are blank."""
    parts, size = [], 0
    for line in lines:
        parts.append(line)
        size += len(line)
        if size > LONGEST_DOCUMENT:
            raise _too_long(where, "divide the file")
    text = "".join(parts)
    if text.strip():
        yield text


def _too_long(where: str, fix: str) -> UserError:
    return UserError(f"{where}: a document is longer than {LONGEST_DOCUMENT:,} characters", fix=fix, exit_code=FAILED)


def _json_documents(lines: Iterable[str], file: Path, text_column: str, errors: str) -> Iterator[str]:
    """One JSON object a line, as in `{"text": …}`."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{file}, line {number}: not a JSON object ({error})",
                fix="expected one object a line",
                exit_code=FAILED,
            ) from None
        if not isinstance(row, dict):
            raise UserError(f"{file}, line {number}: {line.strip()[:40]!r} is not a JSON object", exit_code=FAILED)
        yield _require_text(row.get(text_column, _MISSING), row, text_column, f"{file}, line {number}", errors)


def _parquet_documents(stream: BinaryIO, file: Path, text_column: str) -> Iterator[tuple[str, int]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(stream)
    except (pyarrow.ArrowInvalid, OSError) as error:
        compressed = file.suffix.lower() != ".parquet"
        fix = "decompress it: parquet files compress their columns themselves" if compressed else ""
        raise UserError(f"{file} is no parquet file or is cut short: {error}", fix=fix, exit_code=FAILED) from None
    if text_column not in table.schema_arrow.names:
        _require_text(_MISSING, table.schema_arrow.names, text_column, str(file), "strict")
    size, rows, done = file.stat().st_size, max(table.metadata.num_rows, 1), 0
    batches = table.iter_batches(batch_size=1000, columns=[text_column])
    while True:
        try:
            values = next(batches).column(0).to_pylist()
        except StopIteration:
            break
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{file} is damaged after row {done}: {error}", exit_code=FAILED) from None
        for value in values:
            done += 1
            text = _require_text(value, [text_column], text_column, f"{file}, row {done}", "strict")
            yield text, size * done // rows


_MISSING = object()


def _require_text(value: Any, columns: Iterable[str], text_column: str, where: str, errors: str) -> str:
    if value is _MISSING:
        names = [str(name)[:100] for name in itertools.islice(columns, 20)]
        raise UserError(
            f"{where}: there is no column {text_column!r}{did_you_mean(text_column, names)}",
            fix=f"name one of {', '.join(names)} with --text-column",
        )
    if not isinstance(value, str):
        raise UserError(f"{where}: {text_column!r} holds {repr(value)[:100]}, not text")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        if errors == "replace":
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        raise UserError(
            f"{where}: the text holds a lone surrogate (half a character)",
            fix="mend it, or give --errors replace",
            exit_code=FAILED,
        )
    return value


def _decode(raw: bytes, file: Path, number: int, errors: str) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8", errors)  # drops a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file}, line {number}: the byte {raw[error.start]:#04x} at {error.start} is not UTF-8",
            fix="convert the file, or give --errors replace",
            exit_code=FAILED,
        ) from None

"""Sources of text to tokenize: local files, the bundled sample, or a dataset on the Hub.

A source yields batches of documents in a fixed order and never holds the whole corpus in memory.
"""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from stochastok_cli.artifacts import SourceInfo, file_checksum
from stochastok_cli.errors import FAILED, UserError, did_you_mean

TEXT_SUFFIXES = (".txt", ".text", ".md")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (*TEXT_SUFFIXES, *JSON_SUFFIXES, ".parquet")
IN_FOLDERS = (".txt", ".jsonl", ".ndjson", ".parquet")  # not .md and .json: README.md, dataset_infos.json
SAMPLE = "sample"
_OPENERS: dict[str, Callable[[Any, Any], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BATCH_CHARACTERS = 4_000_000


class TextSource(NamedTuple):
    """Documents to tokenize.

    Args:
        name: the name of the dataset.
        batches: starts the iteration over `(documents, done)`, where `done` counts towards `total`.
        total: bytes of the files, or rows of a dataset on the Hub; 0 where it is unknown.
        options: what decides the documents, for the manifest.
        made_from: computes the manifest's entry on the source, with a fingerprint of the content.
        modified: when the files were last modified, in seconds since the epoch; 0 for datasets on the Hub, whose
            options name the commit.
    """

    name: str
    batches: Callable[[], Iterator[tuple[list[str], int]]]
    total: int
    options: dict[str, Any]
    made_from: Callable[[], SourceInfo]
    modified: float = 0.0


def open_source(
    source: str, text_column: str = "text", *, errors: str = "strict", subset: str | None = None, split: str = "train"
) -> TextSource:
    """Opens a source of text.

    Args:
        source: `sample`, a local file or folder, else a dataset id on the Hub.
        text_column: the column or JSON key that holds the text.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        subset: the subset (configuration) of a dataset on the Hub.
        split: the split of a dataset on the Hub.

    Raises:
        UserError: the source does not exist, or its files are of an unknown type.
    """
    if errors not in ("strict", "replace"):
        raise UserError(f"--errors {errors!r} is not known", fix="give strict or replace")
    path = Path(source)
    if source == SAMPLE and not path.exists():
        path = cast(Path, resources.files("stochastok_cli") / "assets" / "sample.txt.gz")
        files = [path]
    elif path.exists():
        files = _files(path)
    else:
        return _hub_source(source, text_column, subset, split)
    total = sum(file.stat().st_size for file in files)
    name = SAMPLE if source == SAMPLE else _stem(path)

    def batches() -> Iterator[tuple[list[str], int]]:
        before = 0
        for file in files:
            for documents, done in _batched(_documents(file, text_column, errors)):
                yield documents, before + done
            before += file.stat().st_size

    def made_from() -> SourceInfo:
        with ThreadPoolExecutor() as pool:
            sums = [str(checksum.sha256) for checksum in pool.map(file_checksum, files)]
        return SourceInfo(source, hashlib.sha256("".join(sums).encode()).hexdigest()[:32])

    # Sizes are among the options, so that a source that has grown is noticed before it is read.
    options = {"source": source, "source_files": len(files), "source_bytes": total, "text_column": text_column}
    modified = max(file.stat().st_mtime for file in files)
    return TextSource(name, batches, total, {**options, "errors": errors}, made_from, modified)


def _hub_source(repo: str, text_column: str, subset: str | None, split: str) -> TextSource:
    from stochastok_cli import hub

    if not hub.is_repo_id(repo):
        raise UserError(
            f"{repo!r} is neither a file, nor a folder, nor a dataset id on the Hub",
            fix="check the path; a dataset id looks like Skylion007/openwebtext, or give `sample`",
        )

    rows, total, revision = hub.load_text_dataset(repo, text_column, subset=subset, split=split)

    def made_from() -> SourceInfo:
        return SourceInfo(repo, revision, hub.license_of(repo))

    def batches() -> Iterator[tuple[list[str], int]]:
        done = 0
        for documents in rows():
            done += len(documents)
            yield documents, done

    options = {"source": repo, "subset": subset, "split": split, "revision": revision, "text_column": text_column}
    return TextSource(repo.rpartition("/")[2], batches, total, options, made_from)


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file() and _kind(f) in IN_FOLDERS)
    if not files:
        raise UserError(f"the folder {path} holds no {', '.join(IN_FOLDERS)} file")
    if _kind(files[0]) not in SUFFIXES:
        raise UserError(
            f"{files[0]}: files of this type are not known",
            fix=f"give {', '.join(SUFFIXES)}, or one compressed as {', '.join(_OPENERS)}",
        )
    return files


def _kind(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix in _OPENERS else file.suffix


def _stem(path: Path) -> str:
    name = path.resolve().name
    for suffix in path.suffixes[::-1]:
        if suffix not in SUFFIXES and suffix not in _OPENERS:
            break
        name = name.removesuffix(suffix)
    return name


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


def _documents(file: Path, text_column: str, errors: str) -> Iterator[tuple[str, int]]:
    """The documents of one file, each with the number of bytes of the file read so far."""
    if _kind(file) == ".parquet":
        yield from _parquet_documents(file, text_column)
        return
    read = _json_documents if _kind(file) in JSON_SUFFIXES else _text_documents
    with open(file, "rb") as raw:
        stream: BinaryIO = _OPENERS[file.suffix](raw, "rb") if file.suffix in _OPENERS else raw
        try:
            for text in read(io.BufferedReader(cast(Any, stream), 1 << 20), file, text_column, errors):
                yield text, raw.tell()
        except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise UserError(f"{file} is damaged or cut short: {error}", exit_code=FAILED) from None


def _text_documents(stream: io.BufferedReader, file: Path, text_column: str, errors: str) -> Iterator[str]:
    """Documents separated by blank lines; line ends inside a document are kept."""
    lines: list[str] = []
    for number, raw in enumerate(stream, 1):
        line = _decode(raw, file, number, errors)
        if line.strip():
            lines.append(line)
        elif lines:
            yield "".join(lines).rstrip("\r\n")
            lines = []
    if lines:
        yield "".join(lines).rstrip("\r\n")


def _json_documents(stream: io.BufferedReader, file: Path, text_column: str, errors: str) -> Iterator[str]:
    """One JSON object a line, as in `{"text": …}`."""
    for number, raw in enumerate(stream, 1):
        line = _decode(raw, file, number, errors)
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
        yield _require_text(row.get(text_column, _MISSING), list(row), text_column, f"{file}, line {number}", errors)


def _parquet_documents(file: Path, text_column: str) -> Iterator[tuple[str, int]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{file} is no parquet file or is cut short: {error}", exit_code=FAILED) from None
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


def _require_text(value: Any, columns: list[str], text_column: str, where: str, errors: str) -> str:
    if value is _MISSING:
        raise UserError(
            f"{where}: there is no column {text_column!r}{did_you_mean(text_column, columns)}",
            fix=f"name one of {', '.join(map(str, columns))} with --text-column",
        )
    if not isinstance(value, str):
        raise UserError(f"{where}: {text_column!r} holds {value!r}, not text")
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

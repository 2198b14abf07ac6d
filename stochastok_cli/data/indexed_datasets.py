"""Ids that other programs have written, as corpora: pairs of Megatron-LM and tokenized files of datatrove.

All documents become the training split of a corpus, in their order.
"""

import dataclasses
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stochastok_cli.artifacts import Artifact, Manifest, SourceInfo, SplitInfo, read_manifest, validate_folder_name
from stochastok_cli.data.formats.megatron import DTYPE_CODES, HEADER, VERSION
from stochastok_cli.data.memmap import (
    Tokenizer,
    corpus_manifest,
    memmap_dir,
    release_pages,
    require_counts,
    resolve_vocabulary,
)
from stochastok_cli.data.source_files import SourceFiles, create_from_source
from stochastok_cli.data.tokenize import tokenized_name
from stochastok_cli.errors import FAILED, Notice, UserError
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.vocabulary import Vocabulary

_COUNTS = struct.Struct("<QBQQ")  # version, code of the type, sequences, entries of the list of documents
_BATCH_TOKENS = 4_000_000
END_OF_TEXT_ADDED = "end_of_text_added"
"""The entry of a manifest with the number of documents that did not end with end-of-text."""


def find_index(name: str | Path) -> Path | None:
    """The `.idx` or `.ds` file that `name` means: its path, or that of a pair without a suffix; else None."""
    path = Path(name)
    if path.suffix in (".idx", ".ds"):
        return path
    index = path.with_name(f"{path.name}.idx")
    return index if index.is_file() and index.with_suffix(".bin").is_file() else None


def import_indexed_dataset(
    index: str | Path,
    *,
    tokenizer: Tokenizer | None,
    name: str | None = None,
    data_dir: str | Path = "data",
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Makes the corpus `<data_dir>/data_as_memmaps/<name>-tokenized` of ids that another program has written.

    A document that does not end with the end-of-text id (a pair made without `--append-eod`) gets one. Their number is
    in the manifest (`end_of_text_added`) and in a `Notice`.

    Args:
        index: the path of the `.idx` file of Megatron-LM, with the `.bin` file beside it, or of the `.ds` file of
            datatrove, with `.ds.index` beside it.
        tokenizer: the tokenizer of the ids, which these files do not hold.
        name: the name of the corpus; by default that of the files.
        data_dir: the data directory.
        force: make the folder again if it is there already.
        progress: called with the number of ids that are read.

    Returns:
        The folder. One that is there already, made of the same files, is left alone.

    Raises:
        UserError: a file is missing, empty or damaged, no tokenizer is given, ids are not in its vocabulary, or the
            folder is there, made of other files. A document with the end-of-text id before its end, which a corpus
            would cut there, and a file with a mask of losses, which it can't hold, are refused too.
    """
    index = Path(index)
    if tokenizer is None:
        raise UserError(f"{index} does not say which tokenizer its ids are of", fix="name it (--tokenizer)")
    vocabulary = resolve_vocabulary(tokenizer)
    pair = read_tokenized_file(index) if index.suffix == ".ds" else read_indexed_dataset(index)
    if not len(pair.ids):
        raise UserError(f"{index} holds no ids, so there is nothing to import")
    final = memmap_dir(Path(data_dir)) / validate_folder_name(tokenized_name(name or index.stem))
    if not force:
        _require_same_index(final, index)
    options = {"source": str(index), "source_bytes": pair.ids.nbytes, "tokenizer": vocabulary.fingerprint}

    def build(folder: Path) -> Manifest:
        documents, tokens, added = len(pair.lengths), 0, 0
        with open(folder / "train.bin", "wb") as out:
            for ids, missing in _corpus_batches(pair, vocabulary, progress):
                out.write(np.ascontiguousarray(ids).data)
                tokens += len(ids)
                added += missing
        (folder / "val.bin").touch()
        splits = {"train": SplitInfo(documents, tokens), "val": SplitInfo(0, 0)}
        manifest = corpus_manifest("tokenized", vocabulary, splits, None)
        require_counts(folder, manifest)
        if added:
            text = f"{added:,} of {documents:,} documents of {index} did not end with end-of-text, which is added"
            warnings.warn(text, Notice, stacklevel=2)
        return dataclasses.replace(manifest, extra={END_OF_TEXT_ADDED: added} if added else {})

    return create_from_source(final, options, str(index), pair, build, force=force)


def _require_same_index(final: Path, index: Path) -> None:
    """Raises UserError if the folder is there, imported from a file of another path."""
    manifest = read_manifest(final)
    before = manifest.options.get("source", str(index)) if manifest else str(index)
    if before != str(index):
        raise UserError(
            f"{final} exists, made of {before} and not of {index}",
            fix="give it another name (--name), or make it again with --force",
        )


class IndexedDataset(NamedTuple):
    """Open files of ids and of where their documents are.

    Args:
        path: the file that was named.
        files: all files.
        ids: the ids of all documents one after another, a memmap `[tokens]` of the type on disk.
        lengths: int64 `[documents]`.
    """

    path: Path
    files: list[Path]
    ids: np.ndarray
    lengths: np.ndarray

    def _files(self) -> SourceFiles:
        return SourceFiles(self.path, self.files, {}, "")

    def listing(self) -> str:
        """A hash of the names, sizes and times of the files."""
        return self._files().listing()

    def made_from(self) -> SourceInfo:
        """Its description, with a checksum of its content."""
        return SourceInfo(str(self.path), self._files().fingerprint())


def read_indexed_dataset(index: Path) -> IndexedDataset:
    """Opens a pair by its `.idx` file.

    Raises:
        UserError: a file is missing (exit code 2), is no such file, holds numbers that are no ids, or is damaged (exit
            code 1).
    """
    data = index.with_suffix(".bin")
    for file in (index, data):
        if not file.is_file():
            raise UserError(f"there is no file {file}", fix="a pair of Megatron-LM is PREFIX.bin and PREFIX.idx")
    content = np.fromfile(index, np.uint8)
    start = len(HEADER) + _COUNTS.size
    if content[: len(HEADER)].tobytes() != HEADER or len(content) < start:
        raise UserError(f"{index} is no index of Megatron-LM", exit_code=FAILED)
    version, code, sequences, entries = _COUNTS.unpack(content[len(HEADER) : start].tobytes())
    types = {value: name for name, value in DTYPE_CODES.items()}
    if version != VERSION or code not in types:
        raise UserError(f"{index} has the version {version} and the type {code}, which are not known", exit_code=FAILED)
    dtype = np.dtype(types[code]).newbyteorder("<")
    if dtype.kind == "f":
        raise UserError(f"{index} says that {data.name} holds numbers of the type {dtype}, which are no ids")
    size = start + 12 * sequences + 8 * entries
    if len(content) not in (size, size + sequences):  # a byte for each sequence in multimodal pairs
        raise _damaged(index, f"it has {len(content):,} bytes, and {size:,} for {sequences:,} sequences")
    lengths = content[start : start + 4 * sequences].view("<i4").astype(np.int64)
    pointers = content[start + 4 * sequences : start + 12 * sequences].view("<i8")
    documents = content[size - 8 * entries : size].view("<i8")
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if sequences else 0
    if (lengths < 0).any() or not np.array_equal(pointers, (ends - lengths) * dtype.itemsize):
        raise _damaged(index, "its sequences do not lie one after another")
    if not entries or documents[0] != 0 or documents[-1] != sequences or (np.diff(documents) < 0).any():
        raise _damaged(index, "its documents are not those of its sequences")
    if data.stat().st_size != total * dtype.itemsize:
        raise _damaged(data, f"it has {data.stat().st_size:,} bytes, and its index {total:,} ids of the type {dtype}")
    ids = np.memmap(data, dtype, "r") if total else np.empty(0, dtype)
    return IndexedDataset(index, [data, index], ids, np.diff(np.concatenate([[0], ends])[documents]))


def read_tokenized_file(file: Path) -> IndexedDataset:
    """Opens a tokenized file of datatrove, by its `.ds` file.

    Raises:
        UserError: a file is missing, or there is a mask of losses (exit code 2), or a file is damaged (exit code 1).
    """
    index, loss = file.with_name(f"{file.name}.index"), file.with_name(f"{file.name}.loss")
    for part in (file, index):
        if not part.is_file():
            raise UserError(
                f"there is no file {part}", fix="a tokenized file of datatrove is NAME.ds and NAME.ds.index"
            )
    if loss.is_file():
        raise UserError(
            f"{loss} says which ids have a loss, and a corpus can't hold that",
            fix="move it away if all have one",
        )
    size, index_size = file.stat().st_size, index.stat().st_size
    ends = np.fromfile(index, "<u8").astype(np.int64)
    total = int(ends[-1]) if len(ends) else 0
    widths: dict[int, np.dtype] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}
    width = size // total if total else 2
    if index_size % 8 or (np.diff(ends, prepend=0) < 0).any() or width not in widths or size != total * width:
        raise _damaged(file, f"it has {size:,} bytes, and its index {total:,} ids of two or four bytes each")
    ids = np.memmap(file, widths[width], "r") if total else np.empty(0, widths[2])
    return IndexedDataset(file, [file, index], ids, np.diff(ends, prepend=0))


def _damaged(file: Path, what: str) -> UserError:
    return UserError(f"{file} is damaged: {what}", exit_code=FAILED)


def _corpus_batches(
    pair: IndexedDataset, vocabulary: Vocabulary, progress: ProgressCallback
) -> Iterator[tuple[np.ndarray, int]]:
    """Ids of whole documents, each ending with end-of-text, with the number of documents that did not end so."""
    ends = np.cumsum(pair.lengths)
    first, start = 0, 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, start + _BATCH_TOKENS, side="right")))
        stop = int(ends[last - 1])
        ids = pair.ids[start:stop]
        lowest, highest = int(ids.min(initial=0)), int(ids.max(initial=0))
        if lowest < 0 or highest >= vocabulary.size:
            raise UserError(
                f"{pair.files[0]} holds the id {lowest if lowest < 0 else highest:,}, which "
                f"{vocabulary.name!r} of {vocabulary.size:,} entries has not",
                fix="name the tokenizer that it was made with (--tokenizer)",
            )
        complete, missing = _with_ends(ids.astype(vocabulary.dtype), ends[first:last] - start, vocabulary.end_of_text)
        if np.count_nonzero(complete == vocabulary.end_of_text) != last - first:
            raise UserError(
                f"documents {first:,} to {last - 1:,} of {pair.path} hold end-of-text ({vocabulary.end_of_text}) not "
                "only at their ends, and a corpus would cut them there",
                fix="make it with one document an entry, or name its own tokenizer (--tokenizer)",
            )
        yield complete, missing
        release_pages(pair.ids, start, stop)
        progress("import", stop, len(pair.ids))
        first, start = last, stop


def _with_ends(ids: np.ndarray, ends: np.ndarray, end_of_text: int) -> tuple[np.ndarray, int]:
    """Documents that end at `ends`, with end-of-text after each one that lacks it, and the number of these."""
    is_empty = np.diff(ends, prepend=0) == 0
    last = ids[np.maximum(ends - 1, 0)] if len(ids) else np.zeros(len(ends), ids.dtype)
    missing = is_empty | (last != end_of_text)
    return np.insert(ids, ends[missing], end_of_text), int(missing.sum())

"""From ids that other programs have written to a corpus: documents, their order and their number are kept."""

import dataclasses
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stochastok_cli.artifacts import Artifact
from stochastok_cli.data.folders import require_kind
from stochastok_cli.data.formats import FORMATS, Format, StoredDocuments
from stochastok_cli.data.memmap import (
    SPLITS,
    Tokenizer,
    corpus_manifest,
    memmap_dir,
    release_pages,
    require_counts,
    resolve_vocabulary,
)
from stochastok_cli.data.source_artifacts import create_from_source
from stochastok_cli.data.source_files import SourceFiles
from stochastok_cli.data.tokenize import tokenized_name
from stochastok_cli.errors import FAILED, Notice, UserError, count_of
from stochastok_cli.manifest import Manifest, NewerFormatError, SourceInfo, SplitInfo, read_manifest
from stochastok_cli.paths import folder_name
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.vocabulary import Vocabulary

_BATCH_TOKENS = 4_000_000
_SPLIT_OF = {"train": "train", "val": "val", "validation": "val"}
END_OF_TEXT_ADDED = "end_of_text_added"
"""The entry of a manifest with the number of documents that did not end with end-of-text."""


class StoredDataset(NamedTuple):
    """Where the ids of another program are.

    Args:
        path: the path that was named: one stored dataset, or a folder with one for each split.
        format: their format.
        parts: the file or folder of each split of the corpus; a single one is the training split.
        ignored: the names of what else of the format the folder holds.
    """

    path: Path
    format: Format
    parts: dict[str, Path]
    ignored: list[str]

    @property
    def name(self) -> str:
        """The name of the file without its suffix, or of the folder; of the link where it is one."""
        if self.path.is_dir():
            return os.path.basename(os.path.abspath(self.path))
        return next(iter(self.parts.values())).stem


def find_stored(path: str | Path) -> StoredDataset | None:
    """The ids of another program that a path means; None if there are none.

    Raises:
        UserError: a folder holds data of several formats, or several datasets of which none is called `train`.
    """
    path = Path(path)
    children = sorted(child for child in path.iterdir() if not child.name.startswith(".")) if path.is_dir() else []
    of_path = {name: index_path for name, candidate in FORMATS.items() if (index_path := candidate.find(path))}
    of_children = {
        name: {index_path.stem: index_path for child in children if (index_path := candidate.find(child))}
        for name, candidate in FORMATS.items()
    }
    formats = [name for name in FORMATS if name in of_path or of_children[name]]
    if len(formats) > 1:
        raise UserError(f"{path} holds data of {' and '.join(formats)}", fix="keep each in a folder of its own")
    if not formats:
        return None
    known = FORMATS[formats[0]]
    if known.name in of_path:
        return StoredDataset(path, known, {"train": of_path[known.name]}, [])
    stored = of_children[known.name]
    parts = {_SPLIT_OF[name]: index_path for name, index_path in stored.items() if name in _SPLIT_OF}
    if "train" not in parts:
        fix = f"name one of them, such as {next(iter(stored.values()))}"
        raise UserError(f"{path} holds {', '.join(stored)}, and none is called train", fix=fix)
    return StoredDataset(path, known, parts, [name for name in stored if name not in _SPLIT_OF])


def import_corpus(
    path: str | Path,
    *,
    tokenizer: Tokenizer | None = None,
    name: str | None = None,
    data_dir: str | Path = "data",
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Makes the corpus `<data_dir>/data_as_memmaps/<name>-tokenized` of ids that another program has written.

    A document that does not end with the end-of-text id (a pair made without `--append-eod`) gets one. Their number is
    in the manifest (`end_of_text_added`) and in a `Notice`.

    Args:
        path: one stored dataset of a format that is read (`FORMATS`), which becomes the training split, or a folder
            with one for each split, as `export` writes it.
        tokenizer: the tokenizer of the ids; needed where no manifest of `export` says it.
        name: the name of the corpus; by default that of the file or folder.
        data_dir: the data directory.
        force: make the folder again if it is there already.
        progress: called with the number of documents that are read.

    Returns:
        The folder. One that is there already, made of the same files, is left alone.

    Raises:
        UserError: a file is missing, empty or damaged, no tokenizer is given, ids are not in its vocabulary, there are
            not as many documents as the manifest of the export counts, or the folder is there, made of other files. A
            document with the end-of-text id before its end, which a corpus would cut there, and ids without a loss,
            which it can't hold, are refused too.
    """
    stored = find_stored(path)
    if stored is None:
        raise UserError(f"{path} holds no ids of a format that is read", fix=f"give one of {', '.join(FORMATS)}")
    index = stored.path if stored.path.is_dir() else stored.parts["train"]
    exported = _manifest_of(stored)
    if tokenizer is None and exported is None:
        raise UserError(f"{index} does not say which tokenizer its ids are of", fix="name it (--tokenizer)")
    vocabulary = resolve_vocabulary(tokenizer, exported, index)
    documents = {split: stored.format.read(part) for split, part in stored.parts.items() if stored.format.read}
    num_bytes = sum(part.num_bytes for part in documents.values())
    if not num_bytes:
        raise UserError(f"{index} holds no ids, so there is nothing to import")
    final = memmap_dir(data_dir) / tokenized_name(folder_name(name, stored.name))
    options = {"source": str(index), "source_bytes": num_bytes, "tokenizer": vocabulary.fingerprint}

    def build(folder: Path, progress: ProgressCallback) -> Manifest:
        splits, added = {}, 0
        for split in SPLITS:
            part = documents.get(split) or StoredDocuments([], 0, 0, lambda: iter([]))
            splits[split], missing = _write_split(folder, split, part, index, vocabulary, progress)
            written_as = _SPLIT_OF.get(stored.parts[split].stem) if split in stored.parts else None
            recorded = exported.splits.get(written_as) if exported and written_as else None
            if recorded and splits[split].documents != recorded.documents:
                raise UserError(
                    f"{splits[split].documents:,} documents were read from {stored.parts[split]}, and the manifest of "
                    f"the export counts {recorded.documents:,}",
                    fix="export it again",
                    exit_code=FAILED,
                )
            added += missing
        manifest = corpus_manifest("tokenized", vocabulary, splits, None)
        require_counts(folder, manifest)
        if added:
            count = sum(split.documents for split in splits.values())
            text = f"{added:,} of {count_of(count, 'document')} of {index} did not end with end-of-text, which is added"
            warnings.warn(text, Notice, stacklevel=2)
        if stored.ignored:
            text = f"{', '.join(stored.ignored)} of {index} is not read; name it by its own path"
            warnings.warn(text, Notice, stacklevel=2)
        return dataclasses.replace(manifest, extra={END_OF_TEXT_ADDED: added} if added else {})

    files = _StoredFiles(index, [file for part in documents.values() for file in part.files])
    if not force:
        require_kind(final, "tokenized")
    return create_from_source(final, options, str(index), files, build, progress=progress, force=force)


def _manifest_of(stored: StoredDataset) -> Manifest | None:
    """The manifest that `export` has written into the folder that was named, or beside one of its splits."""
    for folder in (stored.path, stored.path.parent):
        try:
            manifest = read_manifest(folder) if folder.is_dir() else None
        except NewerFormatError:
            raise
        except UserError:
            continue  # a manifest.json of another program
        if manifest is not None and manifest.kind == "exported":
            return manifest
    return None


class _StoredFiles(NamedTuple):
    """The files of a stored dataset as a source that must not change while it is read."""

    path: Path
    files: list[Path]

    def listing(self) -> str:
        """A hash of the names, sizes and times of the files."""
        return SourceFiles(self.path, self.files, {}, "").listing()

    def made_from(self) -> SourceInfo:
        """Its description, with a checksum of its content."""
        return SourceInfo(str(self.path), SourceFiles(self.path, self.files, {}, "").fingerprint())


def _write_split(
    folder: Path,
    split: str,
    documents: StoredDocuments,
    index: Path,
    vocabulary: Vocabulary,
    progress: ProgressCallback,
) -> tuple[SplitInfo, int]:
    """Writes one split. Returns its size, and the number of documents that got an end-of-text id."""
    read, tokens, added = 0, 0, 0
    with open(folder / f"{split}.bin", "wb") as out:
        for batch in documents.batches():
            for ids, missing, count in _corpus_batches(batch.ids, batch.lengths, index, read, vocabulary):
                out.write(np.ascontiguousarray(ids).data)
                tokens += len(ids)
                added += missing
                read += count
                progress(f"import {split}", read, documents.num_documents)
    if read != documents.num_documents:
        raise UserError(
            f"{count_of(read, 'document was', 'documents were')} read from {index}, and its index counts "
            f"{documents.num_documents:,}",
            exit_code=FAILED,
        )
    return SplitInfo(read, tokens), added


def _corpus_batches(
    all_ids: np.ndarray, lengths: np.ndarray, index: Path, before: int, vocabulary: Vocabulary
) -> Iterator[tuple[np.ndarray, int, int]]:
    """Ids of whole documents, each ending with end-of-text.

    Args:
        all_ids: the ids of documents one after another.
        lengths: int64 `[documents]`.
        index: the path that errors name.
        before: the number of documents that were read before these.
        vocabulary: the vocabulary.

    Yields:
        The ids, the number of documents that did not end so, and the number of documents.
    """
    ends = np.cumsum(lengths)
    first, start = 0, 0
    while first < len(ends):
        last = max(first + 1, int(np.searchsorted(ends, start + _BATCH_TOKENS, side="right")))
        stop = int(ends[last - 1])
        ids = all_ids[start:stop]
        lowest, highest = int(ids.min(initial=0)), int(ids.max(initial=0))
        if lowest < 0 or highest >= vocabulary.size:
            raise UserError(
                f"{index} holds the id {lowest if lowest < 0 else highest:,}, which "
                f"{vocabulary.name!r} of {vocabulary.size:,} entries has not",
                fix="name the tokenizer that it was made with (--tokenizer)",
            )
        complete, missing = _with_ends(ids.astype(vocabulary.dtype), ends[first:last] - start, vocabulary.end_of_text)
        if np.count_nonzero(complete == vocabulary.end_of_text) != last - first:
            raise UserError(
                f"documents {before + first:,} to {before + last - 1:,} of {index} hold end-of-text "
                f"({vocabulary.end_of_text}) not only at their ends, and a corpus would cut them there",
                fix="make it with one document an entry, or name its own tokenizer (--tokenizer)",
            )
        yield complete, missing, last - first
        release_pages(all_ids, start, stop)
        first, start = last, stop


def _with_ends(ids: np.ndarray, ends: np.ndarray, end_of_text: int) -> tuple[np.ndarray, int]:
    """Documents that end at `ends`, with end-of-text after each one that lacks it, and the number of these."""
    is_empty = np.diff(ends, prepend=0) == 0
    last = ids[np.maximum(ends - 1, 0)] if len(ids) else np.zeros(len(ends), ids.dtype)
    missing = is_empty | (last != end_of_text)
    return np.insert(ids, ends[missing], end_of_text), int(missing.sum())

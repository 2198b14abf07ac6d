"""Flat corpora on disk: `train.bin` and `val.bin`, raw little-endian token ids.

Every document is followed by the end-of-text id. The layout is that of the paper's code. A manifest describes a folder;
folders without one are read as gpt2's unless another tokenizer is named.
"""

import functools
import hashlib
import mmap
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stochastok_cli.argument_checks import optional, whole_number
from stochastok_cli.artifacts import find_damage
from stochastok_cli.data.folders import dataset_dir as dataset_dir
from stochastok_cli.data.folders import memmap_dir as memmap_dir
from stochastok_cli.data.folders import require_dataset_folder
from stochastok_cli.data.source_files import SourceFiles
from stochastok_cli.errors import FAILED, Notice, UserError, count_of
from stochastok_cli.manifest import Manifest, SourceInfo, SplitInfo, TokenizerInfo, read_manifest, same_tokenizer
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.vocabulary import Vocabulary

SPLITS = ("train", "val")
_SCAN_TOKENS = 2**24
Tokenizer = str | Path | Vocabulary
"""A tokenizer by its name, by the path of its `tokenizer.json`, or as a vocabulary."""


def available_cpus() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_threads(num_proc: int | None) -> int:
    """How many threads `num_proc` asks for: one for each processor where it is None.

    Raises UserError for anything but a whole number from 1 on.
    """
    return optional(whole_number)("num_proc", num_proc, minimum=1) or available_cpus()


def resolve_vocabulary(
    tokenizer: Tokenizer | None = None, manifest: Manifest | None = None, name: object = "the dataset"
) -> Vocabulary:
    """The vocabulary of `tokenizer`, else the one that the manifest names, else (without a manifest) gpt2.

    Raises UserError if `tokenizer` is another than the one that the manifest of `name` records, and if neither is
    given although there is a manifest.
    """
    recorded = manifest.tokenizer if manifest else None
    if manifest is not None and recorded is None and tokenizer is None:
        raise UserError(f"the manifest of {name} names no tokenizer", fix="name the one it was made with (--tokenizer)")
    if isinstance(tokenizer, Vocabulary):
        vocabulary = tokenizer
    else:
        by_default = recorded.name if recorded else "gpt2"
        vocabulary = load_vocabulary(by_default if tokenizer is None else tokenizer)
    if recorded and not same_tokenizer(recorded.fingerprint, vocabulary.fingerprint):
        raise UserError(
            f"{name} was made with the tokenizer {recorded.name!r}; {vocabulary.name!r} is another one",
            fix="name the one it was made with (--tokenizer)",
        )
    return vocabulary


class MemmapDataset:
    """A folder of `.bin` files, with or without a manifest.

    Args:
        folder: the folder.
        tokenizer: name or path of the tokenizer, for a folder without a manifest (gpt2 by default).

    Raises:
        UserError: there is no such folder (exit code 2), or a file was cut short (exit code 1).
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer | None = None):
        require_dataset_folder(folder)
        self.path = folder
        self.name = folder.name
        self.manifest = read_manifest(folder)
        self._tokenizer = tokenizer
        damaged = find_damage(folder, self.manifest.files) if self.manifest else None
        if damaged:
            raise UserError(damaged, fix="make the folder again", exit_code=FAILED)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that the ids belong to. Raises UserError if `tokenizer` is another than the manifest's."""
        return resolve_vocabulary(self._tokenizer, self.manifest, self.path)

    @property
    def dtype(self) -> np.dtype:
        """The type of the ids."""
        recorded = self.manifest.dtype if self.manifest else None
        return np.dtype(recorded).newbyteorder("<") if recorded else self.vocabulary.dtype

    @property
    def end_of_text(self) -> int:
        """The id that ends a document."""
        recorded = self.manifest.end_of_text if self.manifest else None
        return self.vocabulary.end_of_text if recorded is None else recorded

    @property
    def license(self) -> str | None:
        """The license of the text that the ids come from, where it is known."""
        return self.manifest.license if self.manifest else None

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identifies the content. Without a manifest: from the sizes and the first and last bytes of the files."""
        if self.manifest:
            return self.manifest.fingerprint
        digest = hashlib.sha256()
        for file in sorted(self.path.glob("*.bin")):
            content = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)
            digest.update(f"{file.name}/{len(content)}/".encode())
            digest.update(content[: 1 << 20].tobytes())
            digest.update(content[-(1 << 20) :].tobytes())
        return digest.hexdigest()[:32]

    def listing(self) -> str | None:
        """A hash of the names, sizes and times of the files; None with a manifest, whose checksums tell more."""
        return None if self.manifest else self._files().listing()

    def made_from(self) -> SourceInfo:
        """The entry of a manifest on this dataset as a source; without one of its own, with a checksum of all bytes."""
        fingerprint = self.fingerprint if self.manifest else self._files().fingerprint()
        return SourceInfo(self.name, fingerprint, self.license)

    def _files(self) -> SourceFiles:
        return SourceFiles(self.path, sorted(self.path.glob("*.bin")), {}, "")

    def _array(self, file_name: str, dtype: np.dtype) -> np.ndarray:
        """A read-only memmap of one file (an ordinary empty array for an empty file)."""
        file = self.path / file_name
        if not file.is_file():
            raise UserError(f"{file} does not exist", fix=f"{self.name!r} is no complete dataset of this kind")
        size = file.stat().st_size
        if size % dtype.itemsize:
            raise UserError(f"{file} is cut short: {size:,} bytes are no whole number of {dtype} ids", exit_code=FAILED)
        return np.memmap(file, dtype, "r") if size else np.empty(0, dtype)


class Corpus(MemmapDataset):
    """A flat corpus: the ids of all documents of a split end to end."""

    def ids(self, split: str) -> np.ndarray:
        """The ids of a split, a read-only memmap `[tokens]`."""
        return self._array(f"{split}.bin", self.dtype)

    def require_end_of_text(self, split: str, *, trusted: bool = False) -> None:
        """Refuses ids that are probably those of another tokenizer: no manifest says whose they are, and they do not
        end with an end-of-text id.

        Args:
            split: the split.
            trusted: give a `Notice` instead of an error, because ids after the last end-of-text id may be a document
                too.

        Raises:
            UserError: the folder has no manifest, and the split does not end with the end-of-text id (exit code 1).
        """
        ids = self.ids(split)
        if self.manifest is not None or len(ids) == 0 or ids[-1] == self.end_of_text:
            return
        expected = f"the end-of-text id {self.end_of_text:,} of {self.vocabulary.name!r}"
        problem = f"{split} of {self.name} does not end with {expected}"
        if trusted:
            warnings.warn(f"{problem}; are its ids those of this tokenizer?", Notice, stacklevel=3)
            return
        named = "" if self._tokenizer is None else ", or put that id after each document"
        raise UserError(
            f"{problem}, so its documents can't be told apart",
            fix=f"name the tokenizer that it was made with (--tokenizer){named}",
            exit_code=FAILED,
        )

    @property
    def tokenizer_is_named(self) -> bool:
        """Whether whoever opened the folder has named its tokenizer."""
        return self._tokenizer is not None

    @property
    def num_tokens(self) -> dict[str, int]:
        """The number of ids of each split."""
        return {split: len(self.ids(split)) for split in SPLITS}


def document_batches(ids: np.ndarray, end_of_text: int, batch_tokens: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Cuts flat ids at the ends of documents into batches of about `batch_tokens` (more where a document is longer).

    Yields:
        `(start, stop, lengths)`: the batch is `ids[start:stop]`, and `lengths` (int64 `[documents]`) are the lengths of
        its documents, the end-of-text id counted. Ids after the last end-of-text id are a document too.
    """
    start = 0
    while start < len(ids):
        stop = start
        ends = np.empty(0, np.int64)
        while not len(ends) and stop < len(ids):
            piece = ids[stop : stop + batch_tokens]
            ends = np.flatnonzero(piece == end_of_text) + (stop + 1)
            stop += len(piece)
        if stop == len(ids):
            if not len(ends) or ends[-1] != stop:
                ends = np.append(ends, stop)
        else:
            stop = int(ends[-1])
        yield start, stop, np.diff(ends, prepend=start)
        start = stop


def corpus_manifest(
    kind: str, vocabulary: Vocabulary, splits: dict[str, SplitInfo], made_from: SourceInfo | None
) -> Manifest:
    """The manifest entries that describe the content of a folder of ids, for `create_artifact`."""
    return Manifest(
        kind=kind,
        tokenizer=TokenizerInfo.from_json(vocabulary.describe()),
        dtype=vocabulary.dtype.name,
        end_of_text=vocabulary.end_of_text,
        splits=splits,
        made_from=made_from,
    )


def count_split(folder: Path, split: str, dtype: np.dtype, end_of_text: int | None) -> SplitInfo:
    """The number of documents and ids in a file of ids."""
    file = folder / f"{split}.bin"
    return count_tokens(np.memmap(file, dtype, "r") if file.stat().st_size else np.empty(0, dtype), end_of_text)


def count_tokens(ids: np.ndarray, end_of_text: int | None) -> SplitInfo:
    """The number of documents and ids in flat ids."""
    documents = int(len(ids) > 0 and ids[-1] != end_of_text)
    for start in range(0, len(ids), _SCAN_TOKENS):
        stop = min(start + _SCAN_TOKENS, len(ids))
        documents += int(np.count_nonzero(ids[start:stop] == end_of_text))
        release_pages(ids, start, stop)
    return SplitInfo(documents, len(ids))


def require_counts(folder: Path, manifest: Manifest) -> None:
    """Counts the documents and ids of a folder that its manifest describes, which may not be written yet.

    Raises:
        UserError: the manifest counts others.
    """
    for split, recorded in manifest.splits.items():
        seen = count_split(folder, split, np.dtype(manifest.dtype), manifest.end_of_text)
        if (seen.documents, seen.tokens) != (recorded.documents, recorded.tokens):
            raise UserError(
                f"{split} holds {count_of(seen.documents, 'document')} with {count_of(seen.tokens or 0, 'id')}, and "
                f"{count_of(recorded.documents, 'document')} with {count_of(recorded.tokens or 0, 'id')} were counted",
                fix="make the folder again (--force)",
                exit_code=FAILED,
            )


def release_pages(ids: np.ndarray, start: int, stop: int) -> None:
    """Frees the memory of `ids[start:stop]` of a memmap; it is read from the file again when needed.

    Otherwise the pages of a large file that a process has read count as its memory until the system reclaims them.
    """
    mapping = getattr(ids, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        first = start * ids.itemsize // mmap.PAGESIZE * mmap.PAGESIZE
        mapping.madvise(mmap.MADV_DONTNEED, first, stop * ids.itemsize - first)

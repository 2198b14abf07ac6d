"""From text to a tokenized corpus: `<dataset>-tokenized/{train,val}.bin`.

Documents are encoded in the order of the source into one temporary file, and copied from there in the order of the
corpus split. So memory is bounded by the batch, not by the corpus (less than a hundred bytes per document are kept).
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from stochastok_cli.argument_checks import fraction, optional, path_like, require_each, string, whole_number, yes_or_no
from stochastok_cli.artifacts import Artifact, tasks_folder
from stochastok_cli.data.folders import require_kind
from stochastok_cli.data.memmap import (
    Tokenizer,
    corpus_manifest,
    memmap_dir,
    num_threads,
    require_counts,
    resolve_vocabulary,
)
from stochastok_cli.data.reading import TextSource
from stochastok_cli.data.source_artifacts import create_from_source
from stochastok_cli.data.text_sources import open_source
from stochastok_cli.errors import FAILED, Notice, UserError, count_of
from stochastok_cli.manifest import Manifest, SplitInfo
from stochastok_cli.paths import folder_name
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import CORPUS_SEED, corpus_permutation
from stochastok_cli.tokenization.vocabulary import Vocabulary

T = TypeVar("T")
_COPY_BYTES = 1 << 24
EncodeSource = Callable[[TextSource[str], Vocabulary, Path, Path, ProgressCallback], tuple[np.ndarray, int]]
"""Writes the ids of all documents of a source to a file, as `encode_source` does.

The first path is that of the folder which is made, under its final name; the second one is that of the file.
"""


def tokenized_name(dataset: str) -> str:
    """The folder name of a tokenized dataset."""
    if not dataset:
        raise UserError("the name of the dataset is empty", fix="leave --name away, or give one")
    return dataset if dataset.endswith("-tokenized") else f"{dataset}-tokenized"


def tokenize(
    source: str | Path,
    *,
    tokenizer: Tokenizer = "gpt2",
    name: str | None = None,
    data_dir: str | Path = "data",
    text_column: str = "text",
    documents: str = "paragraph",
    subset: str | None = None,
    split: str = "train",
    val_fraction: float = 0.01,
    seed: int = CORPUS_SEED,
    errors: str = "strict",
    on_bad_document: str = "error",
    limit: int | None = None,
    num_proc: int | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
    encode: EncodeSource | None = None,
) -> Artifact:
    """Tokenizes text into `<data_dir>/data_as_memmaps/<name>-tokenized`.

    With `order` the permutation of the documents that `seed` gives, val is the first `ceil(val_fraction * n)` of them
    and train the rest, both in that order (as `datasets.Dataset.train_test_split`).

    Args:
        source: a file or folder, a dataset id on the Hub, or "sample" (the bundled text).
        tokenizer: name or path of a tokenizer, or its vocabulary.
        name: the name of the dataset; by default that of the source.
        data_dir: the data directory.
        text_column: the column or JSON key that holds the text; `outer.inner` for one of a struct or object.
        documents: what a document of a local text file is: "paragraph" (blank lines separate them) or "file".
        subset: the subset (configuration) of a dataset on the Hub.
        split: the split of a dataset on the Hub, or of one that `datasets` has saved.
        val_fraction: the fraction of the documents in the validation split, in [0, 1).
        seed: the seed of the permutation.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        on_bad_document: what to do with a document that can't be read: "error", or "skip" to leave it out. Then the
            manifest has their number, the reasons and the places, and a `Notice` says so.
        limit: read only so many documents, the first; None for all.
        num_proc: threads; by default all processors. Never changes the result.
        force: make the folder again if it is there already.
        progress: called with the number of bytes (or rows) of the source that are tokenized.
        encode: how the source is encoded; by default `encode_source`, in this process.

    Returns:
        The folder. One that is there already, made with the same options, is left alone.

    Raises:
        UserError: the source can't be read or has too few documents, or the folder is there, made with other options.
    """
    source, data_dir = path_like("source", source), path_like("data_dir", data_dir)
    require_each(string, text_column=text_column, split=split)
    require_each(optional(string), name=name, subset=subset)
    yes_or_no("force", force)
    val_fraction, seed = validation_fraction(val_fraction), whole_number("seed", seed)
    limit, threads = optional(whole_number)("limit", limit, minimum=1), num_threads(num_proc)
    vocabulary = resolve_vocabulary(tokenizer)
    texts = open_source(
        str(source),
        text_column,
        documents=documents,
        errors=errors,
        on_bad_document=on_bad_document,
        limit=limit,
        subset=subset,
        split=split,
    )
    left_out = texts.left_out
    named = None if name is None else tokenized_name(name)
    final = memmap_dir(data_dir) / folder_name(named, tokenized_name(texts.name))
    options = {**texts.options, "tokenizer": vocabulary.fingerprint, "val_fraction": val_fraction, "seed": seed}

    def build(folder: Path, progress: ProgressCallback) -> Manifest:
        encoded = folder / ".encoded"
        if encode is None:
            lengths, unknown = encode_source(texts, vocabulary, encoded, threads, progress)
        else:
            lengths, unknown = encode(texts, vocabulary, final, encoded, progress)
        n = len(lengths)
        fix = "blank lines separate the documents of text files, unless --documents file makes each file one; "
        fix = fix if texts.has_paragraphs else ""
        is_limited = limit is not None and n >= limit  # the source may hold more
        fix = "raise --limit; " if is_limited else fix
        details = f" ({left_out.total():,} left out: {left_out.describe()})" if left_out.total() else ""
        what = (
            f"--limit {limit} reads {count_of(n, 'document')} of {source}{details}"
            if is_limited
            else f"{source} holds {count_of(n, 'document')}{details}"
            if n or details
            else f"{source} is empty: it has no documents"
        )
        chosen_of = corpus_split(n, val_fraction, seed, what, fix)
        starts = np.cumsum(lengths) - lengths
        size = vocabulary.dtype.itemsize
        splits = {}
        for split, chosen in chosen_of.items():
            copy_documents(
                encoded, starts[chosen] * size, lengths[chosen] * size, folder / f"{split}.bin", split, progress
            )
            splits[split] = SplitInfo(len(chosen), int(lengths[chosen].sum()))
        encoded.unlink()
        manifest = corpus_manifest("tokenized", vocabulary, splits, None)
        require_counts(folder, manifest)
        return dataclasses.replace(manifest, unknown_tokens=unknown or None, **left_out.manifest_entries())

    kept = None if encode else tasks_folder(final)
    if not force:
        require_kind(final, "tokenized")
    made = create_from_source(final, options, str(source), texts, build, progress=progress, force=force, kept=kept)
    if left_out.total():  # none for a folder that was there already
        warnings.warn(f"{count_of(left_out.total(), 'document')} left out: {left_out.describe()}", Notice, stacklevel=2)
    return made


def validation_fraction(val_fraction: float) -> float:
    """The share of validation documents as a number of Python. Raises UserError for an impossible one."""
    return fraction("the share of validation documents", val_fraction)


def corpus_split(n: int, val_fraction: float, seed: int, what: str, fix: str = "") -> dict[str, np.ndarray]:
    """The documents of the training and of the validation split, int64, of `n` documents.

    Args:
        n: the number of documents.
        val_fraction: the fraction of them in the validation split.
        seed: the seed of the permutation.
        what: what the error says about a source with too few documents.
        fix: what it says to do, besides another fraction.

    Raises:
        UserError: there are too few documents.
    """
    val = require_split(n, val_fraction, what, fix)
    order = corpus_permutation(n, seed)
    return {"train": order[val:], "val": order[:val]}


def require_split(n: int, val_fraction: float, what: str, fix: str = "") -> int:
    """The number of validation documents. Raises UserError, with the arguments of `corpus_split`, for too few."""
    val = math.ceil(val_fraction * n)
    if n == 0:
        raise UserError(what)
    if val == n:
        raise UserError(
            f"{what}, too few for a training and a validation split",
            fix=f"{fix}--val-fraction sets the validation share; --val-fraction 0 makes no such split",
        )
    return val


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each computed by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as reader:
        end = object()
        coming = reader.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, items, end)
            yield item  # type: ignore[misc]


def encode_source(
    source: TextSource[str], vocabulary: Vocabulary, file: Path, threads: int, progress: ProgressCallback
) -> tuple[np.ndarray, int]:
    """Writes the ids of all documents, each with its end-of-text id, in the order of the source.

    Args:
        source: the documents.
        vocabulary: the vocabulary.
        file: the file that is written.
        threads: how many threads encode.
        progress: called with the progress through the source.

    Returns:
        The lengths of the documents (int64), and the number of ids that replace text that the vocabulary can't
        represent.
    """
    all_lengths = [np.empty(0, np.int64)]
    unknown = 0
    with open(file, "wb") as out:
        for documents, done in read_ahead(source.batches()):
            ids, lengths = vocabulary.encode_batch(documents, threads)
            ends = np.cumsum(lengths)
            out.write(np.insert(ids, ends, vocabulary.end_of_text).data)
            all_lengths.append(lengths + 1)
            if vocabulary.unknown is not None:
                unknown += int((ids == vocabulary.unknown).sum())
            progress("tokenize", done, source.total)
    return np.concatenate(all_lengths), unknown


def copy_bytes(source: BinaryIO, start: int, size: int, out: BinaryIO) -> None:
    """Appends `size` bytes from `start` of an open file to another one.

    Raises:
        UserError: the file is shorter.
    """
    source.seek(start)
    while size:
        piece = source.read(min(size, _COPY_BYTES))  # may be shorter where the file is not buffered
        if not piece:
            raise cut_short(source.name)
        out.write(piece)
        size -= len(piece)


def cut_short(file: str | Path) -> UserError:
    """The error of a file with less in it than was written."""
    return UserError(f"{file} is cut short", fix="run it again with --force", exit_code=FAILED)


def copy_documents(
    source: Path, starts: np.ndarray, sizes: np.ndarray, file: Path, split: str, progress: ProgressCallback
) -> None:
    """Writes documents in another order: `sizes[i]` bytes from `starts[i]` of `source`, for each i in turn.

    Raises UserError if the source is shorter.
    """
    with open(source, "rb", buffering=0) as encoded, open(file, "wb", buffering=1 << 20) as out:
        for i, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
            copy_bytes(encoded, start, size, out)
            if i % 1000 == 0:
                progress(f"write {split}", i, len(starts))

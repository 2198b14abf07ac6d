"""From text to a tokenized corpus: `<dataset>-tokenized/{train,val}.bin`.

Documents are encoded in the order of the source into one temporary file and gathered from there in the order of the
corpus split, so memory stays bounded by the batch, not by the corpus (less than a hundred bytes a document are kept).
"""

import dataclasses
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from stochastok_cli.artifacts import MANIFEST, Artifact, Manifest, SplitInfo, create_artifact, validate_folder_name
from stochastok_cli.data.memmap import corpus_manifest, memmap_dir
from stochastok_cli.data.text_sources import Source
from stochastok_cli.errors import UserError
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import CORPUS_SEED, corpus_permutation
from stochastok_cli.tokenization.vocabulary import Vocabulary

T = TypeVar("T")


def tokenized_name(dataset: str) -> str:
    """The folder name of a tokenized dataset."""
    return dataset if dataset.endswith("-tokenized") else f"{dataset}-tokenized"


def tokenize_corpus(
    source: Source,
    vocabulary: Vocabulary,
    data_dir: Path,
    *,
    name: str | None = None,
    val_fraction: float = 0.01,
    seed: int = CORPUS_SEED,
    threads: int = 1,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Tokenizes a source into `<data_dir>/data_as_memmaps/<name or the source's>-tokenized`.

    With `order` the permutation of the documents that `seed` gives, val is the first `ceil(val_fraction * n)` of them
    and train the rest, both in that order (as `datasets.train_test_split`). Raises UserError if there are no
    documents or too few to fill both splits.
    """
    if not 0 <= val_fraction < 1:
        raise UserError(f"the share of validation documents is {val_fraction}", fix="it must be in [0, 1)")
    final = memmap_dir(data_dir) / validate_folder_name(tokenized_name(name or source.name))
    options = {**source.options, "tokenizer": vocabulary.fingerprint, "val_fraction": val_fraction, "seed": seed}

    def build(folder: Path) -> Manifest:
        encoded = folder / ".encoded"
        origin = worker.submit(source.made_from)  # a checksum of the source, while there is other work
        lengths, unknown = _encode(source, vocabulary, encoded, threads, progress)
        n = len(lengths)
        val = math.ceil(val_fraction * n)
        if n == 0 or val == n:
            raise UserError(
                f"{options['source']} holds {n} document(s), too few for a training and a validation split",
                fix="in .txt files blank lines separate documents; --val-fraction sets the validation share",
            )
        starts = np.cumsum(lengths) - lengths
        order = corpus_permutation(n, seed)
        size = vocabulary.dtype.itemsize
        splits = {}
        for split, chosen in (("train", order[val:]), ("val", order[:val])):
            _gather(encoded, starts[chosen] * size, lengths[chosen] * size, folder / f"{split}.bin", split, progress)
            splits[split] = SplitInfo(len(chosen), int(lengths[chosen].sum()))
        encoded.unlink()
        manifest = corpus_manifest("tokenized", vocabulary, splits, origin.result())
        return dataclasses.replace(manifest, unknown_tokens=unknown or None)

    with ThreadPoolExecutor(1) as worker:
        made = create_artifact(final, options, build, force=force)
    if not made.created:
        _require_same_content(made, source)
    return made


def _require_same_content(made: Artifact, source: Source) -> None:
    """Raises UserError if files that were changed since the folder was made hold something else now."""
    if source.changed > (made.path / MANIFEST).stat().st_mtime:
        before = made.manifest.made_from.fingerprint if made.manifest.made_from else None
        if before and source.made_from().fingerprint != before:
            raise UserError(
                f"{made.path} exists, made when {source.options['source']} held another text",
                fix="--force makes it again",
            )


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, each fetched by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as reader:
        end = object()
        coming = reader.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = reader.submit(next, items, end)
            yield item  # type: ignore[misc]


def _encode(
    source: Source, vocabulary: Vocabulary, file: Path, threads: int, progress: ProgressCallback
) -> tuple[np.ndarray, int]:
    """Writes all documents, each with its end-of-text id, in the order of the source.

    Returns their lengths (int64) and how many ids stand for something that the vocabulary can't spell.
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


def _gather(
    source: Path, starts: np.ndarray, sizes: np.ndarray, file: Path, split: str, progress: ProgressCallback
) -> None:
    """Writes documents in another order: `sizes[i]` bytes from `starts[i]` of `source`, for each i in turn."""
    with open(source, "rb", buffering=0) as encoded, open(file, "wb", buffering=1 << 20) as out:
        for i, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
            encoded.seek(start)
            out.write(encoded.read(size))
            if i % 1000 == 0:
                progress(f"write {split}", i, len(starts))

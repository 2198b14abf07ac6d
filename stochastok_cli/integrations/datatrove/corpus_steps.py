"""Steps that divide a source of text, or a corpus of token ids, between the tasks of a pipeline.

They give the bytes of `stochastok tokenize` and `stochastok expand`, whatever the number of tasks: what the tasks write
is put together in the order of the source, and the random numbers of a document depend on its index in the corpus.
"""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from datatrove.pipeline.base import PipelineStep

from stochastok_cli.data.bad_documents import ON_BAD_DOCUMENT, LeftOut
from stochastok_cli.data.expand import expand_ids
from stochastok_cli.data.memmap import SPLITS, Corpus, count_tokens
from stochastok_cli.data.text_sources import TextSource, open_source
from stochastok_cli.data.tokenize import copy_bytes
from stochastok_cli.errors import UserError
from stochastok_cli.integrations.datatrove.parts import PartWriter, part_files, read_arrays
from stochastok_cli.manifest import SplitInfo
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.methods import METHODS
from stochastok_cli.tokenization.methods.base import register_method
from stochastok_cli.tokenization.vocabulary import Vocabulary

T = TypeVar("T")
_SCAN_TOKENS = 2**24


class TokenizeSource(PipelineStep):
    """Each task writes the ids of its batches of a source of local files.

    Args:
        source: a file or folder, or "sample".
        vocabulary: the vocabulary.
        folder: where the parts are written.
        reading: further arguments of `open_source`.
        threads: how many threads of a task encode.
    """

    type = "stochastok"
    name = "tokenize a source"

    def __init__(
        self, source: str, vocabulary: Vocabulary, folder: Path, reading: dict[str, Any] | None = None, threads: int = 1
    ):
        super().__init__()
        self.source, self.vocabulary, self.folder = source, vocabulary, folder
        self.reading, self.threads = reading or {}, threads
        self.directory = os.getcwd()  # places of documents are named as on one machine

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Writes the part of a task; see `PipelineStep`."""
        vocabulary = self.vocabulary
        os.chdir(self.directory)
        writer = PartWriter(self.folder, rank, vocabulary.dtype)
        batches: list[tuple[int, int, int, int]] = []
        lengths, unknown = [np.empty(0, np.int64)], 0
        left_out: dict[int, LeftOut] = {}
        source = open_source(self.source, **self.reading)
        on_bad_document = self.reading.get("on_bad_document", ON_BAD_DOCUMENT[0])
        with writer.file:  # closed also where a document can't be read
            for file, number, documents in batches_of_task(source, rank, world_size, on_bad_document, left_out):
                ids, counts = vocabulary.encode_batch(documents, self.threads)
                writer.write(np.insert(ids, np.cumsum(counts), vocabulary.end_of_text))
                batches.append((file, number, len(counts), len(ids) + len(counts)))
                lengths.append(counts + 1)
                if vocabulary.unknown is not None:
                    unknown += int((ids == vocabulary.unknown).sum())
                self.stat_update("documents", value=len(counts), unit="batch")
                self.stat_update("tokens", value=len(ids) + len(counts), unit="batch")
        left_out_file(self.folder, rank).write_bytes(pickle.dumps(left_out))
        writer.finish(
            batches=np.array(batches, np.int64).reshape(-1, 4), lengths=np.concatenate(lengths), unknown=unknown
        )


def require_local(source: TextSource[Any], name: str | Path) -> None:
    """Raises UserError for a dataset on the Hub."""
    if source.files is None:
        raise UserError(
            f"--executor reads local files, and {name} is a dataset on the Hub",
            fix=f"download it first: hf download --repo-type dataset {name} --local-dir DIR",
        )


def batches_of_task(
    source: TextSource[T],
    rank: int,
    tasks: int,
    on_bad_document: str = ON_BAD_DOCUMENT[0],
    left_out: dict[int, LeftOut] | None = None,
) -> Iterator[tuple[int, int, list[T]]]:
    """The documents that one of the tasks encodes: `(file, batch, documents)`, with the numbers of both.

    With as many files as tasks or more, a task reads whole files. With fewer, some tasks read the same file, and take
    its batches in turn; the first of them counts the documents that can't be read.

    Args:
        source: local files.
        rank: the number of the task.
        tasks: how many tasks there are.
        on_bad_document: "skip" to leave out documents that can't be read, or "error".
        left_out: receives what is left out of each file, by its number.
    """
    assert source.files is not None and source.read_file is not None
    num_files = len(source.files)
    sharing = len(range(rank % num_files, tasks, num_files)) if num_files < tasks else 1  # tasks that read this file
    turn = rank // num_files % sharing
    for file in range(rank, num_files, tasks) if num_files >= tasks else [rank % num_files]:
        unreadable = LeftOut(on_bad_document)
        for number, (documents, _) in enumerate(source.read_file(source.files[file], unreadable.bad)):
            if number % sharing == turn:
                yield file, number, documents
        if turn == 0 and left_out is not None:
            left_out[file] = unreadable


def join_tokenized(
    folder: Path, tasks: int, source: TextSource[str], vocabulary: Vocabulary, file: Path
) -> tuple[np.ndarray, int]:
    """Writes what the tasks of `TokenizeSource` have written to one file, in the order of the source.

    Args:
        folder: where the tasks have written.
        tasks: how many tasks there were.
        source: the source, which is told what was left out of it.
        vocabulary: the vocabulary.
        file: the file that is written.

    Returns:
        The lengths of the documents (int64), and the number of ids that replace text.
    """
    parts = read_arrays(folder, tasks)
    left_out: dict[int, LeftOut] = {}
    for rank in range(tasks):
        left_out |= pickle.loads(left_out_file(folder, rank).read_bytes())
    for _, of_file in sorted(left_out.items()):
        source.left_out.merge(of_file)
    places = []  # (file, batch, rank, first document in the part, documents, first id, ids)
    for rank, part in enumerate(parts):
        ends = np.cumsum(part["batches"][:, 2:], axis=0)
        for (number, batch, documents, tokens), (stop, end) in zip(
            part["batches"].tolist(), ends.tolist(), strict=True
        ):
            places.append((number, batch, rank, stop - documents, documents, end - tokens, tokens))
    lengths = [np.empty(0, np.int64)]
    size = vocabulary.dtype.itemsize
    with open(file, "wb") as out:
        for _, _, rank, first, documents, start, tokens in sorted(places):
            lengths.append(parts[rank]["lengths"][first : first + documents])
            with open(part_files(folder, rank)[0], "rb", buffering=0) as part_ids:
                copy_bytes(part_ids, start * size, tokens * size, out)
    return np.concatenate(lengths), sum(int(part["unknown"]) for part in parts)


def left_out_file(folder: Path, rank: int) -> Path:
    """The file of what a task has left out of each source file."""
    return folder / f"{rank:05d}.left_out"


class CountDocuments(PipelineStep):
    """Each task counts the documents in its ranges of a corpus, one range a split.

    Args:
        corpus: the folder of the corpus.
        vocabulary: its vocabulary.
        folder: where the counts are written.
    """

    type = "stochastok"
    name = "count documents"

    def __init__(self, corpus: Path, vocabulary: Vocabulary, folder: Path):
        super().__init__()
        self.corpus, self.vocabulary, self.folder = corpus, vocabulary, folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Writes the counts of a task; see `PipelineStep`."""
        corpus = Corpus(self.corpus, self.vocabulary)
        counts = []
        for split in SPLITS:
            ids = range_of_task(corpus, split, rank, world_size)
            counts.append(count_tokens(ids, corpus.end_of_text).documents)
        PartWriter(self.folder, rank, corpus.dtype).finish(documents=np.array(counts, np.int64))


class ExpandCorpus(PipelineStep):
    """Each task writes the expanded documents of its ranges of a corpus, one range a split.

    Args:
        corpus: the folder of the corpus.
        expand: expands documents.
        counts: where `CountDocuments` has written.
        folder: where the parts are written, in a folder for each split.
        threads: how many threads of a task expand.
    """

    type = "stochastok"
    name = "expand a corpus"

    def __init__(self, corpus: Path, expand: StochasTok, counts: Path, folder: Path, threads: int = 1):
        super().__init__()
        self.corpus, self.expand, self.family = corpus, expand, METHODS[expand.definition.family]
        self.counts, self.folder, self.threads = counts, folder, threads

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Writes the part of a task; see `PipelineStep`."""
        if self.family.name not in METHODS:  # defined in the process that has sent this step
            register_method(self.family)
        corpus = Corpus(self.corpus, self.expand.vocabulary)
        counts = np.stack([part["documents"] for part in read_arrays(self.counts, world_size)])
        totals = counts.sum(axis=0)
        for i, split in enumerate(SPLITS):
            first = int(totals[:i].sum() + counts[:rank, i].sum())
            ids = range_of_task(corpus, split, rank, world_size)
            writer = PartWriter(self.folder / split, rank, corpus.vocabulary.dtype)
            made = expand_ids(ids, corpus.end_of_text, first, self.expand, writer.file, self.threads)
            writer.finish(documents=made.documents, tokens=made.tokens or 0)
            self.stat_update("documents", value=made.documents, unit="split")
            self.stat_update("tokens", value=made.tokens or 0, unit="split")


def range_of_task(corpus: Corpus, split: str, rank: int, tasks: int) -> np.ndarray:
    """The documents of a split that belong to a task: about equally many ids for each, in the order of the tasks."""
    ids = corpus.ids(split)
    start, stop = (_document_end(ids, corpus.end_of_text, len(ids) * r // tasks) for r in (rank, rank + 1))
    if start == stop:
        return ids[:0]
    # A map of its own, so that the memory of what has been read can be given back.
    return np.memmap(corpus.path / f"{split}.bin", ids.dtype, "r", start * ids.itemsize, (stop - start,))


def _document_end(ids: np.ndarray, end_of_text: int, position: int) -> int:
    """The first end of a document at or after a position."""
    if position == 0:
        return 0
    for start in range(position - 1, len(ids), _SCAN_TOKENS):
        ends = np.flatnonzero(ids[start : start + _SCAN_TOKENS] == end_of_text)
        if len(ends):
            return start + int(ends[0]) + 1
    return len(ids)


def join_expanded(folder: Path, tasks: int, split: str, dtype: np.dtype, file: Path) -> SplitInfo:
    """Writes what the tasks of `ExpandCorpus` have written of a split to one file, in the order of the corpus.

    Args:
        folder: Where the tasks have written it.
        tasks: How many there were.
        split: The name of the split.
        dtype: Of the ids.
        file: The file to write.

    Returns:
        The size of the split.
    """
    parts = read_arrays(folder / split, tasks)
    with open(file, "wb") as out:
        for rank, part in enumerate(parts):
            with open(part_files(folder / split, rank)[0], "rb", buffering=0) as part_ids:
                copy_bytes(part_ids, 0, int(part["tokens"]) * dtype.itemsize, out)
    return SplitInfo(sum(int(part["documents"]) for part in parts), sum(int(part["tokens"]) for part in parts))

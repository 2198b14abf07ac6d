"""Steps for pipelines of datatrove, behind any reader and any filters: tokenize documents, expand them, save them.

The ids of a document are in `document.metadata["input_ids"]`, an array that ends with the end-of-text id. What becomes
of a document depends on the document and on the key that names it, never on the task that it falls to.
"""

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from stochastok_cli.argument_checks import whole_number
from stochastok_cli.artifacts import Artifact, create_artifact
from stochastok_cli.data.memmap import Tokenizer, corpus_manifest, require_counts, resolve_vocabulary
from stochastok_cli.data.tokenize import copy_bytes, copy_documents, cut_short, require_split, validation_fraction
from stochastok_cli.errors import Notice, UserError, count_of
from stochastok_cli.integrations.datatrove.parts import PartWriter, part_files, read_arrays, remove_progress
from stochastok_cli.manifest import Manifest, SourceInfo, SplitInfo
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import CORPUS_SEED, derive_key, mix
from stochastok_cli.tokenization.expansion import StochasTok, ids_of
from stochastok_cli.tokenization.methods import METHODS
from stochastok_cli.tokenization.methods.base import register_method
from stochastok_cli.tokenization.vocabulary import Vocabulary

KEYS = ("id", "content")
"""What names a document: the id that its reader gave it, or its token ids."""
_BATCH_CHARACTERS = 1_000_000


class TokenizeDocuments(PipelineStep):
    """Sets the ids of each document, with the end-of-text id at the end.

    Args:
        tokenizer: name or path of a tokenizer, or its vocabulary.
        threads: how many threads of a task encode.
    """

    type = "stochastok"
    name = "tokenize"

    def __init__(self, tokenizer: Tokenizer, threads: int = 1):
        super().__init__()
        self.vocabulary, self.threads = resolve_vocabulary(tokenizer), threads

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields the documents with their ids; see `PipelineStep`."""
        batch, size = [], 0
        for document in data:
            batch.append(document)
            size += len(document.text)
            if size >= _BATCH_CHARACTERS:
                yield from self._tokenized(batch)
                batch, size = [], 0
        yield from self._tokenized(batch)

    def _tokenized(self, batch: list[Document]) -> list[Document]:
        if batch:
            ids, lengths = self.vocabulary.encode_batch([document.text for document in batch], self.threads)
            ids = np.insert(ids, np.cumsum(lengths), self.vocabulary.end_of_text)
            for document, own in zip(batch, np.split(ids, np.cumsum(lengths + 1)[:-1]), strict=True):
                document.metadata["input_ids"] = own
            self.stat_update("tokens", value=len(ids), unit="batch")
        return batch


class ExpandDocuments(PipelineStep):
    """Expands the ids of each document. Its random numbers depend on the seed and on the document's id alone.

    Args:
        expand: expands them, by any method.
    """

    type = "stochastok"
    name = "expand"

    def __init__(self, expand: StochasTok):
        super().__init__()
        self.expand, self.family = expand, METHODS[expand.definition.family]

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields the documents with expanded ids; see `PipelineStep`."""
        if self.family.name not in METHODS:  # defined in the process that has sent this step
            register_method(self.family)
        for document in data:
            ids = _ids_of(document, self.expand.vocabulary)
            document.metadata["input_ids"] = self.expand(ids, derive_key(0, f"document/{document.id}"))
            yield document


class SaveDocuments(PipelineStep):
    """Saves the ids of each document, for `FinishCorpus`.

    Args:
        folder: the folder of what the tasks save.
        tokenizer: name or path of the tokenizer of the ids, or its vocabulary.
        key: what names a document, one of KEYS.
    """

    type = "stochastok"
    name = "save"

    def __init__(self, folder: str | Path, tokenizer: Tokenizer, key: str = "id"):
        super().__init__()
        self.folder, self.vocabulary, self.key = Path(folder).absolute(), resolve_vocabulary(tokenizer), key
        require_key(key)

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields the documents as they are; see `PipelineStep`."""
        vocabulary = self.vocabulary
        writer = PartWriter(self.folder, rank, vocabulary.dtype)
        lengths, keys, contents, unknown = [], [], [], 0
        for document in data:
            ids = _ids_of(document, vocabulary)
            writer.write(ids)
            lengths.append(len(ids))
            contents.append(hashlib.blake2b(ids.data, digest_size=16).digest())
            if self.key == "id":
                keys.append(hashlib.blake2b(document.id.encode("utf-8", "surrogatepass"), digest_size=16).digest())
            if vocabulary.unknown is not None:
                unknown += int((ids == vocabulary.unknown).sum())
            yield document
        if lengths:
            self.stat_update("saved", value=len(lengths), unit="task")
            self.stat_update("saved_tokens", value=sum(lengths), unit="task")
        content = _words(contents)
        writer.finish(
            lengths=np.array(lengths, np.int64),
            keys=_words(keys) if self.key == "id" else content,
            contents=content,
            unknown=unknown,
        )


class NumberDocuments(PipelineStep):
    """Numbers the repeated documents among all that the tasks have saved; for a pipeline of one task.

    Args:
        folder: what `SaveDocuments` has written.
        tasks: how many tasks have written.
    """

    type = "stochastok"
    name = "number repeated documents"

    def __init__(self, folder: str | Path, tasks: int):
        super().__init__()
        self.folder, self.tasks = Path(folder).absolute(), tasks

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Writes how many equal documents come before each; see `PipelineStep`."""
        parts = read_arrays(self.folder, self.tasks)
        contents = np.concatenate([part["contents"] for part in parts])
        order = np.lexsort((contents[:, 1], contents[:, 0]))  # stable: equal documents in the order of the tasks
        ordered = contents[order]
        begins = np.flatnonzero(np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1)))[: len(ordered)]
        counts = np.diff(np.append(begins, len(ordered)))
        occurrences = np.empty(len(ordered), np.int64)
        occurrences[order] = np.arange(len(ordered)) - np.repeat(begins, counts)
        ends = np.cumsum([len(part["lengths"]) for part in parts])
        for number, own in enumerate(np.split(occurrences, ends[:-1])):
            np.save(_occurrences_file(self.folder, number), own)
        if len(ordered):
            self.stat_update("repeated", value=int((occurrences > 0).sum()), unit="corpus")


class ReadSavedDocuments(PipelineStep):
    """Reads saved documents. The id of each is the hash of its ids and the number of equal documents before it.

    Args:
        folder: what `SaveDocuments` and then `NumberDocuments` have written.
        tasks: how many tasks have written.
        dtype: the type of the ids, that of the vocabulary.
    """

    type = "stochastok"
    name = "read saved documents"

    def __init__(self, folder: str | Path, tasks: int, dtype: np.dtype):
        super().__init__()
        self.folder, self.tasks, self.dtype = Path(folder).absolute(), tasks, dtype

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields the documents of every `world_size`-th part; see `PipelineStep`."""
        for part in range(rank, self.tasks, world_size):
            ids_file, arrays_file = part_files(self.folder, part)
            with np.load(arrays_file) as arrays:
                lengths, contents = arrays["lengths"], arrays["contents"]
            occurrences = np.load(_occurrences_file(self.folder, part))
            with open(ids_file, "rb") as stream:
                for length, content, occurrence in zip(lengths, contents, occurrences, strict=True):
                    content_bytes = stream.read(length * self.dtype.itemsize)
                    if len(content_bytes) < length * self.dtype.itemsize:
                        raise cut_short(ids_file)
                    ids = np.frombuffer(content_bytes, self.dtype)
                    yield Document("", f"{content[0]:016x}{content[1]:016x}/{occurrence}", metadata={"input_ids": ids})


class FinishCorpus(PipelineStep):
    """Makes an ordinary corpus of saved documents; for a pipeline of one task.

    The order of the documents depends on their keys and on the seed: it is the same for any number of tasks and any
    order of the source. The first `ceil(val_fraction * n)` documents validate.

    Args:
        folder: what `SaveDocuments` has written.
        tasks: how many tasks have written.
        final: the folder to make, `<data_dir>/data_as_memmaps/<name>`.
        tokenizer: name or path of the tokenizer of the ids, or its vocabulary.
        val_fraction: the fraction of the documents in the validation split, in [0, 1).
        seed: the seed of the order.
        options: what else decides the content, for the manifest; with "method" among them, the corpus is expanded.
        source: the name of the source, for the manifest.
        force: make the folder again if it is there already.
    """

    type = "stochastok"
    name = "finish a corpus"

    def __init__(
        self,
        folder: str | Path,
        tasks: int,
        final: str | Path,
        tokenizer: Tokenizer,
        *,
        val_fraction: float = 0.01,
        seed: int = CORPUS_SEED,
        options: dict[str, Any] | None = None,
        source: str | None = None,
        force: bool = False,
    ):
        super().__init__()
        self.folder, self.tasks, self.final = Path(folder).absolute(), tasks, Path(final)
        self.directory = os.getcwd()  # `final` may be relative to it
        self.val_fraction, self.seed = validation_fraction(val_fraction), whole_number("seed", seed)
        self.vocabulary = resolve_vocabulary(tokenizer)
        self.options, self.source, self.force = options or {}, source, force

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Makes the folder; see `PipelineStep`."""
        os.chdir(self.directory)
        remove_progress(self.make().path)

    def make(
        self, before: Callable[[Path, ProgressCallback], None] | None = None, progress: ProgressCallback = no_progress
    ) -> Artifact:
        """Makes the folder, unless it is there already, made with the same options.

        Args:
            before: called first, with the folder that is being made and the callback for its progress.
            progress: called with the number of documents that are written.
        """
        made_with = {"tokenizer": self.vocabulary.fingerprint, "val_fraction": self.val_fraction, "seed": self.seed}

        def build(folder: Path, progress: ProgressCallback) -> Manifest:
            if before is not None:
                before(folder, progress)
            return self._build(folder, progress)

        return self._create({**made_with, **self.options}, build, progress)

    def _create(
        self,
        options: dict[str, Any],
        build: Callable[[Path, ProgressCallback], Manifest],
        progress: ProgressCallback,
    ) -> Artifact:
        return create_artifact(self.final, options, lambda folder: build(folder, progress), force=self.force)

    def _build(self, folder: Path, progress: ProgressCallback) -> Manifest:
        parts = read_arrays(self.folder, self.tasks)
        lengths = np.concatenate([part["lengths"] for part in parts])
        order = _keyed_order(parts, self.seed)
        size, joined = self.vocabulary.dtype.itemsize, folder / ".joined"
        with open(joined, "wb") as out:
            for rank, part in enumerate(parts):
                with open(part_files(self.folder, rank)[0], "rb", buffering=0) as part_ids:
                    copy_bytes(part_ids, 0, int(part["lengths"].sum()) * size, out)
        val = require_split(len(order), self.val_fraction, f"the pipeline gives {count_of(len(order), 'document')}")
        starts = np.cumsum(lengths) - lengths
        splits = {}
        for split, chosen in (("train", order[val:]), ("val", order[:val])):
            file = folder / f"{split}.bin"
            copy_documents(joined, starts[chosen] * size, lengths[chosen] * size, file, split, progress)
            splits[split] = SplitInfo(len(chosen), int(lengths[chosen].sum()))
        joined.unlink()
        made_from = SourceInfo(self.source) if self.source else None
        kind = "expanded" if "method" in self.options else "tokenized"
        manifest = corpus_manifest(kind, self.vocabulary, splits, made_from)
        require_counts(folder, manifest)
        return dataclasses.replace(manifest, unknown_tokens=sum(int(part["unknown"]) for part in parts) or None)


def _keyed_order(parts: list[dict[str, np.ndarray]], seed: int) -> np.ndarray:
    """The order of the documents by a hash of key and seed, then by content: equal documents are interchangeable."""
    keys = np.concatenate([part["keys"] for part in parts])
    contents = np.concatenate([part["contents"] for part in parts])
    first = mix(keys[:, 0] + np.array([derive_key(seed, "corpus order")], np.uint64))
    order = np.lexsort((contents[:, 1], contents[:, 0], keys[:, 1], first))
    ordered, texts = keys[order], contents[order]
    same_key = (ordered[1:] == ordered[:-1]).all(axis=1)
    shared = int((same_key & (texts[1:] != texts[:-1]).any(axis=1)).sum())
    if shared:
        warnings.warn(
            f"{count_of(shared, 'document has', 'documents have')} an id that another one has: "
            "give unique ids, or key='content'",
            Notice,
            stacklevel=2,
        )
    return order


def _ids_of(document: Document, vocabulary: Vocabulary) -> np.ndarray:
    """The ids of a document, in the vocabulary's dtype. Raises UserError if they are not those of the vocabulary."""
    if "input_ids" not in document.metadata:
        raise UserError(f"the document {document.id!r} has no input_ids", fix="put TokenizeDocuments before")
    try:
        return ids_of(vocabulary, document.metadata["input_ids"])
    except UserError as error:
        raise UserError(f"the document {document.id!r}: {error}") from None


def require_key(key: str) -> None:
    """Raises UserError unless it is one of KEYS."""
    if key not in KEYS:
        raise UserError(f"the key {key!r} is not known", fix=f"give {' or '.join(KEYS)}")


def _words(digests: list[bytes]) -> np.ndarray:
    """Hashes of 16 bytes as uint64 `[documents, 2]`."""
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64).reshape(-1, 2)


def _occurrences_file(folder: Path, part: int) -> Path:
    return folder / f"{part:05d}.occurrences.npy"

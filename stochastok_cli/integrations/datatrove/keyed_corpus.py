"""Corpora whose documents are named by a key: their order, split and expansion depend on it and not on their place."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from stochastok_cli.artifacts import Artifact
from stochastok_cli.data.file_readers import require_text
from stochastok_cli.data.memmap import Tokenizer, memmap_dir, resolve_vocabulary
from stochastok_cli.data.source_artifacts import create_from_source
from stochastok_cli.data.text_sources import TextSource, open_rows
from stochastok_cli.data.tokenize import tokenized_name
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.integrations.datatrove.corpus_steps import batches_of_task, require_local
from stochastok_cli.integrations.datatrove.document_steps import (
    ExpandDocuments,
    FinishCorpus,
    NumberDocuments,
    ReadSavedDocuments,
    SaveDocuments,
    TokenizeDocuments,
    require_key,
)
from stochastok_cli.integrations.datatrove.executors import Stage, Tasks
from stochastok_cli.integrations.datatrove.launch import Pipeline, Submitted
from stochastok_cli.integrations.datatrove.parts import work_folder
from stochastok_cli.integrations.datatrove.step_descriptions import describe_step
from stochastok_cli.manifest import Manifest
from stochastok_cli.paths import folder_name, validate_folder_name
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import CORPUS_SEED
from stochastok_cli.tokenization.expansion import StochasTok


def make_corpus(
    steps: Sequence[PipelineStep],
    tasks: Tasks,
    *,
    name: str,
    tokenizer: Tokenizer = "gpt2",
    expand: StochasTok | None = None,
    key: str = "id",
    data_dir: str | Path = "data",
    val_fraction: float = 0.01,
    seed: int = CORPUS_SEED,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact | Submitted:
    """Makes a corpus of the documents that steps of datatrove give, such as a reader and filters.

    Neither the number of tasks nor, where documents have ids of their own, the order of the source changes the result.

    Args:
        steps: the steps, which give documents with a text. The corpus is refused or made again where they, or the local
            files that they read, are no longer what they were.
        tasks: where the tasks run, and how many there are.
        name: the name of the corpus, a folder under `<data_dir>/data_as_memmaps`.
        tokenizer: name or path of a tokenizer, or its vocabulary.
        expand: expands the documents, where it is given.
        key: what names a document: "id", the id that its reader gave it, which no other should have; or "content", its
            token ids, with a count of equal documents.
        data_dir: the data directory.
        val_fraction: the fraction of the documents in the validation split, in [0, 1).
        seed: the seed of the order of the documents.
        force: make the folder again if it is there already.
        progress: called with the number of tasks that are completed.

    Returns:
        The folder; with Slurm, the job that will make it.

    Raises:
        UserError: a task failed, or the folder is there, made with other options. Run again, completed tasks are left
            out.
    """
    require_key(key)
    vocabulary = resolve_vocabulary(tokenizer)
    final = memmap_dir(data_dir) / validate_folder_name(name)
    work = work_folder(final)
    saved, expanded = work / "documents", work / "parts"
    first = [*steps, TokenizeDocuments(vocabulary, tasks.threads)]
    if expand is None:
        stages = [Stage("tokenize", [*first, SaveDocuments(saved, vocabulary, key)])]
    elif key == "id":
        stages = [Stage("tokenize", [*first, ExpandDocuments(expand), SaveDocuments(saved, vocabulary)])]
    else:
        read = ReadSavedDocuments(saved, tasks.tasks, vocabulary.dtype)
        stages = [
            Stage("tokenize", [*first, SaveDocuments(saved, vocabulary, key)]),
            Stage("number", [NumberDocuments(saved, tasks.tasks)], tasks=1),
            Stage("expand", [read, ExpandDocuments(expand), SaveDocuments(expanded, vocabulary)]),
        ]
    options: dict[str, Any] = {"key": key, "steps": [describe_step(step) for step in steps]}
    if expand is not None:
        kept = hashlib.sha256(json.dumps(sorted(expand.kept)).encode()).hexdigest()[:32] if expand.kept else None
        options |= {
            "method": expand.method,
            "p": float(expand.p) if expand.definition.takes_p else None,
            "expand_key": int(expand.key),
        }
        options |= {"max_splits": expand.max_splits, "kept": kept}
    finish = FinishCorpus(
        expanded if len(stages) > 1 else saved,
        tasks.tasks,
        final,
        vocabulary,
        val_fraction=val_fraction,
        seed=seed,
        options=options,
        force=force,
    )
    plan = {**options, "tokenizer": vocabulary.fingerprint}
    return _run_and_finish(stages, finish, plan, tasks, progress)


def _run_and_finish(
    stages: list[Stage], finish: FinishCorpus, plan: dict[str, Any], tasks: Tasks, progress: ProgressCallback
) -> Artifact | Submitted:
    """The folder that the last step makes of what the stages save; with Slurm, the job that will make it."""
    pipeline = Pipeline(tasks)

    def run_tasks(folder: Path, progress: ProgressCallback) -> None:
        pipeline.run(stages, finish, plan, finish.final, progress)

    return pipeline.make(lambda: finish.make(run_tasks, progress))


def tokenize_rows(
    source: str,
    tasks: Tasks,
    id_column: str,
    *,
    tokenizer: Tokenizer = "gpt2",
    name: str | None = None,
    data_dir: str | Path = "data",
    text_column: str = "text",
    split: str = "train",
    val_fraction: float = 0.01,
    seed: int = CORPUS_SEED,
    errors: str = "strict",
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact | Submitted:
    """Tokenizes rows of local files, whose order and split depend on their ids and on the seed alone.

    Args:
        source: a file or folder of rows.
        tasks: where the tasks run, and how many there are.
        id_column: the column of the ids.
        tokenizer: as in `stochastok_cli.tokenize`, like all others.
        name: the name of the dataset.
        data_dir: the data directory.
        text_column: the column of the texts.
        split: the split of a dataset that `datasets` has saved.
        val_fraction: the fraction of the documents in the validation split.
        seed: the seed of the order.
        errors: what to do with bytes that are not UTF-8.
        force: make the folder again if it is there already.
        progress: called with the number of tasks that are completed.
    """
    vocabulary = resolve_vocabulary(tokenizer)
    read = ReadRows(source, text_column, id_column, errors, split)
    rows = read.open()
    require_local(rows, source)
    named = None if name is None else tokenized_name(name)
    final = memmap_dir(data_dir) / folder_name(named, tokenized_name(rows.name))
    work = work_folder(final)
    finish = FinishRows(
        read,
        rows.listing(),
        work / "documents",
        tasks.tasks,
        final,
        vocabulary,
        val_fraction=val_fraction,
        seed=seed,
        options={**rows.options, "text_column": text_column, "id_column": id_column},
        force=force,
    )
    save = SaveDocuments(work / "documents", vocabulary)
    stages = [Stage("tokenize", [read, TokenizeDocuments(vocabulary, tasks.threads), save])]
    plan = {**finish.options, "tokenizer": vocabulary.fingerprint, "listing": rows.listing()}
    return _run_and_finish(stages, finish, plan, tasks, progress)


class ReadRows(PipelineStep):
    """Reads rows of local files, each as a document with an id.

    Args:
        source: a file or folder of rows.
        text_column: the column of the texts.
        id_column: the column of the ids.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        split: the split of a dataset that `datasets` has saved.
    """

    type = "stochastok"
    name = "read rows"

    def __init__(self, source: str, text_column: str, id_column: str, errors: str = "strict", split: str = "train"):
        super().__init__()
        self.source, self.text_column, self.id_column = source, text_column, id_column
        self.errors, self.split, self.directory = errors, split, os.getcwd()

    def open(self) -> TextSource[Any]:
        """The rows. Raises UserError if the source does not exist or has no rows."""
        columns = {"--text-column": self.text_column, "--id-column": self.id_column}
        return open_rows(self.source, columns, errors=self.errors, split=self.split)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields the documents of a task; see `PipelineStep`."""
        os.chdir(self.directory)
        for _, _, rows in batches_of_task(self.open(), rank, world_size):
            for row in rows:
                text, key = row.values
                if key is None or key == "":
                    raise UserError(f"{row.where}: {self.id_column!r} holds no id", exit_code=FAILED)
                yield Document(require_text(text, self.text_column, row.where, self.errors), str(key))


class FinishRows(FinishCorpus):
    """Makes the folder of `tokenize_rows`.

    Args:
        read: reads the rows.
        listing: the listing of the source before it was read.
        arguments: those of `FinishCorpus`.
        options: those of `FinishCorpus`.
    """

    def __init__(self, read: ReadRows, listing: str | None, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.read, self.listing, self.argv = read, listing, sys.argv

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Makes the folder; see `PipelineStep`."""
        sys.argv = self.argv  # the manifest names the command that was typed
        super().run(data, rank, world_size)

    def _create(
        self,
        options: dict[str, Any],
        build: Callable[[Path, ProgressCallback], Manifest],
        progress: ProgressCallback,
    ) -> Artifact:
        source = self.read.open()
        if source.listing() != self.listing:
            raise UserError(f"{self.read.source} was changed while it was read", fix="run it again", exit_code=FAILED)
        return create_from_source(
            self.final, options, self.read.source, source, build, progress=progress, force=self.force
        )

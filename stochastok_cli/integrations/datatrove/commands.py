"""`stochastok tokenize` and `stochastok expand` in the tasks of a datatrove pipeline.

The folder that is made is the one that the same command makes on one machine, byte for byte.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep

from stochastok_cli.artifacts import Artifact
from stochastok_cli.data import expand as data_expand
from stochastok_cli.data import tokenize as data_tokenize
from stochastok_cli.data.memmap import Corpus
from stochastok_cli.data.text_sources import TextSource
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.integrations.datatrove.corpus_steps import (
    CountDocuments,
    ExpandCorpus,
    TokenizeSource,
    join_expanded,
    join_tokenized,
    require_local,
)
from stochastok_cli.integrations.datatrove.executors import Stage, Tasks
from stochastok_cli.integrations.datatrove.keyed_corpus import tokenize_rows
from stochastok_cli.integrations.datatrove.launch import Pipeline, Submitted
from stochastok_cli.integrations.datatrove.parts import remove_progress, work_folder
from stochastok_cli.manifest import SplitInfo
from stochastok_cli.progress import ProgressCallback
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary

# The arguments of `tokenize` that decide which documents the source has.
_READING = ("text_column", "documents", "errors", "on_bad_document", "subset", "split")


def tokenize(source: str | Path, tasks: Tasks, *, id_column: str | None = None, **options: Any) -> Artifact | Submitted:
    """Tokenizes local files in several tasks.

    Args:
        source: a file or folder, or "sample".
        tasks: where the tasks run, and how many there are.
        id_column: a column of ids by which documents are ordered and split, instead of by their place in the source.
        options: those of `stochastok_cli.tokenize`, but `num_proc`.

    Returns:
        The folder that `stochastok_cli.tokenize` makes, byte for byte (with `id_column`, in another order); with Slurm,
        the job that will make it.

    Raises:
        UserError: as `stochastok_cli.tokenize`; or the source is no local one, or a task failed. Run again, completed
            tasks are left out.
    """
    if id_column is not None:
        of_rows = {"documents": "paragraph", "on_bad_document": "error", "subset": None}
        ineffective = [name for name, value in of_rows.items() if options.pop(name, value) != value]
        if ineffective:
            given = ", ".join(f"--{name.replace('_', '-')}" for name in ineffective)
            raise UserError(f"{given} would have no effect beside --id-column", fix="drop one or the other")
        return tokenize_rows(str(source), tasks, id_column, **options)
    reading = {name: options[name] for name in _READING if name in options}
    if options.get("limit") is not None:
        raise UserError("--limit would have no effect on what tasks read", fix="drop it or --executor")
    pipeline = Pipeline(tasks)

    def encode(
        texts: TextSource[str], vocabulary: Vocabulary, final: Path, file: Path, progress: ProgressCallback
    ) -> tuple[np.ndarray, int]:
        require_local(texts, source)
        parts = work_folder(final) / "parts"
        plan = {"source": str(source), **reading, "tokenizer": vocabulary.fingerprint, "listing": texts.listing()}
        stages = [Stage("tokenize", [TokenizeSource(str(source), vocabulary, parts, reading, tasks.threads)])]
        finish = FinishTokenize(source, tasks, options, plan)
        pipeline.run(stages, finish, plan, final, progress)
        return join_tokenized(parts, tasks.tasks, texts, vocabulary, file)

    def make() -> Artifact:
        return data_tokenize.tokenize(source, encode=encode, **options)

    return pipeline.make(make)


class FinishCommand(PipelineStep):
    """The last job on Slurm: makes the folder as the command that was typed would, where it was typed.

    Args:
        tasks: the tasks.
        options: the options of the function of `stochastok_cli`.
    """

    type = "stochastok"

    def __init__(self, tasks: Tasks, options: dict[str, Any]):
        super().__init__()
        self.tasks = tasks
        self.options = {name: value for name, value in options.items() if name != "progress"}
        self.argv, self.directory = sys.argv, os.getcwd()

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Makes the folder; see `PipelineStep`."""
        sys.argv = self.argv  # the manifest names the command that was typed
        os.chdir(self.directory)
        remove_progress(self._make().path)

    def _make(self) -> Artifact:
        raise NotImplementedError


class FinishTokenize(FinishCommand):
    """The last job on Slurm: makes the folder of the parts that the tasks of `TokenizeSource` have written.

    Args:
        source: as it was given to `tokenize`.
        tasks: the tasks.
        options: the options of `stochastok_cli.tokenize`.
        plan: what the parts were made of.
    """

    name = "finish a tokenized corpus"

    def __init__(self, source: str | Path, tasks: Tasks, options: dict[str, Any], plan: dict[str, Any]):
        super().__init__(tasks, options)
        self.source, self.plan = source, plan

    def _make(self) -> Artifact:
        def encode(
            texts: TextSource[str], vocabulary: Vocabulary, final: Path, file: Path, progress: ProgressCallback
        ) -> tuple[np.ndarray, int]:
            if texts.listing() != self.plan["listing"]:
                raise UserError(f"{self.source} was changed while it was read", fix="run it again", exit_code=FAILED)
            return join_tokenized(work_folder(final) / "parts", self.tasks.tasks, texts, vocabulary, file)

        return data_tokenize.tokenize(self.source, encode=encode, **self.options)


def expand(corpus: str | Path | Corpus, tasks: Tasks, **options: Any) -> Artifact | Submitted:
    """Expands every document of a tokenized corpus in several tasks.

    Args:
        corpus: as `stochastok_cli.expand` takes it.
        tasks: where the tasks run, and how many there are.
        options: those of `stochastok_cli.expand`, but `num_proc`.

    Returns:
        The folder that `stochastok_cli.expand` makes, byte for byte; with Slurm, the job that will make it.

    Raises:
        UserError: as `stochastok_cli.expand`; or a task failed. Run again, completed tasks are left out.
    """
    pipeline, finished = Pipeline(tasks), False

    def expand_split(
        source: Corpus,
        split: str,
        stochastok: StochasTok,
        final: Path,
        file: Path,
        progress: ProgressCallback,
    ) -> SplitInfo:
        nonlocal finished
        if not finished:
            _expand_in_tasks(source, stochastok, pipeline, options, final, progress)
            finished = True
        return join_expanded(work_folder(final) / "parts", tasks.tasks, split, source.vocabulary.dtype, file)

    def make() -> Artifact:
        return data_expand.expand(corpus, expand_split=expand_split, **options)

    return pipeline.make(make)


def _expand_in_tasks(
    source: Corpus,
    stochastok: StochasTok,
    pipeline: Pipeline,
    options: dict[str, Any],
    final: Path,
    progress: ProgressCallback,
) -> None:
    """Runs the stages of `expand`, or raises `LeftToSlurm`."""
    tasks, folder, work = pipeline.tasks, source.path.absolute(), work_folder(final)
    made_with = {name: options.get(name) for name in ("p", "method", "seed", "max_splits", "keep")}
    plan = {"source": str(folder), "fingerprint": source.fingerprint, **made_with}
    plan["tokenizer"] = source.vocabulary.fingerprint
    stages = [
        Stage("count", [CountDocuments(folder, source.vocabulary, work / "counts")]),
        Stage("expand", [ExpandCorpus(folder, stochastok, work / "counts", work / "parts", tasks.threads)]),
    ]
    finish = FinishExpand(folder, tasks, {**options, "tokenizer": source.vocabulary}, source.fingerprint)
    pipeline.run(stages, finish, plan, final, progress)


class FinishExpand(FinishCommand):
    """The last job on Slurm: makes the folder of the parts that the tasks of `ExpandCorpus` have written.

    Args:
        corpus: the folder of the corpus.
        tasks: the tasks.
        options: the options of `stochastok_cli.expand`.
        fingerprint: that of the corpus when the jobs were submitted.
    """

    name = "finish an expanded corpus"

    def __init__(self, corpus: Path, tasks: Tasks, options: dict[str, Any], fingerprint: str):
        super().__init__(tasks, options)
        self.corpus, self.fingerprint = corpus, fingerprint

    def _make(self) -> Artifact:
        def expand_split(
            source: Corpus,
            split: str,
            stochastok: StochasTok,
            final: Path,
            file: Path,
            progress: ProgressCallback,
        ) -> SplitInfo:
            if source.fingerprint != self.fingerprint:
                raise UserError(f"{self.corpus} was changed while it was read", fix="run it again", exit_code=FAILED)
            parts = work_folder(final) / "parts"
            return join_expanded(parts, self.tasks.tasks, split, source.vocabulary.dtype, file)

        return data_expand.expand(self.corpus, expand_split=expand_split, **self.options)

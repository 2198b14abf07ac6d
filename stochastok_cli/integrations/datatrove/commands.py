"""`stochastok tokenize` and `stochastok expand` in the tasks of a datatrove pipeline.

The folder that is made is the one that the same command makes on one machine, byte for byte.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datatrove.pipeline.base import PipelineStep

from stochastok_cli import __version__
from stochastok_cli.artifacts import Artifact, SplitInfo, json_bytes, validate_folder_name
from stochastok_cli.data import expand as data_expand
from stochastok_cli.data import tokenize as data_tokenize
from stochastok_cli.data.memmap import Corpus, Tokenizer, memmap_dir, resolve_vocabulary
from stochastok_cli.data.text_sources import TextSource
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.integrations.datatrove.corpus_steps import (
    CountDocuments,
    ExpandCorpus,
    TokenizeSource,
    join_expanded,
    join_tokenized,
)
from stochastok_cli.integrations.datatrove.document_steps import (
    ExpandDocuments,
    FinishCorpus,
    NumberDocuments,
    ReadSavedDocuments,
    SaveDocuments,
    TokenizeDocuments,
    require_key,
)
from stochastok_cli.integrations.datatrove.executors import Stage, Tasks, run_stage, submit_stages
from stochastok_cli.integrations.datatrove.parts import WORK_SUFFIX, remove_progress, work_folder
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import CORPUS_SEED
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary

# The arguments of `tokenize` that decide which documents the source has.
_READING = ("text_column", "documents", "errors", "on_bad_document", "subset", "split")


class Submitted(NamedTuple):
    """What is left to Slurm: the folder that will be made, and the id of the job that makes it."""

    path: Path
    job: str


class _LeftToSlurm(Exception):
    """Ends the making of a folder in this process, whose lock the jobs that will make it need.

    Args:
        folder: the folder.
        submit: submits the jobs and returns the id of the last one.
    """

    def __init__(self, folder: Path, submit: Callable[[], str]):
        super().__init__(folder)
        self.folder, self.submit = folder, submit


def tokenize(source: str | Path, tasks: Tasks, **options: Any) -> Artifact | Submitted:
    """Tokenizes local files in several tasks.

    Args:
        source: a file or folder, or "sample".
        tasks: where the tasks run, and how many there are.
        options: those of `stochastok_cli.tokenize`, but `num_proc`.

    Returns:
        The folder that `stochastok_cli.tokenize` makes, byte for byte; with Slurm, the job that will make it.

    Raises:
        UserError: as `stochastok_cli.tokenize`; or the source is no local one, or a task failed. Run again, completed
            tasks are left out.
    """
    reading = {name: options[name] for name in _READING if name in options}
    if options.get("limit") is not None:
        raise UserError("--limit would have no effect on what tasks read", fix="drop it or --executor")

    def encode(
        texts: TextSource[str], vocabulary: Vocabulary, file: Path, threads: int, progress: ProgressCallback
    ) -> tuple[np.ndarray, int]:
        if texts.files is None:
            raise UserError(
                f"--executor reads local files, and {source} is a dataset on the Hub",
                fix=f"download it first: hf download --repo-type dataset {source} --local-dir DIR",
            )
        work = work_folder(file.parent)
        parts = work / "parts"
        plan = {"source": str(source), **reading, "tokenizer": vocabulary.fingerprint, "listing": texts.listing()}
        stages = [Stage("tokenize", [TokenizeSource(str(source), vocabulary, parts, reading, tasks.threads)])]
        _run(
            stages, FinishTokenize(source, tasks, options, plan), {**plan, "tasks": tasks.tasks}, tasks, work, progress
        )
        return join_tokenized(parts, tasks.tasks, texts, vocabulary, file)

    def make() -> Artifact:
        return data_tokenize.tokenize(source, encode=encode, **options)

    return _made(make)


class FinishTokenize(PipelineStep):
    """The last job on Slurm: makes the folder of the parts that the tasks of `TokenizeSource` have written.

    Args:
        source: as it was given to `tokenize`.
        tasks: the tasks.
        options: the options of `stochastok_cli.tokenize`.
        plan: what the parts were made of.
    """

    type = "stochastok"
    name = "finish a tokenized corpus"

    def __init__(self, source: str | Path, tasks: Tasks, options: dict[str, Any], plan: dict[str, Any]):
        super().__init__()
        self.source, self.tasks, self.plan = source, tasks, plan
        self.options = {name: value for name, value in options.items() if name != "progress"}
        self.argv, self.directory = sys.argv, os.getcwd()

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Makes the folder; see `PipelineStep`."""

        def encode(
            texts: TextSource[str], vocabulary: Vocabulary, file: Path, threads: int, progress: ProgressCallback
        ) -> tuple[np.ndarray, int]:
            if texts.listing() != self.plan["listing"]:
                raise UserError(f"{self.source} was changed while it was read", fix="run it again", exit_code=FAILED)
            return join_tokenized(work_folder(file.parent) / "parts", self.tasks.tasks, texts, vocabulary, file)

        sys.argv = self.argv  # the manifest names the command that was typed
        os.chdir(self.directory)
        made = data_tokenize.tokenize(self.source, encode=encode, **self.options)
        remove_progress(made.path)


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
    finished = False

    def expand_split(
        source: Corpus,
        split: str,
        first: int,
        stochastok: StochasTok,
        file: Path,
        threads: int,
        progress: ProgressCallback,
    ) -> SplitInfo:
        nonlocal finished
        work = work_folder(file.parent)
        if not finished:
            _expand_in_tasks(source, stochastok, tasks, options, work, progress)
            finished = True
        return join_expanded(work / "parts", tasks.tasks, split, source.vocabulary.dtype, file)

    def make() -> Artifact:
        return data_expand.expand(corpus, expand_split=expand_split, **options)

    return _made(make)


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
        steps: the steps, which give documents with a text.
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
    final = memmap_dir(Path(data_dir)) / validate_folder_name(name)
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
    options: dict[str, Any] = {"key": key, "steps": [_describe_step(step) for step in steps]}
    if expand is not None:
        kept = hashlib.sha256(json.dumps(sorted(expand.kept)).encode()).hexdigest()[:32] if expand.kept else None
        options |= {"method": expand.method, "p": float(expand.p), "expand_key": int(expand.key)}
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
    plan = {**options, "tokenizer": vocabulary.fingerprint, "tasks": tasks.tasks}
    return _made(lambda: finish.make(lambda folder: _run(stages, finish, plan, tasks, work, progress), progress))


def _describe_step(step: Any) -> str:
    """A step's class and options. Functions are named, so that the same pipeline has the same description again."""
    values = {name: value for name, value in vars(step).items() if name != "stats"} if hasattr(step, "__dict__") else {}
    return f"{type(step).__name__} {json.dumps(values, sort_keys=True, default=_describe_value)}"


def _describe_value(value: Any) -> str:
    return getattr(value, "__qualname__", None) or getattr(value, "path", None) or type(value).__qualname__


def _expand_in_tasks(
    source: Corpus,
    stochastok: StochasTok,
    tasks: Tasks,
    options: dict[str, Any],
    work: Path,
    progress: ProgressCallback,
) -> None:
    """Runs the stages of `expand`, or raises `_LeftToSlurm`."""
    folder = source.path.absolute()
    made_with = {name: options.get(name) for name in ("p", "method", "seed", "max_splits", "keep")}
    plan = {"source": str(folder), "fingerprint": source.fingerprint, **made_with, "tasks": tasks.tasks}
    stages = [
        Stage("count", [CountDocuments(folder, source.vocabulary, work / "counts")]),
        Stage("expand", [ExpandCorpus(folder, stochastok, work / "counts", work / "parts", tasks.threads)]),
    ]
    finish = FinishExpand(folder, tasks, {**options, "tokenizer": source.vocabulary}, source.fingerprint)
    _run(stages, finish, plan, tasks, work, progress)


class FinishExpand(PipelineStep):
    """The last job on Slurm: makes the folder of the parts that the tasks of `ExpandCorpus` have written.

    Args:
        corpus: the folder of the corpus.
        tasks: the tasks.
        options: the options of `stochastok_cli.expand`.
        fingerprint: that of the corpus when the jobs were submitted.
    """

    type = "stochastok"
    name = "finish an expanded corpus"

    def __init__(self, corpus: Path, tasks: Tasks, options: dict[str, Any], fingerprint: str):
        super().__init__()
        self.corpus, self.tasks, self.fingerprint = corpus, tasks, fingerprint
        self.options = {name: value for name, value in options.items() if name != "progress"}
        self.argv, self.directory = sys.argv, os.getcwd()

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Makes the folder; see `PipelineStep`."""

        def expand_split(
            source: Corpus,
            split: str,
            first: int,
            stochastok: StochasTok,
            file: Path,
            threads: int,
            progress: ProgressCallback,
        ) -> SplitInfo:
            if source.fingerprint != self.fingerprint:
                raise UserError(f"{self.corpus} was changed while it was read", fix="run it again", exit_code=FAILED)
            parts = work_folder(file.parent) / "parts"
            return join_expanded(parts, self.tasks.tasks, split, source.vocabulary.dtype, file)

        sys.argv = self.argv  # the manifest names the command that was typed
        os.chdir(self.directory)
        made = data_expand.expand(self.corpus, expand_split=expand_split, **self.options)
        remove_progress(made.path)


def _run(
    stages: list[Stage],
    finish: PipelineStep,
    plan: dict[str, Any],
    tasks: Tasks,
    work: Path,
    progress: ProgressCallback,
) -> None:
    """Runs the stages, or raises `_LeftToSlurm`. What an interrupted run with the same plan has done is kept."""
    if tasks.executor == "slurm" and shutil.which("sbatch") is None:
        raise UserError("sbatch is not installed here", fix="run it on a node from which jobs are submitted")
    content, plan_file = json_bytes({**plan, "version": __version__}), work / "plan.json"
    if not plan_file.is_file() or plan_file.read_bytes() != content:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        plan_file.write_bytes(content)
    if tasks.executor != "slurm":
        for stage in stages:
            run_stage(stage, tasks, work, progress)
        return
    last = Stage("finish", [finish], tasks=1)
    final = work.with_name(work.name.removeprefix(".").removesuffix(WORK_SUFFIX))
    raise _LeftToSlurm(final, lambda: submit_stages([*stages, last], tasks, work, final.name))


def _made(make: Callable[[], Artifact]) -> Artifact | Submitted:
    try:
        made = make()
    except _LeftToSlurm as left:
        return Submitted(left.folder, left.submit())
    shutil.rmtree(work_folder(made.path), ignore_errors=True)
    return made

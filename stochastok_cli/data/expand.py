"""From a tokenized corpus to an expanded one: `<dataset>-tokenized-<method><p>/{train,val}.bin`.

Threads expand batches of whole documents (the kernel runs without the GIL), and the results are written in order. The
random numbers of a document depend only on the seed and on its index in the corpus (train first, then val), so neither
the batches nor the number of threads change a byte.
"""

import dataclasses
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from stochastok_cli.argument_checks import (
    optional,
    path_like,
    real_number,
    require_each,
    string,
    whole_number,
    yes_or_no,
)
from stochastok_cli.artifacts import Artifact, tasks_folder
from stochastok_cli.data.folders import DATA_DIR, find_dataset, folder_of_result, require_kind
from stochastok_cli.data.formats import FORMATS
from stochastok_cli.data.import_corpus import END_OF_TEXT_ADDED, find_stored, import_corpus
from stochastok_cli.data.instruction_dataset import is_instruction_dataset
from stochastok_cli.data.memmap import (
    SPLITS,
    Corpus,
    Tokenizer,
    corpus_manifest,
    document_batches,
    num_threads,
    release_pages,
    require_counts,
)
from stochastok_cli.data.sft_dataset import SHAPES
from stochastok_cli.data.source_artifacts import create_from_source
from stochastok_cli.errors import FAILED, Notice, UserError
from stochastok_cli.manifest import Manifest, NewerFormatError, SplitInfo, read_manifest
from stochastok_cli.paths import expand_home, folder_name
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.methods import expansion_label
from stochastok_cli.tokenization.methods.base import LARGEST_INTEGER
from stochastok_cli.tokenization.unsplit import why_nothing_is_split

_BATCH_TOKENS = 500_000
"""Ids that a kernel expands at once. Until it is done, nothing stops it: an interruption waits for so many."""
T = TypeVar("T")
ExpandSplit = Callable[[Corpus, str, StochasTok, Path, Path, ProgressCallback], SplitInfo]
"""Writes the expanded documents of a split to a file.

The first path is that of the folder which is made, under its final name; the second one is that of the file.
"""


def expanded_name(name: str, method: str, p: float | None) -> str:
    """The folder name of an expanded dataset: `<name>-<label>` (see `expansion_label`)."""
    return f"{name}-{expansion_label(method, p)}"


def open_corpus(
    corpus: str | Path,
    tokenizer: Tokenizer | None = None,
    *,
    name: str | None = None,
    data_dir: str | Path = "data",
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Corpus:
    """The corpus of that name. Ids of other programs are imported, into `<name>-tokenized`.

    Args:
        corpus: the name of a folder under `<data_dir>/data_as_memmaps`, the path of a folder, or the path of ids of a
            format that is read (`formats.FORMATS`), such as `PREFIX.idx` of Megatron-LM or a folder that `export` made.
        tokenizer: the tokenizer of such ids, or of a folder without a manifest (gpt2 by default).
        name: the name of the corpus that such files become, `<name>-tokenized`; by default that of the files.
        data_dir: the data directory.
        force: import the files again if they were imported before.
        progress: called with the number of ids that are imported.

    Raises:
        UserError: there is no such corpus, or it holds questions, conversations or completions.
    """
    folder = find_dataset(corpus, data_dir)
    path = folder if folder.is_dir() else Path(expand_home(corpus))
    if not _is_ours(path) and find_stored(path) is not None:
        made = import_corpus(path, tokenizer=tokenizer, name=name, data_dir=data_dir, force=force, progress=progress)
        return Corpus(made.path, tokenizer)
    if name is not None:
        path = Path(expand_home(corpus))
        if not path.exists() and not folder.exists():
            raise UserError(f"there is no {path}, so nothing is imported as {name!r}")
        raise UserError(
            f"{folder if folder.is_dir() else path} is not imported: it holds no ids of a format that is read, or its "
            "index is damaged",
            fix=f"give data of {', '.join(FORMATS)}, or drop --name for a dataset of the data directory",
        )
    is_questions = (folder / SHAPES).is_file()
    if is_questions or is_instruction_dataset(folder):
        content = "questions with answers" if is_questions else "conversations or completions"
        raise UserError(
            f"{folder} holds {content}, which training expands as it draws them",
            fix="set trainer.dataset.expand_prop",
        )
    return Corpus(folder, tokenizer)


def _is_ours(folder: Path) -> bool:
    """Whether a folder has a manifest of ours that is not that of an export."""
    try:
        manifest = read_manifest(folder)
    except NewerFormatError:
        raise
    except UserError:  # damaged, or of another program: whoever opens the folder next says so
        return False
    return manifest is not None and manifest.kind not in (None, "exported")


def expand(
    corpus: str | Path | Corpus,
    *,
    p: float | None = None,
    method: str = "stochastok",
    seed: int = 0,
    max_splits: int | None = None,
    keep: str | None = None,
    out_name: str | None = None,
    tokenizer: Tokenizer | None = None,
    data_dir: str | Path | None = None,
    num_proc: int | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
    expand_split: ExpandSplit | None = None,
) -> Artifact:
    """Expands every document of a tokenized corpus into a folder of the data directory, or beside the corpus.

    Args:
        corpus: the name of a folder under `<data_dir>/data_as_memmaps`, the path of a folder or of ids
            of another program (see `open_corpus`), or an open corpus.
        p: the proportion of expansion (its meaning depends on the method); 0.1 if None. A fixed rule takes none.
        method: the expansion method, with its arguments, if it has any, as `NAME:KEY=VALUE,…`.
        seed: selects the random numbers.
        max_splits: the most splits in one document; None for no limit.
        keep: a regular expression; tokens whose text it matches are left alone.
        out_name: the name of the result; by default `<corpus>-<method><p>`.
        tokenizer: the tokenizer of such files, or of a corpus without a manifest (gpt2 by default).
        data_dir: the data directory, in which the result is written, also that of a corpus which is elsewhere. If None,
            a name is looked for in `data`, and the result is written beside the corpus.
        num_proc: threads; by default all processors. Never changes the result.
        force: make the folder again if it is there already.
        progress: called with the number of ids of the corpus that are expanded.
        expand_split: how a split is expanded; by default in this process.

    Returns:
        The folder. One that is there already, made with the same options, is left alone.

    Raises:
        UserError: an impossible `p` or method, ids outside the vocabulary, a corpus without a manifest whose ids look
            like those of another tokenizer than gpt2, or not as many documents as the manifest of the corpus counts;
            nothing appears then.
    """
    if not isinstance(corpus, Corpus):
        path_like("corpus", corpus)
    optional(path_like)("data_dir", data_dir)
    require_each(optional(string), keep=keep, out_name=out_name)
    yes_or_no("force", force)
    p, seed, threads = optional(real_number)("p", p), whole_number("seed", seed), num_threads(num_proc)
    max_splits = optional(whole_number)("max_splits", max_splits, minimum=0, maximum=LARGEST_INTEGER)
    source = corpus
    if not isinstance(source, Corpus):
        searched = DATA_DIR if data_dir is None else data_dir
        source = open_corpus(source, tokenizer, data_dir=searched, force=force, progress=progress)
    stochastok = StochasTok(source.vocabulary, p=p, method=method, seed=seed, max_splits=max_splits, keep=keep)
    final = folder_of_result(source.path, data_dir) / folder_name(
        out_name, expanded_name(source.name, stochastok.method, p), "--out-name"
    )
    if final.exists() and final.samefile(source.path):
        raise UserError(f"the result would replace its own source, {source.name}", fix="give another --out-name")
    options = {"method": stochastok.method, "p": float(stochastok.p) if stochastok.definition.takes_p else None}
    options |= {"seed": seed, "max_splits": max_splits, "keep": keep}
    options |= {"source": source.fingerprint, "tokenizer": source.vocabulary.fingerprint}
    for split in SPLITS:
        source.require_end_of_text(split, trusted=source.tokenizer_is_named)

    def build(folder: Path, progress: ProgressCallback) -> Manifest:
        first = 0
        splits = {}
        for split in SPLITS:
            file = folder / f"{split}.bin"
            if expand_split is None:
                splits[split] = _expand_split(source, split, first, stochastok, file, threads, progress)
            else:
                splits[split] = expand_split(source, split, stochastok, final, file, progress)
            _require_documents(source, split, splits[split].documents)
            first += splits[split].documents
        manifest = corpus_manifest("expanded", source.vocabulary, splits, None)
        if source.manifest and END_OF_TEXT_ADDED in source.manifest.extra:
            added = source.manifest.extra[END_OF_TEXT_ADDED]
            manifest = dataclasses.replace(manifest, extra={END_OF_TEXT_ADDED: added})
        require_counts(folder, manifest)
        return manifest

    kept = None if expand_split else tasks_folder(final)
    if not force:
        require_kind(final, "expanded", "--out-name")
    made = create_from_source(final, options, source.name, source, build, progress=progress, force=force, kept=kept)
    _note_copy(made, source, stochastok)
    return made


def _note_copy(made: Artifact, source: Corpus, stochastok: StochasTok) -> None:
    """Gives a `Notice` with the reason if no token was split, although p is not 0."""
    method, p = stochastok.definition, stochastok.p
    tokens = {split: info.tokens for split, info in made.manifest.splits.items()}
    if p == 0 or not method.keeps_token_boundaries or tokens != source.num_tokens:
        return
    counts, longest = np.zeros(source.vocabulary.size, np.int64), 0
    for ids in map(source.ids, SPLITS):
        for start, stop, lengths in document_batches(ids, source.end_of_text, _BATCH_TOKENS):
            counts += np.bincount(ids[start:stop], minlength=len(counts))
            longest = max(longest, int(lengths.max()))
            release_pages(ids, start, stop)
    if not longest:
        return
    given = f" with p = {p:g}" if method.takes_p else ""
    reason = why_nothing_is_split(stochastok, np.flatnonzero(counts), longest)
    warnings.warn(f"{method.name}{given} splits no token of {source.name}{reason}", Notice, stacklevel=3)


def _require_documents(source: Corpus, split: str, documents: int) -> None:
    """Raises UserError if the manifest counts other documents. Those of additions have no end-of-text of their own."""
    recorded = source.manifest.splits.get(split) if source.manifest and source.manifest.kind != "addition" else None
    if recorded is not None and recorded.documents != documents:
        raise UserError(
            f"{split} of {source.name} holds {documents:,} documents, and its manifest counts {recorded.documents:,}",
            fix="make it again (--force)",
            exit_code=FAILED,
        )


def _expand_split(
    corpus: Corpus,
    split: str,
    first: int,
    stochastok: StochasTok,
    file: Path,
    threads: int,
    progress: ProgressCallback,
) -> SplitInfo:
    ids = corpus.ids(split)

    def emit(done: int) -> None:
        progress(f"expand {split}", done, len(ids))

    with open(file, "wb") as out:
        return expand_ids(ids, corpus.end_of_text, first, stochastok, out, threads, emit)


def expand_ids(
    ids: np.ndarray,
    end_of_text: int,
    first: int,
    stochastok: StochasTok,
    out: BinaryIO,
    threads: int = 1,
    emit: Callable[[int], None] = lambda done: None,
) -> SplitInfo:
    """Writes the expanded documents of flat ids.

    Args:
        ids: whole documents, a memmap `[tokens]`.
        end_of_text: the id that ends a document.
        first: the index of the first document in its corpus.
        stochastok: expands them.
        out: the open file that is written.
        threads: how many threads expand; they never change the result.
        emit: called with the number of ids that are expanded.

    Returns:
        The number of documents and of expanded ids.
    """
    documents, tokens, done = 0, 0, 0
    jobs = _jobs(stochastok, ids, end_of_text, first)
    for (expanded, lengths), stop in _in_order(jobs, threads):
        out.write(np.ascontiguousarray(expanded).data)
        documents += len(lengths)
        tokens += len(expanded)
        emit(stop)
        release_pages(ids, done, stop)
        done = stop
    return SplitInfo(documents, tokens)


def _jobs(
    stochastok: StochasTok, ids: np.ndarray, end_of_text: int, first: int
) -> Iterator[Callable[[], tuple[tuple[np.ndarray, np.ndarray], int]]]:
    for start, stop, lengths in document_batches(ids, end_of_text, _BATCH_TOKENS):
        yield lambda a=start, b=stop, n=lengths, i=first: (stochastok.documents(ids[a:b], n, i), b)  # type: ignore[misc]
        first += len(lengths)


def _in_order(jobs: Iterable[Callable[[], T]], threads: int) -> Iterator[T]:
    """The results of the jobs in their order, a few of them computed ahead. After an error, or when nobody wants the
    others, jobs that have not begun are dropped."""
    pool = ThreadPoolExecutor(threads)
    try:
        pending: deque[Future[T]] = deque()
        for job in jobs:
            pending.append(pool.submit(job))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

"""From a tokenized corpus to an expanded one: `<dataset>-tokenized-<method><p>/{train,val}.bin`.

Batches of whole documents are expanded by threads (the kernel runs without the GIL) and written in order. A
document's random numbers depend on the seed and on its place in the corpus only (train first, then val), so neither
the batches nor the number of threads change a byte.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from stochastok_cli.artifacts import Artifact, Manifest, SourceInfo, SplitInfo, create_artifact, validate_folder_name
from stochastok_cli.data.memmap import SPLITS, Corpus, corpus_manifest, document_batches, forget_pages
from stochastok_cli.errors import UserError
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.expansion import StochasTok

_BATCH_TOKENS = 4_000_000
T = TypeVar("T")


def expanded_name(name: str, method: str, p: float) -> str:
    """The folder name of an expanded dataset: `<p>` as Python prints the float."""
    return f"{name}-{method}{float(p)!r}"


def expand_corpus(
    corpus: Corpus,
    *,
    p: float,
    method: str = "stochastok",
    seed: int = 0,
    out_name: str | None = None,
    max_splits: int | None = None,
    keep: str | None = None,
    threads: int = 1,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Expands every document of a corpus into a folder beside it.

    Raises UserError for an impossible `p` or method and for ids outside the vocabulary, before anything appears.
    """
    expand = StochasTok(corpus.vocabulary, p=p, method=method, seed=seed, max_splits=max_splits, keep=keep)
    final = corpus.path.parent / validate_folder_name(out_name or expanded_name(corpus.name, method, p))
    if final == corpus.path:
        raise UserError(f"the result would replace its own source, {corpus.name}", fix="give another --out-name")
    options = {"method": method, "p": float(p), "seed": seed, "max_splits": max_splits, "keep": keep}
    options["source"] = corpus.fingerprint

    def build(folder: Path) -> Manifest:
        index = 0
        splits = {}
        for split in SPLITS:
            ids = corpus.ids(split)
            documents, tokens = 0, 0
            with open(folder / f"{split}.bin", "wb") as out:
                jobs = _jobs(expand, ids, corpus.end_of_text, index)
                done = 0
                for (expanded, lengths), stop in _in_order(jobs, threads):
                    out.write(np.ascontiguousarray(expanded).data)
                    documents += len(lengths)
                    tokens += len(expanded)
                    progress(f"expand {split}", stop, len(ids))
                    forget_pages(ids, done, stop)
                    done = stop
            index += documents
            splits[split] = SplitInfo(documents, tokens)
        made_from = SourceInfo(corpus.name, corpus.fingerprint, corpus.license)
        return corpus_manifest("expanded", corpus.vocabulary, splits, made_from)

    return create_artifact(final, options, build, force=force)


def _jobs(
    expand: StochasTok, ids: np.ndarray, end_of_text: int, index: int
) -> Iterator[Callable[[], tuple[tuple[np.ndarray, np.ndarray], int]]]:
    for start, stop, lengths in document_batches(ids, end_of_text, _BATCH_TOKENS):
        yield lambda a=start, b=stop, n=lengths, i=index: (expand.documents(ids[a:b], n, i), b)  # type: ignore[misc]
        index += len(lengths)


def _in_order(jobs: Iterable[Callable[[], T]], threads: int) -> Iterator[T]:
    """The results of the jobs in their order, a few of them computed ahead."""
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[T]] = deque()
        for job in jobs:
            ahead.append(pool.submit(job))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

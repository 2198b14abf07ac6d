"""Corpora to and from the Hub: a dataset with a column `ids` becomes a memmap folder, and the reverse."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stochastok_cli import hub
from stochastok_cli.artifacts import (
    Artifact,
    Manifest,
    SourceInfo,
    SplitInfo,
    create_artifact,
    find_damage,
    read_manifest,
    validate_folder_name,
)
from stochastok_cli.data.memmap import SPLITS, Corpus, corpus_manifest, document_batches, memmap_dir, vocabulary_of
from stochastok_cli.data.resumable_download import PartialPull
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.vocabulary import Vocabulary

_PUBLISHED = "anyasims"  # who published the paper's tokenized and expanded corpora
_OTHER_NAMES = {"train": ("train",), "val": ("val", "validation", "test")}
_BATCH_TOKENS = 1_000_000


class Place(NamedTuple):
    """A dataset on the Hub (`OWNER/NAME`), at which revision, and which of its subsets; None for what it has."""

    repo: str
    revision: str | None = None
    subset: str | None = None


def pull_corpus(
    places: list[Place],
    name: str,
    data_dir: Path,
    *,
    tokenizer: str | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Fetches a tokenized dataset from the Hub into `<data_dir>/data_as_memmaps/<name>`, as it streams in.

    Of `places` the first that has a column `ids` is taken. Rows of a repository that carries no manifest of ours get
    the end-of-text id where they end without it. Raises UserError if none is such a dataset, if ids are outside the
    vocabulary, and for what the Hub refuses; nothing appears then. What a pull that broke off has fetched is kept in a
    hidden folder, and the next one goes on from there.
    """
    final = memmap_dir(data_dir) / validate_folder_name(name)
    arrived = PartialPull(final.with_name(f".{name}.pull"))
    manifest = None if force else read_manifest(final)
    options = manifest.options if manifest else {}
    before = (options.get("repo"), options.get("asked"), options.get("subset"))
    if manifest and before in places and not find_damage(final, manifest.files):
        vocabulary_of(final, manifest, tokenizer)  # is not another than the one asked for
        return Artifact(final, manifest, created=False)  # without a question to the Hub
    data, place = _first_with_ids(places)
    vocabulary = vocabulary_of(data.repo, data.manifest, tokenizer)
    splits = {split: _split_name(data, split) for split in SPLITS}
    recorded = data.manifest.options if data.manifest else {}
    made = {key: value for key, value in recorded.items() if key in ("method", "p", "seed")}
    options = {"repo": data.repo, "asked": place.revision, "revision": data.revision, **made}
    if place.subset:
        options["subset"] = place.subset

    def arriving(split: str, row: int) -> Iterator[tuple[np.ndarray, int]]:
        return _documents(data, splits[split], row, vocabulary, progress)

    def build(folder: Path) -> Manifest:
        arrived.open({**options, "tokenizer": vocabulary.fingerprint}, vocabulary.dtype)
        try:
            counts = {split: arrived.write(split, partial(arriving, split)) for split in SPLITS}
        except UserError as error:
            if error.exit_code == FAILED:
                raise UserError(str(error), fix="the same command goes on from there", exit_code=FAILED) from error
            arrived.discard()
            raise
        arrived.hand_over(folder)
        made_from = SourceInfo(data.repo, data.revision, data.license)
        return corpus_manifest("expanded" if made else "tokenized", vocabulary, counts, made_from)

    pulled = create_artifact(final, options, build, force=force)
    arrived.discard()
    return pulled


def candidate_places(
    source: str | None, subset: str | None, repo: str | None, username: str | None, name: str
) -> list[Place]:
    """Where a pull looks: `--repo`, else SOURCE itself, else the folder's name at the user's or the paper's account."""
    if repo:
        return [Place(*hub.parse_repo_id(repo), subset)]
    own = [Place(source, subset=subset)] if source and "/" in source and hub.is_repo_id(source) else []
    return [*own, Place(f"{username or _PUBLISHED}/{name}")]


def push_corpus(
    folder: Path,
    *,
    repo: str | None,
    username: str | None,
    private: bool,
    retry_command: str,
    progress: ProgressCallback = no_progress,
) -> hub.PushResult:
    """Uploads a memmap folder as a dataset with the columns `ids` and `len`, its manifest and a card.

    The repository is `repo`, else the folder's name at `username` or the logged-in user. `again` is the command to
    name if the upload fails.
    """
    corpus = Corpus(folder)
    repo = hub.resolve_repo(corpus.name, repo=repo, owner=username, retry_command=retry_command)

    def documents(split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        ids = corpus.ids(split)
        for start, stop, lengths in document_batches(ids, corpus.end_of_text, _BATCH_TOKENS):
            yield ids[start:stop], lengths

    manifest = corpus.manifest
    if manifest is None:  # written by the reference: count what a manifest would say
        lengths = {split: [n for _, n in documents(split)] for split in SPLITS}
        counts = {s: SplitInfo(sum(map(len, n)), len(corpus.ids(s))) for s, n in lengths.items()}
        manifest = corpus_manifest("tokenized", corpus.vocabulary, counts, None)
    batches = {split: lambda split=split: documents(split) for split in SPLITS}
    return hub.push_corpus(
        repo, batches, manifest, retry_command=retry_command, private=private, license=corpus.license, progress=progress
    )


def _first_with_ids(places: list[Place]) -> tuple[hub.HubDataset, Place]:
    """The first of the places that holds token ids."""
    found = []
    for place in places:
        try:
            return hub.stream_ids(*place), place
        except UserError as error:
            if error.exit_code == FAILED:  # the network or the Hub, which say nothing about this place
                raise
            found.append(str(error))
    raise UserError("; ".join(dict.fromkeys(found)), fix="name another with --repo")


def _split_name(data: hub.HubDataset, split: str) -> str | None:
    """What the repository calls a split; None for one that is known to be empty and was not uploaded."""
    for name in _OTHER_NAMES[split]:
        if name in data.splits:
            return name
    recorded = data.manifest.splits.get(split) if data.manifest else None
    if recorded and recorded.documents == 0:
        return None
    raise UserError(f"{data.repo} has no split {split!r}", fix=f"it has {', '.join(data.splits) or 'none'}")


def _documents(
    data: hub.HubDataset, split: str | None, start: int, vocabulary: Vocabulary, progress: ProgressCallback
) -> Iterator[tuple[np.ndarray, int]]:
    """The ids of the documents from row `start` on, and how many documents they are."""
    if split is None:
        return
    row = start
    for ids, lengths in data.ids(split, start):
        low, high = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
        if low < 0 or high >= vocabulary.size:
            raise UserError(
                f"{data.repo} ({split}, rows {row} to {row + len(lengths)}) holds the id "
                f"{low if low < 0 else high}, which {vocabulary.name!r} does not have",
                fix="name the tokenizer that it was made with (--tokenizer)",
            )
        if data.manifest is None:
            ids, lengths = _with_ends(ids, lengths, vocabulary.end_of_text)
        yield ids, len(lengths)
        row += len(lengths)
        progress(f"pull {split}", row, data.num_rows(split) or 0)


def _with_ends(ids: np.ndarray, lengths: np.ndarray, end_of_text: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents that all end with the end-of-text id."""
    ends = np.cumsum(lengths)
    last = np.where(lengths > 0, ids[np.maximum(ends - 1, 0)] if len(ids) else 0, -1)
    lacking = np.where((lengths == 0) | (last != end_of_text))[0]
    return np.insert(ids, ends[lacking], end_of_text), lengths + np.isin(np.arange(len(lengths)), lacking)

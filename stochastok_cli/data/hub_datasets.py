"""Corpora to and from the Hub: a dataset with a column `ids` becomes a memmap folder, and the reverse."""

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from stochastok_cli import hub
from stochastok_cli.argument_checks import optional, path_like, require_each, string, yes_or_no
from stochastok_cli.artifacts import Artifact, create_artifact, find_damage, remove_leftovers
from stochastok_cli.data.memmap import (
    SPLITS,
    Corpus,
    Tokenizer,
    corpus_manifest,
    count_split,
    document_batches,
    memmap_dir,
    require_counts,
    resolve_vocabulary,
)
from stochastok_cli.data.resumable_download import PartialDownload
from stochastok_cli.data.source_files import count_types, unread_note
from stochastok_cli.errors import FAILED, Notice, UserError
from stochastok_cli.manifest import Manifest, SourceInfo, SplitInfo, read_manifest
from stochastok_cli.paths import validate_folder_name
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.vocabulary import Vocabulary

_PUBLISHER = "anyasims"  # the account with the paper's tokenized and expanded corpora
_SPLIT_NAMES = {"train": ("train",), "val": ("val", "validation", "test")}
_BATCH_TOKENS = 1_000_000


class HubLocation(NamedTuple):
    """A dataset on the Hub (`OWNER/NAME`), a revision of it and one of its subsets; None for the default."""

    repo: str
    revision: str | None = None
    subset: str | None = None


def pull_corpus(
    name: str,
    *,
    repo: str | None = None,
    source: str | None = None,
    subset: str | None = None,
    username: str | None = None,
    data_dir: str | Path = "data",
    tokenizer: Tokenizer | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Downloads a tokenized dataset from the Hub into `<data_dir>/data_as_memmaps/<name>`.

    The rows are written as they arrive. Where the repository has no manifest of this package, the end-of-text id is
    appended to rows that end without it. If a download is interrupted, a hidden folder keeps what has arrived, and the
    next call continues from there.

    Args:
        name: the folder to make.
        repo: `OWNER/NAME`, perhaps with `@REVISION`. By default `source` if it has a column `ids`, else `name` at
            `username` or at the account with the paper's corpora.
        source: the text dataset that the corpus was made from, if it is on the Hub.
        subset: the subset (configuration) of the dataset.
        username: a user or an organization on the Hub.
        data_dir: the data directory.
        tokenizer: name or path of a tokenizer, or its vocabulary; by default the one that the dataset names, or gpt2.
        force: download it again if it is there already.
        progress: called with the number of downloaded documents.

    Returns:
        The folder. One that was pulled from the same place before is left alone, without a request to the Hub.

    Raises:
        UserError: there is no such dataset, ids are outside the vocabulary, or the Hub refuses. No folder appears.
    """
    path_like("data_dir", data_dir)
    string("name", name)
    require_each(optional(string), repo=repo, source=source, subset=subset, username=username)
    yes_or_no("force", force)
    locations = _locations(name, repo, source, subset, username)
    final = memmap_dir(data_dir) / validate_folder_name(name)
    existing = None if force else read_manifest(final)
    options = existing.options if existing else {}
    before = (options.get("repo"), options.get("asked"), options.get("subset"))
    partial_download = PartialDownload(final.with_name(f".{name}.pull"))
    if existing and before in locations and not find_damage(final, existing.files):
        remove_leftovers(final, partial_download.folder)
        resolve_vocabulary(tokenizer, existing, final)  # raises if it is another than the requested one
        return Artifact(final, existing, created=False)
    data, location = _first_with_ids(locations)
    unread = count_types(map(PurePosixPath, data.unread))
    if unread:
        warnings.warn(unread_note(f"{data.repo} on the Hub", unread), Notice, stacklevel=2)
    vocabulary = resolve_vocabulary(tokenizer, data.manifest, data.repo)
    split_names = {split: _split_name(data, split) for split in SPLITS}
    recorded = data.manifest.options if data.manifest else {}
    expansion = {key: value for key, value in recorded.items() if key in ("method", "p", "seed")}
    options = {"repo": data.repo, "asked": location.revision, "revision": data.revision, **expansion}
    if location.subset:
        options["subset"] = location.subset

    def documents(split: str, row: int) -> Iterator[tuple[np.ndarray, int]]:
        folder = partial_download.files_folder(split)
        return _documents(data, split_names[split], row, vocabulary, folder, progress)

    def build(folder: Path) -> Manifest:
        partial_download.open({**options, "tokenizer": vocabulary.fingerprint}, vocabulary.dtype, final)
        try:
            counts = {split: partial_download.write(split, partial(documents, split)) for split in SPLITS}
        except UserError as error:
            if error.exit_code == FAILED:
                raise UserError(str(error), fix="the same command goes on from there", exit_code=FAILED) from error
            partial_download.discard()
            raise
        try:
            _require_pushed_content(data, counts, partial_download)
        except UserError:
            partial_download.discard()
            raise
        partial_download.copy_to(folder)
        if data.manifest is None:  # a row of another's dataset may hold several documents
            counts = {s: count_split(folder, s, vocabulary.dtype, vocabulary.end_of_text) for s in SPLITS}
        made_from = SourceInfo(data.repo, data.revision, data.license, unread=unread or None)
        return corpus_manifest("expanded" if expansion else "tokenized", vocabulary, counts, made_from)

    return create_artifact(final, options, build, force=force, kept=partial_download.folder)


def push_corpus(
    folder: str | Path,
    *,
    repo: str | None = None,
    username: str | None = None,
    private: bool = False,
    retry_command: str = "",
    progress: ProgressCallback = no_progress,
) -> hub.PushResult:
    """Uploads a memmap folder as a dataset with the columns `ids` and `len`, its manifest and a card.

    Args:
        folder: the memmap folder.
        repo: where to; by default the folder's name at `username` or at the logged-in user.
        username: a user or an organization on the Hub.
        private: make the repository private when it is created.
        retry_command: the command that an error suggests where trying again may help.
        progress: called with the number of documents written to files.

    Returns:
        The address and the commit.

    Raises:
        UserError: there is no such folder, or the Hub refuses.
    """
    corpus = Corpus(Path(folder))
    repo = hub.resolve_repo(corpus.name, repo=repo, owner=username, retry_command=retry_command)

    def documents(split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        ids = corpus.ids(split)
        for start, stop, lengths in document_batches(ids, corpus.end_of_text, _BATCH_TOKENS):
            yield ids[start:stop], lengths

    manifest = corpus.manifest
    if manifest is None:  # a folder of the paper's code: count what a manifest would record
        lengths = {split: [n for _, n in documents(split)] for split in SPLITS}
        counts = {s: SplitInfo(sum(map(len, n)), len(corpus.ids(s))) for s, n in lengths.items()}
        manifest = corpus_manifest("tokenized", corpus.vocabulary, counts, None)
    require_counts(corpus.path, manifest)
    batches = {split: partial(documents, split) for split in SPLITS}
    return hub.push_corpus(
        repo, batches, manifest, retry_command=retry_command, private=private, license=corpus.license, progress=progress
    )


def _locations(
    name: str, repo: str | None, source: str | None, subset: str | None, username: str | None
) -> list[HubLocation]:
    """Where to look for a tokenized dataset, in this order."""
    if repo:
        return [HubLocation(*hub.parse_repo_id(repo), subset)]
    by_name = HubLocation(f"{username or _PUBLISHER}/{name}")
    if source and "/" in source and hub.is_repo_id(source):
        return [HubLocation(source, subset=subset), by_name]
    return [by_name]


def _first_with_ids(locations: list[HubLocation]) -> tuple[hub.HubDataset, HubLocation]:
    """The first of the locations that holds token ids."""
    reasons = []
    for location in locations:
        try:
            return hub.stream_ids(*location), location
        except UserError as error:
            if error.exit_code == FAILED:  # the network or the Hub failed, so the location may hold ids
                raise
            reasons.append(str(error))
    raise UserError("; ".join(dict.fromkeys(reasons)), fix="name another with --repo")


def _split_name(data: hub.HubDataset, split: str) -> str | None:
    """The name of a split in the repository; None for one that the manifest records as empty (it isn't uploaded)."""
    for name in _SPLIT_NAMES[split]:
        if name in data.splits:
            return name
    recorded = data.manifest.splits.get(split) if data.manifest else None
    if recorded and recorded.documents == 0:
        return None
    raise UserError(f"{data.repo} has no split {split!r}", fix=f"it has {', '.join(data.splits) or 'none'}")


def _require_pushed_content(data: hub.HubDataset, counts: dict[str, SplitInfo], pulled: PartialDownload) -> None:
    """Raises UserError if the ids that have arrived are not those that the repository's manifest describes."""
    if data.manifest is None:
        return
    for split, count in counts.items():
        size, file = data.manifest.splits.get(split), data.manifest.files.get(f"{split}.bin")
        same_size = size is None or (size.documents, size.tokens) == (count.documents, count.tokens)
        if not same_size or (file is not None and file != pulled.checksum(split)):
            raise UserError(
                f"the {split} split of {data.repo} differs from the manifest there",
                fix="it is damaged or was changed by hand: ask its owner to push it again",
                exit_code=FAILED,
            )


def _documents(
    data: hub.HubDataset,
    split: str | None,
    start: int,
    vocabulary: Vocabulary,
    folder: Path,
    progress: ProgressCallback,
) -> Iterator[tuple[np.ndarray, int]]:
    """The ids of the documents from row `start` on, and the number of these documents."""
    if split is None:
        return
    row = start
    for ids, lengths in data.ids(split, start, folder):
        low, high = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
        if low < 0 or high >= vocabulary.size:
            raise UserError(
                f"{data.repo} ({split}, rows {row} to {row + len(lengths)}) holds the id "
                f"{low if low < 0 else high}, which {vocabulary.name!r} does not have",
                fix="name the tokenizer that it was made with (--tokenizer)",
            )
        if data.manifest is None:
            ids, lengths = _with_end_of_text(ids, lengths, vocabulary.end_of_text)
        yield ids, len(lengths)
        row += len(lengths)
        progress(f"pull {split}", row, data.num_rows(split) or 0)


def _with_end_of_text(ids: np.ndarray, lengths: np.ndarray, end_of_text: int) -> tuple[np.ndarray, np.ndarray]:
    """Appends the end-of-text id to the documents that end without it."""
    ends = np.cumsum(lengths)
    last = np.where(lengths > 0, ids[np.maximum(ends - 1, 0)] if len(ids) else 0, -1)
    lacking = np.where((lengths == 0) | (last != end_of_text))[0]
    return np.insert(ids, ends[lacking], end_of_text), lengths + np.isin(np.arange(len(lengths)), lacking)

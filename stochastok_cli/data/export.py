"""From a dataset of token ids to the format of another trainer: documents, order and count are kept."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stochastok_cli.argument_checks import optional, path_like, require_each, string, yes_or_no
from stochastok_cli.artifacts import Artifact
from stochastok_cli.data.folders import find_dataset
from stochastok_cli.data.formats import DocumentBatch, Format, SplitDocuments, require_format
from stochastok_cli.data.instruction_dataset import InstructionDataset, MaskedExamples, open_dataset
from stochastok_cli.data.memmap import (
    SPLITS,
    Corpus,
    MemmapDataset,
    Tokenizer,
    document_batches,
    release_pages,
)
from stochastok_cli.data.sft_dataset import SFTDataset, SFTExamples
from stochastok_cli.data.source_artifacts import create_from_source
from stochastok_cli.errors import FAILED, Notice, UserError, count_of, did_you_mean, first_line
from stochastok_cli.manifest import Manifest, NewerFormatError, SplitInfo, TokenizerInfo, read_manifest
from stochastok_cli.paths import folder_name, path_with_name, require_path
from stochastok_cli.progress import ProgressCallback, no_progress

KIND = "exported"
"""The kind of the manifest."""

_BATCH_TOKENS = 4_000_000


def export(
    dataset: str | Path,
    *,
    format: str,
    out: str | Path | None = None,
    split: str | None = None,
    tokenizer: Tokenizer | None = None,
    data_dir: str | Path = "data",
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Writes a dataset in the format of another trainer.

    Documents keep their order and their ids, the end-of-text id at the end of each included. Their counts are compared
    with the manifest of the dataset. A split without documents is left out, with a `Notice`.

    Args:
        dataset: the name of a folder under `<data_dir>/data_as_memmaps`, or the path of a folder.
        format: the name of a format (`FORMATS`).
        out: the folder to write; by default `<data_dir>/data_as_<format>/<dataset>`.
        split: "train" or "val"; both by default.
        tokenizer: the tokenizer of a dataset without a manifest; gpt2 by default.
        data_dir: the data directory.
        force: make the folder again if it is an export that is there already.
        progress: called with the number of ids that are written.

    Returns:
        The folder. One that is there already, made with the same options, is left alone.

    Raises:
        UserError: the format can't hold the dataset, its counts are not those of its manifest, a split without a
            manifest does not end with end-of-text, or `out` holds something else. Nothing appears then.
    """
    require_each(path_like, dataset=dataset, data_dir=data_dir)
    optional(path_like)("out", out)
    string("format", format)
    optional(string)("split", split)
    yes_or_no("force", force)
    target = require_format(format)
    target.require_package()
    if split is not None and split not in SPLITS:
        raise UserError(f"there is no split {split!r}{did_you_mean(split, SPLITS)}", fix=f"give {' or '.join(SPLITS)}")
    source = open_dataset(find_dataset(dataset, data_dir), tokenizer)
    if not isinstance(source, Corpus) and not target.has_loss_mask:
        raise UserError(
            f"{source.name} holds questions or conversations, and {format} can't say which ids have a loss",
            fix="export it as arrow, or as another format that can",
        )
    if isinstance(source, Corpus) and source.manifest and source.manifest.kind == "addition":
        raise UserError(
            f"{source.name} holds additions, whose questions are not separated by end-of-text",
            fix="export a dataset of kind tokenized or expanded",
        )
    info = _tokenizer_info(source, tokenizer)
    dtype = np.dtype(target.dtype(info.size)).newbyteorder("<")
    if out is None:
        root = require_path(data_dir, "data_dir") / f"data_as_{target.name}"
        final = root / folder_name(None, source.name, "--out")
    else:
        final = path_with_name(require_path(out, "out"))
    _require_replaceable(final)
    options = {"format": target.name, "dtype": dtype.name, "split": split, "source": source.fingerprint}
    if source.manifest is None:
        options["tokenizer"] = info.fingerprint

    def build(folder: Path, progress: ProgressCallback) -> Manifest:
        splits = [_Split(source, name, dtype, info.size, progress) for name in ([split] if split else SPLITS)]
        empty = [chosen.name for chosen in splits if chosen.total == 0]
        chosen_splits = [chosen for chosen in splits if chosen.total]
        if not chosen_splits:
            raise UserError(f"{source.name} has no documents in {' and '.join(empty)}, so there is nothing to export")
        _write(target, folder, chosen_splits, info.name)
        counts = {chosen.name: chosen.require_complete() for chosen in chosen_splits}
        if empty:
            warnings.warn(f"{empty[0]} of {source.name} has no documents and is left out", Notice, stacklevel=2)
        return Manifest(
            kind=KIND,
            tokenizer=info,
            dtype=dtype.name,
            end_of_text=source.end_of_text,
            splits=counts,
        )

    place = "--data-dir" if out is None else "--out"
    return create_from_source(
        final, options, source.name, source, build, progress=progress, force=force, place_option=place
    )


def _write(target: Format, folder: Path, splits: "list[_Split]", tokenizer: str) -> None:
    written: list[SplitDocuments] = [*splits]
    try:
        target.write(folder, written, tokenizer)
    except ImportError as error:
        raise UserError(
            f"the format {target.name} needs {target.package}, which can't be imported: {first_line(error)}",
            exit_code=FAILED,
        ) from error


def _tokenizer_info(source: MemmapDataset, tokenizer: Tokenizer | None) -> TokenizerInfo:
    """What the manifest says, so that the tokenizer need not be there any more, or else the tokenizer itself.

    Raises UserError if `tokenizer` is another than the one of the manifest.
    """
    recorded = source.manifest.tokenizer if source.manifest else None
    if recorded is None or tokenizer is not None:
        return TokenizerInfo.from_json(source.vocabulary.describe())
    return recorded


def _require_replaceable(final: Path) -> None:
    """Raises UserError unless the folder to write is absent, empty or one that `export` has made.

    `--force` must replace nothing else, such as a folder inside of another dataset.
    """
    for folder in final.resolve().parents:
        if _is_dataset(folder):
            raise UserError(f"{final} is inside of {folder}, which --force would replace", fix="give another --out")
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return
    manifest = read_manifest(final) if final.is_dir() else None
    if manifest is None or manifest.kind != KIND:
        raise UserError(f"{final} exists and is no export", fix="give another --out")


def _is_dataset(folder: Path) -> bool:
    """Whether a folder has one of our manifests; a manifest.json of other programs is none."""
    try:
        manifest = read_manifest(folder)
    except NewerFormatError:
        raise
    except (UserError, OSError):
        return False
    return manifest is not None and manifest.kind is not None and manifest.made_by is not None


class _Split:
    """The documents of a split in the type of a format, which are counted while they are read.

    Args:
        source: the dataset.
        name: the name of the split.
        dtype: the type of the ids.
        vocabulary_size: ids must be below it.
        progress: called with the number of ids that are read.
    """

    def __init__(
        self, source: MemmapDataset, name: str, dtype: np.dtype, vocabulary_size: int, progress: ProgressCallback
    ):
        self.source, self.name, self.dtype = source, name, dtype
        self.has_loss_mask = not isinstance(source, Corpus)
        self._size, self._progress = vocabulary_size, progress
        self._documents = self._tokens = 0
        self._batches: Iterator[DocumentBatch]
        if isinstance(source, SFTDataset | InstructionDataset):
            examples = source.examples(name)
            lengths = examples.lengths(np.arange(len(examples)))
            self.total, self._batches = int(lengths.sum()), _example_batches(examples, lengths)
        else:
            assert isinstance(source, Corpus)
            ids = source.ids(name)
            source.require_end_of_text(name)
            self.total, self._batches = len(ids), _corpus_batches(ids, source.end_of_text)

    def __iter__(self) -> Iterator[DocumentBatch]:
        for ids, lengths, loss_mask in self._batches:
            highest = int(ids.max(initial=0))
            if highest >= self._size:
                raise UserError(
                    f"{self.name} of {self.source.name} holds the id {highest:,}, and its tokenizer has "
                    f"{self._size:,} entries",
                    exit_code=FAILED,
                )
            yield DocumentBatch(ids.astype(self.dtype, copy=False), lengths, loss_mask)
            self._documents += len(lengths)
            self._tokens += len(ids)
            self._progress(f"export {self.name}", self._tokens, self.total)

    def require_complete(self) -> SplitInfo:
        """The number of documents and ids that were read.

        Raises:
            UserError: they are not all, or not those that the manifest of the dataset counts.
        """
        recorded = self.source.manifest.splits.get(self.name) if self.source.manifest else None
        if self._tokens != self.total or (recorded and recorded.documents != self._documents):
            reason = "its documents are not separated by the end-of-text id" if isinstance(self.source, Corpus) else ""
            read = f"{count_of(self._documents, 'document')} with {count_of(self._tokens, 'id')}"
            raise UserError(
                f"{read} were read from {self.name} of {self.source.name}, and it holds "
                f"{recorded.documents if recorded else 0:,} with {self.total:,}",
                fix=reason,
                exit_code=FAILED,
            )
        return SplitInfo(self._documents, self._tokens)


def _corpus_batches(ids: np.ndarray, end_of_text: int) -> Iterator[DocumentBatch]:
    for start, stop, lengths in document_batches(ids, end_of_text, _BATCH_TOKENS):
        yield DocumentBatch(ids[start:stop], lengths, None)
        release_pages(ids, start, stop)


def _example_batches(examples: SFTExamples | MaskedExamples, lengths: np.ndarray) -> Iterator[DocumentBatch]:
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BATCH_TOKENS, side="right")))
        ids, loss_mask = examples.read(np.arange(start, stop))
        yield DocumentBatch(ids, lengths[start:stop], loss_mask)
        start = stop

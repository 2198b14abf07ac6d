"""From conversations, or prompts with completions, to examples with a loss on some of their tokens.

As in `tokenize`, examples are encoded in the order of the source into temporary files, and copied from there in the
order of the corpus split.
"""

import dataclasses
import shutil
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from stochastok_cli.argument_checks import one_of, optional, path_like, require_each, string, whole_number, yes_or_no
from stochastok_cli.artifacts import Artifact
from stochastok_cli.data.bad_documents import LeftOut, Location
from stochastok_cli.data.chat_template import Example, Unusable
from stochastok_cli.data.example_encoders import ExampleEncoder, make_encoder
from stochastok_cli.data.folders import require_kind
from stochastok_cli.data.instruction_dataset import ENDS, KIND, TOKENIZER
from stochastok_cli.data.memmap import corpus_manifest, memmap_dir, num_threads
from stochastok_cli.data.reading import TextSource
from stochastok_cli.data.source_artifacts import create_from_source
from stochastok_cli.data.table_rows import Row
from stochastok_cli.data.text_sources import open_rows
from stochastok_cli.data.tokenize import copy_documents, corpus_split, read_ahead, validation_fraction
from stochastok_cli.errors import Notice, count_of
from stochastok_cli.manifest import Manifest, SplitInfo
from stochastok_cli.paths import folder_name
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import CORPUS_SEED
from stochastok_cli.tokenization.loaders import is_tokenizer_json, load_vocabulary, tokenizer_file, tokenizer_path
from stochastok_cli.tokenization.vocabulary import Vocabulary

LongExamples = Literal["truncate", "drop"]
LONG_EXAMPLES: tuple[LongExamples, ...] = ("truncate", "drop")
"""What becomes of an example that is longer than the largest length: it loses its end, or is left out."""

_FILES_BESIDE = (  # beside the tokenizer's own file
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


def tokenize_instructions(
    source: str | Path,
    *,
    messages_column: str | None = None,
    prompt_column: str | None = None,
    completion_column: str | None = None,
    tokenizer: str | Path = "gpt2",
    name: str | None = None,
    data_dir: str | Path = "data",
    max_length: int | None = None,
    long_examples: LongExamples = "truncate",
    subset: str | None = None,
    split: str = "train",
    val_fraction: float = 0.01,
    seed: int = CORPUS_SEED,
    errors: str = "strict",
    on_bad_document: str = "error",
    limit: int | None = None,
    num_proc: int | None = None,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Tokenizes conversations, or prompts with completions, into `<data_dir>/data_as_memmaps/<name>`.

    Conversations are rendered by the tokenizer's chat template, with a loss on the turns of the assistant. A prompt and
    its completion are encoded apart, with a loss on the completion and on the end-of-text token after it. The split
    into training and validation is that of `tokenize`.

    Rows that can't be examples (no turn of an assistant, a conversation that the template refuses) are left out. Their
    number, the reasons and the places are in the manifest and in a `Notice`, as is the number of examples that are
    truncated.

    Args:
        source: a file of JSON objects, separated values, a parquet or Arrow file, a folder of these, or a dataset id on
            the Hub.
        messages_column: the column of conversations: lists of objects with `role` and `content`.
        prompt_column: the column of prompts; instead of conversations, together with `completion_column`.
        completion_column: the column of completions.
        tokenizer: name or path of a tokenizer; for conversations, one with a chat template.
        name: the name of the dataset; by default that of the source.
        data_dir: the data directory.
        max_length: the most ids of an example; None for no limit.
        long_examples: what becomes of longer ones: "truncate" or "drop".
        subset: the subset (configuration) of a dataset on the Hub.
        split: the split of a dataset on the Hub.
        val_fraction: the fraction of the examples in the validation split, in [0, 1).
        seed: the seed of the permutation.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".
        on_bad_document: what to do with a row that can't be read or has another form: "error", or "skip" to leave it
            out and count it.
        limit: read only so many rows, the first; None for all.
        num_proc: threads; by default all processors. Never changes the result.
        force: make the folder again if it is there already.
        progress: called with the number of bytes (or rows) of the source that are tokenized.

    Returns:
        The folder. One that is there already, made with the same options, is left alone.

    Raises:
        UserError: the source can't be read, holds something else or has too few examples, the tokenizer has no chat
            template, or the folder is there, made with other options.
    """
    source, data_dir = path_like("source", source), path_like("data_dir", data_dir)
    string("split", split)
    require_each(optional(string), messages_column=messages_column, prompt_column=prompt_column)
    require_each(optional(string), completion_column=completion_column, name=name, subset=subset)
    yes_or_no("force", force)
    val_fraction, seed = validation_fraction(val_fraction), whole_number("seed", seed)
    limit, threads = optional(whole_number)("limit", limit, minimum=1), num_threads(num_proc)
    max_length = optional(whole_number)("the largest length of an example", max_length, minimum=2)
    long_examples = one_of("--long-examples", long_examples, LONG_EXAMPLES)
    vocabulary = load_vocabulary(tokenizer)
    encoder = make_encoder(messages_column, prompt_column, completion_column, tokenizer, vocabulary, errors)
    rows = open_rows(
        str(source),
        encoder.columns,
        encoder.parse,
        errors=errors,
        on_bad_document=on_bad_document,
        limit=limit,
        subset=subset,
        split=split,
    )
    final = memmap_dir(data_dir) / folder_name(name, rows.name)
    options = {**rows.options, **encoder.options, "tokenizer": vocabulary.fingerprint}
    options |= {"val_fraction": val_fraction, "seed": seed}
    if max_length is not None:
        options |= {"max_length": max_length, "long_examples": long_examples}

    counts = _Counts(max_length, long_examples, rows.left_out)

    def build(folder: Path, progress: ProgressCallback) -> Manifest:
        examples = counts.kept(_encoded(rows, encoder, threads, progress))
        lengths, unknown = _write(examples, vocabulary, folder)
        details = f" ({'; '.join(counts.notices())})" if counts.left_out().total() else ""
        what = f"{source} holds {count_of(len(lengths), 'example')}{details}"
        if not len(lengths) and not details:
            what = f"{source} is empty: it has no rows"
        fix = ""
        if limit is not None and counts.num_examples >= limit:  # the source may hold more
            rows_read = count_of(limit, "row")
            what = f"--limit {limit} reads {rows_read} of {source}, which {_make(limit, len(lengths))}{details}"
            fix = "raise --limit; "
        chosen = corpus_split(len(lengths), val_fraction, seed, what, fix)
        splits = {
            name: _write_split(folder, name, lengths, which, vocabulary, progress) for name, which in chosen.items()
        }
        for file in _ENCODED:
            (folder / file).unlink()
        _copy_tokenizer(tokenizer, folder / TOKENIZER)
        return dataclasses.replace(
            corpus_manifest(KIND, vocabulary, splits, None),
            unknown_tokens=unknown or None,
            truncated=counts.truncated or None,
            **counts.left_out().manifest_entries(),
        )

    if not force:
        require_kind(final, KIND)
    made = create_from_source(final, options, str(source), rows, build, progress=progress, force=force)
    for text in counts.notices():  # none for a folder that was there already
        warnings.warn(text, Notice, stacklevel=2)
    return made


class _Counts:
    """Keeps examples to a largest length, and counts those that are truncated or left out.

    Args:
        max_length: the most ids of an example; None for no limit.
        long_examples: what becomes of longer ones.
        unread: counts the rows that can't be read, which are no examples here.
    """

    def __init__(self, max_length: int | None, long_examples: LongExamples, unread: LeftOut):
        self.max_length, self.long_examples = max_length, long_examples
        self.num_examples = self.truncated = 0
        self._unread, self._unusable = unread, LeftOut()

    def kept(self, examples: Iterable[tuple[Example | Unusable, Location]]) -> Iterator[Example]:
        """The examples that are not left out, each at most `max_length` ids long."""
        for example, where in examples:
            self.num_examples += 1
            result = self._shortened(example) if isinstance(example, Example) else example
            if isinstance(result, Example):
                yield result
            else:
                self._unusable.add(where, str(result))

    def left_out(self) -> LeftOut:
        """The rows that can't be read, and those that are no examples."""
        return self._unread + self._unusable

    def _shortened(self, example: Example) -> Example | Unusable:
        most = self.max_length
        is_long = most is not None and len(example.ids) > most
        if is_long and self.long_examples == "drop":
            return Unusable(f"more than {most:,} ids")
        shortened = Example(example.ids[:most], example.loss_mask[:most])
        if not shortened.loss_mask[1:].any():  # nothing predicts the first id
            return Unusable(f"no token with a loss among its first {most:,} ids" if is_long else "no token with a loss")
        self.truncated += is_long
        return shortened

    def notices(self) -> list[str]:
        """What users must know."""
        texts = []
        left_out = self.left_out()
        rows = count_of(self.num_examples + self._unread.total(), "row")
        if left_out.total():
            texts.append(f"{left_out.total():,} of {rows} {_be(left_out.total())} left out: {left_out.describe()}")
        if self.truncated:
            texts.append(f"{self.truncated:,} of {rows} {_be(self.truncated)} truncated to {self.max_length:,} ids")
        return texts


def _make(num_rows: int, num_examples: int) -> str:
    return f"{'makes' if num_rows == 1 else 'make'} {count_of(num_examples, 'example')}"


def _be(number: int) -> str:
    return "is" if number == 1 else "are"


def _encoded(
    rows: TextSource[Row], encoder: ExampleEncoder, threads: int, progress: ProgressCallback
) -> Iterator[tuple[Example | Unusable, Location]]:
    """The examples of all rows, each with where its row is."""
    for batch, done in read_ahead(rows.batches()):
        for example, row in zip(encoder.encode(batch, threads), batch, strict=True):
            yield example, row.where
        progress("tokenize", done, rows.total)


class _Part(NamedTuple):
    """A file with something for each id: its name while examples are in the order of the source, and after that."""

    encoded: str
    final: str


_IDS, _LOSS_MASK = _Part(".encoded_ids", "ids"), _Part(".encoded_loss_mask", "loss_mask")
_ENCODED = (_IDS.encoded, _LOSS_MASK.encoded)


def _write(examples: Iterable[Example], vocabulary: Vocabulary, folder: Path) -> tuple[np.ndarray, int]:
    """Writes examples in the order of the source.

    Returns their lengths (int64) and the number of ids that replace text that the vocabulary can't represent.
    """
    lengths, unknown = [], 0
    with open(folder / _IDS.encoded, "wb") as ids, open(folder / _LOSS_MASK.encoded, "wb") as loss_mask:
        for example in examples:
            ids.write(example.ids.astype(vocabulary.dtype, copy=False).tobytes())
            loss_mask.write(example.loss_mask.astype(np.uint8).tobytes())
            lengths.append(len(example.ids))
            if vocabulary.unknown is not None:
                unknown += int((example.ids == vocabulary.unknown).sum())
    return np.array(lengths, np.int64), unknown


def _write_split(
    folder: Path,
    split: str,
    lengths: np.ndarray,
    chosen: np.ndarray,
    vocabulary: Vocabulary,
    progress: ProgressCallback,
) -> SplitInfo:
    """Writes the files of a split, which has the examples `chosen` in this order."""
    starts = np.cumsum(lengths) - lengths
    for part, size in ((_IDS, vocabulary.dtype.itemsize), (_LOSS_MASK, 1)):
        file = folder / f"{split}_{part.final}.bin"
        copy_documents(folder / part.encoded, starts[chosen] * size, lengths[chosen] * size, file, split, progress)
    np.cumsum(lengths[chosen]).astype(ENDS).tofile(folder / f"{split}_ends.bin")
    return SplitInfo(len(chosen), int(lengths[chosen].sum()))


def _copy_tokenizer(tokenizer: str | Path, folder: Path) -> None:
    """Copies the files of a tokenizer, unless it comes with the package or from tiktoken.

    A file in another format than that of `tokenizer.json` is left out: the dataset then names it, as corpora do.
    """
    path = tokenizer_path(tokenizer)
    if path is None:
        return
    file = tokenizer_file(path)
    files = {name: file.with_name(name) for name in _FILES_BESIDE}
    if is_tokenizer_json(file):
        files["tokenizer.json"] = file
    for name, source in files.items():
        if source.is_file():
            folder.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / name)

"""Writes the pairs of addition: the canonical stream, the same stream in other tokenizations, and the texts.

A pair is a code from 10^(2d-1) to 10^(2d) - 1 for d digits: the first number is the code's upper d digits, the second
its lower d, printed without leading zeros. It reads `$a+b=` and then the sum, last digit first: `$841+7=848`. Each
pair is tokenized on its own. In a vocabulary that keeps digits and signs apart before it merges (gpt2 and all of
tiktoken's) that equals tokenizing the text as a whole.
"""

import math
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stochastok_cli.artifacts import Artifact, create_artifact
from stochastok_cli.data.arrow_datasets import list_column, write_dataset
from stochastok_cli.data.memmap import SPLITS, Corpus, corpus_manifest, dataset_dir, memmap_dir
from stochastok_cli.data.recipes.addition_tokenizations import Form, addition_forms
from stochastok_cli.data.recipes.base import validate_dataset_name
from stochastok_cli.errors import Notice, UserError
from stochastok_cli.manifest import Manifest, SourceInfo, SplitInfo
from stochastok_cli.progress import ProgressCallback
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow

BLOCK_TOKENS = 1000  # the canonical stream is expanded in blocks of so many ids
_BATCH_PAIRS = 2**18
_BATCH_BLOCKS = 2000


def pair_codes(num_digits: int, val_fraction: float, seed: int) -> dict[str, np.ndarray]:
    """The codes (int64) of both splits in their order: of all codes shuffled, val is the first
    `ceil(val_fraction * n)` and train the rest.

    >>> {split: len(codes) for split, codes in pair_codes(1, 0.1, seed=0).items()}
    {'train': 81, 'val': 9}
    """
    first, end = 10 ** (2 * num_digits - 1), 10 ** (2 * num_digits)
    codes = stream(seed, "addition").permutation(end - first) + first
    val = math.ceil(val_fraction * len(codes))
    return {"train": codes[val:], "val": codes[:val]}


def pair_texts(codes: np.ndarray, num_digits: int) -> tuple[list[str], list[str]]:
    """Questions and answers of pairs.

    >>> pair_texts(np.array([841007, 999999]), 3)
    (['$841+7=', '$999+999='], ['848', '8991'])
    """
    first, second = np.divmod(codes, 10**num_digits)
    questions = [f"${a}+{b}=" for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    return questions, [str(total)[::-1] for total in (first + second).tolist()]


def write_addition(
    name: str,
    codes: dict[str, np.ndarray],
    options: dict[str, Any],
    vocabulary: Vocabulary,
    data_dir: Path,
    *,
    recipe: str,
    force: bool,
    progress: ProgressCallback,
) -> Artifact:
    """Writes `data_as_memmaps/<name>_<form>` for each form and then `data_as_datasets/<name>`.

    Args:
        name: the beginning of the folders' names.
        codes: the codes of the pairs of each split, int64, in their order.
        options: everything that decides the content, for the manifests; `num_digits` and `seed` are used here.
        vocabulary: the vocabulary of the ids.
        data_dir: the data directory.
        recipe: the name of the recipe, which is the default of `name`.
        force: make folders again that are there already.
        progress: called with the numbers of pairs and ids that are done.

    Returns:
        The folder of texts.

    Raises:
        UserError: the vocabulary lacks a digit or a sign, or a folder is there, made with other options.
    """
    validate_dataset_name(name, recipe)
    num_digits = options["num_digits"]
    forms = addition_forms(vocabulary, options["seed"])

    def build_base(folder: Path) -> Manifest:
        splits = {split: _write_base(folder, split, codes[split], num_digits, vocabulary, progress) for split in SPLITS}
        return corpus_manifest("addition", vocabulary, splits, None)

    def build_form(form: str, folder: Path) -> Manifest:
        splits = _write_form(folder, base, forms[form], f"write {form}", progress)
        return corpus_manifest("addition", vocabulary, splits, SourceInfo(base.name, base.fingerprint))

    def build_dataset(folder: Path) -> Manifest:
        num_rows = len(codes["val"])
        tables = {}
        for split in SPLITS:
            streams = {form: corpus.ids(split) for form, corpus in corpora.items()}
            tables[split] = _table(codes[split][:num_rows], num_digits, streams, vocabulary)
        return Manifest("dataset", None if name == recipe else recipe, splits=write_dataset(folder, tables))

    form_options = {form: {**options, "form": form, **forms[form].options} for form in forms}
    root = memmap_dir(data_dir)
    base = Corpus(create_artifact(root / f"{name}_base", form_options["base"], build_base, force=force).path)
    corpora = {"base": base}
    for form in forms:
        if form != "base":
            made = create_artifact(root / f"{name}_{form}", form_options[form], partial(build_form, form), force=force)
            corpora[form] = Corpus(made.path)
    _note_equal_forms(corpora, vocabulary)
    return create_artifact(dataset_dir(data_dir) / name, {**options, "forms": list(forms)}, build_dataset, force=force)


def _note_equal_forms(corpora: dict[str, Corpus], vocabulary: Vocabulary) -> None:
    """Gives a `Notice` on forms that have the same ids, as of a tokenizer without tokens of several digits."""
    forms: dict[str, list[str]] = {}
    for form, corpus in corpora.items():
        forms.setdefault(corpus.fingerprint, []).append(form)
    for equal in forms.values():
        if len(equal) > 1:
            warnings.warn(
                f"{', '.join(equal)} are the same ids with the tokenizer {vocabulary.name!r}, so comparing them "
                "shows nothing; take a tokenizer with tokens of several digits, such as gpt2, or a larger --num-digits",
                Notice,
                stacklevel=3,
            )


def _write_base(
    folder: Path, split: str, codes: np.ndarray, num_digits: int, vocabulary: Vocabulary, progress: ProgressCallback
) -> SplitInfo:
    """Tokenizes the pairs of a split one after the other."""
    tokens = 0
    with open(folder / f"{split}.bin", "wb") as out:
        for start in range(0, len(codes), _BATCH_PAIRS):
            batch = codes[start : start + _BATCH_PAIRS]
            ids, _ = vocabulary.encode_batch([q + a for q, a in zip(*pair_texts(batch, num_digits), strict=True)])
            out.write(np.ascontiguousarray(ids).data)
            tokens += len(ids)
            progress(f"tokenize {split}", start + len(batch), len(codes))
    return SplitInfo(len(codes), tokens)


def _write_form(
    folder: Path, base: Corpus, form: Form, description: str, progress: ProgressCallback
) -> dict[str, SplitInfo]:
    """Retokenizes the canonical stream block by block; blocks are numbered through train and then val."""
    index = 0
    splits = {}
    for split in SPLITS:
        ids = base.ids(split)
        tokens = 0
        with open(folder / f"{split}.bin", "wb") as out:
            for start in range(0, len(ids), _BATCH_BLOCKS * BLOCK_TOKENS):
                batch = ids[start : start + _BATCH_BLOCKS * BLOCK_TOKENS]
                lengths = np.diff([*range(0, len(batch), BLOCK_TOKENS), len(batch)])
                converted, _ = form.tokenize(batch, lengths, index)
                out.write(np.ascontiguousarray(converted).data)
                tokens += len(converted)
                index += len(lengths)
                progress(f"{description} {split}", start + len(batch), len(ids))
        assert base.manifest is not None
        splits[split] = SplitInfo(base.manifest.splits[split].documents, tokens)
    return splits


def _table(
    codes: np.ndarray, num_digits: int, streams: dict[str, np.ndarray], vocabulary: Vocabulary
) -> "pyarrow.Table":
    """The first pairs of a split as an Arrow table, cut from the streams that models train on.

    Args:
        codes: the codes of the pairs, int64 `[pairs]`.
        num_digits: of the first number.
        streams: the ids of the split in each form, which begin with these pairs.
        vocabulary: of the ids.

    Returns:
        A table with the columns `question`, `answer`, and `t_question_<form>` and `t_answer_<form>` of each form.

    Raises:
        UserError: the tokenizer joins a part of a question and of an answer in one token.
    """
    import pyarrow

    questions, answers = pair_texts(codes, num_digits)
    num_bytes = np.array([[len(q), len(a)] for q, a in zip(questions, answers, strict=True)], dtype=np.int64)
    columns: dict[str, Any] = {"question": questions, "answer": answers}
    for form, ids in streams.items():
        lengths = _token_lengths(ids, num_bytes.ravel(), vocabulary)
        in_answer = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        of_pairs = ids[: len(in_answer)]
        columns[f"t_question_{form}"] = list_column(of_pairs[~in_answer], lengths[0::2])
        columns[f"t_answer_{form}"] = list_column(of_pairs[in_answer], lengths[1::2])
    return pyarrow.table(columns)


def _token_lengths(ids: np.ndarray, num_bytes: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """How many ids of a stream make up each of its first parts.

    Args:
        ids: the stream.
        num_bytes: int64 `[parts]`, the bytes of each part.
        vocabulary: of the ids.

    Returns:
        int64 `[parts]`.

    Raises:
        UserError: a token belongs to two parts.
    """
    part_ends = np.cumsum(num_bytes)
    token_ends = np.cumsum(vocabulary.widths[ids[: part_ends[-1]]])  # an id has at least one byte
    last = np.searchsorted(token_ends, part_ends)
    if (token_ends[last] != part_ends).any():
        raise UserError(
            f"the tokenizer {vocabulary.name!r} joins a part of a question and of an answer in one token",
            fix="take one that keeps digits and signs apart",
        )
    return np.diff(last + 1, prepend=0)

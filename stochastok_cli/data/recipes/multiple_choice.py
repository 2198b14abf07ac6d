"""Generated multiple-choice questions on disk: as texts to evaluate on, and as rows of ids to train on."""

import abc
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from stochastok_cli.artifacts import Artifact, create_artifact
from stochastok_cli.data.arrow_datasets import write_dataset
from stochastok_cli.data.folders import require_kind
from stochastok_cli.data.memmap import corpus_manifest, dataset_dir, memmap_dir
from stochastok_cli.data.recipes.base import validate_dataset_name
from stochastok_cli.data.sft_dataset import Examples, write_sft_dataset
from stochastok_cli.manifest import Manifest, SourceInfo
from stochastok_cli.progress import ProgressCallback
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    import pyarrow

_ENCODE_BATCH = 2**12  # questions


class MultipleChoiceQuestion(NamedTuple):
    """A question.

    Args:
        text: the whole prompt, up to `Answer:`.
        options: the possible answers, the right one first, without a leading space.
        kind: which kind of question it is, where there are several.
    """

    text: str
    options: list[str]
    kind: str = ""


class QuestionGenerator(abc.ABC):
    """Generates the questions of both splits."""

    kind_column: ClassVar[str | None] = None
    """The column of the texts that holds the kind of question; None where there is no such column."""

    @abc.abstractmethod
    def questions(self, split: str, count: int) -> Iterator[MultipleChoiceQuestion]:
        """The first `count` questions of a split. A shorter set is the beginning of a longer one."""

    def table(self, split: str, count: int) -> "pyarrow.Table":
        """The first questions of a split as texts; an option is a space and the answer."""
        import pyarrow

        questions = list(self.questions(split, count))
        columns: dict[str, Any] = {
            "question": [question.text for question in questions],
            "options": [[f" {option}" for option in question.options] for question in questions],
        }
        if self.kind_column:
            columns[self.kind_column] = [question.kind for question in questions]
        return pyarrow.table(columns)

    def encode(self, split: str, count: int, vocabulary: Vocabulary, progress: ProgressCallback) -> list[Examples]:
        """The first questions of a split with their right answers, as ids."""
        examples: list[Examples] = []
        batch: list[MultipleChoiceQuestion] = []
        for i, question in enumerate(self.questions(split, count), 1):
            batch.append(question)
            if len(batch) == _ENCODE_BATCH or i == count:
                ids, lengths = vocabulary.encode_batch([question.text for question in batch])
                answers = vocabulary.encode_continuations([f" {question.options[0]}" for question in batch])
                examples.append(Examples(ids, lengths, *answers))
                batch = []
                progress(f"make {split}", i, count)
        return examples


def write_questions(
    name: str,
    generator: QuestionGenerator,
    sizes: dict[str, int],
    options: dict[str, Any],
    *,
    recipe: str | None = None,
    vocabulary: Vocabulary,
    made_from: SourceInfo | None,
    data_dir: Path,
    force: bool,
    progress: ProgressCallback,
) -> Artifact:
    """Makes `data_as_datasets/<name>` and then `data_as_memmaps/<name>`.

    Args:
        name: the name of both folders.
        generator: makes the questions.
        sizes: the number of questions of each split. As texts, at most `sizes["val"]` of each split are written.
        options: everything that decides the questions, for the manifests.
        recipe: the name of the recipe, where that of the folders is another.
        vocabulary: the vocabulary of the ids.
        made_from: the word list, for the manifests.
        data_dir: the data directory.
        force: make folders again that are there already.
        progress: called with the numbers of questions generated and written.

    Returns:
        The folder of ids.

    Raises:
        UserError: a folder is there, made with other options, or can't be written.
    """

    def build_texts(folder: Path) -> Manifest:
        tables = {split: generator.table(split, min(size, sizes["val"])) for split, size in sizes.items()}
        return Manifest("dataset", named_recipe, splits=write_dataset(folder, tables), made_from=made_from)

    def build_ids(folder: Path) -> Manifest:
        examples = {split: generator.encode(split, size, vocabulary, progress) for split, size in sizes.items()}
        counts = write_sft_dataset(folder, examples, vocabulary, progress)
        manifest = corpus_manifest(recipe or name, vocabulary, counts, made_from)
        return dataclasses.replace(
            manifest,
            unknown_tokens=_count_unknown(examples, vocabulary) or None,
            val_in_train=count_repeated(examples["train"], examples["val"]),
        )

    validate_dataset_name(name, recipe or name)
    if not force:
        require_kind(memmap_dir(data_dir) / name, recipe or name)
    named_recipe = None if recipe == name else recipe
    create_artifact(dataset_dir(data_dir) / name, options, build_texts, force=force)
    options = {**options, "tokenizer": vocabulary.fingerprint}
    return create_artifact(memmap_dir(data_dir) / name, options, build_ids, force=force)


def _count_unknown(splits: dict[str, list[Examples]], vocabulary: Vocabulary) -> int:
    """The number of ids that replace text that the vocabulary can't represent."""
    if vocabulary.unknown is None:
        return 0
    blocks = [block for split in splits.values() for block in split]
    return sum(int((ids == vocabulary.unknown).sum()) for b in blocks for ids in (b.question_ids, b.answer_ids))


def count_repeated(train: list[Examples], val: list[Examples]) -> int:
    """The number of validation questions that are training questions, too: the same ids, with those of the answer."""
    wanted = list(_keys(val))
    once = set(wanted)
    seen = {key for key in _keys(train) if key in once}
    return sum(key in seen for key in wanted)


def _keys(blocks: list[Examples]) -> Iterator[tuple[bytes, bytes]]:
    for block in blocks:
        answers = _rows(block.answer_ids, block.answer_lengths)
        yield from zip(_rows(block.question_ids, block.question_lengths), answers, strict=True)


def _rows(ids: np.ndarray, lengths: np.ndarray) -> Iterator[bytes]:
    data, begin = ids.tobytes(), 0
    for end in (np.cumsum(lengths) * ids.itemsize).tolist():
        yield data[begin:end]
        begin = end

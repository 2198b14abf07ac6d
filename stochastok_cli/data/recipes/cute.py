"""Questions in the manner of CUTE to train on, generated over a word list, in LangGame's two forms on disk.

The benchmark's own test questions are not among the inputs here. Questions are drawn in blocks, each from its own
random stream, so a shorter set is the beginning of a longer one.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stochastok_cli.artifacts import Artifact, SourceInfo
from stochastok_cli.data.recipes.cute_tasks import NUM_OPTIONS, TASKS, levenshtein, options
from stochastok_cli.data.recipes.multiple_choice import make_question_folders
from stochastok_cli.data.sft_dataset import Examples
from stochastok_cli.data.word_list import read_words
from stochastok_cli.errors import UserError
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import derive_key, stream
from stochastok_cli.tokenization.vocabulary import Vocabulary

NAME = "cute"
NEAREST = 10  # `orth`: the right candidate is one of so many words nearest to the word
VAL_WORDS = 10  # one word in so many is kept for val, where train and val are to be disjoint
_BLOCK = 2**12  # questions


class Asked(NamedTuple):
    """A question with its options, the right one first."""

    task: str
    text: str
    options: list[str]


@dataclass(frozen=True, eq=False)
class Cute:
    """An endless list of questions over the words of each split."""

    words: dict[str, list[str]]
    seed: int

    def questions(self, split: str, count: int) -> Iterator[Asked]:
        """The first `count` questions of a split."""
        words = self.words[split]
        for index in range(0, count, _BLOCK):
            random = stream(self.seed, f"cute/{split}", index // _BLOCK)
            for _ in range(min(_BLOCK, count - index)):
                yield self._draw(words, random)

    def _draw(self, words: list[str], random: np.random.Generator) -> Asked:
        """A task uniform over the eight and a word uniform over the list, drawn again where the task can't have it."""
        task = list(TASKS)[random.integers(len(TASKS))]
        inputs = None
        while inputs is None:
            inputs = TASKS[task].draw(random, words[random.integers(len(words))])
            if task == "orth" and inputs is not None:
                inputs = self._candidates(words, inputs[0], random)
        answer = TASKS[task].answer(*inputs)
        return Asked(task, TASKS[task].question(inputs), options(task, inputs, answer, words, random))

    def _candidates(self, words: list[str], word: str, random: np.random.Generator) -> tuple[str, ...] | None:
        """The word, one of those nearest to it and one that is farther, in either order."""
        distances = _distances(tuple(words), word)
        near = np.argsort(distances, kind="stable")[1 : NEAREST + 1]  # the first is the word itself
        chosen = near[random.integers(len(near))]
        farther = np.flatnonzero(distances > distances[chosen])
        if not len(farther):
            return None
        pair = [words[chosen], words[farther[random.integers(len(farther))]]]
        return (word, *(pair if random.random() < 0.5 else pair[::-1]))


@functools.lru_cache(maxsize=2**14)
def _distances(words: tuple[str, ...], word: str) -> np.ndarray:
    return levenshtein(word, words)


def make_cute(
    vocabulary: Vocabulary,
    data_dir: Path,
    *,
    train_size: int = 100_000,
    val_size: int = 1_000,
    words: Path | None = None,
    disjoint: bool = False,
    seed: int = 0,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Makes `data_as_datasets/cute` for evaluation and then `data_as_memmaps/cute`, which it returns.

    `words` is a file with one word a line (the bundled list where None). With `disjoint` val asks about words that
    train never has. Raises UserError for impossible settings and words before anything is written.
    """
    for name, value in (("--train-size", train_size), ("--val-size", val_size)):
        if value < 1:
            raise UserError(f"{name} is {value}", fix="it must be at least 1")
    word_list = read_words(words)
    game = Cute({split: _words(word_list.words, split, disjoint, seed) for split in ("train", "val")}, seed)
    made_from = SourceInfo(word_list.name, word_list.fingerprint)
    settings = {"train_size": train_size, "val_size": val_size, "words": word_list.fingerprint}
    settings |= {"disjoint": disjoint, "seed": seed}
    return make_question_folders(
        NAME,
        data_dir,
        settings,
        {"train": train_size, "val": val_size},
        lambda split, count: _columns(game, split, count),
        lambda split, count: _encode(game, split, count, vocabulary, progress),
        vocabulary,
        made_from,
        force=force,
        progress=progress,
    )


def _words(words: list[str], split: str, disjoint: bool, seed: int) -> list[str]:
    """The words of a split. Raises UserError if no questions of every task can be made of them."""
    if disjoint:
        words = [w for w in words if (derive_key(seed, f"cute/disjoint/{w}") % VAL_WORDS == 0) == (split == "val")]
    exchangeable = (w for w in words if sum(w.count(letter) == 1 for letter in set(w)) >= 2)
    comparable = (w for w in words if np.ptp(np.sort(_distances(tuple(words), w))[1:]) > 0)
    if len(words) < max(NUM_OPTIONS, 3) or not any(exchangeable) or not any(comparable):
        raise UserError(
            f"no questions of every task can be made of {len(words)} words ({split})", fix="give more varied words"
        )
    return words


def _columns(game: Cute, split: str, count: int) -> Any:
    """The first questions of a split as an Arrow table: the text, the options with their leading space, the task."""
    import pyarrow

    asked = list(game.questions(split, count))
    columns = {
        "question": [question.text for question in asked],
        "options": [[f" {option}" for option in question.options] for question in asked],
        "task": [question.task for question in asked],
    }
    return pyarrow.table(columns)


def _encode(game: Cute, split: str, count: int, vocabulary: Vocabulary, progress: ProgressCallback) -> list[Examples]:
    """All questions of a split as ids, a block at a time."""
    examples: list[Examples] = []
    block: list[Asked] = []
    for i, question in enumerate(game.questions(split, count), 1):
        block.append(question)
        if len(block) == _BLOCK or i == count:
            ids, lengths = vocabulary.encode_batch([asked.text for asked in block])
            parts = [vocabulary.encode_continuation(f" {asked.options[0]}") for asked in block]
            answers = np.concatenate(parts).astype(vocabulary.dtype), np.array([len(part) for part in parts])
            examples.append(Examples(ids, lengths, *answers))
            block = []
            progress(f"make {split}", i, count)
    return examples

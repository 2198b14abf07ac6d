"""Generates training questions like those of CUTE over a word list.

Questions are drawn in blocks, each from its own random stream, so a shorter set is the beginning of a longer one.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stochastok_cli.data.recipes.cute_tasks import NUM_OPTIONS, TASKS, options
from stochastok_cli.data.recipes.edit_distances import EditDistances
from stochastok_cli.data.recipes.multiple_choice import MultipleChoiceQuestion, QuestionGenerator
from stochastok_cli.errors import UserError, count_of
from stochastok_cli.random_streams import derive_key, stream

NEAREST = 10  # `orth`: the right candidate is one of so many words nearest to the word
VAL_WORDS = 10  # one word in so many is kept for val, where train and val are to be disjoint
_BLOCK = 2**12  # questions


@dataclass(frozen=True, eq=False)
class Cute(QuestionGenerator):
    """The questions of each split, from the words of the split."""

    words: dict[str, list[str]]
    seed: int
    kind_column = "task"

    @functools.cached_property
    def _distances(self) -> dict[str, EditDistances]:
        return {split: EditDistances(words) for split, words in self.words.items()}

    def questions(self, split: str, count: int) -> Iterator[MultipleChoiceQuestion]:
        words = self.words[split]
        for index in range(0, count, _BLOCK):
            random = stream(self.seed, f"cute/{split}", index // _BLOCK)
            for _ in range(min(_BLOCK, count - index)):
                yield self._draw(words, self._distances[split], random)

    def _draw(self, words: list[str], distances: EditDistances, random: np.random.Generator) -> MultipleChoiceQuestion:
        """A task uniform over the eight, and a word uniform over the list, drawn again where the task can't use it."""
        task = list(TASKS)[random.integers(len(TASKS))]
        inputs = None
        while inputs is None:
            inputs = TASKS[task].draw(random, words[random.integers(len(words))])
            if task == "orth" and inputs is not None:
                inputs = _candidates(words, inputs[0], distances.to(inputs[0]), random)
        answer = TASKS[task].answer(*inputs)
        choices = options(task, inputs, answer, words, random)
        return MultipleChoiceQuestion(TASKS[task].question(inputs), choices, task)


def _candidates(
    words: list[str], word: str, distances: np.ndarray, random: np.random.Generator
) -> tuple[str, ...] | None:
    """The word, one of those nearest to it and one that is farther, in either order."""
    near = np.argsort(distances, kind="stable")[1 : NEAREST + 1]  # the first is the word itself
    chosen = near[random.integers(len(near))]
    farther = np.flatnonzero(distances > distances[chosen])
    if not len(farther):
        return None
    pair = [words[chosen], words[farther[random.integers(len(farther))]]]
    return (word, *(pair if random.random() < 0.5 else pair[::-1]))


def split_words(words: list[str], *, disjoint_seed: int | None) -> dict[str, list[str]]:
    """The words that train and val ask about: all, or a tenth for val alone, chosen by `disjoint_seed`.

    Raises UserError if no questions of every task can be made of them.
    """

    def belongs(split: str, word: str) -> bool:
        if disjoint_seed is None:
            return True
        return (derive_key(disjoint_seed, f"cute/disjoint/{word}") % VAL_WORDS == 0) == (split == "val")

    splits = {split: [word for word in words if belongs(split, word)] for split in ("train", "val")}
    for split, chosen in splits.items():
        swappable = (w for w in chosen if sum(w.count(letter) == 1 for letter in set(w)) >= 2)
        distances = EditDistances(chosen)
        comparable = (w for w in chosen if np.ptp(np.sort(distances.to(w))[1:]) > 0)
        if len(chosen) < max(NUM_OPTIONS, 3) or not any(swappable) or not any(comparable):
            words_of_split = f"{count_of(len(chosen), 'word')} ({split})"
            raise UserError(f"no questions of every task can be made of {words_of_split}", fix="give more varied words")
    return splits

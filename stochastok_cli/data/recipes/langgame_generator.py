"""Generates LangGame: draws cases and wordings in blocks, each block from its own random stream."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stochastok_cli.data.recipes.langgame_questions import CaseTable, case_table, substring_lengths
from stochastok_cli.data.recipes.langgame_templates import WORDINGS
from stochastok_cli.data.recipes.multiple_choice import MultipleChoiceQuestion, QuestionGenerator
from stochastok_cli.data.sft_dataset import Examples
from stochastok_cli.progress import ProgressCallback
from stochastok_cli.random_streams import derive_key, stream
from stochastok_cli.tokenization.vocabulary import Vocabulary

VAL_CASES = 10  # one case in so many is kept for val, where train and val are to be disjoint
_BLOCK = 2**14  # questions


class QuestionBlock(NamedTuple):
    """Texts up to `Answer:`, and options: int64 `[questions, options]`, indices of words, the right one first."""

    texts: list[str]
    options: np.ndarray


@dataclass(frozen=True)
class LangGame(QuestionGenerator):
    """The questions of each split, from the cases of the split."""

    tables: dict[str, CaseTable]
    seed: int

    def blocks(self, split: str, count: int) -> Iterator[QuestionBlock]:
        """The first `count` questions of a split."""
        for index in range(0, count, _BLOCK):
            block = self._block(split, index // _BLOCK)
            yield QuestionBlock(block.texts[: count - index], block.options[: count - index])

    def _block(self, split: str, index: int) -> QuestionBlock:
        table = self.tables[split]
        random = stream(self.seed, f"langgame/{split}", index)
        case, options = table.draw(random, _BLOCK)
        wording = random.integers(0, len(WORDINGS), _BLOCK)
        rotation = random.integers(0, table.num_options, _BLOCK)
        rotated = np.take_along_axis(options, (np.arange(table.num_options) + rotation[:, None]) % table.num_options, 1)
        texts = [
            WORDINGS[w].question(table.predicates[p], [table.words[i] for i in shown])
            for w, p, shown in zip(wording.tolist(), table.predicate[case].tolist(), rotated.tolist(), strict=True)
        ]
        return QuestionBlock(texts, options)

    def questions(self, split: str, count: int) -> Iterator[MultipleChoiceQuestion]:
        words = self.tables[split].words
        for block in self.blocks(split, count):
            for text, options in zip(block.texts, block.options.tolist(), strict=True):
                yield MultipleChoiceQuestion(text, [words[i] for i in options])

    def encode(self, split: str, count: int, vocabulary: Vocabulary, progress: ProgressCallback) -> list[Examples]:
        """The first questions of a split as ids. An answer is one of the words, so each word is encoded once."""
        word_ids, word_lengths = vocabulary.encode_continuations([f" {word}" for word in self.tables[split].words])
        present = np.arange(word_lengths.max()) < word_lengths[:, None]
        padded = np.zeros(present.shape, vocabulary.dtype)
        padded[present] = word_ids
        examples = []
        done = 0
        for block in self.blocks(split, count):
            answers = block.options[:, 0]
            ids, lengths = vocabulary.encode_batch(block.texts)
            examples.append(Examples(ids, lengths, padded[answers][present[answers]], word_lengths[answers]))
            done += len(answers)
            progress(f"make {split}", done, count)
        return examples


def case_tables(
    words: list[str],
    num_options: int,
    substrings: tuple[int, int],
    *,
    sides: tuple[str | None, str | None] = (None, None),
    disjoint_seed: int | None = None,
) -> dict[str, CaseTable]:
    """The cases of train and val.

    Args:
        words: the word list.
        num_options: options of each question, one of them right.
        substrings: the shortest and the longest substring that is asked about, in letters.
        sides: which substrings train and val ask about: "short" (up to half of the word), "long" or None (both).
        disjoint_seed: where given, a tenth of the cases, chosen by this seed, belong to val alone and the others to
            train.

    Returns:
        A table for each split.

    Raises:
        UserError: no question of some kind can be made.
    """

    def belongs(split: str, predicate: str, answer: str) -> bool:
        if disjoint_seed is None:
            return True
        key = derive_key(disjoint_seed, f"langgame/disjoint/{predicate}/{answer}")
        return (key % VAL_CASES == 0) == (split == "val")

    return {
        split: case_table(
            words,
            num_options,
            substring_lengths(*substrings, side),
            lambda predicate, answer, split=split: belongs(split, predicate, answer),  # type: ignore[misc]
        )
        for split, side in zip(("train", "val"), sides, strict=True)
    }

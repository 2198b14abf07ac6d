"""LangGame (paper, Section 4.2): multiple-choice questions about the letters of words, made and written.

Questions are drawn in blocks, each from its own random stream, so a shorter set is the beginning of a longer one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stochastok_cli.artifacts import Artifact, SourceInfo
from stochastok_cli.data.recipes.langgame_questions import CaseTable, case_table, substring_lengths
from stochastok_cli.data.recipes.langgame_templates import WORDINGS
from stochastok_cli.data.recipes.multiple_choice import make_question_folders
from stochastok_cli.data.sft_dataset import Examples
from stochastok_cli.data.word_list import read_words
from stochastok_cli.errors import UserError
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.random_streams import derive_key, stream
from stochastok_cli.tokenization.vocabulary import Vocabulary

NAME = "langgame"
HOLDOUTS = {"none": (None, None), "short": ("long", "short"), "long": ("short", "long")}
"""Which substrings train and val ask about, by which are held out from training."""
VAL_CASES = 10  # one case in so many is kept for val, where train and val are to be disjoint
_BLOCK = 2**14  # questions


class Questions(NamedTuple):
    """Texts up to `Answer:`, and the options: int64 `(questions, options)`, indices of words, the right one first."""

    texts: list[str]
    options: np.ndarray


@dataclass(frozen=True)
class Game:
    """An endless list of questions for each split."""

    tables: dict[str, CaseTable]
    seed: int

    def blocks(self, split: str, count: int) -> Iterator[Questions]:
        """The first `count` questions of a split."""
        for index in range(0, count, _BLOCK):
            questions = self._block(split, index // _BLOCK)
            yield Questions(questions.texts[: count - index], questions.options[: count - index])

    def _block(self, split: str, index: int) -> Questions:
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
        return Questions(texts, options)


def make_langgame(
    vocabulary: Vocabulary,
    data_dir: Path,
    *,
    train_size: int = 1_000_000,
    val_size: int = 1_000,
    num_options: int = 4,
    words: Path | None = None,
    min_substring: int = 1,
    max_substring: int = 3,
    holdout: str = "none",
    disjoint: bool = False,
    seed: int = 0,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Makes `data_as_datasets/langgame` for evaluation and then `data_as_memmaps/langgame`, which it returns.

    `words` is a file with one word a line (the bundled list where None); `holdout` is a key of HOLDOUTS. With
    `disjoint` nothing that is asked in val is asked in train with the same right answer. Raises UserError for
    impossible settings and words before anything is written.
    """
    _check(train_size, val_size, num_options, min_substring, max_substring, holdout)
    word_list = read_words(words)
    tables = {
        split: case_table(
            word_list.words,
            num_options,
            substring_lengths(min_substring, max_substring, side),
            *([_side(split, seed)] if disjoint else []),
        )
        for split, side in zip(("train", "val"), HOLDOUTS[holdout], strict=True)
    }
    game = Game(tables, seed)
    made_from = SourceInfo(word_list.name, word_list.fingerprint)
    options = {
        "train_size": train_size,
        "val_size": val_size,
        "num_options": num_options,
        "words": word_list.fingerprint,
        "min_substring": min_substring,
        "max_substring": max_substring,
        "holdout": holdout,
        "seed": seed,
        **({"disjoint": True} if disjoint else {}),  # absent from folders made before there was a choice
    }
    return make_question_folders(
        NAME,
        data_dir,
        options,
        {"train": train_size, "val": val_size},
        lambda split, count: _columns(game, split, count),
        lambda split, count: _encode(game, split, count, vocabulary, progress),
        vocabulary,
        made_from,
        force=force,
        progress=progress,
    )


def _side(split: str, seed: int) -> Callable[[str, str], bool]:
    """Which cases, each a predicate with its right answer, belong to a split: about a tenth are kept for val."""

    def belongs(predicate: str, answer: str) -> bool:
        return (derive_key(seed, f"langgame/disjoint/{predicate}/{answer}") % VAL_CASES == 0) == (split == "val")

    return belongs


def _check(
    train_size: int, val_size: int, num_options: int, min_substring: int, max_substring: int, holdout: str
) -> None:
    for name, value, least in (
        ("--train-size", train_size, 1),
        ("--val-size", val_size, 1),
        ("--num-options", num_options, 2),
        ("--min-substring", min_substring, 1),
    ):
        if value < least:
            raise UserError(f"{name} is {value}", fix=f"it must be at least {least}")
    if max_substring < min_substring:
        raise UserError(f"--max-substring {max_substring} is less than --min-substring {min_substring}")
    if holdout not in HOLDOUTS:
        raise UserError(f"--holdout {holdout!r} is not possible", fix=f"give {', '.join(HOLDOUTS)}")


def _columns(game: Game, split: str, count: int) -> Any:
    """The first questions of a split as an Arrow table: the text, and the options with their leading space."""
    import pyarrow

    words = game.tables[split].words
    blocks = list(game.blocks(split, count))
    questions = [text for block in blocks for text in block.texts]
    options = [[f" {words[i]}" for i in row] for block in blocks for row in block.options.tolist()]
    return pyarrow.table({"question": questions, "options": options})


def _encode(game: Game, split: str, count: int, vocabulary: Vocabulary, progress: ProgressCallback) -> list[Examples]:
    """All questions of a split as ids. An answer is one of the words, so each word is encoded once."""
    answers_ids = [vocabulary.encode_continuation(f" {word}") for word in game.tables[split].words]
    word_lengths = np.array([len(ids) for ids in answers_ids])
    present = np.arange(word_lengths.max()) < word_lengths[:, None]
    table = np.zeros(present.shape, vocabulary.dtype)
    table[present] = [i for ids in answers_ids for i in ids]
    examples = []
    done = 0
    for block in game.blocks(split, count):
        answers = block.options[:, 0]
        ids, lengths = vocabulary.encode_batch(block.texts)
        examples.append(Examples(ids, lengths, table[answers][present[answers]], word_lengths[answers]))
        done += len(answers)
        progress(f"make {split}", done, count)
    return examples

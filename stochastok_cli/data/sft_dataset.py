"""Questions with their answers on disk, one per row: the layout of instruction data such as LangGame.

    {train,val}_data.bin            ids `[rows, width]`: question, answer, end-of-text up to the longest row of all
    {train,val}_idxs_for_masks.bin  uint16 `[rows, 3]`: 0, end of the question, end of the answer
    shapes.json                     {"train_size": rows, "val_size": rows}

The layout is that of the paper's code. A manifest beside the files describes them.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stochastok_cli.data.folders import SHAPES as SHAPES
from stochastok_cli.data.memmap import SPLITS, MemmapDataset
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.json_files import read_json, write_json
from stochastok_cli.manifest import SplitInfo
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.vocabulary import Vocabulary

_OFFSETS = np.dtype("<u2")
LONGEST_ROW = 2**16 - 1  # ids; an offset must fit its type


class Examples(NamedTuple):
    """Questions and their answers, end to end.

    Args:
        question_ids: ids of the vocabulary's dtype `[sum of question_lengths]`.
        question_lengths: int64 `[examples]`.
        answer_ids: ids of the vocabulary's dtype `[sum of answer_lengths]`.
        answer_lengths: int64 `[examples]`.
    """

    question_ids: np.ndarray
    question_lengths: np.ndarray
    answer_ids: np.ndarray
    answer_lengths: np.ndarray


@dataclass(frozen=True)
class _Shapes:
    """The content of `shapes.json`."""

    train_size: int
    val_size: int

    def __post_init__(self) -> None:
        if min(self.train_size, self.val_size) < 0:
            raise ValueError("the number of rows can't be negative")


class SFTDataset(MemmapDataset):
    """A folder of questions and answers, one per row.

    Its methods raise UserError if the folder is of another kind (exit code 2) or damaged (exit code 1).
    """

    @functools.cached_property
    def num_rows(self) -> dict[str, int]:
        """The number of rows of each split."""
        file = self.path / SHAPES
        try:
            shapes = read_json(file, _Shapes, fix="make the folder again")
        except FileNotFoundError:
            raise UserError(f"{self.path} has no {SHAPES}", fix="it is no instruction dataset") from None
        return {split: getattr(shapes, f"{split}_size") for split in SPLITS}

    def rows(self, split: str) -> np.ndarray:
        """The ids of a split, a read-only memmap `[rows, width]`."""
        return self._table(f"{split}_data.bin", self.dtype, self.num_rows[split])

    def offsets(self, split: str) -> np.ndarray:
        """uint16 `[rows, 3]`: 0, end of the question, end of the answer."""
        return self._table(f"{split}_idxs_for_masks.bin", _OFFSETS, self.num_rows[split], 3)

    def examples(self, split: str) -> "SFTExamples":
        """The examples of a split, for a `PackedSampler`."""
        return SFTExamples(self.rows(split), self.offsets(split))

    def _table(self, file_name: str, dtype: np.dtype, rows: int, width: int | None = None) -> np.ndarray:
        flat = self._array(file_name, dtype)
        if width is None:
            width = len(flat) // rows if rows else 0
        if width * rows != len(flat):
            file = self.path / file_name
            raise UserError(f"{file} is cut short: {len(flat):,} numbers are no {rows:,} equal rows", exit_code=FAILED)
        return flat.reshape(rows, width)


class SFTExamples:
    """Rows of questions with answers as the examples of a `PackedSampler`: the loss is on the answers.

    Args:
        rows: ids `[n, width]`, padded after the answer.
        offsets: `[n, 3]`: 0, end of the question, end of the answer.
    """

    noun = "row"
    how_to_shorten = ""

    def __init__(self, rows: np.ndarray, offsets: np.ndarray):
        self.rows, self.offsets = rows, offsets

    def __len__(self) -> int:
        return len(self.rows)

    def lengths(self, example: np.ndarray) -> np.ndarray:
        return self.offsets[example, 2].astype(np.int64)

    def read(self, example: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lengths = self.lengths(example)
        total = np.arange(lengths.sum())
        place = total - np.repeat(np.cumsum(lengths) - lengths, lengths)  # of each id in its row
        row = np.repeat(example, lengths)
        return self.rows[row, place], place >= self.offsets[row, 1]

    def length_range(self) -> tuple[int, int]:
        ends = self.offsets[:, 2]
        return int(ends.min()), int(ends.max())


def write_sft_dataset(
    folder: Path, splits: dict[str, list[Examples]], vocabulary: Vocabulary, progress: ProgressCallback = no_progress
) -> dict[str, SplitInfo]:
    """Writes the files of both splits.

    Returns the number of rows and of ids without padding of each split. Raises UserError for a row of more than 65,535
    ids.
    """
    width = max(int((b.question_lengths + b.answer_lengths).max()) for blocks in splits.values() for b in blocks)
    if width > LONGEST_ROW:
        raise UserError(
            f"the longest question has {width:,} ids with its answer, and a row holds at most {LONGEST_ROW:,}",
            fix="give fewer options or shorter words",
        )
    counts = {}
    for split, blocks in splits.items():
        total = sum(len(block.question_lengths) for block in blocks)
        rows, tokens = 0, 0
        with (
            open(folder / f"{split}_data.bin", "wb") as data,
            open(folder / f"{split}_idxs_for_masks.bin", "wb") as out,
        ):
            for block in blocks:
                data.write(np.ascontiguousarray(padded(block, width, vocabulary.end_of_text)).data)
                ends = block.question_lengths + block.answer_lengths
                offsets = np.column_stack([np.zeros_like(ends), block.question_lengths, ends])
                out.write(np.ascontiguousarray(offsets, _OFFSETS).data)
                rows += len(ends)
                tokens += int(ends.sum())
                progress(f"write {split}", rows, total)
        counts[split] = SplitInfo(rows, tokens)
    write_json(folder / SHAPES, {f"{split}_size": counts[split].documents for split in splits})
    return counts


def padded(block: Examples, width: int, end_of_text: int) -> np.ndarray:
    """A block of examples as rows `[examples, width]`. Masks pick cells row by row, which is the order of the ids."""
    rows = np.full((len(block.question_lengths), width), end_of_text, dtype=block.question_ids.dtype)
    column = np.arange(width)
    in_question = column < block.question_lengths[:, None]
    up_to_answer = column < (block.question_lengths + block.answer_lengths)[:, None]
    rows[in_question] = block.question_ids
    rows[up_to_answer & ~in_question] = block.answer_ids
    return rows

"""Examples of any length with a loss on some of their tokens: conversations, and prompts with completions.

    {train,val}_ids.bin        ids of all examples, one after another
    {train,val}_loss_mask.bin  uint8, for each id 1 where it has a loss (as `assistant_masks` of transformers), else 0
    {train,val}_ends.bin       int64, the end of each example in the two files
    tokenizer/                 the tokenizer's files, with its chat template; absent for tokenizers of the package, and
                               without the tokenizer itself where that is no tokenizer.json

The manifest has the kind `instruction`. LangGame and CUTE have another layout (`sft_dataset`).
"""

import functools
from pathlib import Path

import numpy as np

from stochastok_cli.data.folders import INSTRUCTION
from stochastok_cli.data.memmap import Corpus, MemmapDataset, Tokenizer, resolve_vocabulary
from stochastok_cli.data.sft_dataset import SHAPES, SFTDataset
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.manifest import read_manifest
from stochastok_cli.tokenization.loaders import split_options
from stochastok_cli.tokenization.tokenizer_json import read_tokenizer_json
from stochastok_cli.tokenization.vocabulary import Vocabulary

KIND = INSTRUCTION
"""The kind of the manifest."""

TOKENIZER = "tokenizer"
"""The folder inside the dataset that holds the tokenizer's files."""

ENDS = np.dtype("<i8")


def is_instruction_dataset(folder: Path) -> bool:
    """Whether a folder has this layout, by its manifest."""
    manifest = read_manifest(folder)
    return manifest is not None and manifest.kind == KIND


class InstructionDataset(MemmapDataset):
    """A folder of examples with a loss on some of their tokens.

    It is opened with the tokenizer.json inside it, so that it needs neither the run nor the network that this came
    from. Without one, it is opened with the tokenizer that its manifest names.
    Its methods raise UserError if the folder is of another kind (exit code 2) or damaged (exit code 1).
    """

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that the ids belong to. Raises UserError if `tokenizer` is another than the manifest's."""
        saved = self.path / TOKENIZER / "tokenizer.json"
        if self._tokenizer is None and saved.is_file() and self.manifest and self.manifest.tokenizer:
            name = self.manifest.tokenizer.name
            vocabulary = read_tokenizer_json(saved, name, split_options(name)[1].get("end_of_text"))
            return resolve_vocabulary(vocabulary, self.manifest, self.path)
        return super().vocabulary

    def ids(self, split: str) -> np.ndarray:
        """The ids of a split, a read-only memmap `[tokens]`."""
        return self._array(f"{split}_ids.bin", self.dtype)

    def loss_mask(self, split: str) -> np.ndarray:
        """uint8 `[tokens]`: 1 where an id has a loss."""
        return self._array(f"{split}_loss_mask.bin", np.dtype(np.uint8))

    def ends(self, split: str) -> np.ndarray:
        """int64 `[examples]`: where each example ends in `ids`."""
        return self._array(f"{split}_ends.bin", ENDS)

    def examples(self, split: str) -> "MaskedExamples":
        """The examples of a split, for a `PackedSampler`."""
        examples = MaskedExamples(self.ids(split), self.loss_mask(split), self.ends(split))
        total = int(examples.ends[-1]) if len(examples) else 0
        for content, name in ((examples.ids, "ids"), (examples.loss_mask, "loss_mask")):
            if len(content) != total:
                file = self.path / f"{split}_{name}.bin"
                raise UserError(
                    f"{file} is damaged: it has {len(content):,} entries, and its examples {total:,}",
                    fix="make the folder again",
                    exit_code=FAILED,
                )
        return examples


class MaskedExamples:
    """Examples of any length as those of a `PackedSampler`.

    Args:
        ids: ids of all examples, one after another.
        loss_mask: of the shape of `ids`; not 0 where an id has a loss.
        ends: int64 `[examples]`, where each example ends.
    """

    noun = "example"
    how_to_shorten = ", or make the dataset again with --max-length"

    def __init__(self, ids: np.ndarray, loss_mask: np.ndarray, ends: np.ndarray):
        self.ids, self.loss_mask, self.ends = ids, loss_mask, ends

    def __len__(self) -> int:
        return len(self.ends)

    def _starts(self, example: np.ndarray) -> np.ndarray:
        return np.where(example > 0, self.ends[example - 1], 0)

    def lengths(self, example: np.ndarray) -> np.ndarray:
        return self.ends[example] - self._starts(example)

    def read(self, example: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts, lengths = self._starts(example), self.lengths(example)
        before = np.cumsum(lengths) - lengths
        positions = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
        return self.ids[positions], self.loss_mask[positions] != 0

    def length_range(self) -> tuple[int, int]:
        lengths = np.diff(self.ends, prepend=0)
        return int(lengths.min()), int(lengths.max())


def open_dataset(folder: Path, tokenizer: Tokenizer | None = None) -> MemmapDataset:
    """The dataset in a folder: of its manifest's kind, or of the reference code's layout.

    `tokenizer` is that of a folder without a manifest. Raises UserError if there is no such folder (exit code 2).
    """
    if is_instruction_dataset(folder):
        return InstructionDataset(folder, tokenizer)
    return SFTDataset(folder, tokenizer) if (folder / SHAPES).is_file() else Corpus(folder, tokenizer)

"""The splits of a vocabulary: for each token, all pairs of entries that concatenate to its bytes (paper, Section 3)."""

import functools
from typing import NamedTuple

import numpy as np

from stochastok_cli.tokenization.vocabulary import Vocabulary


class SplitTable(NamedTuple):
    """All splits, by token, in one array: those of token `t` are rows `first[t]` to `first[t + 1]`.

    first: int32 `(size + 1,)`; left, right: int32 `(number of splits,)`, the ids of the two parts.
    """

    first: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def of(self, token: int) -> list[tuple[int, int]]:
        """The splits of one token as pairs of ids."""
        rows = slice(self.first[token], self.first[token + 1])
        return list(zip(self.left[rows].tolist(), self.right[rows].tolist(), strict=True))


@functools.lru_cache(maxsize=4)
def split_table(vocabulary: Vocabulary, kept: frozenset[int] = frozenset()) -> SplitTable:
    """Builds the table by looking both parts of every cut of every token up in a dictionary.

    Special tokens are neither split nor parts of a split; the tokens in `kept` are not split. For `gpt2`, 50,000
    tokens have 108,299 splits together.
    """
    special = vocabulary.special
    ids_of: dict[bytes, list[int]] = {}
    for token, piece in enumerate(vocabulary.pieces):
        if token not in special:
            ids_of.setdefault(piece, []).append(token)
    counts = np.zeros(vocabulary.size + 1, dtype=np.int32)
    left: list[int] = []
    right: list[int] = []
    for token, piece in enumerate(vocabulary.pieces):
        if len(piece) > 1 and token not in special and token not in kept:
            before = len(left)
            for cut in range(1, len(piece)):
                heads = ids_of.get(piece[:cut])
                if heads is not None and (tails := ids_of.get(piece[cut:])) is not None:
                    left += [head for head in heads for _ in tails]
                    right += tails * len(heads)
            counts[token + 1] = len(left) - before
    return SplitTable(np.cumsum(counts, dtype=np.int32), np.array(left, np.int32), np.array(right, np.int32))

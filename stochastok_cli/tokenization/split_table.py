"""The pair splits of a vocabulary: for each token, all pairs of tokens whose bytes concatenate to its own.

Source: StochasTok (arXiv 2506.01687), Section 3.
"""

import functools
from typing import NamedTuple

import numpy as np

from stochastok_cli.tokenization.vocabulary import Vocabulary


class SplitTable(NamedTuple):
    """All splits in one list, ordered by token.

    first: int32 `[size + 1]`; the splits of token `t` have the indices `first[t]` to `first[t + 1] - 1`.
    left, right: int32 `[splits]`, the ids of the two parts.
    """

    first: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def of(self, token: int) -> list[tuple[int, int]]:
        """The splits of one token, as pairs of ids."""
        rows = slice(self.first[token], self.first[token + 1])
        return list(zip(self.left[rows].tolist(), self.right[rows].tolist(), strict=True))


@functools.lru_cache(maxsize=4)
def split_table(vocabulary: Vocabulary, kept: frozenset[int] = frozenset()) -> SplitTable:
    """Builds the table: both parts of every position in every token are looked up in a dictionary.

    Special tokens are neither split nor parts of a split. The 50,257 tokens of `gpt2` have 108,299 splits.

    Args:
        vocabulary: the vocabulary.
        kept: ids of tokens that are not split (they can be parts of a split).

    >>> from stochastok_cli import load_vocabulary
    >>> gpt2 = load_vocabulary("gpt2")
    >>> [(gpt2.decode([a]), gpt2.decode([b])) for a, b in split_table(gpt2).of(gpt2.encode(" example")[0])]
    [(' ', 'example'), (' ex', 'ample'), (' exam', 'ple')]
    """
    special = vocabulary.never_split
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
            for position in range(1, len(piece)):
                heads = ids_of.get(piece[:position])
                if heads is not None and (tails := ids_of.get(piece[position:])) is not None:
                    left += [head for head in heads for _ in tails]
                    right += tails * len(heads)
            counts[token + 1] = len(left) - before
    return SplitTable(np.cumsum(counts, dtype=np.int32), np.array(left, np.int32), np.array(right, np.int32))

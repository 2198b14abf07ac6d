"""The pair splits of a vocabulary: for each token, all pairs of tokens whose bytes concatenate to its own.

Source: StochasTok (arXiv 2506.01687), Section 3.
"""

import functools
from collections.abc import Iterable
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
def split_table(
    vocabulary: Vocabulary, kept: frozenset[int] = frozenset(), only: frozenset[int] | None = None
) -> SplitTable:
    """Builds the table: both parts of every position in every token are looked up in a dictionary.

    Special tokens are neither split nor parts of a split. The 50,257 tokens of `gpt2` have 108,299 splits.

    Args:
        vocabulary: the vocabulary.
        kept: ids of tokens that are not split (they can be parts of a split).
        only: ids that are split; the table then holds the splits of these and of all parts that they can be split
            into, and other tokens have none. All of them if None.

    >>> from stochastok_cli import load_vocabulary
    >>> gpt2 = load_vocabulary("gpt2")
    >>> [(gpt2.decode([a]), gpt2.decode([b])) for a, b in split_table(gpt2).of(gpt2.encode(" example")[0])]
    [(' ', 'example'), (' ex', 'ample'), (' exam', 'ple')]
    """
    ids_of = ids_by_bytes(vocabulary, only)
    whole = vocabulary.never_split | kept
    if only is None:
        tokens = [token for token in range(vocabulary.size) if token not in whole]
        splits = {token: _splits(vocabulary.pieces[token], ids_of) for token in tokens}
    else:
        splits = {}
        ahead = [token for token in only if token not in whole]
        while ahead:
            token = ahead.pop()
            if token not in splits:
                splits[token] = _splits(vocabulary.pieces[token], ids_of)
                ahead += [part for parts in splits[token] for part in parts if part not in whole]
        tokens = sorted(splits)
    counts = np.zeros(vocabulary.size + 1, dtype=np.int32)
    counts[np.array(tokens, np.int64) + 1] = [len(splits[token][0]) for token in tokens]
    left = [part for token in tokens for part in splits[token][0]]
    right = [part for token in tokens for part in splits[token][1]]
    return SplitTable(np.cumsum(counts, dtype=np.int32), np.array(left, np.int32), np.array(right, np.int32))


def has_splits(vocabulary: Vocabulary) -> bool:
    """Whether any token can be split. For nearly all vocabularies one of the first tokens says so."""
    ids_of, whole = ids_by_bytes(vocabulary), vocabulary.never_split
    return any(_splits(piece, ids_of)[0] for token, piece in enumerate(vocabulary.pieces) if token not in whole)


def ids_by_bytes(vocabulary: Vocabulary, only: frozenset[int] | None = None) -> dict[bytes, list[int]]:
    """The ids of the tokens with the same bytes, of those that can be parts of others.

    Args:
        vocabulary: the vocabulary.
        only: ids; those that can be parts of these are enough. All of them if None.
    """
    pieces, special = vocabulary.pieces, vocabulary.never_split
    ids: Iterable[int] = range(len(pieces))
    if only is not None:
        parts = {piece[i:j] for piece in map(pieces.__getitem__, only) for j in range(len(piece) + 1) for i in range(j)}
        ids = [i for i, piece in enumerate(pieces) if piece in parts]
    ids_of: dict[bytes, list[int]] = {}
    for i in ids:
        if i not in special:
            ids_of.setdefault(pieces[i], []).append(i)
    return ids_of


def _splits(piece: bytes, ids_of: dict[bytes, list[int]]) -> tuple[list[int], list[int]]:
    """The left and the right parts of the splits of a token, from its first byte on."""
    left: list[int] = []
    right: list[int] = []
    for position in range(1, len(piece)):
        heads = ids_of.get(piece[:position])
        if heads is not None and (tails := ids_of.get(piece[position:])) is not None:
            left += [head for head in heads for _ in tails]
            right += tails * len(heads)
    return left, right

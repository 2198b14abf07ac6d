"""All segmentations of every token: how many there are by number of pieces, and the lattice to draw them from.

A segmentation of a token is any sequence of vocabulary entries, none special, that concatenates to its bytes; a
special token has itself alone. One dynamic programme over the positions of a token's bytes counts them: with
`C[i][k]` the number of ways to cover the bytes from position `i` with `k` pieces,

    C[end][0] = 1        C[i][k] = sum of C[j][k - 1] over the entries that spell the bytes i to j.

Counts are float64: exact up to 2^53, beyond that (long runs of spaces) with a relative error below 1e-14.
"""

import functools
from typing import NamedTuple

import numpy as np

from stochastok_cli.tokenization.vocabulary import Vocabulary


class SegmentationLattice(NamedTuple):
    """The segmentations of every token, as arrays that compiled code walks.

    length: int32 `(size,)`, the positions of a token: its bytes, 1 for a special token.
    node: int64 `(size,)`, the row of a token's position 0 in `edge`; its positions follow, the end included.
    edge: int64 `(nodes + 1,)`, the first of a position's edges in `target` and `piece`.
    target: int32 `(edges,)`, the position that an edge leads to; piece: int32 `(edges,)`, the entry it spells.
    cell: int64 `(size,)`, where a token's table of counts starts in `ways`: `length + 1` rows (positions) of
        `length + 1` columns (pieces).
    ways: float64 `(cells,)`, the tables C of the module's docstring.
    total: float64 `(nodes,)`, the segmentations of what follows a position, whatever their number of pieces.
    most: int32 `(size,)`, the most splits of a token; dense: bool `(size,)`, whether it has segmentations with every
        number of splits from 0 to that.
    """

    length: np.ndarray
    node: np.ndarray
    edge: np.ndarray
    target: np.ndarray
    piece: np.ndarray
    cell: np.ndarray
    ways: np.ndarray
    total: np.ndarray
    most: np.ndarray
    dense: np.ndarray

    def counts(self, token: int) -> np.ndarray:
        """The number of segmentations of a token into 0, 1, 2, … pieces: float64 `(length + 1,)`."""
        start = self.cell[token]
        return self.ways[start : start + self.length[token] + 1]


@functools.lru_cache(maxsize=4)
def segmentation_lattice(vocabulary: Vocabulary, kept: frozenset[int] = frozenset()) -> SegmentationLattice:
    """Builds the lattice of a vocabulary: dictionary look-ups for the edges, a compiled pass for the counts.

    The tokens in `kept` have themselves alone, as special ones.
    """
    from stochastok_cli.tokenization.methods.kernels.segmentation import count_segmentations

    special = vocabulary.special
    ids_of: dict[bytes, tuple[int, ...]] = {}
    for token, spelled in enumerate(vocabulary.pieces):
        if token not in special:
            ids_of[spelled] = (*ids_of.get(spelled, ()), token)
    alone = special | kept
    length = np.array([1 if t in alone else len(s) for t, s in enumerate(vocabulary.pieces)], dtype=np.int32)
    targets: list[int] = []
    pieces: list[int] = []
    edge = [0]
    for token, spelled in enumerate(vocabulary.pieces):
        if token in alone:
            targets.append(1)
            pieces.append(token)
            edge.append(len(targets))
        else:
            n = len(spelled)
            for i in range(n):
                for j in range(i + 1, n + 1):
                    for entry in ids_of.get(spelled[i:j], ()):
                        targets.append(j)
                        pieces.append(entry)
                edge.append(len(targets))
        edge.append(len(targets))  # the end of a token has no edges
    node = np.cumsum(length + 1, dtype=np.int64) - (length + 1)
    cells = (length.astype(np.int64) + 1) ** 2
    lattice = SegmentationLattice(
        length,
        node,
        np.array(edge, np.int64),
        np.array(targets, np.int32),
        np.array(pieces, np.int32),
        np.cumsum(cells) - cells,
        np.zeros(int(cells.sum())),
        np.zeros(int((length + 1).sum())),
        np.zeros(len(length), np.int32),
        np.zeros(len(length), np.bool_),
    )
    count_segmentations(lattice)
    return lattice

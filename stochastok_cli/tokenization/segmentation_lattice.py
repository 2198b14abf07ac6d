"""All segmentations of every token: how many there are by number of parts, and the lattice to draw them from.

A segmentation of a token is any sequence of tokens, none special, whose bytes concatenate to its own; the only
segmentation of a special token is the token itself. Dynamic programming over the byte positions of a token counts
them. With `C[i][k]` the number of ways to cover the bytes from position `i` to the end with `k` parts,

    C[end][0] = 1        C[i][k] = sum of C[j][k - 1] over the tokens with the bytes i to j.

Counts are float64: exact up to 2^53, beyond that (long runs of spaces) with a relative error below 1e-14.
"""

import functools
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from stochastok_cli.tokenization.split_table import ids_by_bytes
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    from stochastok_cli.tokenization.expansion import StochasTok


class SegmentationLattice(NamedTuple):
    """The segmentations of tokens, as arrays that kernels walk.

    tokens: int64, the ids of the tokens that have segmentations here, ascending.
    length: int32 `[size]`, the positions of a token: its number of bytes, 1 for a special token.
    node: int64 `[size]`, the index of a token's position 0 in `edge`; its other positions follow, the end included.
    edge: int64 `[nodes + 1]`, the index of a position's first edge in `target` and `piece`.
    target: int32 `[edges]`, the position that an edge leads to.
    piece: int32 `[edges]`, the id of the token whose bytes an edge covers.
    cell: int64 `[size]`, where a token's table of counts starts in `ways`: `length + 1` rows (positions) of
        `length + 1` columns (parts).
    ways: float64 `[cells]`, the tables C of the module's docstring.
    total: float64 `[nodes]`, the segmentations of the bytes after a position, with any number of parts.
    max_splits: int32 `[size]`, the most splits of a token.
    dense: bool `[size]`, whether a token has segmentations with every number of splits up to `max_splits`.
    """

    tokens: np.ndarray
    length: np.ndarray
    node: np.ndarray
    edge: np.ndarray
    target: np.ndarray
    piece: np.ndarray
    cell: np.ndarray
    ways: np.ndarray
    total: np.ndarray
    max_splits: np.ndarray
    dense: np.ndarray

    def counts(self, token: int) -> np.ndarray:
        """The number of segmentations of a token into 0, 1, 2, … parts: float64 `[length + 1]`."""
        start = self.cell[token]
        return self.ways[start : start + self.length[token] + 1]


@functools.lru_cache(maxsize=4)
def segmentation_lattice(
    vocabulary: Vocabulary, kept: frozenset[int] = frozenset(), only: frozenset[int] | None = None
) -> SegmentationLattice:
    """Builds the lattice of a vocabulary: dictionary look-ups for the edges, a kernel for the counts.

    Args:
        vocabulary: the vocabulary.
        kept: ids of tokens that are not segmented, in addition to the special ones.
        only: the ids whose segmentations are wanted; the others have length 0 and no edges. All of them if None.
    """
    from stochastok_cli.tokenization.methods.kernels.segmentation import count_segmentations

    ids_of = ids_by_bytes(vocabulary, only)
    whole = vocabulary.never_split | kept
    tokens = [*range(vocabulary.size)] if only is None else sorted(only)
    length = np.zeros(vocabulary.size, np.int32)
    length[tokens] = [1 if token in whole else len(vocabulary.pieces[token]) for token in tokens]
    targets: list[int] = []
    pieces: list[int] = []
    degrees: list[int] = []
    for token in tokens:
        text = vocabulary.pieces[token]
        if token in whole:
            targets.append(1)
            pieces.append(token)
            degrees.append(1)
        else:
            n = len(text)
            for i in range(n):
                before = len(targets)
                for j in range(i + 1, n + 1):
                    for entry in ids_of.get(text[i:j], ()):
                        targets.append(j)
                        pieces.append(entry)
                degrees.append(len(targets) - before)
        degrees.append(0)  # the end of a token has no edges
    node = np.cumsum(length + 1, dtype=np.int64) - (length + 1)
    is_wanted = np.zeros(vocabulary.size, np.bool_)
    is_wanted[tokens] = True
    edges = np.zeros(int((length + 1).sum()) + 1, np.int64)
    edges[1:][np.repeat(is_wanted, length + 1)] = degrees
    cells = (length.astype(np.int64) + 1) ** 2
    lattice = SegmentationLattice(
        tokens=np.array(tokens, np.int64),
        length=length,
        node=node,
        edge=np.cumsum(edges),
        target=np.array(targets, np.int32),
        piece=np.array(pieces, np.int32),
        cell=np.cumsum(cells) - cells,
        ways=np.zeros(int(cells.sum())),
        total=np.zeros(int((length + 1).sum())),
        max_splits=np.zeros(len(length), np.int32),
        dense=np.zeros(len(length), np.bool_),
    )
    count_segmentations(lattice)
    return lattice


class Walks(NamedTuple):
    """Probabilities of the edges of a lattice: a walk from the first byte of a token to its end is a segmentation.

    weight: float64 `[edges]`, to which the probability of an edge is proportional among those of its position.
    sums: float64 `[nodes]`, the sum of the weights of a position.
    ways: float64 `[nodes]`, the paths from a position to the end of its token.
    """

    weight: np.ndarray
    sums: np.ndarray
    ways: np.ndarray

    @classmethod
    def empty(cls, lattice: SegmentationLattice) -> Self:
        """Arrays of zeros, which compiled code fills."""
        return cls(np.zeros(len(lattice.target)), np.zeros(len(lattice.total)), np.zeros(len(lattice.total)))


def expand_by_walks(
    stochastok: "StochasTok", ids: np.ndarray, lengths: np.ndarray, first_index: np.uint64, walks: Walks
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces each token with probability p by a walk over its lattice.

    Args:
        stochastok: As of `Method.expand`, like the next three.
        ids: The ids of documents, one after the other.
        lengths: How many ids each has, int64 `[documents]`.
        first_index: The index of the first document.
        walks: The weights by which edges are chosen.

    Returns:
        The expanded ids, and their number for each document.
    """
    from stochastok_cli.tokenization.methods.kernels.segmentation import walk_documents

    lattice = stochastok.lattice
    out, out_lengths = np.empty(int(lattice.length[ids].sum()), dtype=ids.dtype), np.empty_like(lengths)
    written = walk_documents(ids, lengths, stochastok.p, stochastok.key, first_index, lattice, *walks, out, out_lengths)
    return out[:written], out_lengths


class BestSegmentations(NamedTuple):
    """The l best paths from every position of a lattice to the end of its token, the best first.

    start: int64 `[nodes + 1]`, where the paths of a position begin in `edge` and `rank`.
    edge: int64 `[paths]`, the index of a path's first edge in the lattice.
    rank: uint16 `[paths]`, the rank of the rest of a path among those of the position that its first edge leads to.
    root: int64 `[size + 1]`, where the paths from the first byte of a token begin in `cumulative`.
    cumulative: float64, the weights of the paths from the first byte of a token, summed from its best on.
    """

    start: np.ndarray
    edge: np.ndarray
    rank: np.ndarray
    root: np.ndarray
    cumulative: np.ndarray

    @classmethod
    def empty(cls, lattice: SegmentationLattice, ways: np.ndarray, most: int) -> Self:
        """The arrays for at most `most` paths from each position; compiled code fills all but `start` and `root`.

        Args:
            lattice: the lattice.
            ways: float64 `[nodes]`, the paths from a position to the end of its token.
            most: l in the paper.
        """
        num_paths = np.minimum(ways, most).astype(np.int64)
        start = np.concatenate([[0], np.cumsum(num_paths)])
        root = np.concatenate([[0], np.cumsum(num_paths[lattice.node])])
        return cls(start, np.zeros(start[-1], np.int64), np.zeros(start[-1], np.uint16), root, np.zeros(root[-1]))

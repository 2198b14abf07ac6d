"""The tokenizations of a text that differ from a given one by at most two neighboring tokens.

All tokenizations of a text are the paths of a graph: its positions are those between two bytes, its edges the tokens
whose bytes stand between two positions. Special tokens are edges of every path.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from stochastok_cli.tokenization.split_table import ids_by_bytes
from stochastok_cli.tokenization.vocabulary import Vocabulary


class Replacement(NamedTuple):
    """The tokens `first` to `last - 1` of a tokenization become others."""

    first: int
    last: int
    ids: tuple[int, ...]

    @property
    def growth(self) -> int:
        """By how many tokens the tokenization becomes longer."""
        return len(self.ids) - (self.last - self.first)

    def apply(self, ids: Sequence[int]) -> list[int]:
        """The tokenization after the replacement."""
        return [*ids[: self.first], *self.ids, *ids[self.last :]]


class TokenFinder:
    """Finds the tokens of a vocabulary with given bytes.

    Args:
        vocabulary: The vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.pieces: Sequence[bytes] = vocabulary.pieces
        self.never_split = vocabulary.never_split
        self.ids_of: Mapping[bytes, list[int]] = ids_by_bytes(vocabulary)
        self.longest = max(map(len, self.ids_of), default=0)


class TextGraph:
    """All tokenizations of one text.

    Args:
        ids: One of its tokenizations.
        finder: The tokens of the vocabulary.
    """

    def __init__(self, ids: Sequence[int], finder: TokenFinder) -> None:
        self._finder = finder
        self._text = b"".join(finder.pieces[token] for token in ids)
        self._special: dict[int, tuple[int, int]] = {}  # by position: the end and the id of a special token
        position = 0
        for token in ids:
            end = position + len(finder.pieces[token])
            if token in finder.never_split:
                self._special[position] = (end, token)
            position = end
        self._starts_of_special = sorted(self._special)
        self._edges: dict[int, list[tuple[int, int]]] = {}

    def edges(self, position: int) -> list[tuple[int, int]]:
        """The end and the id of each token that begins at a position, the shortest first."""
        if position not in self._edges:
            if position in self._special:
                self._edges[position] = [self._special[position]]
            else:
                after = bisect_left(self._starts_of_special, position)
                end = self._starts_of_special[after] if after < len(self._special) else len(self._text)
                ends = range(position + 1, min(end, position + self._finder.longest) + 1)
                ids_of = self._finder.ids_of
                self._edges[position] = [(j, i) for j in ends for i in ids_of.get(self._text[position:j], ())]
        return self._edges[position]

    def splits(self, ids: Sequence[int]) -> Iterator[Replacement]:
        """Each token of a tokenization by each pair of tokens with the same bytes."""
        position = 0
        for index, token in enumerate(ids):
            end = position + len(self._finder.pieces[token])
            if token not in self._finder.never_split:
                for middle, left in self.edges(position):
                    if middle >= end:
                        break
                    yield from (
                        Replacement(index, index + 1, (left, right))
                        for stop, right in self.edges(middle)
                        if stop == end
                    )
            position = end

    def neighbors(self, ids: Sequence[int]) -> Iterator[Replacement]:
        """Each way to replace neighboring tokens of a tokenization by one or two that it does not have there.

        Those with two new tokens side by side are the neighbors of AdvTok (arXiv 2503.02174, Section 3: edit distance
        2), which counts two merges at different places as a neighbor, too: here they are two steps.
        """
        starts = [0]
        for token in ids:
            starts.append(starts[-1] + len(self._finder.pieces[token]))
        index_of = {start: i for i, start in enumerate(starts)}
        for first, own in enumerate(ids):
            if own in self._finder.never_split:
                continue
            for middle, left in self.edges(starts[first]):
                if left == own and middle == starts[first + 1]:
                    continue
                inner = index_of.get(middle)
                if inner is not None:
                    yield Replacement(first, inner, (left,))
                if middle in self._special or middle == len(self._text):
                    continue
                own_right = None if inner is None else (starts[inner + 1], ids[inner])
                for end, right in self.edges(middle):
                    last = index_of.get(end)
                    if last is not None and (end, right) != own_right:
                        yield Replacement(first, last, (left, right))

"""Levenshtein distances from a word to every word of a list."""

import functools
from collections.abc import Sequence

import numpy as np

_CACHE_BYTES = 2**26  # all distances within a list of some 8,000 words


class EditDistances:
    """The Levenshtein distances to the words of a list, which is prepared once.

    Distances are kept while they fit into some 64 MB: each word of a short list is computed once, whereas a long list
    asks about few words twice and needs little memory.

    Args:
        words: the list.

    >>> EditDistances(["apply", "glad", "happy"]).to("happy").tolist()
    [2, 5, 0]
    """

    def __init__(self, words: Sequence[str]):
        lengths = np.array([len(word) for word in words])
        self._order = np.argsort(-lengths, kind="stable")  # so that the words with a j-th letter are the first ones
        letters = np.min_scalar_type(ord(max(map(max, words), default="\0")))
        longest_first = [words[i] for i in self._order]
        self._letters = [
            np.array([ord(word[j]) for word in longest_first[: np.count_nonzero(lengths > j)]], letters)
            for j in range(lengths.max(initial=0))
        ]
        bytes_each = len(words) * np.min_scalar_type(len(self._letters)).itemsize
        self.to = functools.lru_cache(maxsize=_CACHE_BYTES // max(bytes_each, 1))(self._to)

    def _to(self, word: str) -> np.ndarray:
        """The distances of the words of the list to a word, unsigned integers `[words]`, read-only.

        The usual table of distances between prefixes, with one step for all words at once. `column[i]` has the
        distances of the first i letters of `word` to the first j letters of the others.
        """
        dtype = np.min_scalar_type(max(len(word), len(self._letters)) + 1)
        column = np.repeat(np.arange(len(word) + 1, dtype=dtype)[:, None], len(self._order), axis=1)
        for j, letters in enumerate(self._letters, 1):
            rows = column[:, : len(letters)]  # words without a j-th letter keep theirs
            diagonal = rows[0].copy()
            rows[0] = j
            for i, letter in enumerate(word, 1):
                substituted = diagonal + (letters != ord(letter))
                diagonal = rows[i].copy()
                np.minimum(diagonal, rows[i - 1], out=rows[i])
                rows[i] += 1
                np.minimum(rows[i], substituted, out=rows[i])
        distances = np.empty(len(self._order), dtype)
        distances[self._order] = column[-1]
        distances.flags.writeable = False
        return distances

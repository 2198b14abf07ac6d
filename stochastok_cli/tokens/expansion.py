"""Expansion: the token ids of a document become other ids of the same vocabulary that decode to the same bytes."""

import functools
import math
from collections.abc import Sequence

import numpy as np

from stochastok_cli.errors import UserError, nearest
from stochastok_cli.randomness import key64
from stochastok_cli.tokens.splits import SplitTable, split_table
from stochastok_cli.tokens.vocabulary import Vocabulary

METHODS = ("stochastok",)


def check_method(method: str) -> None:
    """Raises UserError for a method that does not exist."""
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}{nearest(method, METHODS)}", fix=f"give {' or '.join(METHODS)}")


class StochasTok:
    """Expands documents; a pure function of `(ids, p, seed, index)`.

    Args:
        vocabulary: the vocabulary of the ids.
        p: attempts per token (paper, Section 3); 0 is the identity, more than 1 is allowed.
        method: `"stochastok"`, Algorithm 2 of the paper.
        seed: names the random stream.
        max_splits: the most successful splits in one document; no limit where None.

    Raises UserError for a `p` that is negative or no number and for an unknown method.

    >>> from stochastok_cli import load_vocabulary
    >>> gpt2 = load_vocabulary("gpt2")
    >>> ids = gpt2.encode("An example sentence")
    >>> expanded = StochasTok(gpt2, p=1.0, seed=0)(ids)
    >>> len(expanded) > len(ids), gpt2.decode(expanded)
    (True, 'An example sentence')
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        p: float = 0.1,
        method: str = "stochastok",
        seed: int = 0,
        *,
        max_splits: int | None = None,
    ):
        check_method(method)
        if not (math.isfinite(p) and p >= 0):
            raise UserError(f"p = {p} is not possible", fix="give a number that is not negative, such as 0.1")
        self.vocabulary = vocabulary
        self.p = p
        self.max_splits = -1 if max_splits is None else max_splits
        self._key = np.uint64(key64(seed, f"expand/{method}"))

    @functools.cached_property
    def splits(self) -> SplitTable:
        return split_table(self.vocabulary)

    def __call__(self, ids: Sequence[int] | np.ndarray, index: int = 0) -> np.ndarray:
        """The expanded ids of one document; `index` is its place in the corpus and picks its random numbers."""
        ids = np.asarray(ids)
        return self.documents(ids, np.array([len(ids)]), index)[0]

    def documents(self, ids: np.ndarray, lengths: np.ndarray, first_index: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Expands documents that lie one after the other in `ids`; the first has index `first_index`.

        Returns their expanded ids (the vocabulary's dtype) and lengths (int64). Runs without the GIL.
        """
        from stochastok_cli.tokens.kernels import expand_documents

        ids = np.ascontiguousarray(ids, dtype=self.vocabulary.dtype)
        lengths = np.ascontiguousarray(lengths, dtype=np.int64)
        if len(ids) and int(ids.max()) >= self.vocabulary.size:
            raise UserError(f"the id {int(ids.max())} is not in the vocabulary {self.vocabulary.name!r}")
        attempts = (lengths * self.p).astype(np.int64)  # floor in doubles, as Python's int(n * p)
        out = np.empty(len(ids) + int(attempts.sum()), dtype=self.vocabulary.dtype)
        out_lengths = np.empty_like(lengths)
        with np.errstate(over="ignore"):  # only the interpreted kernel could warn: its integers wrap on purpose
            written = expand_documents(
                ids,
                lengths,
                attempts,
                self.max_splits,
                self._key,
                np.uint64(first_index),
                *self.splits,
                out,
                out_lengths,
            )
        return out[:written], out_lengths

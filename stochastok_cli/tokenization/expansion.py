"""Expansion: the token ids of a document become other ids of the same vocabulary that decode to the same bytes."""

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self, overload

import numpy as np

from stochastok_cli.errors import UserError, did_you_mean
from stochastok_cli.random_streams import derive_key
from stochastok_cli.tokenization.segmentation_lattice import SegmentationLattice, segmentation_lattice
from stochastok_cli.tokenization.split_table import SplitTable, split_table
from stochastok_cli.tokenization.vocabulary import Vocabulary, state_without_caches, vocabulary_for

METHODS = {
    "stochastok": "floor(n p) random pair splits (StochasTok, Algorithm 2)",
    "stochastok-uni": "as many splits of each token as stochastok makes, its segmentation drawn uniformly",
    "uniform-k": "exactly floor(n p) splits in a document, uniform over all its refinements",
    "uniform": "each token with probability p replaced by one of all its segmentations, uniformly",
    "bpe-dropout": "byte-pair encoding again from single bytes, each merge dropped with probability p",
}
MOST_P = 1000
P_IS_A_PROBABILITY = ("uniform", "bpe-dropout")


class StochasTok:
    """Expands documents; a pure function of `(ids, p, seed, index)`.

    Args:
        vocabulary: the vocabulary of the ids.
        p: the expansion proportion: attempted splits per token (`stochastok`, `stochastok-uni`; the paper, Section
            3), splits per token (`uniform-k`), or a probability (`uniform`, `bpe-dropout`). 0 is the identity, but
            for `bpe-dropout`, which makes ids that are not canonical so.
        method: one of `METHODS`. `stochastok` is of the paper (arXiv 2506.01687); `stochastok-uni`, `uniform-k` and
            `uniform` of the follow-up (arXiv 2604.16037); `bpe-dropout` is Provilkov et al. 2020.
        seed: names the random stream.
        max_splits: the most successful splits in one document; no limit where None.
        keep: a regular expression; tokens whose text it matches anywhere (`[0-9]`, `^ def$`) are left alone.

    Raises UserError for an impossible `p`, an unknown method, and a method that the vocabulary does not allow.

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
        keep: str | None = None,
    ):
        if not isinstance(vocabulary, Vocabulary):
            raise UserError(
                f"{vocabulary!r} is no vocabulary", fix="give load_vocabulary(…), or call StochasTok.from_pretrained"
            )
        if method not in METHODS:
            raise UserError(
                f"unknown method {method!r}{did_you_mean(method, [*METHODS])}", fix=f"give {', '.join(METHODS)}"
            )
        if not (isinstance(p, int | float | np.number) and math.isfinite(p) and p >= 0):
            raise UserError(f"p = {p} is not possible", fix="give a number that is not negative, such as 0.1")
        if p > MOST_P:
            raise UserError(
                f"p = {p} is not possible", fix=f"give at most {MOST_P:,}; long before, all is single bytes"
            )
        if method in P_IS_A_PROBABILITY and p > 1:
            raise UserError(f"p = {p} is not possible: for {method} it is a probability")
        if max_splits is not None and method in P_IS_A_PROBABILITY:
            raise UserError(f"{method} makes no counted splits to limit", fix="drop --max-splits")
        if max_splits is not None and not (isinstance(max_splits, int) and max_splits >= 0):
            raise UserError(f"max_splits = {max_splits} is not possible", fix="give a whole number from 0 on, or None")
        if method == "bpe-dropout":
            from stochastok_cli.tokenization.methods.bpe_dropout import require_merges

            require_merges(vocabulary)
        self.vocabulary = vocabulary
        self.p = p
        self.method = method
        self.max_splits = max_splits
        self.kept = _matching(vocabulary, keep)
        self._key = np.uint64(derive_key(seed, f"expand/{method}"))

    @classmethod
    def from_pretrained(
        cls, tokenizer: Any, p: float = 0.1, method: str = "stochastok", seed: int = 0, **more: Any
    ) -> Self:
        """A StochasTok for a tokenizer: a name or path that `load_vocabulary` takes, a tokenizer's name on the Hugging
        Face Hub, or a `tokenizers` or (fast) `transformers` tokenizer, which stays as it is."""
        return cls(vocabulary_for(tokenizer), p, method, seed, **more)

    def __getstate__(self) -> dict[str, Any]:
        return state_without_caches(self)

    @functools.cached_property
    def splits(self) -> SplitTable:
        return split_table(self.vocabulary, self.kept)

    @functools.cached_property
    def lattice(self) -> SegmentationLattice:
        return segmentation_lattice(self.vocabulary, self.kept)

    @overload
    def __call__(self, ids: Sequence[int] | np.ndarray, index: int = 0) -> np.ndarray: ...

    @overload
    def __call__(self, ids: Sequence[Sequence[int] | np.ndarray], index: int = 0) -> list[np.ndarray]: ...

    def __call__(self, ids: Any, index: int = 0) -> Any:
        """The expanded ids of one document; `index` is its place in the corpus and picks its random numbers.

        Of a batch, a sequence of documents of which the first has that index, the list of their expanded ids. They
        are of the vocabulary's type (uint16 or uint32). Raises UserError for what is no sequence of ids.
        """
        if hasattr(ids, "__len__") and not isinstance(ids, str | Mapping) and len(ids) and np.ndim(ids[0]) == 1:
            documents = [as_ids(document) for document in ids]
            out, lengths = self.documents(np.concatenate(documents), np.array([*map(len, documents)]), index)
            return np.split(out, np.cumsum(lengths)[:-1])
        ids = as_ids(ids)
        return self.documents(ids, np.array([len(ids)]), index)[0]

    def documents(self, ids: np.ndarray, lengths: np.ndarray, first_index: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Expands documents that lie one after the other in `ids`; the first has index `first_index`.

        Returns their expanded ids (the vocabulary's dtype) and lengths (int64). Runs without the GIL. Raises
        UserError for ids that the vocabulary does not have, and for lengths that are not those of `ids`.
        """
        ids, lengths = as_ids(ids), np.asarray(lengths)
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any() or lengths.sum() != len(ids):
            raise UserError(f"the lengths of the documents are not those of {len(ids):,} ids")
        if not 0 <= first_index < 2**64:
            raise UserError(f"the index {first_index} is not possible", fix="give one from 0 to 2^64 - 1")
        low, high = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
        if low < 0 or high >= self.vocabulary.size:
            raise UserError(f"the id {low if low < 0 else high} is not in the vocabulary {self.vocabulary.name!r}")
        ids = np.ascontiguousarray(ids, dtype=self.vocabulary.dtype)
        lengths = np.ascontiguousarray(lengths, dtype=np.int64)
        if self.p == 0 and self.method != "bpe-dropout":
            return ids.copy(), lengths
        with np.errstate(over="ignore"):  # only an interpreted kernel could warn: its integers wrap on purpose
            return self._expand(ids, lengths, np.uint64(first_index))

    def _expand(self, ids: np.ndarray, lengths: np.ndarray, index: np.uint64) -> tuple[np.ndarray, np.ndarray]:
        from stochastok_cli.tokenization.methods import bpe_dropout
        from stochastok_cli.tokenization.methods.kernels import segmentation, splitting, uniform_k

        if self.method == "bpe-dropout":
            table = bpe_dropout.merge_table(self.vocabulary, self.kept)
            return bpe_dropout.drop_out(self.vocabulary, table, ids, lengths, self.p, self._key, index)
        budget = (lengths * self.p).astype(np.int64)  # floor in doubles, as Python's int(n * p)
        most = -1 if self.max_splits is None else self.max_splits
        new_lengths = np.empty_like(lengths)
        if self.method == "uniform":
            out = self._room(int(self.lattice.length[ids].sum()))
            written = segmentation.uniform_documents(
                ids, lengths, self.p, self._key, index, self.lattice, out, new_lengths
            )
            return out[:written], new_lengths
        most_tokens = lengths + budget
        if self.p > 4:  # no document gets longer than its bytes, however many attempts there are
            most_tokens = np.minimum(most_tokens, self._bytes_of(ids, lengths))
        out = self._room(int(most_tokens.sum()))
        if self.method == "stochastok":
            written = splitting.expand_documents(
                ids, lengths, budget, most_tokens, most, self._key, index, *self.splits, out, new_lengths
            )
        elif self.method == "stochastok-uni":
            written = segmentation.stochastok_uni_documents(
                ids, lengths, budget, most_tokens, most, self._key, index, *self.splits, self.lattice, out, new_lengths
            )
        else:
            splits = budget if self.max_splits is None else np.minimum(budget, self.max_splits)
            written = uniform_k.uniform_k_documents(
                ids, lengths, splits, self._key, index, self.lattice, out, new_lengths
            )
        return out[:written], new_lengths

    def _bytes_of(self, ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """How many bytes each document spells, int64 `(documents,)`."""
        return np.diff(np.concatenate([[0], np.cumsum(self.vocabulary.widths[ids])])[np.cumsum(lengths)], prepend=0)

    def _room(self, size: int) -> np.ndarray:
        return np.empty(size, dtype=self.vocabulary.dtype)


def as_ids(ids: Any) -> np.ndarray:
    """Token ids as a one-dimensional array of integers. Raises UserError for anything else."""
    try:
        found = np.asarray(ids)
    except (ValueError, TypeError):
        found = np.asarray(None)
    if found.ndim == 1 and found.size == 0:
        return np.empty(0, dtype=np.int64)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise UserError(f"{str(ids)[:60]!r} is no sequence of token ids", fix="give a list or an array of integers")
    return found


def _matching(vocabulary: Vocabulary, pattern: str | None) -> frozenset[int]:
    """The ids whose text the pattern matches. Raises UserError if it is no regular expression."""
    if pattern is None:
        return frozenset()
    try:
        matches = re.compile(pattern).search
    except re.error as error:
        raise UserError(f"{pattern!r} is not a regular expression: {error}") from None
    texts = (piece.decode("utf-8", errors="replace") for piece in vocabulary.pieces)
    return frozenset(i for i, text in enumerate(texts) if matches(text))


def origins(vocabulary: Vocabulary, ids: np.ndarray, expanded: np.ndarray) -> np.ndarray:
    """For each id of `expanded` the place in `ids` of the token that it is a part of: int64 `(len(expanded),)`.

    `expanded` must come from a method that splits tokens (all but `bpe-dropout`).
    """
    ends = np.cumsum(vocabulary.widths[ids])
    return np.searchsorted(ends, np.cumsum(vocabulary.widths[expanded]), "left")

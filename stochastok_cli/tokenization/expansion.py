"""Expansion: the token ids of a document become other ids of the same vocabulary that decode to the same bytes."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, overload

import numpy as np

from stochastok_cli.argument_checks import one_of, optional, string, whole_number
from stochastok_cli.errors import UserError
from stochastok_cli.random_streams import derive_key, random_bits
from stochastok_cli.tokenization.loaders import vocabulary_for
from stochastok_cli.tokenization.methods import Method, require_method
from stochastok_cli.tokenization.methods.base import LARGEST_INTEGER
from stochastok_cli.tokenization.methods.kernels.random import interpreted, may_interpret
from stochastok_cli.tokenization.segmentation_lattice import SegmentationLattice, segmentation_lattice
from stochastok_cli.tokenization.split_table import SplitTable, split_table
from stochastok_cli.tokenization.vocabulary import Vocabulary, state_without_caches


class StochasTok:
    """Expands documents. The result is a pure function of `(ids, p, seed, index)` and the options.

    Args:
        vocabulary: the vocabulary of the ids.
        p: the expansion proportion: attempted splits per token (`stochastok`, `stochastok-uni`; the paper, Section
            3), splits per token (`uniform-k`), or a probability that the definition of the method says. p = 0 returns
            the ids unchanged, except by methods that tokenize anew (`bpe-dropout`, `maxmatch-dropout`) or merge
            (`patok`, and a `mix` with any of these). 0.1 if None; a fixed rule takes none.
        method: a registered method (`stochastok_cli.tokenization.methods`), with its arguments, if it has any, as
            `NAME:KEY=VALUE,…`. `stochastok` is from the paper (arXiv
            2506.01687); `stochastok-uni`, `uniform-k` and `uniform` are from the follow-up (arXiv 2604.16037);
            `bpe-dropout` is from Provilkov et al. 2020.
        seed: selects the random stream.
        max_splits: the most successful splits in one document; no limit if None.
        keep: a regular expression. Tokens whose text it matches anywhere (`[0-9]`, `^ def$`) are left alone.
        round_budget: how the number of attempts n p of a document becomes a whole number: "down" (the paper), or
            "randomly", up with a probability of its fractional part. Windows and rows of training data are expanded
            "randomly": rounded down, a small p would make no attempt in any of them.

    Attributes:
        method: the canonical spelling of the method.
        kept: the ids of the tokens that `keep` matches.
        only: the ids that the tables `splits` and `lattice` are made for, in a copy that expands little data; None for
            all of the vocabulary.
        key: the key of the random stream, uint64.

    Raises:
        UserError: for an impossible `p`, an unknown method, an option that the method does not take, and a method
            that the vocabulary does not allow.

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
        p: float | None = None,
        method: str = "stochastok",
        seed: int = 0,
        *,
        max_splits: int | None = None,
        keep: str | None = None,
        round_budget: Literal["down", "randomly"] = "down",
    ):
        if not isinstance(vocabulary, Vocabulary):
            raise UserError(
                f"{vocabulary!r} is no vocabulary", fix="give load_vocabulary(…), or call StochasTok.from_pretrained"
            )
        definition = require_method(method)
        p = definition.resolve_p(p)
        max_splits = optional(whole_number)("max_splits", max_splits, minimum=0, maximum=LARGEST_INTEGER)
        keep, seed = optional(string)("keep", keep), whole_number("seed", seed)
        one_of("round_budget", round_budget, ("down", "randomly"))
        definition.check_options(max_splits, keep)
        definition.check_vocabulary(vocabulary)
        self.vocabulary = vocabulary
        self.p = p
        self.method = definition.name
        self.max_splits = max_splits
        self.kept = _matching_tokens(vocabulary, keep)
        self.only: frozenset[int] | None = None
        self.key = np.uint64(derive_key(seed, f"expand/{self.method}"))
        self.rounding_seed = seed if round_budget == "randomly" else None

    @classmethod
    def from_pretrained(
        cls,
        tokenizer: Any,
        p: float | None = None,
        method: str = "stochastok",
        seed: int = 0,
        *,
        end_of_text: str | None = None,
        **options: Any,
    ) -> Self:
        """A StochasTok for a tokenizer.

        Args:
            tokenizer: a name or path that `load_vocabulary` takes, the name of a tokenizer on the Hugging Face Hub,
                a `tokenizers` or fast `transformers` tokenizer, which is not changed, or a `tiktoken.Encoding`.
            p: see `StochasTok`.
            method: see `StochasTok`.
            seed: see `StochasTok`.
            end_of_text: the name of the token that ends a document, where it is not the usual one.
            options: `max_splits` and `keep`.
        """
        return cls(vocabulary_for(tokenizer, end_of_text=end_of_text), p, method, seed, **options)

    def __repr__(self) -> str:
        return f"StochasTok({self.vocabulary!r}, p={self.p!r}, method={self.method!r})"

    def __getstate__(self) -> dict[str, Any]:
        return state_without_caches(self)

    @functools.cached_property
    def definition(self) -> Method:
        """The registered method, bound to its arguments."""
        return require_method(self.method)

    @functools.cached_property
    def splits(self) -> SplitTable:
        """The pair splits of the vocabulary, without those of kept tokens."""
        return split_table(self.vocabulary, self.kept, self.only)

    @functools.cached_property
    def lattice(self) -> SegmentationLattice:
        """The segmentations of the vocabulary's tokens; kept tokens have themselves alone."""
        return segmentation_lattice(self.vocabulary, self.kept, self.only)

    def with_p(self, p: float) -> Self:
        """The same expansion with another `p`: it shares random stream, options and tables with this one.

        Raises:
            UserError: for an impossible `p`.
        """
        p = self.definition.check_p(p)
        other = object.__new__(type(self))
        vars(other).update(vars(self), p=p)
        return other

    def split_budget(
        self, lengths: np.ndarray, first_index: np.uint64, per_token: float | None = None, purpose: str = "rounding"
    ) -> np.ndarray:
        """The attempts in documents, for methods that make a number of them per token.

        Args:
            lengths: int64 `[documents]`, the number n of tokens of each.
            first_index: the index of the first document.
            per_token: attempts per token; `p` if None.
            purpose: names the random stream of the rounding.

        Returns:
            int64 `[documents]`: n p, rounded down or randomly. The product is a double, as in Python's `int(n * p)`.
        """
        budget = lengths * (self.p if per_token is None else per_token)
        if self.rounding_seed is None:
            return budget.astype(np.int64)
        counters = np.arange(len(lengths), dtype=np.uint64) + first_index
        bits = random_bits(self.rounding_seed, f"expand/{self.method}/{purpose}", counters=counters)
        uniform = (bits >> np.uint64(11)) * 2.0**-53
        return np.floor(budget + uniform).astype(np.int64)

    @overload
    def __call__(self, ids: Sequence[int] | np.ndarray, index: int = 0) -> np.ndarray: ...

    @overload
    def __call__(self, ids: Sequence[Sequence[int] | np.ndarray], index: int = 0) -> list[np.ndarray]: ...

    def __call__(self, ids: Any, index: int = 0) -> Any:
        """Expands one document, or a batch of documents.

        Args:
            ids: token ids `[tokens]`, or a sequence of such documents.
            index: the index of the (first) document in its corpus, which selects its random numbers.

        Returns:
            The expanded ids (the vocabulary's dtype), or a list of them for a batch.

        Raises:
            UserError: for anything that is not a sequence of ids of the vocabulary.
        """
        if hasattr(ids, "__len__") and not isinstance(ids, str | Mapping) and len(ids) and np.ndim(ids[0]) == 1:
            documents = [ids_of(self.vocabulary, document) for document in ids]
            out, lengths = self.documents(np.concatenate(documents), np.array([*map(len, documents)]), index)
            return np.split(out, np.cumsum(lengths)[:-1])
        ids = as_ids(ids)
        return self.documents(ids, np.array([len(ids)]), index)[0]

    def documents(self, ids: np.ndarray, lengths: np.ndarray, first_index: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Expands many documents; compiled methods run without the GIL.

        Args:
            ids: integers `[tokens]`, the documents one after another.
            lengths: integers `[documents]`, the number of tokens of each.
            first_index: the index of the first document in its corpus.

        Returns:
            The expanded ids (the vocabulary's dtype) and lengths (int64 `[documents]`).

        Raises:
            UserError: for ids that are not in the vocabulary, and for lengths that do not add up to the ids.
        """
        ids, lengths = ids_of(self.vocabulary, ids), np.asarray(lengths)
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any() or lengths.sum() != len(ids):
            raise UserError(f"the lengths of the documents are not those of {len(ids):,} ids")
        if not 0 <= first_index < 2**64:
            raise UserError(f"the index {first_index} is not possible", fix="give one from 0 to 2^64 - 1")
        lengths = np.ascontiguousarray(lengths, dtype=np.int64)
        method = self.definition
        if self.p == 0 and method.identity_at_zero:
            return ids.copy(), lengths
        with np.errstate(over="ignore"):  # an interpreted kernel would warn of integers that wrap on purpose
            if method.interpretable and may_interpret(int(len(ids) * (1 + self.p))):
                with interpreted():
                    return method.expand(self.with_tables_of(ids), ids, lengths, np.uint64(first_index))
            return method.expand(self, ids, lengths, np.uint64(first_index))

    def with_tables_of(self, ids: np.ndarray) -> Self:
        """The same expansion with tables for these ids alone, which take much less time to make."""
        other = object.__new__(type(self))
        vars(other).update(self.__getstate__(), only=frozenset(ids.tolist()))
        return other


def as_ids(ids: Any) -> np.ndarray:
    """Token ids as a one-dimensional array of integers. Raises UserError for anything else."""
    try:
        array = np.asarray(ids)
    except (ValueError, TypeError):
        array = np.asarray(None)
    if array.ndim == 1 and array.size == 0:
        return np.empty(0, dtype=np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(f"{str(ids)[:60]!r} is no sequence of token ids", fix="give a list or an array of integers")
    return array


def ids_of(vocabulary: Vocabulary, ids: Any) -> np.ndarray:
    """Token ids as an array of the vocabulary's dtype. Raises UserError for anything else, and for ids it has not."""
    ids = as_ids(ids)
    low, high = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
    if low < 0 or high >= vocabulary.size:
        raise vocabulary.unknown_id(low if low < 0 else high)
    return np.ascontiguousarray(ids, dtype=vocabulary.dtype)


def origins(vocabulary: Vocabulary, ids: np.ndarray, expanded: np.ndarray) -> np.ndarray:
    """For each expanded id, the position of the original token that it is a part of.

    Args:
        vocabulary: the vocabulary of the ids.
        ids: the original ids of one document `[tokens]`.
        expanded: its expanded ids, by a method that keeps token boundaries.

    Returns:
        int64 `[len(expanded)]`, positions in `ids`.
    """
    ends = np.cumsum(vocabulary.widths[ids])
    return np.searchsorted(ends, np.cumsum(vocabulary.widths[expanded]), "left")


def _matching_tokens(vocabulary: Vocabulary, pattern: str | None) -> frozenset[int]:
    """The ids of the tokens whose text matches. Raises UserError if the pattern is not a regular expression."""
    if pattern is None:
        return frozenset()
    try:
        matches = re.compile(pattern).search
    except re.error as error:
        raise UserError(f"{pattern!r} is not a regular expression: {error}") from None
    texts = (piece.decode("utf-8", errors="replace") for piece in vocabulary.pieces)
    return frozenset(i for i, text in enumerate(texts) if matches(text))

"""The effect of an expansion on a corpus: its growth, the tokens that change, and the diversity of their segmentations.

`compare_methods` compares methods at one p, or at equal growth.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stochastok_cli.errors import Notice
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.growth import GrowthMatch, match_growth
from stochastok_cli.tokenization.methods import p_among, require_method
from stochastok_cli.tokenization.vocabulary import Vocabulary

COMMON_WORDS = 100
RENYI_ALPHA = 2.5
MATTR_WINDOW = 500


@dataclass(frozen=True)
class Diversity:
    """The effect of one method at one p on a sample of documents.

    Attributes:
        method, p: the method and its p; a fixed rule has none.
        growth: ids after expansion over ids before; below 1 where a method merges more tokens than it splits.
        touched: share of the tokens that were replaced by something else.
        segmentations: mean number of distinct segmentations of the most common words.
        possible: mean number of segmentations that these words have.
        entropy: bits per token of these words, by the observed frequencies of their segmentations.
        token_entropy: bits per token of the expanded ids, see `token_entropy`.
        renyi_efficiency: that of the expanded ids, see `renyi_efficiency`.
        mattr: that of the expanded ids, see `mattr`.
        words: how many common words there are, at most COMMON_WORDS.
        match: how p was found, where it was found by a growth.
    """

    method: str
    p: float | None
    growth: float
    touched: float
    segmentations: float
    possible: float
    entropy: float
    token_entropy: float
    renyi_efficiency: float
    mattr: float
    words: int
    match: GrowthMatch | None = None


def diversity(expand: StochasTok, ids: np.ndarray, lengths: np.ndarray) -> Diversity:
    """Expands documents and measures the result.

    Args:
        expand: the expansion.
        ids: integers `[tokens]`, the documents one after another.
        lengths: integers `[documents]`, the number of tokens of each.
    """
    out, _ = expand.documents(ids, lengths)
    widths = expand.vocabulary.widths
    ends, out_ends = np.cumsum(widths[ids]), np.cumsum(widths[out])
    # The parts of token i are out[first[i]:last[i]], if both of its ends are token ends of the result as well.
    last = np.searchsorted(out_ends, ends) + 1
    first = np.concatenate([[0], last[:-1]])
    whole = out_ends[last - 1] == ends
    whole &= np.concatenate([[True], whole[:-1]])
    touched = ~(whole & (last - first == 1))

    words = _common_words(expand.vocabulary, ids)
    bits, distinct, weights, possible = [], [], [], []
    for word in words:
        positions = np.flatnonzero((ids == word) & whole)
        seen = Counter(tuple(out[a:b].tolist()) for a, b in zip(first[positions], last[positions], strict=True))
        frequencies = np.array(list(seen.values())) / max(len(positions), 1)
        bits.append(float(-(frequencies * np.log2(frequencies)).sum()))
        distinct.append(len(seen))
        weights.append(len(positions))
        possible.append(float(expand.lattice.total[expand.lattice.node[word]]))
    return Diversity(
        method=expand.method,
        p=expand.p if expand.definition.takes_p else None,
        growth=len(out) / max(len(ids), 1),
        touched=float(touched.mean()) if len(ids) else 0.0,
        segmentations=float(np.mean(distinct)) if words else 0.0,
        possible=float(np.mean(possible)) if words else 0.0,
        entropy=float(np.average(bits, weights=weights)) if sum(weights) else 0.0,
        token_entropy=token_entropy(out),
        renyi_efficiency=renyi_efficiency(out),
        mattr=mattr(out),
        words=len(words),
    )


def token_entropy(ids: np.ndarray) -> float:
    """Shannon's entropy of the frequencies of ids, in bits.

    >>> token_entropy(np.array([3, 5, 5, 3]))
    1.0
    """
    counts = np.unique(ids, return_counts=True)[1]
    frequencies = counts / max(len(ids), 1)
    return float((frequencies * -np.log2(frequencies)).sum())


def renyi_efficiency(ids: np.ndarray, alpha: float = RENYI_ALPHA) -> float:
    """The Rényi entropy of the frequencies of ids, over the logarithm of the number of distinct ids.

    H = log(sum of f^alpha) / (1 - alpha). Zouhar et al. 2023 (ACL 2023.acl-long.284), with alpha = 2.5. Their package
    tokenization-scorer and TkTkT divide by the types that occur, as here, and not by the size of the vocabulary. 0
    where there are fewer than two types.

    >>> renyi_efficiency(np.array([3, 5, 5, 3]))
    1.0
    """
    counts = np.unique(ids, return_counts=True)[1]
    if len(counts) < 2:
        return 0.0
    return float(np.log(((counts / counts.sum()) ** alpha).sum()) / (1 - alpha) / np.log(len(counts)))


def mattr(ids: np.ndarray, window: int = MATTR_WINDOW) -> float:
    """The moving-average type-token ratio: the mean share of distinct ids in each window of consecutive ids.

    Covington and McFall 2010, "Cutting the Gordian Knot". A text shorter than the window is one window.

    >>> mattr(np.array([1, 1, 2, 1]), window=2)  # of 1, 2 and 2 types
    0.8333333333333334
    """
    size = len(ids)
    if size == 0:
        return 0.0
    window = min(window, size)
    order = np.argsort(ids, kind="stable")
    previous = np.full(size, -1)
    same = np.flatnonzero(np.diff(ids[order].astype(np.int64)) == 0)
    previous[order[same + 1]] = order[same]
    # An id is the first of its type in the windows that begin after its previous occurrence and up to itself.
    at = np.arange(size)
    first = np.maximum(np.maximum(previous + 1, at - window + 1), 0)
    last = np.minimum(at, size - window)
    return float(np.maximum(last - first + 1, 0).sum() / (window * (size - window + 1)))


def compare_methods(
    vocabulary: Vocabulary,
    methods: Sequence[str],
    ids: np.ndarray,
    lengths: np.ndarray,
    *,
    p: float | None = None,
    growth: float | None = None,
    **options: Any,
) -> list[Diversity]:
    """Measures the effect of each method on the same documents, at one p or at equal growth (`expand --report`).

    Args:
        vocabulary: the vocabulary of the ids.
        methods: registered methods.
        ids: integers `[tokens]`, the documents one after another.
        lengths: integers `[documents]`, the number of tokens of each.
        p: the p of every method that has one, unless `growth` is given.
        growth: if given, each such method gets the p at which the documents grow that many times, or nearly so,
            with a `Notice` where the growth is another.
        options: further arguments of `StochasTok`.
    """
    rows = []
    for method in methods:
        at, match = p_among(method, methods, p), None
        if growth is not None and (at is not None or require_method(method).takes_p):
            match = match_growth(vocabulary, method, growth, ids, lengths, **options)
            at = match.p
        row = diversity(StochasTok(vocabulary, p=at, method=method, **options), ids, lengths)
        if match is not None and (note := match.note(row.method, row.growth)):
            warnings.warn(note, Notice, stacklevel=2)
        rows.append(replace(row, match=match))
    return rows


def _common_words(vocabulary: Vocabulary, ids: np.ndarray) -> list[int]:
    """The most common tokens that are a space and at least three letters."""
    counts = np.bincount(ids, minlength=vocabulary.size)
    is_word = np.array([p[:1] == b" " and len(p) > 3 and p[1:].isalpha() for p in vocabulary.pieces])
    order = np.argsort(-counts * is_word, kind="stable")[:COMMON_WORDS]
    return [int(token) for token in order if counts[token] and is_word[token]]

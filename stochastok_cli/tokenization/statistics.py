"""What an expansion does to a corpus: how much longer it gets, how many tokens change, and into how many things.

So that methods can be compared at equal growth, `match_growth` finds the p that gives it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.expansion import P_IS_A_PROBABILITY, StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary

COMMON_WORDS = 100


@dataclass(frozen=True)
class Diversity:
    """Of one method at one p, on one sample of documents.

    growth: ids after over ids before; touched: share of the tokens that became something else; segmentations: mean
    number of distinct segmentations that the commonest words had; possible: mean number that they could have;
    entropy: bits per token of those words, by the observed frequencies of their segmentations.
    """

    method: str
    p: float
    growth: float
    touched: float
    segmentations: float
    possible: float
    entropy: float


def diversity(expand: StochasTok, ids: np.ndarray, lengths: np.ndarray) -> Diversity:
    """Expands documents (as `StochasTok.documents` takes them) and looks at what came out."""
    out, _ = expand.documents(ids, lengths)
    widths = expand.vocabulary.widths
    ends, out_ends = np.cumsum(widths[ids]), np.cumsum(widths[out])
    # The parts of token i are out[first[i]:last[i]], where both of its ends are ends of the result as well.
    last = np.searchsorted(out_ends, ends) + 1
    first = np.concatenate([[0], last[:-1]])
    whole = out_ends[last - 1] == ends
    whole &= np.concatenate([[True], whole[:-1]])
    touched = ~(whole & (last - first == 1))

    words = _common_words(expand.vocabulary, ids)
    bits, distinct, weights, possible = [], [], [], []
    for word in words:
        places = np.flatnonzero((ids == word) & whole)
        seen = Counter(tuple(out[a:b].tolist()) for a, b in zip(first[places], last[places], strict=True))
        shares = np.array(list(seen.values())) / max(len(places), 1)
        bits.append(float(-(shares * np.log2(shares)).sum()))
        distinct.append(len(seen))
        weights.append(len(places))
        possible.append(float(expand.lattice.total[expand.lattice.node[word]]))
    return Diversity(
        method=expand.method,
        p=expand.p,
        growth=len(out) / max(len(ids), 1),
        touched=float(touched.mean()) if len(ids) else 0.0,
        segmentations=float(np.mean(distinct)) if words else 0.0,
        possible=float(np.mean(possible)) if words else 0.0,
        entropy=float(np.average(bits, weights=weights)) if sum(weights) else 0.0,
    )


def match_growth(
    vocabulary: Vocabulary, method: str, growth: float, ids: np.ndarray, lengths: np.ndarray, **how: Any
) -> float:
    """The p (to four digits) at which a method makes documents `growth` times as long, found by halving.

    `how` are further arguments of `StochasTok`. Raises UserError if no p does.
    """
    low, high = 0.0, 1.0 if method in P_IS_A_PROBABILITY else 8.0

    def grown(p: float) -> float:
        return len(StochasTok(vocabulary, p, method, **how).documents(ids, lengths)[0]) / max(len(ids), 1)

    if not 1 <= growth <= grown(high):
        raise UserError(f"no p makes {method} grow documents {growth} times", fix=f"give 1 to {grown(high):.2f}")
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if grown(middle) < growth else (low, middle)
    return float(f"{high:.4g}")


def _common_words(vocabulary: Vocabulary, ids: np.ndarray) -> list[int]:
    """The commonest tokens that are a space and at least three letters."""
    counts = np.bincount(ids, minlength=vocabulary.size)
    is_word = np.array([p[:1] == b" " and len(p) > 3 and p[1:].isalpha() for p in vocabulary.pieces])
    order = np.argsort(-counts * is_word, kind="stable")[:COMMON_WORDS]
    return [int(token) for token in order if counts[token] and is_word[token]]

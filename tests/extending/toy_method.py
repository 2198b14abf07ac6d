"""A new expansion method in one file: every token that can be split is split once, always in the same way."""

import numpy as np

from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.methods import Method, register_method


def expand(
    stochastok: StochasTok, ids: np.ndarray, lengths: np.ndarray, first_index: np.uint64
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces each token by its first pair split."""
    first, left, right = stochastok.splits
    out: list[int] = []
    out_lengths = np.empty_like(lengths)
    for d, document in enumerate(np.split(ids.astype(np.int64), np.cumsum(lengths)[:-1])):
        before = len(out)
        for token in document.tolist():
            out += [left[first[token]], right[first[token]]] if first[token] < first[token + 1] else [token]
        out_lengths[d] = len(out) - before
    return np.array(out, dtype=ids.dtype), out_lengths


TOY = register_method(
    Method(
        name="toy",
        description="every token replaced by its first pair split",
        p_meaning="ignored",
        source="this test",
        expand=expand,
        options=("keep",),
    )
)

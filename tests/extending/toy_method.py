"""A new expansion method in one file: every token that can be split is split once, always in the same way."""

import numpy as np

from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.methods import Argument, Method, register_method


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


def expand_to_parts(
    stochastok: StochasTok, ids: np.ndarray, lengths: np.ndarray, first_index: np.uint64
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces each token of at least `min_bytes` bytes by its first pair split, where `p` is at least 0.5."""
    first, left, right = stochastok.splits
    min_bytes = stochastok.definition.values["min_bytes"] * stochastok.definition.values["factor"]
    out: list[int] = []
    out_lengths = np.empty_like(lengths)
    for d, document in enumerate(np.split(ids.astype(np.int64), np.cumsum(lengths)[:-1])):
        before = len(out)
        for token in document.tolist():
            splits = first[token] < first[token + 1] and stochastok.vocabulary.widths[token] >= min_bytes
            out += [left[first[token]], right[first[token]]] if splits else [token]
        out_lengths[d] = len(out) - before
    return np.array(out, dtype=ids.dtype), out_lengths


TOY_LONG = Method(
    name="toy-long",
    description="every long token replaced by its first pair split",
    p_meaning="ignored",
    source="this test",
    expand=expand_to_parts,
    options=("keep",),
    arguments=(
        Argument(name="min_bytes", default=4, description="the least bytes", minimum=1),
        Argument(name="factor", default=1.0, description="a factor of it", minimum=0, maximum=10),
    ),
)
TOY_FIXED = Method(
    name="toy-fixed",
    description="as toy, a fixed rule",
    p_meaning="",
    source="this test",
    expand=expand,
    options=("keep",),
    takes_p=False,
)

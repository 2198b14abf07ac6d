"""Uniform-k: a fixed number of splits, uniform over all refinements of a document (arXiv 2604.16037)."""

from typing import TYPE_CHECKING

from stochastok_cli.tokenization.methods.base import Method, max_tokens, register_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Makes exactly floor(n p) splits in each document, or as many as it has; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.uniform_k import uniform_k_documents

    splits = stochastok.split_budget(lengths, first_index)
    capacity = max_tokens(stochastok.vocabulary, ids, lengths, splits)
    out, out_lengths = np.empty(int(capacity.sum()), dtype=ids.dtype), np.empty_like(lengths)
    if stochastok.max_splits is not None:
        splits = np.minimum(splits, stochastok.max_splits)
    written = uniform_k_documents(
        ids, lengths, splits, stochastok.key, first_index, stochastok.lattice, out, out_lengths
    )
    return out[:written], out_lengths


register_method(
    Method(
        name="uniform-k",
        description="exactly floor(n p) splits in a document, uniform over all its refinements",
        p_meaning="splits per token",
        source="arXiv 2604.16037",
        expand=expand,
    )
)

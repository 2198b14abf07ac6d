"""StochasTok: random pair splits, the method of the paper (arXiv 2506.01687, Algorithm 2)."""

from typing import TYPE_CHECKING

from stochastok_cli.tokenization.methods.base import Method, max_tokens, register_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Makes floor(n p) attempts in each document; arguments and result as described in `Method`."""
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.splitting import stochastok_documents

    attempts = stochastok.split_budget(lengths, first_index)
    capacity = max_tokens(stochastok.vocabulary, ids, lengths, attempts)
    out, out_lengths = np.empty(int(capacity.sum()), dtype=ids.dtype), np.empty_like(lengths)
    limit = -1 if stochastok.max_splits is None else stochastok.max_splits
    written = stochastok_documents(
        ids, lengths, attempts, capacity, limit, stochastok.key, first_index, *stochastok.splits, out, out_lengths
    )
    return out[:written], out_lengths


register_method(
    Method(
        name="stochastok",
        description="floor(n p) random pair splits (StochasTok, Algorithm 2)",
        p_meaning="attempted splits per token",
        source="Sims et al. 2025 (arXiv 2506.01687), Algorithm 2",
        expand=expand,
    )
)

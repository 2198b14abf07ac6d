"""StochasTok-uni: the split counts of StochasTok, with uniform segmentations (arXiv 2604.16037)."""

from typing import TYPE_CHECKING

from stochastok_cli.tokenization.methods.base import Method, max_tokens, register_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Draws each token's segmentation anew, with its number of parts; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.segmentation import stochastok_uni_documents

    attempts = stochastok.split_budget(lengths, first_index)
    capacity = max_tokens(stochastok.vocabulary, ids, lengths, attempts)
    out, out_lengths = np.empty(int(capacity.sum()), dtype=ids.dtype), np.empty_like(lengths)
    limit = -1 if stochastok.max_splits is None else stochastok.max_splits
    written = stochastok_uni_documents(
        ids,
        lengths,
        attempts,
        capacity,
        limit,
        stochastok.key,
        first_index,
        *stochastok.splits,
        stochastok.lattice,
        out,
        out_lengths,
    )
    return out[:written], out_lengths


register_method(
    Method(
        name="stochastok-uni",
        description="as many splits of each token as stochastok makes, its segmentation drawn uniformly",
        p_meaning="attempted splits per token",
        source="arXiv 2604.16037",
        expand=expand,
    )
)

"""Uniform: each token independently, uniform over all of its segmentations (arXiv 2604.16037)."""

from typing import TYPE_CHECKING

from stochastok_cli.tokenization.methods.base import Method, register_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Replaces each token with probability p by one of its segmentations; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.segmentation import uniform_documents

    capacity = int(stochastok.lattice.length[ids].sum())
    out, out_lengths = np.empty(capacity, dtype=ids.dtype), np.empty_like(lengths)
    written = uniform_documents(
        ids, lengths, stochastok.p, stochastok.key, first_index, stochastok.lattice, out, out_lengths
    )
    return out[:written], out_lengths


register_method(
    Method(
        name="uniform",
        description="each token with probability p replaced by one of all its segmentations, uniformly",
        p_meaning="probability",
        source="arXiv 2604.16037",
        expand=expand,
        p_is_probability=True,
        options=("keep",),
    )
)

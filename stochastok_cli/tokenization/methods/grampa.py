"""GRaMPa: a Markov model that counts paths (Bauwens, Kaczér, de Lhoneux, ACL 2025).

Each token is, with probability p, replaced by a walk over its segmentation lattice from its first byte to its end. A
piece is taken with a probability proportional to the number of paths from its end to the end of the token, to the
power 1 / temperature. At temperature 1 every segmentation is equally likely, as in `uniform`; above, longer pieces
become more likely; a negative temperature prefers them. Pieces shorter than `min_length` bytes are taken only where no
longer one begins.

The authors segment pretokens by characters; here, as in `uniform`, the unit is a token and its bytes.
"""

import functools
from typing import TYPE_CHECKING

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.methods.base import Argument, Method, parse_arguments, register_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.segmentation_lattice import Walks
    from stochastok_cli.tokenization.vocabulary import Vocabulary


@functools.lru_cache(maxsize=4)
def path_counting_walks(
    vocabulary: "Vocabulary", kept: frozenset[int], only: frozenset[int] | None, temperature: float, min_length: int
) -> "Walks":
    """The walks of the paper's Markov model.

    Args:
        vocabulary: The vocabulary.
        kept: Ids that stay as they are.
        only: The ids that have segmentations here; all where None.
        temperature: An argument of the method, like the next one.
        min_length: The fewest bytes of a part.
    """
    from stochastok_cli.tokenization.methods.kernels.segmentation import path_counting_weights
    from stochastok_cli.tokenization.segmentation_lattice import Walks, segmentation_lattice

    lattice = segmentation_lattice(vocabulary, kept, only)
    walks = Walks.empty(lattice)
    path_counting_weights(lattice, float(temperature), min_length, *walks)
    return walks


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Replaces each token with probability p by a walk over its lattice; see `Method` for arguments and result."""
    from stochastok_cli.tokenization.segmentation_lattice import expand_by_walks

    walks = path_counting_walks(stochastok.vocabulary, stochastok.kept, stochastok.only, **stochastok.definition.values)
    return expand_by_walks(stochastok, ids, lengths, first_index, walks)


def bind(method: Method, text: str) -> Method:
    """The method bound to its arguments. Raises UserError for a temperature too close to 0."""
    bound = parse_arguments(method, text)
    if abs(bound.values["temperature"]) < 0.01:
        raise UserError("grampa: temperature must not be 0", fix="give 0.01 or more, or -0.01 or less")
    return bound


register_method(
    Method(
        name="grampa",
        description="each token with probability p replaced by a walk over its segmentations, weighted by path counts",
        p_meaning="probability",
        source="Bauwens, Kaczér and de Lhoneux, ACL 2025",
        expand=expand,
        p_is_probability=True,
        options=("keep",),
        arguments=(
            Argument(name="temperature", default=1.0, description="flattens path counts", minimum=-1000, maximum=1000),
            Argument(name="min_length", default=1, description="the least bytes of a piece", minimum=1, maximum=1000),
        ),
        bind=bind,
    )
)

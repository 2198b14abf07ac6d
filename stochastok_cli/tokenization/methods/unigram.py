"""Subword regularization with a Unigram model (Kudo 2018): segmentations drawn by the scores of their pieces.

Each token is, with probability p, replaced by one of its segmentations, drawn with a probability proportional to
exp(alpha * score), where the score of a segmentation is the sum of the log probabilities of its pieces in the
tokenizer's model. At alpha = 1 this is the model's own law, toward 0 it is uniform, and the larger alpha is, the more
often the token itself is drawn. The draw is exact, by forward filtering and backward sampling (l = infinity in the
paper), or, with `nbest`, among the l segmentations with the best scores.

The paper draws the segmentation of a whole sentence; here, as in `uniform`, the unit is a token and its bytes, so that
the parts of a token can be told apart. For a word that is one token, both laws are the same.

Bytes that stand for characters without an entry (byte fallback) and added tokens are no pieces of a segmentation.
"""

import functools
from typing import TYPE_CHECKING

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.methods.base import Argument, Method, parse_arguments, register_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.segmentation_lattice import BestSegmentations, Walks
    from stochastok_cli.tokenization.vocabulary import Vocabulary

ALL = -1
MAX_NBEST = 512  # the limit of SentencePiece


@functools.lru_cache(maxsize=4)
def score_walks(
    vocabulary: "Vocabulary", kept: frozenset[int], alpha: float, only: frozenset[int] | None = None
) -> "Walks":
    """The walks that give segmentations by the scores of their pieces.

    Args:
        vocabulary: A Unigram vocabulary.
        kept: Ids that stay as they are.
        alpha: The factor of the scores, as of the method.
        only: The ids that have segmentations here; all where None.
    """
    from stochastok_cli.tokenization.methods.kernels.segmentation import score_weights
    from stochastok_cli.tokenization.segmentation_lattice import Walks, segmentation_lattice

    lattice = segmentation_lattice(vocabulary, kept, only)
    walks = Walks.empty(lattice)
    score_weights(lattice, piece_scores(vocabulary, alpha), *walks)
    return walks


@functools.lru_cache(maxsize=4)
def best_segmentations(
    vocabulary: "Vocabulary", kept: frozenset[int], alpha: float, nbest: int, only: frozenset[int] | None = None
) -> "tuple[np.ndarray, BestSegmentations]":
    """The number of paths from every position of the lattice, and the `nbest` best of them.

    The arguments are those of `score_walks`, and:

    Args:
        nbest: How many paths are kept.
    """
    from stochastok_cli.tokenization.methods.kernels.best_segmentations import find_best_segmentations
    from stochastok_cli.tokenization.segmentation_lattice import BestSegmentations, segmentation_lattice

    lattice = segmentation_lattice(vocabulary, kept, only)
    ways = score_walks(vocabulary, kept, alpha, only).ways
    best = BestSegmentations.empty(lattice, ways, nbest)
    find_best_segmentations(lattice, piece_scores(vocabulary), float(alpha), best)
    return ways, best


def piece_scores(vocabulary: "Vocabulary", factor: float = 1.0) -> "np.ndarray":
    """The score of each id times a factor: float64 `[size]`, minus infinity for no piece of a segmentation."""
    import numpy as np

    scores = np.full(vocabulary.size, -np.inf)
    for token, score in (vocabulary.scores or {}).items():
        if token not in vocabulary.added:
            scores[token] = factor * score
    return scores


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Replaces tokens, each with probability p, by draws from their segmentations; see `Method`."""
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.best_segmentations import draw_best_documents
    from stochastok_cli.tokenization.segmentation_lattice import expand_by_walks

    alpha, nbest = stochastok.definition.values["alpha"], stochastok.definition.values["nbest"]
    if nbest == ALL:
        walks = score_walks(stochastok.vocabulary, stochastok.kept, alpha, stochastok.only)
        return expand_by_walks(stochastok, ids, lengths, first_index, walks)
    lattice = stochastok.lattice
    ways, best = best_segmentations(stochastok.vocabulary, stochastok.kept, alpha, nbest, stochastok.only)
    out, out_lengths = np.empty(int(lattice.length[ids].sum()), dtype=ids.dtype), np.empty_like(lengths)
    written = draw_best_documents(
        ids, lengths, stochastok.p, stochastok.key, first_index, lattice, ways, best, out, out_lengths
    )
    return out[:written], out_lengths


def bind(method: Method, text: str) -> Method:
    """The method bound to its arguments. Raises UserError for no segmentations to draw from."""
    bound = parse_arguments(method, text)
    if bound.values["nbest"] == 0:
        raise UserError("unigram: nbest must not be 0", fix=f"give 1 to {MAX_NBEST}, or {ALL} for all segmentations")
    return bound


def require(vocabulary: "Vocabulary") -> None:
    """Raises UserError for a vocabulary without scores."""
    if vocabulary.scores is None:
        raise UserError(
            f"unigram needs the scores of a Unigram model, and {vocabulary.name!r} is another kind of tokenizer",
            fix="take uniform or grampa, or a tokenizer with a Unigram model (T5, XLM-R)",
        )


register_method(
    Method(
        name="unigram",
        description="each token with probability p replaced by a segmentation drawn by the scores of a Unigram model",
        p_meaning="probability",
        source="Kudo 2018 (arXiv 1804.10959), Section 3",
        expand=expand,
        p_is_probability=True,
        options=("keep",),
        arguments=(
            Argument(
                name="alpha", default=0.1, description="sharpens the draw; 0 is uniform", minimum=0.0, maximum=1000.0
            ),
            Argument(
                name="nbest",
                default=ALL,
                description=f"draws among so many best segmentations, {ALL} among all",
                minimum=ALL,
                maximum=MAX_NBEST,
            ),
        ),
        bind=bind,
        require=require,
    )
)

"""MaxMatch-dropout (Hiraoka 2022, Section 3): WordPiece again, with entries of the vocabulary dropped at random.

Words are those of WordPiece. At each position of a word, the longest entry that matches is dropped with probability p,
then the next longest, and so on; the shortest is never dropped. An entry behind which the word can't be completed is
not taken, as nothing may become the unknown token. With p = 0 this is WordPiece.
"""

from typing import TYPE_CHECKING

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.methods.base import Method, register_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary


def require(vocabulary: "Vocabulary") -> None:
    """Raises UserError for a vocabulary that is not one of WordPiece."""
    if vocabulary.merges or "WordPiece" not in vocabulary.no_merges_reason:
        raise UserError(
            f"maxmatch-dropout needs a WordPiece vocabulary, which {vocabulary.name!r} is not",
            fix="take another method, such as uniform",
        )


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Encodes words anew with entries dropped; see `Method` for arguments and result."""
    return match_again(stochastok, ids, lengths, first_index, float(stochastok.p))


def match_again(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64", p: float
) -> "tuple[np.ndarray, np.ndarray]":
    """Encodes the words of documents anew; a word begins at each token that begins with a space.

    Args:
        stochastok, ids, lengths, first_index: see `Method`.
        p: the probability that an entry is dropped.
    """
    import numpy as np

    from stochastok_cli.tokenization.entry_trie import entry_trie, token_matches
    from stochastok_cli.tokenization.methods.kernels.maxmatch_dropout import maxmatch_documents
    from stochastok_cli.tokenization.pretokenizers import token_bytes, word_starts

    vocabulary = stochastok.vocabulary
    tokens = token_bytes(vocabulary, stochastok.kept)
    tables = word_starts(vocabulary), tokens, entry_trie(vocabulary), token_matches(vocabulary)
    out, out_lengths = np.empty(int(vocabulary.widths[ids].sum()) + len(ids), ids.dtype), np.empty_like(lengths)
    written = maxmatch_documents(ids, lengths, p, stochastok.key, first_index, *tables, out, out_lengths)
    return out[:written], out_lengths


register_method(
    Method(
        name="maxmatch-dropout",
        description="WordPiece again, each entry that matches dropped with probability p",
        p_meaning="probability",
        source="Hiraoka 2022 (arXiv 2209.04126)",
        expand=expand,
        p_is_probability=True,
        options=("keep",),
        keeps_token_boundaries=False,
        identity_at_zero=False,
        interpretable=False,
        require=require,
    )
)

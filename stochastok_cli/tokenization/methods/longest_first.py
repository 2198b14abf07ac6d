"""Longest first: each pretoken cut from the left into the longest entries of the vocabulary, a fixed rule.

This is inference by the longest prefix (Uzan et al. 2024, arXiv 2403.01289), as WordPiece does it, with the
vocabulary of any tokenizer.

The unit is a pretoken, since the longest entry in the bytes of a token is the token itself. For tokenizers other than
byte-level BPE, it is a word, which begins at each token that begins with a space; an entry behind which the rest of the
word has no entries is passed over. Special and added tokens keep their ids, and so do, in a byte-level BPE, tokens with
bytes that are not valid UTF-8.
"""

from typing import TYPE_CHECKING

from stochastok_cli.tokenization.methods.base import Method, register_method
from stochastok_cli.tokenization.methods.maxmatch_dropout import match_again

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Cuts pretokens into the longest entries from their left; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.tokenization.entry_trie import entry_trie
    from stochastok_cli.tokenization.methods.kernels.longest_first import match_pretokens
    from stochastok_cli.tokenization.methods.kernels.random import interpreted
    from stochastok_cli.tokenization.pretokenizers import pretokenize, token_bytes

    vocabulary = stochastok.vocabulary
    if not vocabulary.merges:
        with interpreted(False):  # its table has the matches in all tokens, which take an interpreter seconds
            return match_again(stochastok, ids, lengths, first_index, p=0.0)
    documents = pretokenize(vocabulary, token_bytes(vocabulary, stochastok.kept), ids, lengths)
    out, out_lengths = np.empty(len(documents.text) + len(ids), ids.dtype), np.empty_like(lengths)
    written = match_pretokens(documents, entry_trie(vocabulary), out, out_lengths)
    return out[:written], out_lengths


def require(vocabulary: "Vocabulary") -> None:
    """Raises UserError for a byte-level BPE without a token for some byte."""
    from stochastok_cli.tokenization.merge_table import require_bytes

    if vocabulary.merges:
        require_bytes(vocabulary, "longest-first")


register_method(
    Method(
        name="longest-first",
        description="pretokens cut from the left into the longest entries",
        p_meaning="none: a fixed rule",
        source="Uzan et al. 2024 (arXiv 2403.01289), longest prefix",
        expand=expand,
        options=("keep",),
        keeps_token_boundaries=False,
        require=require,
        takes_p=False,
    )
)

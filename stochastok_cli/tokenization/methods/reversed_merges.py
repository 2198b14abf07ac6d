"""Reversed merges: byte-pair encoding with the merge list in the reverse order, a fixed rule.

Documents are decoded, divided into pretokens, and merged again from single bytes. At each step the applicable merge
that was learned last is applied (the leftmost of equals), until none is left.

The unit is a pretoken, as of byte-pair encoding itself. Special and added tokens, and tokens with bytes that are not
valid UTF-8, keep their ids.
"""

from typing import TYPE_CHECKING

from stochastok_cli.tokenization.methods.base import Method, register_method
from stochastok_cli.tokenization.methods.bpe_dropout import merge_again

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Encodes documents anew with the last merges first; see `Method` for arguments and result."""
    from stochastok_cli.tokenization.merge_table import merge_table
    from stochastok_cli.tokenization.pretokenizers import token_bytes

    tokens = token_bytes(stochastok.vocabulary, stochastok.kept)
    table = merge_table(stochastok.vocabulary, last_first=True)
    return merge_again(stochastok, ids, lengths, first_index, tokens, table, p=0.0)


def require(vocabulary: "Vocabulary") -> None:
    """Raises UserError for a vocabulary that is not a byte-level BPE with a merge list."""
    from stochastok_cli.tokenization.merge_table import require_merges

    require_merges(vocabulary, "reversed-merges")


register_method(
    Method(
        name="reversed-merges",
        description="byte-pair encoding again with the merges learned last first",
        p_meaning="none: a fixed rule",
        source="byte-pair encoding (arXiv 1508.07909) in reverse",
        expand=expand,
        options=("keep",),
        keeps_token_boundaries=False,
        require=require,
        takes_p=False,
    )
)

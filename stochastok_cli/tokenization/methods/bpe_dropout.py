"""BPE-dropout (Provilkov et al. 2020, Algorithm 1), starting from token ids.

Documents are decoded, divided into pretokens, and merged again with merges dropped. Each pretoken starts from single
bytes. At each step, every applicable merge at each position is dropped with probability p; of those that survive, the
best-ranked one is applied (the leftmost of equals). The pretoken is done when none survives. A merge that was dropped
can be applied at a later step. With p = 0 this is byte-pair encoding.

Special tokens, and tokens with bytes that are not valid UTF-8, keep their ids, and no merge crosses them.
"""

from typing import TYPE_CHECKING

from stochastok_cli.tokenization.methods.base import Method, register_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.merge_table import MergeTable
    from stochastok_cli.tokenization.pretokenizers import TokenBytes
    from stochastok_cli.tokenization.vocabulary import Vocabulary


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Encodes documents anew, each merge dropped with probability p; see `Method` for arguments and result."""
    from stochastok_cli.tokenization.merge_table import merge_table
    from stochastok_cli.tokenization.pretokenizers import token_bytes

    vocabulary = stochastok.vocabulary
    tokens = token_bytes(vocabulary, stochastok.kept, vocabulary.whole_words)
    return merge_again(stochastok, ids, lengths, first_index, tokens, merge_table(vocabulary), stochastok.p)


def merge_again(
    stochastok: "StochasTok",
    ids: "np.ndarray",
    lengths: "np.ndarray",
    first_index: "np.uint64",
    tokens: "TokenBytes",
    table: "MergeTable",
    p: float,
) -> "tuple[np.ndarray, np.ndarray]":
    """Encodes documents anew from single bytes.

    Args:
        stochastok, ids, lengths, first_index: see `Method`.
        tokens: the bytes of the tokens, and those that keep their ids.
        table: the merges.
        p: the probability that a merge is dropped.
    """
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.bpe_dropout import merge_pretokens
    from stochastok_cli.tokenization.pretokenizers import pretokenize

    documents = pretokenize(stochastok.vocabulary, tokens, ids, lengths)
    out, out_lengths = np.empty(len(documents.text) + len(ids), ids.dtype), np.empty_like(lengths)
    written = merge_pretokens(documents, tokens, table, float(p), stochastok.key, first_index, out, out_lengths)
    return out[:written], out_lengths


def require(vocabulary: "Vocabulary") -> None:
    """Raises UserError for a vocabulary that is not a byte-level BPE with a merge list."""
    from stochastok_cli.tokenization.merge_table import require_merges

    require_merges(vocabulary)


register_method(
    Method(
        name="bpe-dropout",
        description="byte-pair encoding again from single bytes, each merge dropped with probability p",
        p_meaning="probability",
        source="Provilkov et al. 2020 (arXiv 1910.13267), Algorithm 1",
        expand=expand,
        p_is_probability=True,
        options=("keep",),
        keeps_token_boundaries=False,
        identity_at_zero=False,
        require=require,
    )
)

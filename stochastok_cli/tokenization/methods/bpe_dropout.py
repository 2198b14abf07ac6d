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
    from stochastok_cli.tokenization.vocabulary import Vocabulary


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Encodes documents anew, each merge dropped with probability p; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.tokenization import pretokenizers
    from stochastok_cli.tokenization.merge_table import merge_table
    from stochastok_cli.tokenization.methods.kernels.bpe_dropout import bytes_and_kept_tokens, merge_pretokens

    table = merge_table(stochastok.vocabulary, stochastok.kept)
    num_bytes = int((table.first[1:] - table.first[:-1])[ids].sum())
    text, starts = np.empty(num_bytes + 1, np.uint8), np.zeros(num_bytes + 1, np.uint8)
    kept_ids, kept_at = np.empty_like(ids), np.empty(len(ids), np.int64)
    num_words = np.count_nonzero(table.whole[ids]) if len(table.whole) else 0
    word_ids, word_at = np.empty(num_words, np.int64), np.empty(num_words, np.int64)
    ends = np.empty((len(lengths), 2), np.int64)
    segment_ends = np.empty(len(ids) + len(lengths), np.int64)
    num_segments = bytes_and_kept_tokens(
        ids, lengths, table, text, kept_ids, kept_at, word_ids, word_at, ends, segment_ends
    )
    pretokenizers.mark_pretokens(stochastok.vocabulary, text, segment_ends[:num_segments], starts)
    out, out_lengths = np.empty(num_bytes + len(ids) + 1, ids.dtype), np.empty_like(lengths)
    written = merge_pretokens(
        text,
        starts,
        kept_ids,
        kept_at,
        word_ids,
        word_at,
        ends,
        table,
        stochastok.p,
        stochastok.key,
        first_index,
        out,
        out_lengths,
    )
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

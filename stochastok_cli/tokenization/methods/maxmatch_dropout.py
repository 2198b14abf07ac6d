"""MaxMatch-dropout (Hiraoka 2022, Section 3): WordPiece again, with entries of the vocabulary dropped at random.

Words are those of WordPiece. At each position of a word, the longest entry that matches is dropped with probability p,
then the next longest, and so on; the shortest is never dropped. An entry behind which the word can't be completed is
not taken, as nothing may become the unknown token. With p = 0 this is WordPiece.
"""

import functools
from typing import TYPE_CHECKING

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.methods.base import Method, register_method
from stochastok_cli.tokenization.methods.fixed_rules import entry_ids

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


@functools.lru_cache(maxsize=4)
def match_tables(vocabulary: "Vocabulary", kept: frozenset[int]) -> "tuple[np.ndarray, ...]":
    """The arrays `stays`, `begins`, `text`, `first`, `child`, `sibling`, `label` and `entry` of the kernel."""
    import numpy as np

    child, sibling, label, entry = [-1], [-1], [-1], [-1]
    nodes: dict[tuple[int, int], int] = {}
    for piece, token in entry_ids(vocabulary).items():
        if token in vocabulary.added:
            continue
        node = 0
        for byte in piece:
            below = nodes.setdefault((node, byte), len(child))
            if below == len(child):
                sibling.append(child[node])
                child[node] = below
                child.append(-1)
                label.append(byte)
                entry.append(-1)
            node = below
        entry[node] = token
    whole = vocabulary.never_split | vocabulary.added | kept
    return (
        np.array([i in whole for i in range(vocabulary.size)]),
        np.array([piece.startswith(b" ") for piece in vocabulary.pieces]),
        np.frombuffer(b"".join(vocabulary.pieces), np.uint8),
        np.concatenate([[0], np.cumsum(vocabulary.widths)]),
        *(np.array(part, np.int32) for part in (child, sibling, label, entry)),
    )


def expand(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Encodes words anew with entries dropped; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.maxmatch_dropout import maxmatch_documents

    tables = match_tables(stochastok.vocabulary, stochastok.kept)
    out = np.empty(int(stochastok.vocabulary.widths[ids].sum()), ids.dtype)
    out_lengths = np.empty_like(lengths)
    written = maxmatch_documents(
        ids, lengths, float(stochastok.p), stochastok.key, first_index, *tables, out, out_lengths
    )
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
        require=require,
    )
)

"""BPE-dropout (Provilkov et al. 2020) from token ids: decode, cut into pretokens, merge again with merges dropped.

In each pretoken, from single bytes: at each step every applicable merge at each position is dropped with probability
p; of the survivors the best-ranked one (the leftmost of equals) is applied; the end is when none survives. A merge
that was dropped has a new chance at the next step. With p = 0 this is byte-pair encoding.

Ids that must stay are kept and cut the text: special tokens, and tokens with bytes that are no valid UTF-8.
"""

import functools
from typing import NamedTuple

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.methods.kernels.bpe_dropout import bytes_and_kept, merge_pretokens
from stochastok_cli.tokenization.pretokenizers import character_classes, cut_as_gpt2, cut_by_encoder
from stochastok_cli.tokenization.vocabulary import Vocabulary


class MergeTable(NamedTuple):
    """What the kernels know of a vocabulary.

    text: uint8, all tokens' bytes one after the other; first: int64 `(size + 1,)`, where each token's begin;
    special: bool `(size,)`; of_byte: int32 `(256,)`, the id of each byte; slots: uint64, a hash table of pairs,
    `left << 32 | right` or all ones; ranks: int32 of its size, each pair's rank; merged: int32 `(merges,)`, what the
    pair of a rank becomes; of_bytes: int32 `(256, 256)`, the rank of each pair of bytes or -1 (half of all look-ups).
    """

    text: np.ndarray
    first: np.ndarray
    special: np.ndarray
    of_byte: np.ndarray
    slots: np.ndarray
    ranks: np.ndarray
    merged: np.ndarray
    of_bytes: np.ndarray


def require_merges(vocabulary: Vocabulary) -> list[tuple[bytes, bytes]]:
    """The merge list. Raises UserError for a vocabulary that is no byte-level BPE with one."""
    if not vocabulary.merges:
        raise UserError(
            f"bpe-dropout needs the merge list of a byte-level BPE, which {vocabulary.name!r} does not have",
            fix="take another method, such as uniform",
        )
    return vocabulary.merges


@functools.lru_cache(maxsize=4)
def merge_table(vocabulary: Vocabulary, kept: frozenset[int] = frozenset()) -> MergeTable:
    """The table of a vocabulary; the tokens in `kept` stay as special ones do."""
    merges = require_merges(vocabulary)
    id_of = {piece: i for i, piece in enumerate(vocabulary.pieces) if not vocabulary.is_special(i)}
    missing = [byte for byte in range(256) if bytes([byte]) not in id_of]
    if missing:
        raise UserError(f"bpe-dropout needs a token for every byte; {vocabulary.name!r} has none for {missing[0]:#04x}")
    size = 1 << (2 * len(merges)).bit_length()
    slots = np.full(size, 2**64 - 1, dtype=np.uint64)
    ranks, of_bytes = np.zeros(size, np.int32), np.full((256, 256), -1, np.int32)
    taken: dict[int, int] = {}
    for rank, (left, right) in enumerate(merges):
        pair = id_of[left] << 32 | id_of[right]
        slot = (pair * 0x9E37_79B9_7F4A_7C15 & 2**64 - 1) >> 40 & size - 1
        while slot in taken:
            slot = slot + 1 & size - 1
        taken[slot] = pair
        slots[slot], ranks[slot] = pair, rank
        if len(left) == len(right) == 1:
            of_bytes[left[0], right[0]] = rank
    return MergeTable(
        np.frombuffer(b"".join(vocabulary.pieces), np.uint8),
        np.concatenate([[0], np.cumsum(vocabulary.widths)]),
        np.array([vocabulary.is_special(i) or i in kept for i in range(vocabulary.size)]),
        np.array([id_of[bytes([byte])] for byte in range(256)], np.int32),
        slots,
        ranks,
        np.array([id_of[left + right] for left, right in merges], np.int32),
        of_bytes,
    )


def drop_out(
    vocabulary: Vocabulary,
    table: MergeTable,
    ids: np.ndarray,
    lengths: np.ndarray,
    p: float,
    key: np.uint64,
    first_index: np.uint64,
) -> tuple[np.ndarray, np.ndarray]:
    """Tokenizes documents anew with BPE-dropout; arguments and result as in `StochasTok.documents`."""
    room = int((table.first[1:] - table.first[:-1])[ids].sum())
    text, cut = np.empty(room + 1, np.uint8), np.zeros(room + 1, np.uint8)
    kept, kept_at = np.empty_like(ids), np.empty(len(ids), np.int64)
    ends = np.empty((len(lengths), 2), np.int64)  # of each document, in the text and among the kept ids
    segments = np.empty(len(ids) + len(lengths), np.int64)
    number = bytes_and_kept(ids, lengths, table, text, kept, kept_at, ends, segments)
    if vocabulary.cuts_like_gpt2:
        cut_as_gpt2(text, segments[:number], character_classes(), cut)
    else:
        cut_by_encoder(vocabulary, text, segments[:number], cut)
    out = np.empty(room + len(ids) + 1, ids.dtype)
    new_lengths = np.empty_like(lengths)
    written = merge_pretokens(text, cut, kept, kept_at, ends, table, p, key, first_index, out, new_lengths)
    return out[:written], new_lengths

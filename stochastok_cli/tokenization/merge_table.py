"""The merges of a byte-level BPE vocabulary as arrays that compiled code looks up."""

import functools
from typing import NamedTuple

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.methods.kernels.bpe_dropout import EMPTY_SLOT, HASH_MULTIPLIER, HASH_SHIFT
from stochastok_cli.tokenization.vocabulary import Vocabulary

_NOT_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


class MergeTable(NamedTuple):
    """The merges of a vocabulary.

    byte_ids: int32 `[256]`, the id of each byte; -1 for those that occur in no UTF-8 and have none.
    slots: uint64 `[slots]`, a hash table of pairs, `left << 32 | right` or `EMPTY_SLOT`.
    ranks: int32 `[slots]`, the rank of each pair.
    merged: int32 `[merges]`, the id that the pair of a rank is merged into.
    byte_pair_ranks: int32 `[256, 256]`, the rank of each pair of bytes, or -1; it serves half of all look-ups.
    """

    byte_ids: np.ndarray
    slots: np.ndarray
    ranks: np.ndarray
    merged: np.ndarray
    byte_pair_ranks: np.ndarray


@functools.lru_cache(maxsize=4)
def require_merges(vocabulary: Vocabulary, method: str = "bpe-dropout") -> list[tuple[bytes, bytes]]:
    """The merge list of a vocabulary, for a method that merges pretokens again.

    Args:
        vocabulary: the vocabulary.
        method: the name of the method, for errors.

    Raises:
        UserError: with the reason, for a vocabulary that has no merge list or no token for some byte.
    """
    if not vocabulary.merges:
        raise UserError(
            f"{method} needs the merge list of a byte-level BPE, which {vocabulary.name!r} does not have: "
            f"{vocabulary.no_merges_reason}",
            fix="take another method, such as uniform",
        )
    ordinary = require_bytes(vocabulary, method)
    lacking = next(
        (part for pair in vocabulary.merges for part in (*pair, b"".join(pair)) if part not in ordinary), None
    )
    if lacking is not None:
        text = lacking.decode(errors="backslashreplace")
        raise UserError(
            f"{method} can't use the merges of {vocabulary.name!r}: its added token {text!r} is one of them"
        )
    return vocabulary.merges


def require_bytes(vocabulary: Vocabulary, method: str) -> dict[bytes, int]:
    """The id of each token that bytes may be merged into. Raises UserError for a byte of UTF-8 without a token."""
    ordinary = _ordinary_ids(vocabulary)
    missing = [byte for byte in range(256) if byte not in _NOT_UTF8 and bytes([byte]) not in ordinary]
    if missing:
        raise UserError(f"{method} needs a token for every byte; {vocabulary.name!r} has none for {missing[0]:#04x}")
    return ordinary


def _ordinary_ids(vocabulary: Vocabulary) -> dict[bytes, int]:
    """The id of each token that bytes may be merged into."""
    others = vocabulary.never_split | vocabulary.added
    return {piece: i for i, piece in enumerate(vocabulary.pieces) if i not in others}


@functools.lru_cache(maxsize=4)
def merge_table(vocabulary: Vocabulary, last_first: bool = False) -> MergeTable:
    """The merge table of a vocabulary.

    Args:
        vocabulary: a byte-level BPE (see `require_merges`).
        last_first: whether the last merge of the list has the best rank.
    """
    merges = require_merges(vocabulary)
    if last_first:
        merges = merges[::-1]
    id_of = _ordinary_ids(vocabulary)
    num_slots = 1 << (2 * len(merges)).bit_length()
    slots = np.full(num_slots, EMPTY_SLOT, dtype=np.uint64)
    ranks, byte_pair_ranks = np.zeros(num_slots, np.int32), np.full((256, 256), -1, np.int32)
    used: set[int] = set()
    for rank, (left, right) in enumerate(merges):
        pair = id_of[left] << 32 | id_of[right]
        slot = (pair * int(HASH_MULTIPLIER) % 2**64 >> int(HASH_SHIFT)) % num_slots
        while slot in used:
            slot = (slot + 1) % num_slots
        used.add(slot)
        slots[slot], ranks[slot] = pair, rank
        if len(left) == len(right) == 1:
            byte_pair_ranks[left[0], right[0]] = rank
    return MergeTable(
        byte_ids=np.array([id_of.get(bytes([byte]), -1) for byte in range(256)], np.int32),
        slots=slots,
        ranks=ranks,
        merged=np.array([id_of[left + right] for left, right in merges], np.int32),
        byte_pair_ranks=byte_pair_ranks,
    )

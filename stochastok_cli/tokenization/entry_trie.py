"""The entries of a vocabulary as a trie of bytes that compiled code walks."""

import functools
from typing import NamedTuple

import numpy as np

from stochastok_cli.tokenization.pretokenizers import token_bytes
from stochastok_cli.tokenization.vocabulary import Vocabulary


class EntryTrie(NamedTuple):
    """A trie of entries; node 0 is the root.

    The children of a node stand in a window of `child`, from that of its least byte to that of its largest.

    entry: int32 `[nodes]`, the id of the entry that ends at a node, or -1.
    low: int32 `[nodes]`, the least byte of a child.
    width: int32 `[nodes]`, the length of the window.
    first: int32 `[nodes]`, where the window begins.
    child: int32 `[windows]`, the node behind each byte, or 0 where there is none.
    """

    entry: np.ndarray
    low: np.ndarray
    width: np.ndarray
    first: np.ndarray
    child: np.ndarray

    @classmethod
    def of(cls, entries: dict[bytes, int]) -> "EntryTrie":
        """The trie of entries, given as the id of each text."""
        nodes: dict[int, int] = {}  # by parent and byte
        entry = [-1]
        for piece, token in entries.items():
            node = 0
            for byte in piece:
                node = nodes.setdefault(node << 8 | byte, len(entry))
                if node == len(entry):
                    entry.append(-1)
            entry[node] = token
        edges = np.array(sorted(nodes), np.int64)
        parents, starts = np.unique(edges >> 8, return_index=True)
        lows, highs = edges[starts] & 255, np.maximum.reduceat(edges & 255, starts)
        low, width = np.zeros(len(entry), np.int32), np.zeros(len(entry), np.int32)
        low[parents], width[parents] = lows, highs - lows + 1
        first = (np.cumsum(width) - width).astype(np.int32)
        child = np.zeros(int(width.sum()), np.int32)
        child[first[edges >> 8] + (edges & 255) - low[edges >> 8]] = [nodes[edge] for edge in edges.tolist()]
        return cls(np.array(entry, np.int32), low, width, first, child)


@functools.lru_cache(maxsize=4)
def entry_ids(vocabulary: Vocabulary) -> dict[bytes, int]:
    """The id of each text that has an entry.

    Of several entries with the same bytes (`1` and `<0x31>`), it is the one that the tokenizer makes of the text,
    alone or behind another.
    """
    ids_of: dict[bytes, list[int]] = {}
    for i, piece in enumerate(vocabulary.pieces):
        if i not in vocabulary.never_split:
            ids_of.setdefault(piece, []).append(i)
    chosen = {}
    for piece, ids in ids_of.items():
        chosen[piece] = ids[-1]
        if len(ids) > 1:
            text = piece.decode(errors="ignore")
            seen = {i for context in (text, f"a{text}", text * 2) for i in vocabulary.encode(context)}
            chosen[piece] = next((i for i in ids if i in seen), ids[-1])
    return chosen


@functools.lru_cache(maxsize=4)
def entry_trie(vocabulary: Vocabulary) -> EntryTrie:
    """The trie of the entries that a tokenizer may make of the text of a word: none that is special or added."""
    return EntryTrie.of({piece: i for piece, i in entry_ids(vocabulary).items() if i not in vocabulary.added})


class TokenMatches(NamedTuple):
    """The entries that match at each byte of each token, as a word on its own.

    first: int64 `[bytes + 1]`, where the matches at a byte of `TokenBytes.text` begin; the longest is last.
    length: int32 `[matches]`, the bytes of a match.
    entry: int32 `[matches]`, its id.
    """

    first: np.ndarray
    length: np.ndarray
    entry: np.ndarray


@functools.lru_cache(maxsize=4)
def token_matches(vocabulary: Vocabulary) -> TokenMatches:
    """The matches in each token behind which the rest of the token has entries."""
    from stochastok_cli.tokenization.methods.kernels.maxmatch_dropout import find_matches

    tokens, trie = token_bytes(vocabulary), entry_trie(vocabulary)
    first, none = np.empty(len(tokens.text) + 1, np.int64), np.empty(0, np.int32)
    num_matches = find_matches(tokens, trie, first, none, none)
    length, entry = np.empty(num_matches, np.int32), np.empty(num_matches, np.int32)
    find_matches(tokens, trie, first, length, entry)
    return TokenMatches(first, length, entry)

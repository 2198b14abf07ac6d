"""Compiled kernel of MaxMatch-dropout: the longest match from the left, with entries dropped at random."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import INCREMENT, compiled, document_state, unit


@compiled
def node_after(child, sibling, label, node, byte):
    """The node of the trie behind `node` along a byte, or -1."""
    node = child[node]
    while node >= 0 and label[node] != byte:
        node = sibling[node]
    return node


@compiled
def maxmatch_documents(
    ids, lengths, p, key, first_index, stays, begins, text, first, child, sibling, label, entry, out, out_lengths
):
    """Encodes the words of documents anew, each entry that matches dropped with probability `p`.

    A match from which the end of the word can't be reached is never taken, and the shortest one left is never dropped.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`, tokens of each document.
        p: probability, float64.
        key: uint64, names the random stream.
        first_index: uint64, the index of the first document in the stream.
        stays: bool `[size]`, the tokens that keep their ids, and that no word crosses.
        begins: bool `[size]`, the tokens that begin a word.
        text: uint8, the bytes of all tokens one after another.
        first: int64 `[size + 1]`, where the bytes of each token begin in `text`.
        child, sibling, label, entry: int32 `[nodes]`, the trie of the entries: the first node below a node, the next
            one beside it, its byte, and the id of the entry that ends there; -1 where there is none.
        out: dtype of `ids`, at least one id for each byte; the new ids are written to it.
        out_lengths: int64 `[documents]`; the new lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    word, ends = np.empty(64, np.uint8), np.empty(65, np.int64)
    chosen, reaches = np.empty(65, np.int64), np.empty(65, np.bool_)
    start = 0
    written = 0
    for d in range(len(lengths)):
        state = document_state(key, first_index + np.uint64(d))
        begin = written
        position, stop = start, start + lengths[d]
        while position < stop:
            if stays[ids[position]]:
                out[written] = ids[position]
                written += 1
                position += 1
                continue
            n = first[ids[position] + 1] - first[ids[position]]
            after = position + 1
            while after < stop and not stays[ids[after]] and not begins[ids[after]]:
                n += first[ids[after] + 1] - first[ids[after]]
                after += 1
            if n > len(word):
                word, ends = np.empty(2 * n, np.uint8), np.empty(2 * n + 1, np.int64)
                chosen, reaches = np.empty(2 * n + 1, np.int64), np.empty(2 * n + 1, np.bool_)
            size = 0
            for i in range(position, after):
                for j in range(first[ids[i]], first[ids[i] + 1]):
                    word[size] = text[j]
                    size += 1
            reaches[n] = True
            for i in range(n - 1, -1, -1):
                reaches[i] = False
                node, j = 0, i
                while j < n and not reaches[i]:
                    node = node_after(child, sibling, label, node, word[j])
                    if node < 0:
                        break
                    j += 1
                    reaches[i] = entry[node] >= 0 and reaches[j]
            i = 0
            while i < n:
                node, j, matches = 0, i, 0
                while j < n:
                    node = node_after(child, sibling, label, node, word[j])
                    if node < 0:
                        break
                    j += 1
                    if entry[node] >= 0 and reaches[j]:
                        ends[matches], chosen[matches] = j, entry[node]
                        matches += 1
                matches -= 1
                while matches > 0:
                    state = state + INCREMENT
                    if unit(state) >= p:
                        break
                    matches -= 1
                out[written] = chosen[matches]
                written += 1
                i = ends[matches]
            position = after
        start = stop
        out_lengths[d] = written - begin
    return written

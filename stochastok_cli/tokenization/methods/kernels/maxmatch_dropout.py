"""Compiled kernels of MaxMatch-dropout: the longest match from the left, with entries dropped at random."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.longest_first import node_after
from stochastok_cli.tokenization.methods.kernels.random import INCREMENT, compiled, document_state, unit


@compiled
def mark_reaches(text, start, end, trie, reaches):
    """Finds from which bytes of a word entries of a trie lead to its end.

    Args:
        text: The bytes of a document, uint8.
        start: Where the word begins in it.
        end: Where the word ends.
        trie: An `EntryTrie`.
        reaches: Set to whether that is so for each byte and for the end, bool `[end - start + 1]` or longer.
    """
    n = end - start
    reaches[n] = True
    for i in range(n - 1, -1, -1):
        reaches[i] = False
        node, j = np.int64(0), i
        while j < n and not reaches[i]:
            node = node_after(trie, node, text[start + j])
            if node == 0:
                break
            j += 1
            reaches[i] = trie.entry[node] >= 0 and reaches[j]


@compiled
def match_word(text, start, end, trie, p, state, reaches, ends, chosen, out, written):
    """Writes the entries of a word to `out[written:]`, each that matches dropped with probability `p`.

    A match from which the end of the word can't be reached is never taken, and the shortest one left is never dropped.

    Args:
        text: uint8; the word is `text[start:end]`.
        start, end: int64.
        trie: the `EntryTrie`.
        p: probability, float64.
        state: uint64, the state of the random stream.
        reaches, ends, chosen: bool and int64 `[end - start + 1]`, working memory.
        out: the ids are written to it.
        written: where to write in `out`.

    Returns:
        `(written, state)`.
    """
    n = end - start
    mark_reaches(text, start, end, trie, reaches)
    i = 0
    while i < n:
        node, j, matches = np.int64(0), i, 0
        while j < n:
            node = node_after(trie, node, text[start + j])
            if node == 0:
                break
            j += 1
            if trie.entry[node] >= 0 and reaches[j]:
                ends[matches], chosen[matches] = j, trie.entry[node]
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
    return written, state


@compiled
def find_matches(tokens, trie, first, length, entry):
    """Finds the entries that match at each byte of each token, as a word on its own, the longest last.

    Args:
        tokens: the `TokenBytes`.
        trie: the `EntryTrie`.
        first: int64 `[bytes + 1]`, parallel to `tokens.text`; where the matches at a byte begin is written to it.
        length, entry: int32 `[matches]`; the bytes and the id of each match are written to them, if they are not empty.

    Returns:
        The number of matches.
    """
    num_matches = 0
    reaches = np.empty(np.max(tokens.first[1:] - tokens.first[:-1]) + 1, np.bool_)
    for token in range(len(tokens.kept)):
        start, end = tokens.first[token], tokens.first[token + 1]
        mark_reaches(tokens.text, start, end, trie, reaches)
        for at in range(start, end):
            first[at] = num_matches
            node, j = np.int64(0), at
            while j < end:
                node = node_after(trie, node, tokens.text[j])
                if node == 0:
                    break
                j += 1
                if trie.entry[node] >= 0 and reaches[j - start]:
                    if len(length):
                        length[num_matches], entry[num_matches] = j - at, trie.entry[node]
                    num_matches += 1
    first[-1] = num_matches
    return num_matches


@compiled
def maxmatch_documents(ids, lengths, p, key, first_index, begins, tokens, trie, matches, out, out_lengths):
    """Encodes the words of documents anew, each entry that matches dropped with probability `p`.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`, tokens of each document.
        p: probability, float64.
        key: uint64, names the random stream.
        first_index: uint64, the index of the first document in the stream.
        begins: bool `[size]`, the tokens that begin a word.
        tokens: the `TokenBytes`; no word crosses a token that is kept.
        trie: the `EntryTrie`.
        matches: the `TokenMatches`.
        out: dtype of `ids`, at least one id for each byte and each token; the new ids are written to it.
        out_lengths: int64 `[documents]`; the new lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    text, first = tokens.text, tokens.first
    word, ends = np.empty(64, np.uint8), np.empty(65, np.int64)
    chosen, reaches = np.empty(65, np.int64), np.empty(65, np.bool_)
    start = 0
    written = 0
    for d in range(len(lengths)):
        state = document_state(key, first_index + np.uint64(d))
        begin = written
        position, stop = start, start + lengths[d]
        while position < stop:
            if tokens.kept[ids[position]]:
                out[written] = ids[position]
                written += 1
                position += 1
                continue
            at, end = first[ids[position]], first[ids[position] + 1]
            n = end - at
            after = position + 1
            if after == stop or tokens.kept[ids[after]] or begins[ids[after]]:  # most words are one token
                while at < end:
                    least, chosen_match = matches.first[at], matches.first[at + 1] - 1
                    while chosen_match > least:
                        state = state + INCREMENT
                        if unit(state) >= p:
                            break
                        chosen_match -= 1
                    out[written] = matches.entry[chosen_match]
                    written += 1
                    at += matches.length[chosen_match]
                position = after
                continue
            while after < stop and not tokens.kept[ids[after]] and not begins[ids[after]]:
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
            written, state = match_word(word, 0, n, trie, p, state, reaches, ends, chosen, out, written)
            position = after
        start = stop
        out_lengths[d] = written - begin
    return written

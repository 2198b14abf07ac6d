"""Compiled kernel of the rule `longest-first`, and the step along an `EntryTrie`."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import compiled


@compiled
def node_after(trie, node, byte):
    """The node of an `EntryTrie` behind `node` along a byte, or 0."""
    offset = np.int64(byte) - trie.low[node]
    if offset < 0 or offset >= trie.width[node]:
        return np.int64(0)
    return np.int64(trie.child[trie.first[node] + offset])


@compiled
def match_pretokens(documents, trie, out, out_lengths):
    """Writes the longest entries from the left of each pretoken of documents. Every byte must have an entry.

    Args:
        documents: the `PretokenizedDocuments`.
        trie: the `EntryTrie`.
        out: dtype of the ids, `[bytes + tokens]`; the new ids are written to it.
        out_lengths: int64 `[documents]`; the new lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    written, at, num_kept = np.int64(0), np.int64(0), np.int64(0)
    for d in range(len(out_lengths)):
        begin = written
        text_end, kept_end = documents.ends[d, 0], documents.ends[d, 1]
        while at < text_end or num_kept < kept_end:
            if num_kept < kept_end and documents.kept_at[num_kept] == at:
                out[written] = documents.kept_ids[num_kept]
                written += 1
                num_kept += 1
                continue
            node, i = np.int64(0), at
            while i < text_end and (i == at or documents.starts[i] == 0):
                node = node_after(trie, node, documents.text[i])
                if node == 0:
                    break
                i += 1
                if trie.entry[node] >= 0:
                    out[written] = trie.entry[node]
                    end = i
            written += 1
            at = end
        out_lengths[d] = written - begin
    return written

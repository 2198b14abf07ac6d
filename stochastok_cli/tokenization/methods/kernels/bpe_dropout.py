"""Compiled kernel of BPE-dropout: the merges of each pretoken. `table` is a `MergeTable`."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import INCREMENT, compiled, document_state, unit

# Pairs of ids are hashed by multiplication (Knuth, The Art of Computer Programming 3, Section 6.4).
HASH_MULTIPLIER = np.uint64(0x9E37_79B9_7F4A_7C15)
HASH_SHIFT = np.uint64(40)
EMPTY_SLOT = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_32_BITS = np.uint64(32)
MEMORY_SLOTS = 1 << 16
"""Pretokens whose ids are remembered where nothing is drawn, a power of 2."""


@compiled
def rank_of(table, left, right):
    """The rank of the merge of two tokens, or -1 if there is none."""
    pair = np.uint64(left) << _32_BITS | np.uint64(right)
    mask = np.uint64(len(table.slots) - 1)
    slot = ((pair * HASH_MULTIPLIER) >> HASH_SHIFT) & mask
    while True:
        entry = table.slots[slot]
        if entry == pair:
            return np.int64(table.ranks[slot])
        if entry == EMPTY_SLOT:
            return np.int64(-1)
        slot = (slot + np.uint64(1)) & mask


@compiled
def sift_up(heap, i):
    """Restores the order of a binary heap (int64) whose entry `i` may be too small for its place."""
    while i > 0 and heap[(i - 1) >> 1] > heap[i]:
        heap[i], heap[(i - 1) >> 1] = heap[(i - 1) >> 1], heap[i]
        i = (i - 1) >> 1


@compiled
def sift_down(heap, size):
    """Restores the order of a binary heap (int64) whose first entry may be too large for its place."""
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            return
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= heap[i]:
            return
        heap[i], heap[child] = heap[child], heap[i]
        i = child


@compiled
def push(heap, size, rank, i):
    """Adds the merge of a rank at symbol `i` to the heap, unless the rank is -1. Returns the new size."""
    if rank >= 0:
        heap[size] = rank << 32 | i
        sift_up(heap, size)
        size += 1
    return size


@compiled
def merge_pretokens(documents, tokens, table, p, key, first_index, out, out_lengths):
    """Draws from the law of BPE-dropout (Provilkov et al. 2020, Algorithm 1) for each pretoken of each document.

    The applicable merges of a pretoken are kept in a heap, ordered by rank and position. A step takes them from the
    heap until one survives, and puts the dropped ones back. Two applicable merges at one position never have the same
    rank, so an entry whose rank is no longer that of its position is out of date and is discarded.

    With p = 0 equal pretokens have equal ids. Each is then looked up by the hash of its bytes, and the ids of
    an earlier one are copied.

    One function, as compiled code that is divided further is slower.

    Args:
        documents: the `PretokenizedDocuments`. A word among them that is a pretoken keeps its id.
        tokens: their `TokenBytes`.
        table: the `MergeTable`.
        p: the probability that a merge is dropped, float64.
        key: uint64, names the random stream.
        first_index: uint64, the index of the first document in the stream.
        out: dtype of the ids, `[bytes + tokens]`; the new ids are written to it.
        out_lengths: int64 `[documents]`; the new lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    text, starts, kept_ids, kept_at, word_ids, word_at, ends = documents
    written, at, num_kept, word = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    longest, run = 1, 0
    for i in range(ends[-1, 0] if len(ends) else 0):
        run = 1 if starts[i] else run + 1
        longest = max(longest, run)
    symbol = np.empty(longest, dtype=np.int64)
    next_symbol = np.empty(longest, dtype=np.int64)
    previous_symbol = np.empty(longest, dtype=np.int64)
    rank_at = np.empty(longest, dtype=np.int64)
    heap = np.empty(3 * longest + 3, dtype=np.int64)
    dropped = np.empty(3 * longest + 3, dtype=np.int64)
    remembers = p == 0
    # Of each slot: where a pretoken is in `text`, its bytes, where its ids are in `out`, and how many these are.
    memory = np.zeros((MEMORY_SLOTS if remembers else 1, 4), dtype=np.int64)
    for d in range(len(out_lengths)):
        state = document_state(key, first_index + np.uint64(d))
        begin = written
        while at < ends[d, 0] or num_kept < ends[d, 1]:
            if num_kept < ends[d, 1] and kept_at[num_kept] == at:
                out[written] = kept_ids[num_kept]
                written += 1
                num_kept += 1
                continue
            n = 1
            while at + n < ends[d, 0] and starts[at + n] == 0:
                n += 1
            while word < len(word_at) and word_at[word] < at:
                word += 1
            whole = word_ids[word] if word < len(word_at) and word_at[word] == at else -1
            if whole >= 0 and tokens.first[whole + 1] - tokens.first[whole] == n:
                out[written] = whole
                written += 1
                at += n
                continue
            slot = np.uint64(0)
            if remembers:
                for i in range(n):
                    slot = (slot ^ np.uint64(text[at + i])) * HASH_MULTIPLIER
                slot = (slot >> HASH_SHIFT) & np.uint64(MEMORY_SLOTS - 1)
                earlier = memory[slot, 0]
                same = memory[slot, 1] == n
                i = 0
                while same and i < n:
                    same = text[earlier + i] == text[at + i]
                    i += 1
                if same:
                    for i in range(memory[slot, 2], memory[slot, 2] + memory[slot, 3]):
                        out[written] = out[i]
                        written += 1
                    at += n
                    continue
                memory[slot] = at, n, written, 0
            size = 0
            for i in range(n):
                symbol[i] = table.byte_ids[text[at + i]]
                next_symbol[i] = i + 1
                previous_symbol[i] = i - 1
                rank_at[i] = table.byte_pair_ranks[text[at + i], text[at + i + 1]] if i + 1 < n else -1
                size = push(heap, size, rank_at[i], i)
            at += n
            while size > 0:
                num_dropped = 0
                applied = False
                while size > 0 and not applied:
                    entry = heap[0]
                    size -= 1
                    heap[0] = heap[size]
                    sift_down(heap, size)
                    i = entry & np.int64(0xFFFF_FFFF)
                    if rank_at[i] != entry >> 32:
                        continue
                    state = state + INCREMENT
                    if unit(state) < p:
                        dropped[num_dropped] = entry
                        num_dropped += 1
                        continue
                    applied = True
                    right = next_symbol[i]
                    symbol[i] = table.merged[rank_at[i]]
                    after = next_symbol[i] = next_symbol[right]
                    rank_at[right] = -1
                    rank_at[i] = -1
                    if after < n:
                        previous_symbol[after] = i
                        rank_at[i] = rank_of(table, symbol[i], symbol[after])
                        size = push(heap, size, rank_at[i], i)
                    if previous_symbol[i] >= 0:
                        j = previous_symbol[i]
                        rank_at[j] = rank_of(table, symbol[j], symbol[i])
                        size = push(heap, size, rank_at[j], j)
                if not applied:
                    break
                for k in range(num_dropped):
                    heap[size] = dropped[k]
                    sift_up(heap, size)
                    size += 1
            i = 0
            while i < n:
                out[written] = symbol[i]
                written += 1
                i = next_symbol[i]
            if remembers:
                memory[slot, 3] = written - memory[slot, 2]
        out_lengths[d] = written - begin
    return written

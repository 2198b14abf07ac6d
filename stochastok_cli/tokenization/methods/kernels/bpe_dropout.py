"""Compiled kernel of BPE-dropout: from ids to bytes, and the merges of each pretoken. `table` is a `MergeTable`."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import INCREMENT, compiled, document_state, unit

# Pairs of ids are hashed by multiplication (Knuth, The Art of Computer Programming 3, Section 6.4).
HASH_MULTIPLIER = np.uint64(0x9E37_79B9_7F4A_7C15)
HASH_SHIFT = np.uint64(40)
EMPTY_SLOT = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_32_BITS = np.uint64(32)


@compiled
def valid_width(text, i, end):
    """The number of bytes of the UTF-8 character at `text[i]`, or 0 where none begins (Unicode 15, table 3-7)."""
    a = text[i]
    if a < 0x80:
        return 1
    if a < 0xC2 or a > 0xF4:
        return 0
    width = 2 if a < 0xE0 else (3 if a < 0xF0 else 4)
    if i + width > end:
        return 0
    low, high = 0x80, 0xBF
    if a == 0xE0:
        low = 0xA0
    elif a == 0xED:
        high = 0x9F
    elif a == 0xF0:
        low = 0x90
    elif a == 0xF4:
        high = 0x8F
    if text[i + 1] < low or text[i + 1] > high:
        return 0
    for j in range(2, width):
        if text[i + j] < 0x80 or text[i + j] > 0xBF:
            return 0
    return width


@compiled
def mark_invalid(run, table, text, start, end):
    """Which tokens of `run` (ids `[tokens]`), whose bytes are `text[start:end]`, must keep their ids.

    These are the tokens with a byte that belongs to no UTF-8 character, and those that share a character with one of
    them.

    Returns:
        bool `[tokens]`.
    """
    owner = np.empty(end - start, dtype=np.int64)
    size = 0
    for i in range(len(run)):
        for _ in range(table.first[run[i] + 1] - table.first[run[i]]):
            owner[size] = i
            size += 1
    stays = np.zeros(len(run), dtype=np.bool_)
    changed = True
    while changed:
        changed = False
        i = start
        while i < end:
            width = valid_width(text, i, end)
            any_stays = width == 0
            width = max(width, 1)
            for j in range(i, i + width):
                any_stays = any_stays or stays[owner[j - start]]
            if any_stays:
                for j in range(i, i + width):
                    changed = changed or not stays[owner[j - start]]
                    stays[owner[j - start]] = True
            i += width
    return stays


@compiled
def bytes_and_kept_tokens(ids, lengths, table, text, kept_ids, kept_at, word_ids, word_at, ends, segment_ends):
    """Decodes documents to bytes, apart from the tokens that keep their ids.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`.
        table: the `MergeTable`.
        text: uint8 `[bytes + 1]`; the bytes are written to it.
        kept_ids: dtype of `ids`, `[tokens]`; the ids that are kept are written to it.
        kept_at: int64 `[tokens]`; the position in `text` of each of them.
        word_ids, word_at: int64 `[words]`; the ids among the whole words of the table, and their positions in `text`,
            are written to them.
        ends: int64 `[documents, 2]`; where each document ends in `text` and in `kept_ids`.
        segment_ends: int64 `[tokens + documents]`; the positions in `text` that no pretoken may cross: the end of
            each document and the position of each kept token.

    Returns:
        The number of segments.
    """
    size, num_kept, num_segments, num_words = np.int64(0), np.int64(0), 0, 0
    start = np.int64(0)
    for d in range(len(lengths)):
        stop = start + lengths[d]
        i = start
        while i < stop:
            j = i
            before, words_before = size, num_words
            while j < stop and not table.kept[ids[j]]:
                if len(word_ids) and table.whole[ids[j]]:
                    word_ids[num_words], word_at[num_words] = ids[j], size
                    num_words += 1
                a, b = table.first[ids[j]], table.first[ids[j] + 1]
                text[size : size + b - a] = table.text[a:b]
                size += b - a
                j += 1
            at = before
            while at < size:
                width = valid_width(text, at, size)
                if width == 0:
                    break
                at += width
            if at < size:
                stays = mark_invalid(ids[i:j], table, text, before, size)
                size, num_words = before, words_before
                for t in range(i, j):
                    if stays[t - i]:
                        kept_ids[num_kept], kept_at[num_kept] = ids[t], size
                        num_kept += 1
                        segment_ends[num_segments] = size
                        num_segments += 1
                    else:
                        if len(word_ids) and table.whole[ids[t]]:
                            word_ids[num_words], word_at[num_words] = ids[t], size
                            num_words += 1
                        a, b = table.first[ids[t]], table.first[ids[t] + 1]
                        text[size : size + b - a] = table.text[a:b]
                        size += b - a
            if j < stop:
                kept_ids[num_kept], kept_at[num_kept] = ids[j], size
                num_kept += 1
                segment_ends[num_segments] = size
                num_segments += 1
            i = j + 1
        start = stop
        segment_ends[num_segments] = size
        num_segments += 1
        ends[d, 0], ends[d, 1] = size, num_kept
    word_at[num_words:] = -1
    return num_segments


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
def merge_pretokens(
    text, starts, kept_ids, kept_at, word_ids, word_at, ends, table, p, key, first_index, out, out_lengths
):
    """Draws from the law of BPE-dropout (Provilkov et al. 2020, Algorithm 1) for each pretoken of each document.

    The applicable merges of a pretoken are kept in a heap, ordered by rank and position. A step takes them from the
    heap until one survives, and puts the dropped ones back. Two applicable merges at one position never have the same
    rank, so an entry whose rank is no longer that of its position is out of date and is discarded.

    One function, as compiled code that is divided further is slower.

    Args:
        text: uint8 `[bytes + 1]`.
        starts: uint8 `[bytes + 1]`, 1 where a pretoken begins.
        kept_ids, kept_at, word_ids, word_at, ends: see `bytes_and_kept_tokens`. A word that is a pretoken keeps its id.
        table: the `MergeTable`.
        p: the probability that a merge is dropped, float64.
        key: uint64, names the random stream.
        first_index: uint64, the index of the first document in the stream.
        out: dtype of the ids, `[bytes + tokens]`; the new ids are written to it.
        out_lengths: int64 `[documents]`; the new lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
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
            if whole >= 0 and table.first[whole + 1] - table.first[whole] == n:
                out[written] = whole
                written += 1
                at += n
                continue
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
        out_lengths[d] = written - begin
    return written

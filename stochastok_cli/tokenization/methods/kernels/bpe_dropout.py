"""Compiled loops of BPE-dropout: ids to bytes, and the merges of each pretoken. `table` is a `MergeTable`."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.segmentation import unit
from stochastok_cli.tokenization.methods.kernels.splitting import _GOLDEN, compiled, mix

_HASH = np.uint64(0x9E37_79B9_7F4A_7C15)
_S32, _S40 = np.uint64(32), np.uint64(40)


@compiled
def valid_width(text, i, end):
    """The bytes of the UTF-8 character at `i`, or 0 where none begins there (Unicode 15, table 3-7)."""
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
    """Which tokens of `run`, whose bytes are `text[start:end]`, must stay: bool `(tokens,)`.

    Those with a byte that belongs to no UTF-8 character, and those that share a character with one that stays.
    """
    owner = np.empty(end - start, dtype=np.int64)
    place = 0
    for i in range(len(run)):
        for _ in range(table.first[run[i] + 1] - table.first[run[i]]):
            owner[place] = i
            place += 1
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
def bytes_and_kept(ids, lengths, table, text, kept, kept_at, ends, segments):
    """Spells documents as bytes, apart from the ids that must stay.

    Fills `text` with the bytes, `kept` with the ids that stay and `kept_at` with their places in the text, `ends`
    `(documents, 2)` with the ends of each document in both, and `segments` with the places where the text must be
    cut: each document's end and each id that stays. Returns the number of segments.
    """
    size, keeps, number = np.int64(0), np.int64(0), 0
    start = np.int64(0)
    for d in range(len(lengths)):
        stop = start + lengths[d]
        i = start
        while i < stop:
            j = i
            before = size
            while j < stop and not table.special[ids[j]]:
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
                size = before
                for t in range(i, j):
                    if stays[t - i]:
                        kept[keeps], kept_at[keeps] = ids[t], size
                        keeps += 1
                        segments[number] = size
                        number += 1
                    else:
                        a, b = table.first[ids[t]], table.first[ids[t] + 1]
                        text[size : size + b - a] = table.text[a:b]
                        size += b - a
            if j < stop:
                kept[keeps], kept_at[keeps] = ids[j], size
                keeps += 1
                segments[number] = size
                number += 1
            i = j + 1
        start = stop
        segments[number] = size
        number += 1
        ends[d, 0], ends[d, 1] = size, keeps
    return number


@compiled
def rank_of(table, left, right):
    """The rank of the merge of two tokens, or -1 if there is none."""
    pair = np.uint64(left) << _S32 | np.uint64(right)
    mask = np.uint64(len(table.slots) - 1)
    slot = ((pair * _HASH) >> _S40) & mask
    while True:
        found = table.slots[slot]
        if found == pair:
            return np.int64(table.ranks[slot])
        if found == np.uint64(0xFFFF_FFFF_FFFF_FFFF):
            return np.int64(-1)
        slot = (slot + np.uint64(1)) & mask


@compiled
def sift_up(heap, i):
    while i > 0 and heap[(i - 1) >> 1] > heap[i]:
        heap[i], heap[(i - 1) >> 1] = heap[(i - 1) >> 1], heap[i]
        i = (i - 1) >> 1


@compiled
def sift_down(heap, size):
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
    """Adds the merge of that rank at symbol `i`, if it is one (not -1); returns the heap's size."""
    if rank >= 0:
        heap[size] = rank << 32 | i
        sift_up(heap, size)
        size += 1
    return size


@compiled
def merge_pretokens(text, cut, kept, kept_at, ends, table, p, key, first_index, out, out_lengths):
    """Merges every pretoken of every document with dropout and writes all ids to `out`; returns how many.

    `cut` is 1 where a pretoken begins; `kept`, `kept_at` and `ends` are those of `bytes_and_kept`. The applicable
    merges of a pretoken lie in a heap by rank and place. A step takes them from it until one survives, and puts the
    dropped ones back. No two applicable merges at one place have one rank, so an entry whose rank is no longer that
    of its place is out of date and is thrown away.
    """
    written, place, keep = np.int64(0), np.int64(0), np.int64(0)
    longest, run = 1, 0
    for i in range(ends[-1, 0] if len(ends) else 0):
        run = 1 if cut[i] else run + 1
        longest = max(longest, run)
    symbol = np.empty(longest, dtype=np.int64)
    following = np.empty(longest, dtype=np.int64)
    before = np.empty(longest, dtype=np.int64)
    rank_at = np.empty(longest, dtype=np.int64)
    heap = np.empty(3 * longest + 3, dtype=np.int64)
    dropped = np.empty(3 * longest + 3, dtype=np.int64)
    for d in range(len(out_lengths)):
        state = mix(key + mix(first_index + np.uint64(d)))
        begin = written
        while place < ends[d, 0] or keep < ends[d, 1]:
            if keep < ends[d, 1] and kept_at[keep] == place:
                out[written] = kept[keep]
                written += 1
                keep += 1
                continue
            n = 1
            while place + n < ends[d, 0] and cut[place + n] == 0:
                n += 1
            size = 0
            for i in range(n):
                symbol[i] = table.of_byte[text[place + i]]
                following[i] = i + 1
                before[i] = i - 1
                rank_at[i] = table.of_bytes[text[place + i], text[place + i + 1]] if i + 1 < n else -1
                size = push(heap, size, rank_at[i], i)
            place += n
            while size > 0:
                number = 0
                applied = False
                while size > 0 and not applied:
                    entry = heap[0]
                    size -= 1
                    heap[0] = heap[size]
                    sift_down(heap, size)
                    i = entry & np.int64(0xFFFF_FFFF)
                    if rank_at[i] != entry >> 32:
                        continue
                    state = state + _GOLDEN
                    if unit(state) < p:
                        dropped[number] = entry
                        number += 1
                        continue
                    applied = True
                    right = following[i]
                    symbol[i] = table.merged[rank_at[i]]
                    after = following[i] = following[right]
                    rank_at[right] = -1
                    rank_at[i] = -1
                    if after < n:
                        before[after] = i
                        rank_at[i] = rank_of(table, symbol[i], symbol[after])
                        size = push(heap, size, rank_at[i], i)
                    if before[i] >= 0:
                        j = before[i]
                        rank_at[j] = rank_of(table, symbol[j], symbol[i])
                        size = push(heap, size, rank_at[j], j)
                if not applied:
                    break
                for k in range(number):
                    heap[size] = dropped[k]
                    sift_up(heap, size)
                    size += 1
            i = 0
            while i < n:
                out[written] = symbol[i]
                written += 1
                i = following[i]
        out_lengths[d] = written - begin
    return written

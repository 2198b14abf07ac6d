"""Compiled kernels of Patok: runs of tokens merged into entries, and pair splits of tokens that are no affix."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import INCREMENT, compiled, document_state, mix, unit
from stochastok_cli.tokenization.methods.kernels.splitting import working_arrays

# The bytes of a run are hashed as a polynomial over 2^64 (Karp and Rabin 1987): the hash of two texts one after another
# is that of the first times a power, plus that of the second.
_BASE = np.uint64(0x5851_F42D_4C95_7F2D)
_32_BITS = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFF_FFFF)
_TWO_32 = np.uint64(2**32)
_MOST = 4  # tokens of a run


@compiled
def powers(longest):
    """The powers 0 to `longest` of the base, uint64."""
    power = np.ones(longest + 1, np.uint64)
    for i in range(longest):
        power[i + 1] = power[i] * _BASE
    return power


def hash_tokens(text, start):
    """The hash of each token, uint64 `[size]`; for the arguments see `EntryTable`."""
    widths = np.diff(start)
    hashed = np.zeros(len(widths), np.uint64)
    for i in range(int(widths.max(initial=0))):
        longer = np.flatnonzero(widths > i)
        hashed[longer] = hashed[longer] * _BASE + text[start[longer] + i].astype(np.uint64) + np.uint64(1)
    return hashed


@compiled
def fill_slots(hashed, entries, slots):
    """Puts entries (int32) into the slots of a hash table."""
    mask = np.uint64(len(slots) - 1)
    for entry in entries:
        slot = mix(hashed[entry]) & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = entry


@compiled
def find_entry(table, run, size, hashed, width):
    """The entry with the bytes of a run, or -1.

    Args:
        table: the `EntryTable`.
        run: ids, of which the first `size` are the run.
        size: tokens of the run.
        hashed: the hash of its bytes.
        width: the number of its bytes.
    """
    mask = np.uint64(len(table.slots) - 1)
    slot = mix(hashed) & mask
    while table.slots[slot] >= 0:
        entry = table.slots[slot]
        slot = (slot + np.uint64(1)) & mask
        at = table.start[entry]
        if table.hashed[entry] != hashed or table.start[entry + 1] - at != width:
            continue
        equal = True
        for i in range(size):
            for j in range(table.start[run[i]], table.start[run[i] + 1]):
                equal = equal and table.text[j] == table.text[at]
                at += 1
        if equal:
            return entry
    return -1


@compiled
def draw_below(size, state):
    """A number drawn uniformly from 0 to `size` - 1, exactly (Lemire 2019). Returns it and the new state."""
    state = state + INCREMENT
    product = (mix(state) >> _32_BITS) * np.uint64(size)
    if (product & _LOW_HALF) < np.uint64(size):
        threshold = (_TWO_32 - np.uint64(size)) % np.uint64(size)
        while (product & _LOW_HALF) < threshold:
            state = state + INCREMENT
            product = (mix(state) >> _32_BITS) * np.uint64(size)
    return np.int64(product >> _32_BITS), state


@compiled
def contract_documents(
    ids, lengths, attempts, capacity, pretoken, awareness, key, first_index, entries, affixes, out, out_lengths
):
    """Contracts documents, in time proportional to tokens plus attempts.

    The tokens of a document are a linked list. A uniform draw does not depend on their order, so `drawn` holds them in
    any order, and a token that is removed gives its place to the last one. A run that would cross the end of the
    document is drawn again.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`.
        attempts: int64 `[documents]`, attempted merges.
        capacity: int64 `[documents]`, the most tokens that each document can have at any time.
        pretoken: int64 `[tokens]`. Tokens with the same number may be merged; a negative one is in no run.
        awareness: the probability that a run with an affix stays, and that an entry is divided at an affix.
        key: uint64, names the random stream.
        first_index: uint64, the index of the first document in the stream.
        entries: the `EntryTable`.
        affixes: the `AffixTable`.
        out: dtype of `ids`, `[sum of capacity]`; the contracted ids are written to it.
        out_lengths: int64 `[documents]`; the new lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    longest = 1
    for tokens in capacity:
        longest = max(longest, tokens)
    token, following = np.empty(longest, np.int64), np.empty(longest, np.int64)
    word, drawn, place = np.empty(longest, np.int64), np.empty(longest, np.int64), np.empty(longest, np.int64)
    run, parts = np.empty(_MOST, np.int64), np.empty(_MOST, np.int64)
    run_ids = np.empty(_MOST, np.int64)
    widest = len(entries.power) - 1
    start, written = 0, 0
    for d in range(len(lengths)):
        size = n = lengths[d]
        for i in range(n):
            token[i], word[i] = ids[start + i], pretoken[start + i]
            following[i], drawn[i], place[i] = i + 1, i, i
        if n:
            following[n - 1] = -1
        free = -1  # removed tokens, whose places are used again
        nodes = n
        state = document_state(key, first_index + np.uint64(d))
        for _ in range(attempts[d]):
            state = state + INCREMENT
            u = unit(state)
            k = 2 if u < 0.35 else (3 if u < 0.7 else 4)
            if size < k:
                continue
            position = -1
            while position < 0:
                i, state = draw_below(size, state)
                run[0] = position = drawn[i]
                for j in range(1, k):
                    position = following[position] if position >= 0 else -1
                    run[j] = position
            hashed, width, merges = np.uint64(0), 0, True
            for j in range(k):
                run_ids[j] = token[run[j]]
                merges = merges and word[run[j]] == word[run[0]] >= 0
                more = entries.start[run_ids[j] + 1] - entries.start[run_ids[j]]
                width += more
                if not merges or width > widest:
                    merges = False
                    break
                hashed = hashed * entries.power[more] + entries.hashed[run_ids[j]]
            entry = find_entry(entries, run_ids, k, hashed, width) if merges else -1
            if entry < 0:
                continue
            has_affix = False
            for j in range(k):
                has_affix = has_affix or affixes.is_affix[run_ids[j]]
            if has_affix:
                state = state + INCREMENT
                if unit(state) < awareness:
                    continue
            count = 1
            parts[0] = entry
            ways = affixes.first[entry + 1] - affixes.first[entry]
            if ways > 0:
                state = state + INCREMENT
                if unit(state) < awareness:
                    i, state = draw_below(ways, state)
                    count = 0
                    for j in range(3):
                        if affixes.parts[affixes.first[entry] + i, j] >= 0:
                            parts[j] = affixes.parts[affixes.first[entry] + i, j]
                            count += 1
            after = following[run[k - 1]]
            for j in range(count, k):
                size -= 1
                moved = drawn[size]
                drawn[place[run[j]]] = moved
                place[moved] = place[run[j]]
                following[run[j]] = free
                free = run[j]
            for j in range(k, count):
                if free >= 0:
                    run[j] = free
                    free = following[free]
                else:
                    run[j] = nodes
                    nodes += 1
                drawn[size], place[run[j]], word[run[j]] = run[j], size, word[run[0]]
                size += 1
            for j in range(count):
                token[run[j]] = parts[j]
                following[run[j]] = run[j + 1] if j + 1 < count else after
        begin = written
        i = 0 if n else -1
        while i >= 0:
            out[written] = token[i]
            written += 1
            i = following[i]
        out_lengths[d] = written - begin
        start += n
    return written


@compiled
def expand_documents(
    ids, lengths, attempts, capacity, max_splits, key, first_index, first, left, right, is_affix, out, out_lengths
):
    """Expands documents by pair splits as `stochastok` does, of tokens that are no affix alone.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`.
        attempts: int64 `[documents]`, attempted splits.
        capacity: int64 `[documents]`, the most tokens that each document can have afterwards.
        max_splits: the most successful splits in one document, -1 for no limit.
        key: uint64, names the random stream.
        first_index: uint64, the index of the first document in the stream.
        first, left, right: the `SplitTable`.
        is_affix: bool `[size]`, the tokens that are never drawn.
        out: dtype of `ids`, `[sum of capacity]`; the expanded ids are written to it.
        out_lengths: int64 `[documents]`; the expanded lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    parts, next_part = working_arrays(capacity, out)
    drawn = np.empty(len(parts), np.int32)
    start, written = 0, 0
    for d in range(len(lengths)):
        n = size = lengths[d]
        num_drawn = 0
        for i in range(n):
            parts[i], next_part[i] = ids[start + i], 0
            if not is_affix[ids[start + i]]:
                drawn[num_drawn] = i
                num_drawn += 1
        start += n
        state = document_state(key, first_index + np.uint64(d))
        for _ in range(attempts[d]):
            if size - n == max_splits or num_drawn == 0:
                break
            i, state = draw_below(num_drawn, state)
            position = drawn[i]
            row = first[parts[position]]
            choices = np.int64(first[np.int64(parts[position]) + 1] - row)
            if choices == 0:
                continue
            j, state = draw_below(choices, state)
            parts[position], parts[size] = left[row + j], right[row + j]
            next_part[size] = next_part[position]
            next_part[position] = size
            if is_affix[left[row + j]]:
                num_drawn -= 1
                drawn[i] = drawn[num_drawn]
            if not is_affix[right[row + j]]:
                drawn[num_drawn] = size
                num_drawn += 1
            size += 1
        begin = written
        for i in range(n):
            part = np.int64(i)
            out[written] = parts[part]
            written += 1
            part = np.int64(next_part[part])
            while part != 0:
                out[written] = parts[part]
                written += 1
                part = np.int64(next_part[part])
        out_lengths[d] = written - begin
    return written

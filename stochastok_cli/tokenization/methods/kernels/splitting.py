"""The compiled kernel of StochasTok (arXiv 2506.01687, Algorithm 2)."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import INCREMENT, compiled, document_state, mix

_32_BITS = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFF_FFFF)
_TWO_32 = np.uint64(2**32)


@compiled
def working_arrays(max_tokens, out):
    """Arrays for the longest document: the parts (dtype of `out`), and the next part of each (int32)."""
    longest = np.int64(0)
    for tokens in max_tokens:
        longest = max(longest, tokens)
    return np.empty(longest, dtype=out.dtype), np.empty(longest, dtype=np.int32)


@compiled
def split_document(n, attempts, max_splits, state, first, left, right, parts, next_part):
    """Draws from the law of Algorithm 2: `attempts` attempted splits of the `n` ids at the beginning of `parts`.

    Afterwards `parts` holds `size` tokens in the order in which they were made. The parts of the original token `i`
    are `i`, `next_part[i]`, `next_part[next_part[i]]`, … until 0. The time grows with the attempts alone.

    Why this is the law of the algorithm: an attempt draws uniformly from the current tokens, and a uniform draw does
    not depend on their order. So the first part of a split replaces its token, the second is appended, and only
    `next_part` remembers the order of the text. Draws are exactly uniform, by multiplication with rejection (Lemire
    2019): the high half of the bits draws the token, the low half its split.

    Args:
        n: The ids of the document, which `parts` begins with.
        attempts: How many splits are attempted.
        max_splits: The most that succeed.
        state: The SplitMix64 state, uint64.
        first: As in `SplitTable`, like the next two.
        left: The first part of each split.
        right: The second part of each split.
        parts: From `working_arrays`, like the next one: tokens of the type of ids.
        next_part: The place of the part that follows, int32; 0 where none does.

    Returns:
        `(size, state)`: how many tokens `parts` holds, and the next state.
    """
    size = n
    for _ in range(attempts):
        if size - n == max_splits:
            break
        state = state + INCREMENT
        bits = mix(state)
        product = (bits >> _32_BITS) * np.uint64(size)
        if (product & _LOW_HALF) < np.uint64(size):
            threshold = (_TWO_32 - np.uint64(size)) % np.uint64(size)
            while (product & _LOW_HALF) < threshold:
                state = state + INCREMENT
                bits = mix(state)
                product = (bits >> _32_BITS) * np.uint64(size)
        position = np.int64(product >> _32_BITS)
        row = first[parts[position]]
        choices = np.int64(first[np.int64(parts[position]) + 1] - row)
        if choices == 0:
            continue
        if choices > 1:
            product = (bits & _LOW_HALF) * np.uint64(choices)
            if (product & _LOW_HALF) < np.uint64(choices):
                threshold = (_TWO_32 - np.uint64(choices)) % np.uint64(choices)
                while (product & _LOW_HALF) < threshold:
                    state = state + INCREMENT
                    product = (mix(state) & _LOW_HALF) * np.uint64(choices)
            row += np.int64(product >> _32_BITS)
        parts[position] = left[row]
        parts[size] = right[row]
        next_part[size] = next_part[position]
        next_part[position] = size
        size += 1
    return size, state


@compiled
def stochastok_documents(
    ids, lengths, attempts, max_tokens, max_splits, key, first_index, first, left, right, out, out_lengths
):
    """Expands documents by `stochastok`, in time proportional to tokens plus attempts.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`, tokens of each document.
        attempts: int64 `[documents]`, attempted splits.
        max_tokens: int64 `[documents]`, the most tokens that each document can have afterwards.
        max_splits: the most successful splits in one document, -1 for no limit.
        key: uint64, names the random stream.
        first_index: uint64, the index of the first document in the stream.
        first, left, right: the `SplitTable`.
        out: dtype of `ids`, `[sum of max_tokens]`; the expanded ids are written to it.
        out_lengths: int64 `[documents]`; the expanded lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    parts, next_part = working_arrays(max_tokens, out)
    start = np.int64(0)
    written = np.int64(0)
    for d in range(len(lengths)):
        n = lengths[d]
        parts[:n] = ids[start : start + n]
        next_part[:n] = 0
        start += n
        state = document_state(key, first_index + np.uint64(d))
        split_document(n, attempts[d], max_splits, state, first, left, right, parts, next_part)
        begin = written
        for i in range(n):
            out[written] = parts[i]
            written += 1
            part = next_part[i]
            while part != 0:
                out[written] = parts[part]
                written += 1
                part = next_part[part]
        out_lengths[d] = written - begin
    return written

"""The compiled kernel of expansion. Where numba is missing or switched off, the same function runs interpreted.

Random numbers are SplitMix64 outputs (Steele, Lea and Flood 2014): document `i` of a stream reads the outputs that
follow the state `mix(stream key + mix(i))`, so documents are independent and may be expanded in any order.
"""

from typing import Any

import numpy as np

try:
    import numba
except ImportError:  # pragma: no cover - a machine without a compiler for its platform
    numba = None  # type: ignore[assignment]

_GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)
_MIX_1 = np.uint64(0xBF58_476D_1CE4_E5B9)
_MIX_2 = np.uint64(0x94D0_49BB_1331_11EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_LOW = np.uint64(0xFFFF_FFFF)
_TWO_32 = np.uint64(2**32)


def compiled(function: Any) -> Any:
    """`function` compiled without the GIL, its machine code kept between runs where a folder for that is writable."""
    if numba is None:
        return function
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no place for the cache
        return numba.njit(nogil=True)(function)


@compiled
def mix(z):
    """SplitMix64's output function on a uint64."""
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@compiled
def scratch(most_tokens, out):
    """Working arrays for the longest document: its tokens, and for each the one that follows it in its place."""
    longest = np.int64(0)
    for most in most_tokens:
        longest = max(longest, most)
    return np.empty(longest, dtype=out.dtype), np.empty(longest, dtype=np.int32)


@compiled
def split_document(n, attempts, max_splits, state, first, left, right, token, after):
    """StochasTok on one document (paper, Algorithm 2): `attempts` attempts on the `n` ids at the start of `token`.

    Afterwards `token` holds the `size` parts in the order of their making; the parts of original token `i` are `i`,
    `after[i]`, `after[after[i]]`, … until 0. Returns `(size, state)`. Time grows with the attempts alone.

    Why this has the law of the algorithm: an attempt draws uniformly from the current tokens, and a uniform draw does
    not depend on their order. So the second part of each split is appended (the first replaces the token), and only
    `after` remembers the order of the text. Draws are exactly uniform, by multiplication with rejection (Lemire 2019).
    """
    size = n
    for _ in range(attempts):
        if size - n == max_splits:
            break
        state = state + _GOLDEN
        bits = mix(state)
        product = (bits >> _S32) * np.uint64(size)
        if (product & _LOW) < np.uint64(size):
            threshold = (_TWO_32 - np.uint64(size)) % np.uint64(size)
            while (product & _LOW) < threshold:
                state = state + _GOLDEN
                bits = mix(state)
                product = (bits >> _S32) * np.uint64(size)
        position = np.int64(product >> _S32)
        row = first[token[position]]
        choices = np.int64(first[np.int64(token[position]) + 1] - row)
        if choices == 0:
            continue
        if choices > 1:
            product = (bits & _LOW) * np.uint64(choices)
            if (product & _LOW) < np.uint64(choices):
                threshold = (_TWO_32 - np.uint64(choices)) % np.uint64(choices)
                while (product & _LOW) < threshold:
                    state = state + _GOLDEN
                    product = (mix(state) & _LOW) * np.uint64(choices)
            row += np.int64(product >> _S32)
        token[position] = left[row]
        token[size] = right[row]
        after[size] = after[position]
        after[position] = size
        size += 1
    return size, state


@compiled
def expand_documents(
    ids, lengths, attempts, most_tokens, max_splits, key, first_index, first, left, right, out, out_lengths
):
    """StochasTok on many documents, in time proportional to tokens plus attempts.

    ids: uint16 or uint32 `(tokens,)`, the documents one after the other; lengths, attempts: int64 `(documents,)`;
    most_tokens: int64, the most tokens that each document can come to; max_splits: most successful splits in one
    document; key, first_index: uint64; first, left, right: the split table; out: `(sum of most_tokens,)` of the ids'
    type; out_lengths: int64 `(documents,)`.
    Returns the number of ids written to `out`.
    """
    token, after = scratch(most_tokens, out)
    start = np.int64(0)
    written = np.int64(0)
    for d in range(len(lengths)):
        n = lengths[d]
        token[:n] = ids[start : start + n]
        after[:n] = 0
        start += n
        state = mix(key + mix(first_index + np.uint64(d)))
        split_document(n, attempts[d], max_splits, state, first, left, right, token, after)
        begin = written
        for i in range(n):
            out[written] = token[i]
            written += 1
            following = after[i]
            while following != 0:
                out[written] = token[following]
                written += 1
                following = after[following]
        out_lengths[d] = written - begin
    return written

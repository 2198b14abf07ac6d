"""Compiled kernel of `uniform-k`: exactly K splits in a document, uniform over all of its refinements with K splits.

A refinement is a segmentation of each token. So the split counts k_1 … k_n of the tokens have a probability
proportional to the product of the tokens' numbers of segmentations N_t(k), given that they sum to K. They are drawn
exactly, on whole documents:

1. Give k splits of a token the weight N_t(k) z^k. For any z the conditional law given the sum is the same; z is
   chosen so that the expected sum is K (Newton's method), which makes a sum of K likely.
2. Draw the splits of all tokens but m independently. The m others can make up the rest R = K - sum with a known
   probability D(R), the convolution of their laws. Accept with probability D(R) / max D, else draw again.
3. Draw the m others given that they sum to R, backwards through the convolution.
4. Draw each token's segmentation uniformly from those with its number of splits.

About sqrt(n / m) rounds are needed, and the convolution costs some m^2, so m grows slowly with n.
"""

import math

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import INCREMENT, compiled, document_state, unit
from stochastok_cli.tokenization.methods.kernels.reachable_splits import reachable_splits
from stochastok_cli.tokenization.methods.kernels.segmentation import draw_segmentation_of_size


@compiled
def fit_z(ways, max_splits, counts, splits):
    """The z at which a document is expected to have `splits` splits, to a third of a standard deviation.

    Newton's method on log z, kept inside a shrinking bracket. An inexact z costs time, never correctness.

    Args:
        ways: float64 `[types, splits + 1]`, the segmentations of each token type by number of splits.
        max_splits: int64 `[types]`, the most splits of each type.
        counts: int64 `[types]`, how often each type occurs in the document.
        splits: the expected splits of the whole document, more than 0.
    """
    pairs = 0.0
    for i in range(len(max_splits)):
        pairs += counts[i] * ways[i, 1]
    x = math.log(splits / pairs) if pairs > 0 else 0.0
    longest = 12
    for i in range(len(max_splits)):
        longest = max(longest, max_splits[i])
    low, high = -60.0, 700.0 / longest  # beyond, the powers leave the range of doubles
    z = 1.0
    for _ in range(60):
        z = math.exp(x)
        expected = 0.0
        variance = 0.0
        for i in range(len(max_splits)):
            power = 1.0 if z <= 1 else z ** np.float64(-max_splits[i])  # the common factor keeps large powers in range
            weight = 0.0
            mean = 0.0
            square = 0.0
            for k in range(max_splits[i] + 1):
                w = ways[i, k] * power
                weight += w
                mean += w * k
                square += w * k * k
                power *= z
            mean /= weight
            expected += counts[i] * mean
            variance += counts[i] * (square / weight - mean * mean)
        if abs(expected - splits) <= 0.3 * np.sqrt(variance):
            break
        if expected < splits:
            low = x
        else:
            high = x
        step = x + (splits - expected) / variance if variance > 0 else high + 1.0
        x = step if low < step < high else 0.5 * (low + high)
    return z


@compiled
def to_distribution_functions(ways, max_splits, z):
    """Turns each row of `ways` into the distribution function of the number of splits, k splits weighing z^k."""
    for i in range(len(max_splits)):
        power = 1.0 if z <= 1 else z ** np.float64(-max_splits[i])
        total = 0.0
        for k in range(max_splits[i] + 1):
            total += ways[i, k] * power
            ways[i, k] = total
            power *= z
        for k in range(max_splits[i]):
            ways[i, k] /= total
        ways[i, max_splits[i]] = 1.0


@compiled
def splittable_tokens(lattice, document, slot, chosen):
    """The tokens of a document that can be split, and their types.

    Args:
        lattice: the `SegmentationLattice`.
        document: its ids `[n]`.
        slot: int32 `[vocabulary size]`, all -1 before and after.
        chosen: int32 `[n or more]`; set to 0 for the document.

    Returns:
        `(positions, type_of, max_splits, counts, ways)`: the positions of those tokens and the type of each, int32;
        the most splits of each type and how often it occurs, int64; its segmentations by number of splits, float64
        `[types, most splits of all + 1]`.
    """
    positions = np.empty(len(document), dtype=np.int32)
    type_of = np.empty(len(document), dtype=np.int32)
    type_ids = np.empty(len(document), dtype=np.int32)
    counts = np.zeros(len(document), dtype=np.int64)
    num_positions, num_types, width = 0, 0, 2
    for i in range(len(document)):
        token = document[i]
        chosen[i] = 0
        if lattice.max_splits[token] > 0:
            t = slot[token]
            if t < 0:
                t = num_types
                slot[token] = t
                type_ids[t] = token
                width = max(width, lattice.max_splits[token] + 1)
                num_types += 1
            counts[t] += 1
            positions[num_positions] = i
            type_of[num_positions] = t
            num_positions += 1
    max_splits = np.empty(num_types, dtype=np.int64)
    ways = np.zeros((num_types, width))
    for t in range(num_types):
        token = type_ids[t]
        slot[token] = -1
        max_splits[t] = lattice.max_splits[token]
        for k in range(max_splits[t] + 1):
            ways[t, k] = lattice.ways[lattice.cell[token] + 1 + k]
    return positions[:num_positions], type_of[:num_positions], max_splits, counts[:num_types], ways


@compiled
def convolve_tails(type_of, max_splits, law, splits):
    """`tails[j, r]`: the probability that the tokens of `type_of` from the j-th on make r splits, r up to `splits`."""
    top = np.int64(0)
    for t in type_of:
        top += max_splits[t]
    top = min(top, splits)
    tails = np.zeros((len(type_of) + 1, top + 1))
    tails[len(type_of), 0] = 1.0
    reach = np.int64(0)
    for j in range(len(type_of) - 1, -1, -1):
        row, below, t = tails[j], tails[j + 1], type_of[j]
        for k in range(max_splits[t] + 1):
            weight = law[t, k] - law[t, k - 1] if k > 0 else law[t, 0]
            if weight > 0:
                for r in range(min(reach, top - k) + 1):
                    row[r + k] += weight * below[r]
        reach = min(reach + max_splits[t], top)
    return tails


@compiled
def draw_split_counts(lattice, document, splits, state, slot, chosen):
    """Draws the number of splits of each token from their conditional law, given that they sum to `splits`.

    One function, as compiled code that is divided further is slower.

    Args:
        lattice: the `SegmentationLattice`.
        document: its ids `[n]`.
        splits: a possible number of splits, more than 0.
        state: the SplitMix64 state.
        slot: see `splittable_tokens`.
        chosen: int32 `[n or more]`; the numbers are written to it.

    Returns:
        The next state.
    """
    positions, type_of, max_splits, counts, law = splittable_tokens(lattice, document, slot, chosen)
    to_distribution_functions(law, max_splits, fit_z(law, max_splits, counts, splits))
    none = law[:, 0].copy()
    m = min(len(positions), 8 + int(0.5 * len(positions) ** 0.6))
    head = len(positions) - m
    tails = convolve_tails(type_of[head:], max_splits, law, splits)
    top = tails.shape[1] - 1
    best = tails[0].max()
    while True:
        remaining = splits
        for j in range(head):
            state = state + INCREMENT
            u = unit(state)
            k = 0
            if u >= none[type_of[j]]:
                k = 1
                while u >= law[type_of[j], k]:
                    k += 1
                remaining -= k
                if remaining < 0:
                    break
            chosen[positions[j]] = k
        if 0 <= remaining <= top:
            state = state + INCREMENT
            if unit(state) * best < tails[0, remaining]:
                break
    for j in range(m):
        t = type_of[head + j]
        state = state + INCREMENT
        u = unit(state) * tails[j, remaining]
        taken = 0
        for k in range(min(max_splits[t], remaining) + 1):
            weight = (law[t, k] - law[t, k - 1] if k > 0 else law[t, 0]) * tails[j + 1, remaining - k]
            if weight > 0:
                taken = k
                u -= weight
                if u < 0:
                    break
        chosen[positions[head + j]] = taken
        remaining -= taken
    return state


@compiled
def uniform_k_documents(ids, lengths, splits, key, first_index, lattice, out, out_lengths):
    """Expands documents by `uniform-k`: uniform over the refinements of each document with its number of splits, or
    with the largest possible number below that.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`, tokens of each document.
        splits: int64 `[documents]`.
        key: uint64, names the random stream.
        first_index: uint64, the index of the first document in the stream.
        lattice: the `SegmentationLattice`.
        out: dtype of `ids`; must have space for all tokens and splits. The expanded ids are written to it.
        out_lengths: int64 `[documents]`; the expanded lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    slot = np.full(len(lattice.length), -1, dtype=np.int32)
    longest = np.int64(0)
    for d in range(len(lengths)):
        longest = max(longest, lengths[d])
    chosen = np.zeros(longest, dtype=np.int32)
    start = np.int64(0)
    written = np.int64(0)
    for d in range(len(lengths)):
        n = lengths[d]
        document = ids[start : start + n]
        start += n
        state = document_state(key, first_index + np.uint64(d))
        num_splits = reachable_splits(lattice, document, splits[d], slot)
        if num_splits > 0:
            state = draw_split_counts(lattice, document, num_splits, state, slot, chosen)
        begin = written
        for i in range(n):
            if num_splits > 0 and chosen[i] > 0:
                written, state = draw_segmentation_of_size(lattice, document[i], chosen[i] + 1, state, out, written)
            else:
                out[written] = document[i]
                written += 1
        out_lengths[d] = written - begin
    return written

"""`uniform-k`: exactly K splits in a document, uniform over all refinements of it with that many.

A refinement is a segmentation of each token, so the numbers of splits k_1 … k_n have a probability proportional to
the product of the tokens' counts N_t(k), given that they sum to K. Drawn exactly, on whole documents:

1. Give k splits of a token the weight N_t(k) z^k. For any z the conditional law given the sum is the same; z is
   chosen so that the expected sum is K (Newton's method), which makes hitting K likely.
2. Draw the splits of all tokens but m independently. The m others can make up the rest R = K - sum with a known
   probability D(R), the convolution of their laws. Accept with probability D(R) / max D, else draw again.
3. Draw the m others given that they sum to R, backwards through the convolution.
4. Draw each token's segmentation uniformly from those with its number of splits.

About sqrt(n / m) rounds are needed, and the convolution costs some m^2, so m grows slowly with n.
"""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.segmentation import draw_pieces, unit
from stochastok_cli.tokenization.methods.kernels.splitting import _GOLDEN, compiled, mix


@compiled
def fitting_z(ways, most, counts, splits):
    """The z at which the expected splits of a document are `splits`, near enough (a third of a standard deviation).

    `ways[i, k]` are the segmentations of a type of token with k splits, `most[i]` its most splits, `counts[i]` how
    often the document has it. Newton's method on log z, kept inside a shrinking bracket. An inexact z costs time,
    never correctness.
    """
    pairs = 0.0
    for i in range(len(most)):
        pairs += counts[i] * ways[i, 1]
    x = np.log(splits / pairs) if pairs > 0 else 0.0
    longest = 12
    for i in range(len(most)):
        longest = max(longest, most[i])
    low, high = -60.0, 700.0 / longest  # beyond, the powers leave the range of doubles
    z = 1.0
    for _ in range(60):
        z = np.exp(x)
        expected = 0.0
        variance = 0.0
        for i in range(len(most)):
            power = 1.0 if z <= 1 else z ** -most[i]  # the common factor keeps large powers in range
            weight = 0.0
            mean = 0.0
            square = 0.0
            for k in range(most[i] + 1):
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
def tilt(ways, most, z):
    """Turns each row of counts into the distribution function of its number of splits when k splits weigh z^k."""
    for i in range(len(most)):
        power = 1.0 if z <= 1 else z ** -most[i]
        total = 0.0
        for k in range(most[i] + 1):
            total += ways[i, k] * power
            ways[i, k] = total
            power *= z
        for k in range(most[i]):
            ways[i, k] /= total
        ways[i, most[i]] = 1.0


@compiled
def reachable(lattice, document, splits):
    """The largest number of splits up to `splits` that the document's tokens can have together.

    Tokens whose possible numbers have no gaps reach every sum; only the others must be tried out.
    """
    together = np.int64(0)
    gaps = False
    for token in document:
        together += lattice.most[token]
        gaps = gaps or not lattice.dense[token]
    if not gaps or together <= splits:
        return min(splits, together)
    smooth = np.int64(0)
    possible = np.zeros(splits + 1, dtype=np.bool_)
    possible[0] = True
    for token in document:
        if lattice.dense[token]:
            smooth += lattice.most[token]
            continue
        base = lattice.cell[token] + 1
        for total in range(splits, 0, -1):
            for k in range(1, min(lattice.most[token], total) + 1):
                if lattice.ways[base + k] > 0 and possible[total - k]:
                    possible[total] = True
                    break
    best = np.int64(0)
    for total in range(splits + 1):
        if possible[total]:
            best = max(best, min(total + smooth, splits))
    return best


@compiled
def types_of(lattice, document, slot, chosen):
    """The tokens of a document that can be split, and their types: `(places, kinds, most, counts, ways)`.

    places: int32, where they stand; kinds: int32, the type of each; of each type: most, its most splits; counts, how
    often it occurs; ways `(types, most splits of all + 1)`, its segmentations by number of splits. `slot` is int32 of
    the vocabulary's size, all -1 before and after. `chosen` is set to 0.
    """
    places = np.empty(len(document), dtype=np.int32)
    kinds = np.empty(len(document), dtype=np.int32)
    types = np.empty(len(document), dtype=np.int32)
    counts = np.zeros(len(document), dtype=np.int64)
    number, found, width = 0, 0, 2
    for i in range(len(document)):
        token = document[i]
        chosen[i] = 0
        if lattice.most[token] > 0:
            kind = slot[token]
            if kind < 0:
                kind = found
                slot[token] = kind
                types[kind] = token
                width = max(width, lattice.most[token] + 1)
                found += 1
            counts[kind] += 1
            places[number] = i
            kinds[number] = kind
            number += 1
    most = np.empty(found, dtype=np.int64)
    ways = np.zeros((found, width))
    for kind in range(found):
        token = types[kind]
        slot[token] = -1
        most[kind] = lattice.most[token]
        for k in range(most[kind] + 1):
            ways[kind, k] = lattice.ways[lattice.cell[token] + 1 + k]
    return places[:number], kinds[:number], most, counts[:found], ways


@compiled
def convolve_rest(kinds, most, law, splits):
    """`rest[j, r]`: the probability that the tokens of `kinds` from the j-th on make r splits, r up to `splits`."""
    top = np.int64(0)
    for kind in kinds:
        top += most[kind]
    top = min(top, splits)
    rest = np.zeros((len(kinds) + 1, top + 1))
    rest[len(kinds), 0] = 1.0
    reach = np.int64(0)
    for j in range(len(kinds) - 1, -1, -1):
        row, below, kind = rest[j], rest[j + 1], kinds[j]
        for k in range(most[kind] + 1):
            weight = law[kind, k] - law[kind, k - 1] if k > 0 else law[kind, 0]
            if weight > 0:
                for r in range(min(reach, top - k) + 1):
                    row[r + k] += weight * below[r]
        reach = min(reach + most[kind], top)
    return rest


@compiled
def draw_splits(lattice, document, splits, state, slot, chosen):
    """Fills `chosen` (int32, one per token of `document`) with numbers of splits that sum to `splits`.

    `splits` must be possible and more than 0; `slot` as in `types_of`. Returns the state.
    """
    places, kinds, most, counts, law = types_of(lattice, document, slot, chosen)
    tilt(law, most, fitting_z(law, most, counts, splits))
    none = law[:, 0].copy()
    m = min(len(places), 8 + int(0.5 * len(places) ** 0.6))
    head = len(places) - m
    rest = convolve_rest(kinds[head:], most, law, splits)
    top = rest.shape[1] - 1
    best = rest[0].max()
    while True:
        left = splits
        for j in range(head):
            state = state + _GOLDEN
            u = unit(state)
            k = 0
            if u >= none[kinds[j]]:
                k = 1
                while u >= law[kinds[j], k]:
                    k += 1
                left -= k
                if left < 0:
                    break
            chosen[places[j]] = k
        if 0 <= left <= top:
            state = state + _GOLDEN
            if unit(state) * best < rest[0, left]:
                break
    for j in range(m):
        kind = kinds[head + j]
        state = state + _GOLDEN
        u = unit(state) * rest[j, left]
        taken = 0
        for k in range(min(most[kind], left) + 1):
            weight = (law[kind, k] - law[kind, k - 1] if k > 0 else law[kind, 0]) * rest[j + 1, left - k]
            if weight > 0:
                taken = k
                u -= weight
                if u < 0:
                    break
        chosen[places[head + j]] = taken
        left -= taken
    return state


@compiled
def uniform_k_documents(ids, lengths, splits, key, first_index, lattice, out, out_lengths):
    """`uniform-k` on many documents: `splits` (int64 `(documents,)`) in each, or as many as there can be.

    Arguments as in `kernels.expand_documents`; `out` must hold lengths plus splits. Returns the ids written.
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
        state = mix(key + mix(first_index + np.uint64(d)))
        wanted = reachable(lattice, document, splits[d])
        if wanted > 0:
            state = draw_splits(lattice, document, wanted, state, slot, chosen)
        begin = written
        for i in range(n):
            if wanted > 0 and chosen[i] > 0:
                written, state = draw_pieces(lattice, document[i], chosen[i] + 1, state, out, written)
            else:
                out[written] = document[i]
                written += 1
        out_lengths[d] = written - begin
    return written

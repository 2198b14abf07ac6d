"""Compiled loops over the lattice of segmentations: counting them, drawing one, and the methods that draw them.

`lattice` is a `segmentations.Lattice`. Random numbers come from SplitMix64 states as in `kernels`: a function that
draws takes a state and returns the next one. Draws by weight compare a 53-bit uniform number with sums of float64
weights, so a probability is off by no more than the rounding of doubles.
"""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.splitting import _GOLDEN, compiled, mix, scratch, split_document

_S11 = np.uint64(11)
_UNIT = 2.0**-53


@compiled
def unit(state):
    """A float64 uniform over [0, 1) in steps of 2^-53, of a SplitMix64 state."""
    return np.float64(mix(state) >> _S11) * _UNIT


@compiled
def count_segmentations(lattice):
    """Fills `ways`, `total`, `most` and `dense` by the recurrence in the docstring of `segmentations`."""
    ways, total = lattice.ways, lattice.total
    for token in range(len(lattice.length)):
        n = lattice.length[token]
        width = n + 1
        base, node = lattice.cell[token], lattice.node[token]
        ways[base + n * width] = 1.0
        total[node + n] = 1.0
        for i in range(n - 1, -1, -1):
            row = base + i * width
            for e in range(lattice.edge[node + i], lattice.edge[node + i + 1]):
                j = lattice.target[e]
                for k in range(1, n - i + 1):
                    ways[row + k] += ways[base + j * width + k - 1]
                total[node + i] += total[node + j]
        pieces = 0
        for k in range(1, n + 1):
            if ways[base + k] > 0:
                pieces += 1
                lattice.most[token] = k - 1
        lattice.dense[token] = pieces == lattice.most[token] + 1


@compiled
def draw_any(lattice, token, state, out, written):
    """Writes a segmentation of `token`, uniform over all of them, to `out[written:]`; returns `(written, state)`."""
    i = 0
    node = lattice.node[token]
    while i < lattice.length[token]:
        state = state + _GOLDEN
        left = unit(state) * lattice.total[node + i]
        chosen = lattice.edge[node + i]
        for e in range(lattice.edge[node + i], lattice.edge[node + i + 1]):
            weight = lattice.total[node + lattice.target[e]]
            if weight > 0:
                chosen = e
                left -= weight
                if left < 0:
                    break
        out[written] = lattice.piece[chosen]
        written += 1
        i = lattice.target[chosen]
    return written, state


@compiled
def draw_pieces(lattice, token, pieces, state, out, written):
    """The same, uniform over the segmentations into exactly `pieces` pieces (there must be one)."""
    i = 0
    node, base = lattice.node[token], lattice.cell[token]
    width = lattice.length[token] + 1
    for k in range(pieces, 0, -1):
        state = state + _GOLDEN
        left = unit(state) * lattice.ways[base + i * width + k]
        chosen = lattice.edge[node + i]
        for e in range(lattice.edge[node + i], lattice.edge[node + i + 1]):
            weight = lattice.ways[base + lattice.target[e] * width + k - 1]
            if weight > 0:
                chosen = e
                left -= weight
                if left < 0:
                    break
        out[written] = lattice.piece[chosen]
        written += 1
        i = lattice.target[chosen]
    return written, state


@compiled
def uniform_documents(ids, lengths, p, key, first_index, lattice, out, out_lengths):
    """`uniform`: each token is, with probability `p`, replaced by a draw from all of its segmentations.

    Arguments as in `kernels.expand_documents`; `out` must hold one id for each byte. Returns the ids written.
    """
    start = np.int64(0)
    written = np.int64(0)
    for d in range(len(lengths)):
        state = mix(key + mix(first_index + np.uint64(d)))
        begin = written
        for place in range(start, start + lengths[d]):
            token = ids[place]
            if lattice.total[lattice.node[token]] > 1.0:
                state = state + _GOLDEN
                if unit(state) < p:
                    written, state = draw_any(lattice, token, state, out, written)
                    continue
            out[written] = token
            written += 1
        start += lengths[d]
        out_lengths[d] = written - begin
    return written


@compiled
def stochastok_uni_documents(
    ids, lengths, attempts, most_tokens, max_splits, key, first_index, first, left, right, lattice, out, out_lengths
):
    """`stochastok-uni`: the numbers of splits that StochasTok gives, each token's segmentation drawn anew.

    Arguments as in `kernels.expand_documents`. Returns the ids written.
    """
    token, after = scratch(most_tokens, out)
    start = np.int64(0)
    written = np.int64(0)
    for d in range(len(lengths)):
        n = lengths[d]
        token[:n] = ids[start : start + n]
        after[:n] = 0
        state = mix(key + mix(first_index + np.uint64(d)))
        _, state = split_document(n, attempts[d], max_splits, state, first, left, right, token, after)
        begin = written
        for i in range(n):
            pieces = 1
            following = after[i]
            while following != 0:
                pieces += 1
                following = after[following]
            if pieces == 1:
                out[written] = ids[start + i]
                written += 1
            else:
                written, state = draw_pieces(lattice, ids[start + i], pieces, state, out, written)
        start += n
        out_lengths[d] = written - begin
    return written

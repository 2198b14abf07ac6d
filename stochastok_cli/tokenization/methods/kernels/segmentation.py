"""Compiled loops over a `SegmentationLattice`: counting segmentations, drawing one, and the methods that draw them.

A function that draws takes a SplitMix64 state and returns the next one. Draws by weight compare a 53-bit uniform
number with sums of float64 weights, so a probability is off by no more than the rounding of doubles.
"""

import math

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import INCREMENT, compiled, document_state, unit
from stochastok_cli.tokenization.methods.kernels.splitting import split_document, working_arrays


@compiled
def count_segmentations(lattice):
    """Fills `ways`, `total`, `max_splits` and `dense` by the recurrence of `segmentation_lattice`."""
    ways, total = lattice.ways, lattice.total
    for token in lattice.tokens:
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
        num_counts = 0
        for k in range(1, n + 1):
            if ways[base + k] > 0:
                num_counts += 1
                lattice.max_splits[token] = k - 1
        lattice.dense[token] = num_counts == lattice.max_splits[token] + 1


@compiled
def draw_segmentation(lattice, token, state, out, written):
    """Draws a segmentation of `token`, uniform over all of them, and writes it to `out[written:]`.

    Args:
        lattice: A `SegmentationLattice` in which the token has segmentations.
        token: Its id.
        state: The SplitMix64 state, uint64.
        out: Ids `[tokens]`, with room for as many as the token has bytes.
        written: How many ids `out` holds.

    Returns:
        `(written, state)`: how many ids `out` holds now, and the next state.
    """
    i = 0
    node = lattice.node[token]
    while i < lattice.length[token]:
        state = state + INCREMENT
        remaining = unit(state) * lattice.total[node + i]
        chosen = lattice.edge[node + i]
        for e in range(lattice.edge[node + i], lattice.edge[node + i + 1]):
            weight = lattice.total[node + lattice.target[e]]
            if weight > 0:
                chosen = e
                remaining -= weight
                if remaining < 0:
                    break
        out[written] = lattice.piece[chosen]
        written += 1
        i = lattice.target[chosen]
    return written, state


@compiled
def draw_segmentation_of_size(lattice, token, num_parts, state, out, written):
    """Draws a segmentation of `token`, uniform over those with exactly `num_parts` parts.

    The segmentation is written to `out[written:]`. The arguments are those of `draw_segmentation`, and:

    Args:
        num_parts: A number of parts that the token has a segmentation with.

    Returns:
        `(written, state)`.
    """
    i = 0
    node, base = lattice.node[token], lattice.cell[token]
    width = lattice.length[token] + 1
    for k in range(num_parts, 0, -1):
        state = state + INCREMENT
        remaining = unit(state) * lattice.ways[base + i * width + k]
        chosen = lattice.edge[node + i]
        for e in range(lattice.edge[node + i], lattice.edge[node + i + 1]):
            weight = lattice.ways[base + lattice.target[e] * width + k - 1]
            if weight > 0:
                chosen = e
                remaining -= weight
                if remaining < 0:
                    break
        out[written] = lattice.piece[chosen]
        written += 1
        i = lattice.target[chosen]
    return written, state


@compiled
def uniform_documents(ids, lengths, p, key, first_index, lattice, out, out_lengths):
    """Expands documents by `uniform`: each token that has more than one segmentation is, with probability `p`,
    replaced by a draw from the uniform law over all of its segmentations.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`, tokens of each document.
        p: probability, float64.
        key: uint64, names the random stream.
        first_index: uint64, the index of the first document in the stream.
        lattice: the `SegmentationLattice`.
        out: dtype of `ids`, at least one id for each byte of the documents; the expanded ids are written to it.
        out_lengths: int64 `[documents]`; the expanded lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    start = np.int64(0)
    written = np.int64(0)
    for d in range(len(lengths)):
        state = document_state(key, first_index + np.uint64(d))
        begin = written
        for position in range(start, start + lengths[d]):
            token = ids[position]
            if lattice.total[lattice.node[token]] > 1.0:
                state = state + INCREMENT
                if unit(state) < p:
                    written, state = draw_segmentation(lattice, token, state, out, written)
                    continue
            out[written] = token
            written += 1
        start += lengths[d]
        out_lengths[d] = written - begin
    return written


@compiled
def stochastok_uni_documents(
    ids, lengths, attempts, max_tokens, max_splits, key, first_index, first, left, right, lattice, out, out_lengths
):
    """Expands documents by `stochastok-uni`: the number of splits of each token has StochasTok's law; given that
    number, the segmentation is uniform.

    Args:
        lattice: the `SegmentationLattice`; the other arguments are those of `splitting.stochastok_documents`.

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
        state = document_state(key, first_index + np.uint64(d))
        _, state = split_document(n, attempts[d], max_splits, state, first, left, right, parts, next_part)
        begin = written
        for i in range(n):
            num_parts = 1
            part = next_part[i]
            while part != 0:
                num_parts += 1
                part = next_part[part]
            if num_parts == 1:
                out[written] = ids[start + i]
                written += 1
            else:
                written, state = draw_segmentation_of_size(lattice, ids[start + i], num_parts, state, out, written)
        start += n
        out_lengths[d] = written - begin
    return written


@compiled
def path_counting_weights(lattice, temperature, min_length, weight, sums, ways):
    """Fills the transition weights of `grampa` (Bauwens et al. 2025): paths to the end, to the power 1 / temperature.

    A piece shorter than `min_length` bytes may be taken only where no piece of at least that length begins; then the
    longest may. A piece that leads to no end is never taken.

    Args:
        lattice: the `SegmentationLattice`.
        temperature: float64, not 0.
        min_length: bytes.
        weight: float64 `[edges]`; the weight of each edge, the largest of a position being 1, is written to it.
        sums: float64 `[nodes]`; the sum of the weights of a position is written to it.
        ways: float64 `[nodes]`; the number of paths from a position to the end of its token is written to it.
    """
    for token in lattice.tokens:
        node = lattice.node[token]
        n = lattice.length[token]
        ways[node + n] = 1.0
        for i in range(n - 1, -1, -1):
            first, last = lattice.edge[node + i], lattice.edge[node + i + 1]
            longest = 0
            for e in range(first, last):
                if ways[node + lattice.target[e]] > 0:
                    longest = max(longest, lattice.target[e] - i)
            least = min(min_length, longest)
            best = -np.inf
            for e in range(first, last):
                count = ways[node + lattice.target[e]]
                if count > 0 and lattice.target[e] - i >= least:
                    ways[node + i] += count
                    best = max(best, math.log(count) / temperature)
            for e in range(first, last):
                count = ways[node + lattice.target[e]]
                if count > 0 and lattice.target[e] - i >= least:
                    weight[e] = math.exp(math.log(count) / temperature - best)
                    sums[node + i] += weight[e]


@compiled
def score_weights(lattice, scores, weight, sums, ways):
    """Fills the transition weights of `unigram`: a path has a probability proportional to exp of its pieces' scores.

    This is the backward pass of Kudo 2018, Section 3.2; a walk from the first byte to the end is the sampling. The
    largest weight of a position is 1. They are computed from sums in log space, which scores of any size leave finite.

    Args:
        lattice: the `SegmentationLattice`.
        scores: float64 `[size]`, the score of each id; minus infinity for one that is never taken.
        weight, sums, ways: see `path_counting_weights`; the probability of an edge is its weight over the sum.
    """
    log_sums = np.full(len(sums), -np.inf)
    for token in lattice.tokens:
        node = lattice.node[token]
        n = lattice.length[token]
        ways[node + n] = 1.0
        log_sums[node + n] = 0.0
        for i in range(n - 1, -1, -1):
            first, last = lattice.edge[node + i], lattice.edge[node + i + 1]
            best = -np.inf
            for e in range(first, last):
                best = max(best, scores[lattice.piece[e]] + log_sums[node + lattice.target[e]])
            if best == -np.inf:
                continue
            for e in range(first, last):
                total = scores[lattice.piece[e]] + log_sums[node + lattice.target[e]]
                if total > -np.inf:
                    weight[e] = math.exp(total - best)
                    sums[node + i] += weight[e]
                    ways[node + i] += ways[node + lattice.target[e]]
            log_sums[node + i] = best + math.log(sums[node + i])


@compiled
def walk_documents(ids, lengths, p, key, first_index, lattice, weight, sums, ways, out, out_lengths):
    """Expands documents: each token that has more than one path is, with probability `p`, replaced by a walk.

    Uniform walks have a kernel of their own, `uniform_documents`, which is some 10% faster: it reads no weights.

    Args:
        weight, sums, ways: the `Walks` over the lattice.
        lattice: the `SegmentationLattice`; the other arguments are those of `uniform_documents`.

    Returns:
        The number of ids written to `out`.
    """
    start = np.int64(0)
    written = np.int64(0)
    for d in range(len(lengths)):
        state = document_state(key, first_index + np.uint64(d))
        begin = written
        for position in range(start, start + lengths[d]):
            token = ids[position]
            node = lattice.node[token]
            if ways[node] > 1.0:
                state = state + INCREMENT
                if unit(state) < p:
                    i = 0
                    while i < lattice.length[token]:
                        state = state + INCREMENT
                        remaining = unit(state) * sums[node + i]
                        chosen = lattice.edge[node + i]
                        for e in range(lattice.edge[node + i], lattice.edge[node + i + 1]):
                            if weight[e] > 0:
                                chosen = e
                                remaining -= weight[e]
                                if remaining < 0:
                                    break
                        out[written] = lattice.piece[chosen]
                        written += 1
                        i = lattice.target[chosen]
                    continue
            out[written] = token
            written += 1
        start += lengths[d]
        out_lengths[d] = written - begin
    return written

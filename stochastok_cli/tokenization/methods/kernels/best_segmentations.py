"""Compiled loops over the l best segmentations of every token: finding them, and drawing one of them.

See `BestSegmentations` for the arrays, and `segmentation` for the lattice.
"""

import math

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import INCREMENT, compiled, document_state, unit


@compiled
def find_best_segmentations(lattice, scores, alpha, best):
    """Fills `edge`, `rank` and `cumulative` of `best`, by dynamic programming from the end of each token.

    The l best paths from a position are merged from those of the positions that its edges lead to. Of equal scores,
    the path whose next piece is longer comes first.

    Args:
        lattice: the `SegmentationLattice`.
        scores: float64 `[size]`, the score of each id; minus infinity for one that is never taken.
        alpha: float64; a path has a weight proportional to exp(alpha * score).
        best: the `BestSegmentations`; its `start` and `root` are read.
    """
    start = best.start
    most_paths = most_edges = np.int64(0)
    for token in lattice.tokens:
        node, n = lattice.node[token], lattice.length[token]
        most_paths = max(most_paths, start[node + n + 1] - start[node])
        for i in range(n):
            most_edges = max(most_edges, lattice.edge[node + i + 1] - lattice.edge[node + i])
    path_scores = np.empty(most_paths)  # of the paths from every position of one token
    next_rank = np.empty(most_edges, np.int64)  # by edge, the rank of the best path behind it that is not taken yet
    for token in lattice.tokens:
        node, n = lattice.node[token], lattice.length[token]
        begin = start[node]
        path_scores[start[node + n] - begin] = 0.0
        for i in range(n - 1, -1, -1):
            first, last = lattice.edge[node + i], lattice.edge[node + i + 1]
            next_rank[: last - first] = 0
            for path in range(start[node + i], start[node + i + 1]):
                chosen, chosen_score = first, -np.inf
                for e in range(last - 1, first - 1, -1):
                    behind = start[node + lattice.target[e]] + next_rank[e - first]
                    if behind < start[node + lattice.target[e] + 1]:
                        score = scores[lattice.piece[e]] + path_scores[behind - begin]
                        if score > chosen_score:
                            chosen, chosen_score = e, score
                best.edge[path] = chosen
                best.rank[path] = next_rank[chosen - first]
                path_scores[path - begin] = chosen_score
                next_rank[chosen - first] += 1
        total = 0.0
        for k in range(start[node + 1] - begin):
            total += math.exp(alpha * (path_scores[k] - path_scores[0]))
            best.cumulative[best.root[token] + k] = total


@compiled
def draw_best_documents(ids, lengths, p, key, first_index, lattice, ways, best, out, out_lengths):
    """Expands documents: each token that has more than one path is, with probability `p`, replaced by one of its best.

    Args:
        ways: float64 `[nodes]`, the paths from a position to the end of its token.
        best: the `BestSegmentations`; the other arguments are those of `segmentation.uniform_documents`.

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
            if ways[lattice.node[token]] > 1.0:
                state = state + INCREMENT
                if unit(state) < p:
                    state = state + INCREMENT
                    written = write_best_segmentation(lattice, best, token, unit(state), out, written)
                    continue
            out[written] = token
            written += 1
        start += lengths[d]
        out_lengths[d] = written - begin
    return written


@compiled
def write_best_segmentation(lattice, best, token, u, out, written):
    """Writes to `out[written:]` the segmentation of `token` that the uniform number `u` stands for.

    Args:
        lattice: A `SegmentationLattice`.
        best: Its `BestSegmentations`, each with its weight.
        token: The id of the token.
        u: A uniform number from [0, 1), float64.
        out: Ids `[tokens]`, with room for as many as the token has bytes.
        written: How many ids `out` holds.

    Returns:
        The number of ids written to `out` so far.
    """
    node = lattice.node[token]
    first = best.root[token]
    low, high = first, best.root[token + 1] - 1
    threshold = u * best.cumulative[high]
    while low < high:  # the first path whose cumulative weight is above the threshold
        middle = (low + high) // 2
        if best.cumulative[middle] > threshold:
            high = middle
        else:
            low = middle + 1
    rank = low - first
    i = 0
    while i < lattice.length[token]:
        path = best.start[node + i] + rank
        edge = best.edge[path]
        rank = np.int64(best.rank[path])
        out[written] = lattice.piece[edge]
        written += 1
        i = lattice.target[edge]
    return written

"""Compiled code that finds how many splits a document can have, for `uniform-k`."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import compiled


@compiled
def reachable_splits(lattice, document, splits, slot):
    """The largest number of splits, up to `splits`, that the tokens of the document can have together.

    Tokens whose possible split counts have no gaps reach every sum; only the others must be tried out, type by type.

    Args:
        lattice: the `SegmentationLattice`.
        document: its ids `[n]`.
        splits: the number of splits that is wanted.
        slot: int32 `[vocabulary size]`, all -1 before and after.
    """
    together, without_gaps, num_types = np.int64(0), np.int64(0), 0
    type_ids = np.empty(len(document), dtype=np.int32)
    counts = np.zeros(len(document), dtype=np.int64)
    for token in document:
        together += lattice.max_splits[token]
        if lattice.dense[token]:
            without_gaps += lattice.max_splits[token]
            continue
        t = slot[token]
        if t < 0:
            t = num_types
            slot[token] = t
            type_ids[t] = token
            num_types += 1
        counts[t] += 1
    for token in type_ids[:num_types]:
        slot[token] = -1
    if together <= splits:
        return together
    if without_gaps >= splits:
        return splits
    possible = np.zeros(splits + 1, dtype=np.bool_)  # of the tokens with gaps together
    possible[0] = True
    reach = np.int64(0)  # the largest possible number
    fewest = np.empty(splits + 1, dtype=np.int64)  # how many tokens of a type a number needs, besides earlier types
    for t in range(num_types):
        base, most = lattice.cell[type_ids[t]] + 1, lattice.max_splits[type_ids[t]]
        top = min(reach + counts[t] * most, splits)
        for total in range(top + 1):
            fewest[total] = 0
            if possible[total]:
                continue
            fewest[total] = counts[t] + 1  # more than there are
            for k in range(1, min(most, total) + 1):
                if lattice.ways[base + k] > 0:
                    fewest[total] = min(fewest[total], fewest[total - k] + 1)
            if fewest[total] <= counts[t]:
                if total + without_gaps >= splits:
                    return splits
                possible[total] = True
                if total > reach:
                    reach = np.int64(total)
    return reach + without_gaps

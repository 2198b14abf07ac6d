"""Compiled loops of the fixed rules: replacing each token by its parts, and grouping runs of digits."""

from stochastok_cli.tokenization.methods.kernels.random import compiled

SPACE_OF_RUN = 10  # an instruction that puts a space before a run of digits
FIRST_TOKEN = 11  # added to an id, so that it differs from digits and from `SPACE_OF_RUN`


@compiled
def replace_documents(ids, lengths, first, parts, out, out_lengths):
    """Replaces every token by its parts.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`, tokens of each document.
        first: int64 `[size + 1]`, where the parts of each token begin in `parts`.
        parts: int32, the parts of all tokens one after another.
        out: dtype of `ids`, large enough; the new ids are written to it.
        out_lengths: int64 `[documents]`; the new lengths are written to it.

    Returns:
        The number of ids written to `out`.
    """
    start = 0
    written = 0
    for d in range(len(lengths)):
        begin = written
        for position in range(start, start + lengths[d]):
            token = ids[position]
            for i in range(first[token], first[token + 1]):
                out[written] = parts[i]
                written += 1
        start += lengths[d]
        out_lengths[d] = written - begin
    return written


@compiled
def write_run(run, size, root, following, entry, width, from_right, out, written):
    """Writes the groups of a run of digits; one without an entry digit by digit.

    Args:
        run: uint8, its first `size` elements are the digits.
        size: the number of digits.
        root: the root of the first group: 0, or 1 if it has a space before it.
        following, entry, width, from_right, out: see `group_digits`.
        written: where to write in `out`.

    Returns:
        The new `written`.
    """
    i = 0
    while i < size:
        n = (size - i) % width if from_right else min(width, size - i)
        if n == 0:
            n = width
        node = root
        for j in range(i, i + n):
            node = following[node, run[j]]
            if node < 0:
                break
        if node >= 0 and entry[node] >= 0:
            out[written] = entry[node]
            written += 1
        else:
            for j in range(i, i + n):
                out[written] = entry[following[root if j == i else 0, run[j]]]
                written += 1
        i += n
        root = 0
    return written


@compiled
def group_digits(ids, lengths, first, program, following, entry, width, from_right, run, out, out_lengths):
    """Groups the runs of digits of documents.

    Args:
        first: int64 `[size + 1]`, where the instructions of each token begin in `program`.
        program: int32, the instructions of all tokens: a digit, `SPACE_OF_RUN`, or `FIRST_TOKEN` + an id to write.
        following: int32 `[nodes, 10]`, the trie of the entries of digits: the node after a digit, or -1. Node 0 is the
            root, node 1 that of entries with a space before the digits.
        entry: int32 `[nodes]`, the id of the entry that ends at a node, or -1.
        width: the digits of a group.
        from_right: whether groups are counted from the right end of a run.
        run: uint8, as long as the longest run of digits or longer.
        ids, lengths, out, out_lengths: see `replace_documents`.

    Returns:
        The number of ids written to `out`.
    """
    start = 0
    written = 0
    for d in range(len(lengths)):
        begin = written
        size, root = 0, 0
        for position in range(start, start + lengths[d]):
            token = ids[position]
            for i in range(first[token], first[token + 1]):
                instruction = program[i]
                if instruction < SPACE_OF_RUN:
                    run[size] = instruction
                    size += 1
                    continue
                if size > 0:
                    written = write_run(run, size, root, following, entry, width, from_right, out, written)
                    size = 0
                root = 0
                if instruction == SPACE_OF_RUN:
                    root = 1
                else:
                    out[written] = instruction - FIRST_TOKEN
                    written += 1
        written = write_run(run, size, root, following, entry, width, from_right, out, written)
        start += lengths[d]
        out_lengths[d] = written - begin
    return written

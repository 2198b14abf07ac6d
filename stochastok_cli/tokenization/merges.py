"""The merge list of a byte-level BPE vocabulary: reading it, and recovering it from mergeable ranks.

Such lists write every byte as one visible character, in the mapping of GPT-2 (Radford et al. 2019).
"""

from itertools import pairwise

import numpy as np


def byte_characters() -> list[str]:
    """The visible character for each byte in byte-level BPE files: 256 one-character strings.

    >>> byte_characters()[ord("a")], byte_characters()[ord(" ")]
    ('a', 'Ġ')
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    invisible = [byte for byte in range(256) if byte not in visible]
    characters = {byte: chr(byte) for byte in visible}
    characters |= {byte: chr(256 + i) for i, byte in enumerate(invisible)}
    return [characters[byte] for byte in range(256)]


def byte_order() -> list[int]:
    """The bytes in the order of their ids in GPT-2's vocabulary: the visible ones first."""
    characters = byte_characters()
    return sorted(range(256), key=lambda byte: (ord(characters[byte]) >= 256, byte))


def read_merges(text: str) -> list[tuple[bytes, bytes]]:
    """The merges in the text of a `vocab.bpe` or `merges.txt` file, best rank first, as pairs of byte strings.

    >>> read_merges("#version: 0.2\\nt h\\nĠ th")
    [(b't', b'h'), (b' ', b'th')]
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("#version")]
    pairs = (line.split(" ") for line in lines)
    return [(bytes_of_characters(left), bytes_of_characters(right)) for left, right in pairs]


def bytes_of_characters(text: str) -> bytes:
    """The bytes that the visible characters of a byte-level BPE file stand for.

    Raises UnicodeEncodeError if one of them stands for no byte.

    >>> bytes_of_characters("Ġth")
    b' th'
    """
    return text.translate(_BYTE_OF).encode("latin-1")


# The characters of Latin-1 that stand for no byte become one that is not in Latin-1.
_BYTE_OF = dict.fromkeys(range(256), 0x2603) | {ord(letter): byte for byte, letter in enumerate(byte_characters())}


def read_merges_as_ranks(text: str) -> dict[bytes, int]:
    """Mergeable ranks (token bytes → id) of such a text: the 256 bytes in GPT-2's order, then one token per merge.

    It takes a third of the time of `read_merges`, as all characters become bytes at once.

    >>> [(token, rank) for token, rank in read_merges_as_ranks("t h\\nĠ th\\n").items() if rank >= 256]
    [(b'th', 256), (b' th', 257)]
    """
    lines = "\n".join([line for line in text.splitlines() if line and not line.startswith("#version")]) + "\n"
    characters = np.frombuffer(lines.encode("utf-16-le"), "<u2")
    characters = characters[characters != ord(" ")]
    byte_of = np.zeros(2**16, np.uint8)
    byte_of[[ord(character) for character in byte_characters()]] = range(256)
    joined = byte_of[characters].tobytes()
    ends = np.flatnonzero(characters == ord("\n")).tolist()
    tokens = [bytes([byte]) for byte in byte_order()]
    tokens += [joined[start:end] for start, end in zip([0, *(end + 1 for end in ends)], ends, strict=False)]
    return dict(zip(tokens, range(len(tokens)), strict=True))


def merges_from_ranks(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merge list behind the mergeable ranks of a tiktoken file: for each token, the pair that is merged into it.

    The pair is the result of byte-pair encoding the token's bytes with better-ranked merges only. A token for which
    this leaves more than two parts has no merge and is left out; no published encoding has one.
    """
    merges = []
    for token in sorted((token for token in ranks if len(token) > 1), key=ranks.__getitem__):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            joined = [(ranks.get(a + b, len(ranks) * 2), i) for i, (a, b) in enumerate(pairwise(parts))]
            rank, i = min(joined)
            if rank >= ranks[token]:
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges

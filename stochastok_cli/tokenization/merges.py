"""The merge list of a byte-level BPE vocabulary, and the characters in which such lists are written.

The printable spelling of bytes is GPT-2's (Radford et al. 2019): every byte is shown as one visible character.
"""

from itertools import pairwise


def byte_characters() -> list[str]:
    """The character that stands for each byte in byte-level BPE files: a list of 256 one-character strings."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    characters = {byte: chr(byte) for byte in shown}
    characters |= {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    return [characters[byte] for byte in range(256)]


def byte_order() -> list[int]:
    """The bytes in the order of their ids in GPT-2's vocabulary: the printable ones first."""
    return sorted(range(256), key=lambda byte: (ord(byte_characters()[byte]) >= 256, byte))


def read_merges(text: str) -> list[tuple[bytes, bytes]]:
    """The merges of a `vocab.bpe` / `merges.txt` file, best rank first, as pairs of byte strings."""
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    lines = [line for line in text.splitlines() if line and not line.startswith("#version")]
    pairs = (line.split(" ") for line in lines)
    return [(bytes(byte_of[c] for c in left), bytes(byte_of[c] for c in right)) for left, right in pairs]


def ranks_from_merges(merges: list[tuple[bytes, bytes]]) -> dict[bytes, int]:
    """Mergeable ranks (token bytes → id): the 256 bytes in GPT-2's order, then one token a merge."""
    ranks = {bytes([byte]): i for i, byte in enumerate(byte_order())}
    for left, right in merges:
        ranks[left + right] = len(ranks)
    return ranks


def merges_from_ranks(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merge list behind a tiktoken file: for each token, the pair whose merge makes it.

    The pair is what BPE leaves of the token's bytes when only better-ranked merges are allowed. A token that these
    merges don't bring down to two parts (none of the published encodings has one) has no merge and is left out.
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

"""Fixed rules: the characters of each token, and digits in groups (arXiv 2506.19004).

A rule draws nothing. It replaces what tokenization gives by other entries of the vocabulary with the same bytes.
"""

import functools
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from stochastok_cli.errors import UserError, short_name
from stochastok_cli.tokenization.methods.base import Method, register_method

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary

MAX_WIDTH = 9


def _table(parts: list[list[int]]) -> "tuple[np.ndarray, np.ndarray]":
    """Lists one after another, int32, and where each begins, int64 `[lists + 1]`."""
    import numpy as np

    first = np.concatenate([[0], np.cumsum([len(some) for some in parts])]).astype(np.int64)
    return first, np.array([part for some in parts for part in some], np.int32)


@functools.lru_cache(maxsize=4)
def character_table(
    vocabulary: "Vocabulary", kept: frozenset[int], only: frozenset[int] | None = None
) -> "tuple[np.ndarray, np.ndarray]":
    """The characters of each token as `replace_documents` takes them; of the tokens `only`, where that is given.

    A character without an entry, and a byte that belongs to no character of its token, become single bytes. A space
    without an entry, which begins the words of a WordPiece vocabulary, stays with the character after it.
    """
    from stochastok_cli.tokenization.entry_trie import entry_ids

    entries = entry_ids(vocabulary)
    whole = vocabulary.never_split | kept
    parts = []
    for token, piece in enumerate(vocabulary.pieces):
        if only is not None and token not in only:
            parts.append([token])
            continue
        units = [c.encode("utf-8", "surrogateescape") for c in piece.decode("utf-8", "surrogateescape")]
        if units[:1] == [b" "] and len(units) > 1 and b" " not in entries:
            units[:2] = [b"".join(units[:2])]
        if token in whole or (len(units) < 2 and piece in entries):
            parts.append([token])
            continue
        texts = [b for unit in units for b in ([unit] if unit in entries else [bytes([byte]) for byte in unit])]
        written = [entries.get(text, -1) for text in texts]
        parts.append([token] if -1 in written else written)
    return _table(parts)


def characters(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Replaces each token by its characters; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.fixed_rules import replace_documents

    first, parts = character_table(stochastok.vocabulary, stochastok.kept, stochastok.only)
    out, out_lengths = np.empty(int(np.diff(first)[ids].sum()), ids.dtype), np.empty_like(lengths)
    replace_documents(ids, lengths, first, parts, out, out_lengths)
    return out, out_lengths


def _longest_match(text: bytes, entries: dict[bytes, int]) -> list[int] | None:
    """The ids of the longest entries from the left; None where they don't reach the end."""
    written = []
    while text:
        end = next((n for n in range(len(text), 0, -1) if text[:n] in entries), 0)
        if not end:
            return None
        written.append(entries[text[:end]])
        text = text[end:]
    return written


def _instructions(token: int, piece: bytes, entries: dict[bytes, int]) -> list[int]:
    """What `group_digits` does with a token that has digits: itself, where a part of it has no entry."""
    from stochastok_cli.tokenization.methods.kernels.fixed_rules import FIRST_TOKEN, SPACE_OF_RUN

    made: list[int] = []
    before = b""
    for part in re.findall(rb"[0-9]+|[^0-9]+", piece):
        if part.isdigit():
            of_space = SPACE_OF_RUN in made[-1:]
            texts = [bytes([digit]) for digit in part]
            if any(text not in entries for text in texts) or (of_space and b" " + texts[0] not in entries):
                return [FIRST_TOKEN + token]
            made += [digit - ord("0") for digit in part]
        elif (ids := _longest_match(part, entries)) is not None:
            made += [FIRST_TOKEN + i for i in ids]
        elif part == b" " and not before and piece != part:
            made.append(SPACE_OF_RUN)
        else:
            return [FIRST_TOKEN + token]
        before = part
    return made


@functools.lru_cache(maxsize=4)
def digit_tables(
    vocabulary: "Vocabulary", kept: frozenset[int], only: frozenset[int] | None = None
) -> "tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]":
    """The arrays `first`, `program`, `following` and `entry` of `group_digits`, for the tokens `only`, where that is
    given."""
    import numpy as np

    from stochastok_cli.tokenization.entry_trie import entry_ids
    from stochastok_cli.tokenization.methods.kernels.fixed_rules import FIRST_TOKEN

    entries = entry_ids(vocabulary)
    whole = vocabulary.never_split | kept
    programs = [
        _instructions(token, piece, entries)
        if token not in whole and (only is None or token in only) and re.search(rb"[0-9]", piece)
        else [FIRST_TOKEN + token]
        for token, piece in enumerate(vocabulary.pieces)
    ]
    following, entry = [[-1] * 10, [-1] * 10], [-1, -1]
    for text, token in entries.items():
        if match := re.fullmatch(rb"( ?)([0-9]{1,%d})" % MAX_WIDTH, text):
            node = len(match[1])
            for digit in match[2]:
                if following[node][digit - ord("0")] < 0:
                    following[node][digit - ord("0")] = len(entry)
                    following.append([-1] * 10)
                    entry.append(-1)
                node = following[node][digit - ord("0")]
            entry[node] = token
    return *_table(programs), np.array(following, np.int32), np.array(entry, np.int32)


def group(
    stochastok: "StochasTok", ids: "np.ndarray", lengths: "np.ndarray", first_index: "np.uint64"
) -> "tuple[np.ndarray, np.ndarray]":
    """Groups the runs of digits of each document; see `Method` for arguments and result."""
    import numpy as np

    from stochastok_cli.tokenization.methods.kernels.fixed_rules import group_digits

    first, program, following, entry = digit_tables(stochastok.vocabulary, stochastok.kept, stochastok.only)
    width, from_right = stochastok.definition.values["width"], stochastok.definition.values["from_right"]
    capacity = int(np.diff(first)[ids].sum())
    run, out, out_lengths = np.empty(capacity, np.uint8), np.empty(capacity, ids.dtype), np.empty_like(lengths)
    written = group_digits(ids, lengths, first, program, following, entry, width, from_right, run, out, out_lengths)
    return out[:written], out_lengths


def bind_digits(method: Method, text: str) -> Method:
    """`digits` bound to `single`, `leftN` or `rightN`. Raises UserError for anything else."""
    match = re.fullmatch(rf"single|(left|right)([1-{MAX_WIDTH}])", text.strip())
    if match is None:
        given = f"{short_name(text)!r} is no rule of digits" if text else "digits needs a rule"
        raise UserError(given, fix=f"give digits:single, digits:right3 or digits:left3, with 1 to {MAX_WIDTH} digits")
    width = int(match[2] or 1)
    rule = "single" if width == 1 else f"{match[1]}{width}"
    return replace(method, name=f"digits:{rule}", values={"width": width, "from_right": match[1] == "right"})


register_method(
    Method(
        name="character",
        description="each token replaced by its characters",
        p_meaning="none: a fixed rule",
        source="arXiv 2506.19004",
        expand=characters,
        options=("keep",),
        takes_p=False,
    )
)
register_method(
    Method(
        name="digits",
        description="digits one by one (digits:single) or in groups from the right or the left (digits:right3, "
        "digits:left3)",
        p_meaning="none: a fixed rule",
        source="arXiv 2506.19004",
        expand=group,
        keeps_token_boundaries=False,
        bind=bind_digits,
        example="digits:right3",
        options=("keep",),
        takes_p=False,
    )
)

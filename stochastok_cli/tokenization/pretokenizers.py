"""Cutting text into pretokens, the pieces that byte-pair encoding never merges across.

GPT-2's pattern is compiled; any other goes through the codec, which is slower.
"""

import functools

import numpy as np

from stochastok_cli.tokenization.methods.kernels.splitting import compiled
from stochastok_cli.tokenization.vocabulary import Vocabulary

_OTHER, _LETTER, _NUMBER, _SPACE = 0, 1, 2, 3


@functools.cache
def character_classes() -> np.ndarray:
    """The class of every code point (uint8 `(0x110000,)`: other, letter, number, white space), as tiktoken sees it.

    Asked of tiktoken itself, so that both have one version of Unicode: an encoding whose pattern matches letters
    alone encodes nothing but the letters of a text.
    """
    import tiktoken

    points = np.array([c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF], dtype="<u4")
    text = points.tobytes().decode("utf-32-le")
    bytes_alone = {bytes([byte]): byte for byte in range(256)}
    classes = np.zeros(0x110000, dtype=np.uint8)
    for number, pattern in ((_LETTER, r"\p{L}+"), (_NUMBER, r"\p{N}+"), (_SPACE, r"\s+")):
        matcher = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=bytes_alone, special_tokens={})
        matched = matcher.encode_to_numpy(text, disallowed_special=()).astype(np.uint8).tobytes().decode()
        classes[np.frombuffer(matched.encode("utf-32-le"), "<u4")] = number
    return classes


@compiled
def character(text, i):
    """The code point at byte `i` of valid UTF-8, and its width in bytes."""
    byte = np.int64(text[i])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | (text[i + 1] & 0x3F), 2
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | np.int64(text[i + 1] & 0x3F) << 6 | (text[i + 2] & 0x3F), 3
    low = np.int64(text[i + 2] & 0x3F) << 6 | (text[i + 3] & 0x3F)
    return (byte & 0x07) << 18 | np.int64(text[i + 1] & 0x3F) << 12 | low, 4


@compiled
def run_of(kind, text, i, end, classes):
    """Where the run of characters of a class that starts at `i` ends."""
    while i < end:
        point, width = character(text, i)
        if classes[point] != kind:
            break
        i += width
    return i


@compiled
def contraction(text, i, end):
    """The bytes of the contraction that follows the apostrophe at `i` (`s`, `d`, `m`, `t`, `ll`, `ve`, `re`), or 0."""
    if i + 1 < end:
        a = text[i + 1]
        if a == 115 or a == 100 or a == 109 or a == 116:
            return 1
        if i + 2 < end:
            b = text[i + 2]
            if (a == 108 and b == 108) or (a == 118 and b == 101) or (a == 114 and b == 101):
                return 2
    return 0


@compiled
def cut_as_gpt2(text, ends, classes, cut):
    r"""Sets `cut` (uint8, one per byte) to 1 where a pretoken of `text` (uint8, valid UTF-8) begins.

    The text consists of segments that end at `ends` (int64) and are cut each on its own. GPT-2's pattern (Radford et
    al. 2019), by its alternatives in their order:
    `'(?:[sdmt]|ll|ve|re)`, ` ?\p{L}+`, ` ?\p{N}+`, ` ?[^\s\p{L}\p{N}]+`, `\s+$`, `\s+(?!\S)`, `\s`.
    """
    i = np.int64(0)
    for end in ends:
        while i < end:
            cut[i] = 1
            point, _ = character(text, i)
            if point == 39:
                more = contraction(text, i, end)
                if more > 0:
                    i += 1 + more
                    continue
            kind = classes[point]
            if point == 32 and i + 1 < end:  # one space belongs to the run that follows it
                following = classes[character(text, i + 1)[0]]
                if following != _SPACE:
                    i = run_of(following, text, i + 1, end, classes)
                    continue
            if kind != _SPACE:
                i = run_of(kind, text, i, end, classes)
                continue
            first = last = i
            while i < end:  # white space: all of it at the end of the text, else all but its last character
                point, width = character(text, i)
                if classes[point] != _SPACE:
                    break
                last = i
                i += width
            if i < end and last > first:
                i = last


def cut_by_encoder(vocabulary: Vocabulary, text: np.ndarray, ends: np.ndarray, cut: np.ndarray) -> None:
    """The same for any pattern, by `regex` (whose Unicode may be newer than tiktoken's): some ten times slower."""
    start = 0
    for end in ends.tolist():
        place = start
        for pretoken in vocabulary.pretokens(text[start:end].tobytes().decode()):
            cut[place] = 1
            place += len(pretoken.encode())
        start = end

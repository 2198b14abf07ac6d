"""Dividing text into pretokens, the parts that byte-pair encoding never merges across.

GPT-2's pattern is compiled; any other goes through the encoder of the vocabulary, which is slower.
"""

import functools

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import compiled
from stochastok_cli.tokenization.vocabulary import Vocabulary

_OTHER, _LETTER, _NUMBER, _SPACE = 0, 1, 2, 3
_APOSTROPHE, _BLANK = ord("'"), ord(" ")


def mark_pretokens(vocabulary: Vocabulary, text: np.ndarray, segment_ends: np.ndarray, starts: np.ndarray) -> None:
    """Sets `starts` to 1 where a pretoken of the vocabulary's tokenizer begins.

    Args:
        vocabulary: its pattern or pretokenizer divides the text.
        text: uint8 `[bytes or more]`, valid UTF-8.
        segment_ends: int64 `[segments]`, ascending. Each segment of the text is divided on its own.
        starts: uint8, one per byte of `text`, 0 at first.
    """
    if vocabulary.pretokenizes_like_gpt2:
        mark_gpt2_pretokens(text, segment_ends, character_classes(), starts)
        return
    start = 0
    for end in segment_ends.tolist():
        position = start
        for pretoken in vocabulary.pretokens(text[start:end].tobytes().decode()):
            starts[position] = 1
            position += len(pretoken)
        start = end


@functools.cache
def character_classes() -> np.ndarray:
    """The class of every code point as tiktoken sees it: 0 other, 1 letter, 2 number, 3 white space.

    Computed by tiktoken itself, so that both use one version of Unicode: an encoding whose pattern matches letters
    alone encodes nothing but the letters of a text.

    Returns:
        uint8 `[0x110000]`.
    """
    import tiktoken

    points = np.array([c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF], dtype="<u4")
    text = points.tobytes().decode("utf-32-le")
    single_bytes = {bytes([byte]): byte for byte in range(256)}
    classes = np.zeros(0x110000, dtype=np.uint8)
    for number, pattern in ((_LETTER, r"\p{L}+"), (_NUMBER, r"\p{N}+"), (_SPACE, r"\s+")):
        matcher = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=single_bytes, special_tokens={})
        matched = matcher.encode_to_numpy(text, disallowed_special=()).astype(np.uint8).tobytes().decode()
        classes[np.frombuffer(matched.encode("utf-32-le"), "<u4")] = number
    return classes


@compiled
def character(text, i):
    """The code point at byte `i` of valid UTF-8, and its number of bytes."""
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
def end_of_run(kind, text, i, end, classes):
    """The end of the run of characters of one class that starts at `i`."""
    while i < end:
        point, width = character(text, i)
        if classes[point] != kind:
            break
        i += width
    return i


@compiled
def contraction(text, i, end):
    """The number of bytes of the contraction after the apostrophe at `i` (s, d, m, t, ll, ve, re), or 0."""
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
def mark_gpt2_pretokens(text, segment_ends, classes, starts):
    r"""Sets `starts` to 1 where a pretoken by GPT-2's pattern begins (Radford et al. 2019).

    The alternatives of the pattern, in their order: `'(?:[sdmt]|ll|ve|re)`, ` ?\p{L}+`, ` ?\p{N}+`,
    ` ?[^\s\p{L}\p{N}]+`, `\s+$`, `\s+(?!\S)`, `\s`.

    Args:
        text: uint8 `[bytes or more]`, valid UTF-8.
        segment_ends: int64 `[segments]`, ascending. Each segment of the text is divided on its own.
        classes: see `character_classes`.
        starts: uint8, one per byte of `text`, 0 at first.
    """
    i = np.int64(0)
    for end in segment_ends:
        while i < end:
            starts[i] = 1
            point, _ = character(text, i)
            if point == _APOSTROPHE:
                letters = contraction(text, i, end)
                if letters > 0:
                    i += 1 + letters
                    continue
            kind = classes[point]
            if point == _BLANK and i + 1 < end:  # one space belongs to the run that follows it
                following = classes[character(text, i + 1)[0]]
                if following != _SPACE:
                    i = end_of_run(following, text, i + 1, end, classes)
                    continue
            if kind != _SPACE:
                i = end_of_run(kind, text, i, end, classes)
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

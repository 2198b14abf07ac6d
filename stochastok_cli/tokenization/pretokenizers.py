"""Dividing text, and documents of ids, into pretokens: the parts that byte-pair encoding never merges across.

GPT-2's pattern is compiled; any other goes through the encoder of the vocabulary, which is slower.
"""

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stochastok_cli.tokenization.methods.kernels.pretokens import bytes_and_kept_tokens
from stochastok_cli.tokenization.methods.kernels.random import compiled, is_interpreted
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    import tiktoken

_OTHER, _LETTER, _NUMBER, _SPACE = 0, 1, 2, 3
_APOSTROPHE, _BLANK = ord("'"), ord(" ")


class TokenBytes(NamedTuple):
    """The bytes of a vocabulary's tokens, and the tokens that keep their ids where documents are encoded again.

    text: uint8 `[bytes]`, the bytes of all tokens one after another.
    first: int64 `[size + 1]`, where the bytes of each token begin in `text`.
    kept: bool `[size]`, the tokens that keep their ids, and that no pretoken crosses.
    whole: bool `[size]`, the tokens that keep their ids where they are a pretoken. Empty if there are none.
    """

    text: np.ndarray
    first: np.ndarray
    kept: np.ndarray
    whole: np.ndarray


class PretokenizedDocuments(NamedTuple):
    """The bytes of documents, divided into pretokens, and the tokens between them that keep their ids.

    text: uint8 `[bytes + 1]`, the bytes of the documents without those tokens.
    starts: uint8 `[bytes + 1]`, 1 where a pretoken begins.
    kept_ids, kept_at: `[tokens]`, the ids that are kept, and the position in `text` of each (int64).
    word_ids, word_at: int64 `[words]`, the tokens that `whole` has, and their positions in `text`.
    ends: int64 `[documents, 2]`, where each document ends in `text` and in `kept_ids`.
    """

    text: np.ndarray
    starts: np.ndarray
    kept_ids: np.ndarray
    kept_at: np.ndarray
    word_ids: np.ndarray
    word_at: np.ndarray
    ends: np.ndarray


@functools.lru_cache(maxsize=4)
def token_bytes(
    vocabulary: Vocabulary, kept: frozenset[int] = frozenset(), words: frozenset[int] = frozenset()
) -> TokenBytes:
    """The bytes of tokens for `pretokenize`.

    Args:
        vocabulary: the vocabulary.
        kept: ids that are kept, in addition to those of special and added tokens.
        words: ids that are kept where they are a pretoken.
    """
    kept = kept | vocabulary.never_split | vocabulary.added
    words = words - kept
    return TokenBytes(
        text=np.frombuffer(b"".join(vocabulary.pieces), np.uint8),
        first=np.concatenate([[0], np.cumsum(vocabulary.widths)]),
        kept=np.array([i in kept for i in range(vocabulary.size)]),
        whole=np.array([i in words for i in range(vocabulary.size if words else 0)], np.bool_),
    )


def pretokenize(
    vocabulary: Vocabulary, tokens: TokenBytes, ids: np.ndarray, lengths: np.ndarray
) -> PretokenizedDocuments:
    """Decodes documents and divides them into pretokens as the vocabulary's tokenizer does.

    Tokens with bytes that are not valid UTF-8 keep their ids, as those of `tokens.kept` do.

    Args:
        vocabulary: a byte-level BPE.
        tokens: the bytes of its tokens.
        ids: `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`.
    """
    num_bytes = int((tokens.first[1:] - tokens.first[:-1])[ids].sum())
    num_words = np.count_nonzero(tokens.whole[ids]) if len(tokens.whole) else 0
    documents = PretokenizedDocuments(
        text=np.empty(num_bytes + 1, np.uint8),
        starts=np.zeros(num_bytes + 1, np.uint8),
        kept_ids=np.empty_like(ids),
        kept_at=np.empty(len(ids), np.int64),
        word_ids=np.empty(num_words, np.int64),
        word_at=np.empty(num_words, np.int64),
        ends=np.empty((len(lengths), 2), np.int64),
    )
    text, starts, *others = documents
    segment_ends = np.empty(len(ids) + len(lengths), np.int64)
    num_segments = bytes_and_kept_tokens(ids, lengths, tokens, text, *others, segment_ends)
    mark_pretokens(vocabulary, text, segment_ends[:num_segments], starts)
    return documents


def mark_pretokens(vocabulary: Vocabulary, text: np.ndarray, segment_ends: np.ndarray, starts: np.ndarray) -> None:
    """Sets `starts` to 1 where a pretoken of the vocabulary's tokenizer begins.

    Args:
        vocabulary: its pattern or pretokenizer divides the text.
        text: uint8 `[bytes or more]`, valid UTF-8.
        segment_ends: int64 `[segments]`, ascending. Each segment of the text is divided on its own.
        starts: uint8, one per byte of `text`, 0 at first.
    """
    if vocabulary.pretokenizes_like_gpt2:
        if is_interpreted() and len(segment_ends):  # the classes of all characters take a second
            classes = classes_of("".join({*text[: segment_ends[-1]].tobytes().decode()}))
        else:
            classes = character_classes()
        mark_gpt2_pretokens(text, segment_ends, classes, starts)
        return
    start = 0
    for end in segment_ends.tolist():
        position = start
        for pretoken in vocabulary.pretokens(text[start:end].tobytes().decode()):
            starts[position] = 1
            position += len(pretoken)
        start = end


@functools.lru_cache(maxsize=4)
def word_starts(vocabulary: Vocabulary) -> np.ndarray:
    """Whether each token begins with a space, bool `[size]`."""
    return np.array([piece.startswith(b" ") for piece in vocabulary.pieces])


def pretokens_of_tokens(vocabulary: Vocabulary, ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pretoken in which each token begins, and the one in which it ends, counted over all documents.

    A special or added token, and one with a byte that belongs to no UTF-8 character, is a pretoken of its own. Where
    the tokenizer is not a byte-level BPE (SentencePiece, WordPiece), each token that begins with a space begins one.

    Args:
        vocabulary: its pattern or pretokenizer divides the text.
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`.

    Returns:
        int64 `[tokens]` and int64 `[tokens]`.
    """
    tokens = token_bytes(vocabulary)
    if not (vocabulary.pretokenizes_like_gpt2 or vocabulary.merges):
        alone = tokens.kept[ids]
        begins = word_starts(vocabulary)[ids] | alone
        begins[1:] |= alone[:-1]
        begins[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        word = np.cumsum(begins) - 1
        return word, word
    documents = pretokenize(vocabulary, tokens, ids, lengths)
    first, last = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    _number_pretokens(ids, lengths, vocabulary.widths, documents, first, last)
    return first, last


@compiled
def _number_pretokens(ids, lengths, widths, documents, first, last):
    """Writes the numbers of `pretokens_of_tokens`, of the `PretokenizedDocuments` of the ids."""
    _, starts, _, kept_at, _, _, ends = documents
    number, at, kept, i = -1, 0, 0, 0
    for d in range(len(lengths)):
        for _ in range(lengths[d]):
            if kept < ends[d, 1] and kept_at[kept] == at:
                number += 1
                kept += 1
                first[i] = number
            else:
                width = widths[ids[i]]
                for j in range(at, at + width):
                    if starts[j]:
                        number += 1
                    if j == at:
                        first[i] = number
                at += width
            last[i] = number
            i += 1


@functools.cache
def character_classes() -> np.ndarray:
    """The class of every code point, as `classes_of` has it."""
    points = np.array([c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF], dtype="<u4")
    return classes_of(points.tobytes().decode("utf-32-le"))


def classes_of(characters: str) -> np.ndarray:
    """The class of characters as tiktoken sees them: 0 other, 1 letter, 2 number, 3 white space.

    Computed by tiktoken itself, so that both use one version of Unicode: an encoding whose pattern matches letters
    alone encodes nothing but the letters of a text.

    Returns:
        uint8 `[0x110000]`, by code point; 0 for those that are not among the characters.
    """
    classes = np.zeros(0x110000, dtype=np.uint8)
    for number, matcher in _matchers():
        matched = matcher.encode_to_numpy(characters, disallowed_special=()).astype(np.uint8).tobytes().decode()
        classes[np.frombuffer(matched.encode("utf-32-le"), "<u4")] = number
    return classes


@functools.cache
def _matchers() -> "list[tuple[int, tiktoken.Encoding]]":
    """The encodings that encode the characters of a class alone, to their bytes."""
    import tiktoken

    single_bytes = {bytes([byte]): byte for byte in range(256)}
    return [
        (number, tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=single_bytes, special_tokens={}))
        for number, pattern in ((_LETTER, r"\p{L}+"), (_NUMBER, r"\p{N}+"), (_SPACE, r"\s+"))
    ]


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

"""Compiled code that decodes documents to the bytes that are divided into pretokens."""

import numpy as np

from stochastok_cli.tokenization.methods.kernels.random import compiled


@compiled
def valid_width(text, i, end):
    """The number of bytes of the UTF-8 character at `text[i]`, or 0 where none begins (Unicode 15, table 3-7)."""
    a = text[i]
    if a < 0x80:
        return 1
    if a < 0xC2 or a > 0xF4:
        return 0
    width = 2 if a < 0xE0 else (3 if a < 0xF0 else 4)
    if i + width > end:
        return 0
    low, high = 0x80, 0xBF
    if a == 0xE0:
        low = 0xA0
    elif a == 0xED:
        high = 0x9F
    elif a == 0xF0:
        low = 0x90
    elif a == 0xF4:
        high = 0x8F
    if text[i + 1] < low or text[i + 1] > high:
        return 0
    for j in range(2, width):
        if text[i + j] < 0x80 or text[i + j] > 0xBF:
            return 0
    return width


@compiled
def mark_invalid(run, tokens, text, start, end):
    """Which tokens of `run` (ids `[tokens]`), whose bytes are `text[start:end]`, must keep their ids.

    These are the tokens with a byte that belongs to no UTF-8 character, and those that share a character with one of
    them.

    Returns:
        bool `[tokens]`.
    """
    owner = np.empty(end - start, dtype=np.int64)
    size = 0
    for i in range(len(run)):
        for _ in range(tokens.first[run[i] + 1] - tokens.first[run[i]]):
            owner[size] = i
            size += 1
    stays = np.zeros(len(run), dtype=np.bool_)
    begins = np.empty(end - start + 1, dtype=np.int64)  # of the characters, and of the bytes that belong to none
    num_characters = 0
    i = start
    while i < end:
        begins[num_characters] = i - start
        num_characters += 1
        width = valid_width(text, i, end)
        if width == 0:
            stays[owner[i - start]] = True
            width = 1
        i += width
    begins[num_characters] = end - start
    # The tokens of a character stay together. Characters and tokens are both in the order of the bytes, so that one
    # pass to the right and one to the left reach all that hang together.
    for step in range(2 * num_characters):
        c = step if step < num_characters else 2 * num_characters - 1 - step
        first, last = owner[begins[c]], owner[begins[c + 1] - 1]
        if stays[first : last + 1].any():
            stays[first : last + 1] = True
    return stays


@compiled
def bytes_and_kept_tokens(ids, lengths, tokens, text, kept_ids, kept_at, word_ids, word_at, ends, segment_ends):
    """Decodes documents to bytes, apart from the tokens that keep their ids.

    Args:
        ids: uint16 or uint32 `[tokens]`, the documents one after another.
        lengths: int64 `[documents]`.
        tokens: the `TokenBytes`.
        text: uint8 `[bytes + 1]`; the bytes are written to it.
        kept_ids: dtype of `ids`, `[tokens]`; the ids that are kept are written to it.
        kept_at: int64 `[tokens]`; the position in `text` of each of them.
        word_ids, word_at: int64 `[words]`; the ids among the whole words, and their positions in `text`,
            are written to them.
        ends: int64 `[documents, 2]`; where each document ends in `text` and in `kept_ids`.
        segment_ends: int64 `[tokens + documents]`; the positions in `text` that no pretoken may cross: the end of
            each document and the position of each kept token.

    Returns:
        The number of segments.
    """
    size, num_kept, num_segments, num_words = np.int64(0), np.int64(0), 0, 0
    start = np.int64(0)
    for d in range(len(lengths)):
        stop = start + lengths[d]
        i = start
        while i < stop:
            j = i
            before, words_before = size, num_words
            while j < stop and not tokens.kept[ids[j]]:
                if len(word_ids) and tokens.whole[ids[j]]:
                    word_ids[num_words], word_at[num_words] = ids[j], size
                    num_words += 1
                a, b = tokens.first[ids[j]], tokens.first[ids[j] + 1]
                text[size : size + b - a] = tokens.text[a:b]
                size += b - a
                j += 1
            at = before
            while at < size:
                width = valid_width(text, at, size)
                if width == 0:
                    break
                at += width
            if at < size:
                stays = mark_invalid(ids[i:j], tokens, text, before, size)
                size, num_words = before, words_before
                for t in range(i, j):
                    if stays[t - i]:
                        kept_ids[num_kept], kept_at[num_kept] = ids[t], size
                        num_kept += 1
                        segment_ends[num_segments] = size
                        num_segments += 1
                    else:
                        if len(word_ids) and tokens.whole[ids[t]]:
                            word_ids[num_words], word_at[num_words] = ids[t], size
                            num_words += 1
                        a, b = tokens.first[ids[t]], tokens.first[ids[t] + 1]
                        text[size : size + b - a] = tokens.text[a:b]
                        size += b - a
            if j < stop:
                kept_ids[num_kept], kept_at[num_kept] = ids[j], size
                num_kept += 1
                segment_ends[num_segments] = size
                num_segments += 1
            i = j + 1
        start = stop
        segment_ends[num_segments] = size
        num_segments += 1
        ends[d, 0], ends[d, 1] = size, num_kept
    word_at[num_words:] = -1
    return num_segments

"""Encoding many documents at once with gigatoken, which returns the ids of other libraries at many times their speed.

Two differences are worked around. The libraries use different versions of Unicode, so documents with code points that
are unassigned in an older one are left to the other library. And gigatoken's cache of pretokens never shrinks, so the
tokenizer is created again when the process has grown.
"""

import base64
import functools
import os
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np

PLANES_IN_USE = ((0, 0x40000), (0xE0000, 0xE1000))
"""The ranges of code points that may be assigned, below those of private use."""

_MAX_GROWTH = 512 * 2**20  # bytes of resident memory
_MAX_CHARACTERS = 64 * 2**20  # encoded before the tokenizer is created again, where memory can't be read


class GigatokenEncoder:
    """Encodes batches of documents.

    Args:
        make: makes gigatoken's tokenizer: now, and again when the process has grown.
    """

    def __init__(self, make: Callable[[], Any]):
        self._make = make
        self._renew()

    @classmethod
    def from_ranks(cls, ranks: dict[bytes, int], scheme: str) -> Self:
        """The encoder of the mergeable ranks of a byte-level BPE.

        Args:
            ranks: token bytes → id.
            scheme: gigatoken's name of the pretokenization (`gpt2`, `cl100k`, `o200k`).

        Raises:
            ImportError: if gigatoken is not installed.
        """
        return cls(functools.partial(_make_tokenizer, _gigatoken().Tokenizer, ranks, scheme))

    @classmethod
    def from_json(cls, content: str | bytes) -> Self:
        """The encoder of a `tokenizer.json`.

        Raises:
            ImportError: if gigatoken is not installed.
            Exception: whatever gigatoken raises for a tokenizer that it does not know.
        """
        return cls(functools.partial(_gigatoken().Tokenizer.from_json, content))

    def _renew(self) -> None:
        self._tokenizer = self._make()
        self._encoded = 0
        self._resident = resident_memory()

    def encode_batch(self, texts: Sequence[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts, one after another (uint32), and the number of ids of each (int64 `[texts]`)."""
        grown = resident_memory() - self._resident if self._resident else 0
        if grown > _MAX_GROWTH or (not self._resident and self._encoded > _MAX_CHARACTERS):
            self._renew()
        self._encoded += sum(map(len, texts))
        layout = self._tokenizer.encode_batch(texts, parallel=threads > 1).layout
        return layout.content.data, np.diff(layout.offsets.data)


def encode_apart(
    texts: Sequence[str],
    usual: Sequence[str | None],
    fast: Callable[[list[str]], tuple[np.ndarray, np.ndarray]],
    slow: Callable[[list[str]], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """The ids of texts, some of which only the slow of two encoders may encode.

    Args:
        texts: the texts.
        usual: what the fast encoder is to encode in place of each text; None for a text that it may not encode.
        fast, slow: encode batches of texts.

    Returns:
        The ids one after another (uint32), and the number of ids of each text (int64 `[texts]`).
    """
    ids, lengths = fast([text for text in usual if text is not None])
    if len(lengths) == len(texts):
        return ids, lengths
    slow_ids, slow_lengths = slow([text for text, other in zip(texts, usual, strict=True) if other is None])
    fast_parts, slow_parts = (
        iter(np.split(part, np.cumsum(sizes)[:-1])) for part, sizes in ((ids, lengths), (slow_ids, slow_lengths))
    )
    parts = [next(slow_parts) if other is None else next(fast_parts) for other in usual]
    return np.concatenate(parts), np.array([len(part) for part in parts], np.int64)


def may_differ(text: str, odd: np.ndarray) -> bool:
    """Whether a text holds one of the odd code points (bool `[0x110000]`, see `unassigned_or_surrogate`)."""
    if text.isascii():
        return False
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return bool(odd[points].any())


@functools.cache
def unassigned_or_surrogate() -> np.ndarray:
    """The code points that two libraries may treat differently, bool `[0x110000]`.

    They are taken from Python's Unicode tables: a code point that is assigned there is assigned in every newer
    version, with the same properties.
    """
    odd = np.ones(sys.maxunicode + 1, dtype=np.bool_)
    for low, high in PLANES_IN_USE:
        odd[low:high] = [unicodedata.category(chr(point)) in ("Cn", "Cs") for point in range(low, high)]
    odd[0xF0000:] = np.arange(0xF0000, len(odd)) & 0xFFFE == 0xFFFE  # private use, but for two code points a plane
    return odd


def resident_memory() -> int:
    """The resident memory of this process in bytes; 0 where it can't be read."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _gigatoken() -> ModuleType:
    """The library, and awkward, whose arrays it returns.

    gigatoken imports awkward in its first call. What interrupts that import (Ctrl-C, too little memory) it swallows,
    and returns a list from then on.
    """
    import awkward  # noqa: F401
    import gigatoken

    return gigatoken


def _make_tokenizer(tokenizer, ranks: dict[bytes, int], scheme: str):
    lines = [base64.b64encode(piece) + b" %d\n" % rank for piece, rank in ranks.items()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ranks.tiktoken"
        file.write_bytes(b"".join(lines))
        return tokenizer.from_tiktoken(str(file), pretokenizer=scheme, special_tokens=None)

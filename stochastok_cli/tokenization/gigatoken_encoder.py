"""Encoding many documents at once with gigatoken, which returns tiktoken's ids at many times its speed.

Two differences are worked around. The two libraries use different versions of Unicode, so documents with code points
that are unassigned in an older one are left to tiktoken. And gigatoken's cache of pretokens never shrinks, so the
tokenizer is created again (some 40 ms) when the process has grown.
"""

import base64
import functools
import os
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_MAX_GROWTH = 512 * 2**20  # bytes of resident memory
_MAX_CHARACTERS = 64 * 2**20  # encoded before the tokenizer is created again, where memory can't be read


class GigatokenEncoder:
    """Encodes batches of documents by the mergeable ranks of a byte-level BPE.

    Args:
        ranks: token bytes → id.
        scheme: gigatoken's name of the pretokenization (`gpt2`, `cl100k`, `o200k`).

    Raises:
        ImportError: if gigatoken is not installed.
    """

    def __init__(self, ranks: dict[bytes, int], scheme: str):
        import gigatoken

        self._make = functools.partial(_make_tokenizer, gigatoken.Tokenizer, ranks, scheme)
        self._renew()

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


def needs_tiktoken(text: str) -> bool:
    """Whether gigatoken might divide a text differently than tiktoken, or refuse it (a lone surrogate)."""
    if text.isascii():
        return False
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return bool(unassigned_or_surrogate()[points].any())


@functools.cache
def unassigned_or_surrogate() -> np.ndarray:
    """The code points that the two libraries may treat differently, bool `[0x110000]`.

    They are taken from Python's Unicode tables: a code point that is assigned there is assigned in every newer
    version, with the same properties.
    """
    odd = np.ones(sys.maxunicode + 1, dtype=np.bool_)
    for low, high in ((0, 0x40000), (0xE0000, 0xE1000)):  # the other planes below the private ones are empty
        odd[low:high] = [unicodedata.category(chr(point)) in ("Cn", "Cs") for point in range(low, high)]
    odd[0xF0000:] = np.arange(0xF0000, len(odd)) & 0xFFFE == 0xFFFE  # private use, but for two code points a plane
    return odd


def resident_memory() -> int:
    """The resident memory of this process in bytes; 0 where it can't be read."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _make_tokenizer(tokenizer, ranks: dict[bytes, int], scheme: str):
    lines = [base64.b64encode(piece) + b" %d\n" % rank for piece, rank in ranks.items()]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ranks.tiktoken"
        file.write_bytes(b"".join(lines))
        return tokenizer.from_tiktoken(str(file), pretokenizer=scheme, special_tokens=None)

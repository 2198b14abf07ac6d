r"""gigatoken in place of Hugging Face tokenizers, for those byte-level tokenizers where its ids are proved equal.

The proof has three parts. Only settings are taken that gigatoken is known to follow. Before the first use, both encode
the texts of `trial_texts`, and gigatoken is dropped if an id differs. And documents for which the two are known to
differ are left to tokenizers: those with code points that are unassigned in some version of Unicode, and those with
added tokens that the two find differently. Text is normalized by tokenizers itself.
"""

import functools
import itertools
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.random_streams import stream
from stochastok_cli.tokenization.encoders import one_line_errors, reading_errors
from stochastok_cli.tokenization.gigatoken_encoder import (
    PLANES_IN_USE,
    GigatokenEncoder,
    encode_apart,
    may_differ,
    unassigned_or_surrogate,
)
from stochastok_cli.tokenization.merges import byte_characters
from stochastok_cli.tokenization.tokenizer_settings import components

if TYPE_CHECKING:
    import tokenizers

EncodeBatch = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]

_FORMS = {"NFC", "NFD", "NFKC", "NFKD"}
_NOT_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}


class VerifiedGigatoken:
    """Encodes batches of documents; make it by `verified_gigatoken`.

    Args:
        tokenizer: the tokenizer.
        content: its `tokenizer.json`, checked by `followed_settings`.
        gigatoken: encodes text that is normalized.
    """

    def __init__(self, tokenizer: "tokenizers.Tokenizer", content: dict[str, Any], gigatoken: GigatokenEncoder):
        self._normalizer = tokenizer.normalizer
        self._forms = [step["type"] for step in components(content["normalizer"])]
        self._added = [token["content"] for token in _ordinary(content)]
        self._found_differently = _found_differently(content)
        self._gigatoken = gigatoken
        self._odd = odd_for_tokenizers()

    def encode_batch(
        self, texts: Sequence[str], threads: int, by_tokenizers: EncodeBatch
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts, one after another (uint32), and the number of ids of each (int64 `[texts]`).

        Args:
            texts: the texts.
            threads: how many threads encode them.
            by_tokenizers: encodes the texts that gigatoken may not encode.
        """
        usual = [self._normalized(text) for text in texts]
        return encode_apart(
            texts, usual, functools.partial(self._gigatoken.encode_batch, threads=threads), by_tokenizers
        )

    def _normalized(self, text: str) -> str | None:
        """The text as the model sees it; None if gigatoken may not encode it."""
        if any(token in text for token in self._found_differently):
            return None
        if text.isascii():
            return text
        if may_differ(text, self._odd):
            return None
        if all(unicodedata.is_normalized(form, text) for form in self._forms):
            return text
        normalized = self._normalizer.normalize_str(text)
        # Added tokens are found before or after the text is normalized, which is then done between them.
        return None if any(token in text or token in normalized for token in self._added) else normalized


def verified_gigatoken(
    tokenizer: "tokenizers.Tokenizer", content: dict[str, Any], encode_batch: EncodeBatch
) -> VerifiedGigatoken | None:
    """gigatoken for a tokenizer, if it gives the same ids.

    Args:
        tokenizer: the tokenizer, whose special tokens are ordinary text (`encode_special_tokens`).
        content: its `tokenizer.json`.
        encode_batch: encodes texts by `tokenizer`.

    Returns:
        None where gigatoken is not installed, does not know the tokenizer, may differ from it or does differ from it.
    """
    followed = followed_settings(content)
    if followed is None:
        return None
    try:
        with reading_errors("the tokenizer"):
            gigatoken = GigatokenEncoder.from_json(msgspec.json.encode(followed))
    except Exception:  # gigatoken is not installed, or raises whatever its reader raises
        return None
    verified = VerifiedGigatoken(tokenizer, content, gigatoken)
    texts = trial_texts(content)
    ids, lengths = encode_batch(texts)
    try:
        with one_line_errors(texts):
            same = verified.encode_batch(texts, 1, encode_batch)
    except UserError:
        return None
    return verified if np.array_equal(ids, same[0]) and np.array_equal(lengths, same[1]) else None


def followed_settings(content: dict[str, Any]) -> dict[str, Any] | None:
    """The `tokenizer.json` for gigatoken, without a normalizer and special tokens.

    Returns:
        None for a tokenizer with a setting that gigatoken does not follow, though it reads it.
    """
    model, added = content["model"], _ordinary(content)
    if model["type"] != "BPE" or model.get("dropout") or any(model.get(key) for key in ("unk_token", "byte_fallback")):
        return None
    letters = byte_characters()
    if any(letters[byte] not in model["vocab"] for byte in range(256) if byte not in _NOT_IN_UTF8):
        return None
    forms = [step["type"] for step in components(content["normalizer"])]
    if not _FORMS.issuperset(forms):
        return None
    *splits, last = [*components(content["pre_tokenizer"]), {"type": None}][:-1] or [{"type": None}]
    if last["type"] != "ByteLevel" or last["add_prefix_space"] or last["use_regex"] == bool(splits):
        return None
    if any(step["type"] != "Split" or step["behavior"] != "Isolated" or step["invert"] for step in splits):
        return None
    if not all(unicodedata.is_normalized(form, token["content"]) for token in added for form in forms):
        return None
    return {**content, "normalizer": None, "post_processor": None, "added_tokens": added}


def _ordinary(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [token for token in content["added_tokens"] if not token["special"]]


def _found_differently(content: dict[str, Any]) -> list[str]:
    """The names of the ordinary added tokens that the two libraries may find in different places of a text.

    tokenizers has settings for the text around a token, looks for some tokens before it normalizes the text and for
    others afterwards, and passes over the name of a special token, so that it hides one that overlaps it.
    """
    added = _ordinary(content)
    around = {token["content"] for token in added if token["single_word"] or token["lstrip"] or token["rstrip"]}
    first, later = ({token["content"] for token in added if token["normalized"] is flag} for flag in (False, True))
    special = {token["content"] for token in content["added_tokens"]} - first - later
    pairs = [(a, b) for a in first for b in special] + [(a, b) for a in later for b in special | first]
    return sorted(around.union(*(pair for pair in pairs if _overlap(*pair))) - special)


def _overlap(a: str, b: str) -> bool:
    """Whether two names can share characters of a text."""
    if a in b or b in a:
        return True
    return any(a.endswith(b[:n]) or b.endswith(a[:n]) for n in range(1, min(len(a), len(b))))


@functools.cache
def odd_for_tokenizers() -> np.ndarray:
    """The code points that are unassigned in the Unicode of Python or of tokenizers, bool `[0x110000]`."""
    from tokenizers import Regex, pre_tokenizers

    odd = unassigned_or_surrogate().copy()
    unassigned = pre_tokenizers.Split(Regex(r"\p{Cn}+"), "removed", invert=True)
    for low, high in PLANES_IN_USE:
        points = "".join(chr(point) for point in range(low, high) if not 0xD800 <= point <= 0xDFFF)
        for run, _ in unassigned.pre_tokenize_str(points):
            odd[np.frombuffer(run.encode("utf-32-le"), "<u4")] = True
    return odd


_PARTS = ["the", " cat", "It", "'s", "'S", "'ll", "'LL", "’s", "'re", "'", " ", "  ", "\n", "\r\n", "\t", "\n\n", " \n"]
_PARTS += ["a", "B", "aB", "é", "É", "e\u0301", "ñ", "ß", "ſ", "K", "\u0301", "1", "12", "1234", "3.14", "½", "²", "٣"]
_PARTS += ["_", ".", "...", "!", "?!", "//", "/*", "(", "{}", "<", "=>", "==", "#", "$", "%", "^", "`", "~", "|", '"']
_PARTS += ["日本", "語", "かな", "カナ", "한국", "привет", "Ελλ", "שלום", "مرحبا", "हिन्दी", "ไทย", "ქართ", "አማ", "தமிழ்"]
_PARTS += [
    "😀",
    "👩\u200d👧",
    "🇩🇪",
    "❤\ufe0f",
    "\u200b",
    "\u00a0",
    "\u2028",
    "\u3000",
    "\x85",
    "\x00",
    "\x1f",
    "\ufeff",
]
_PARTS += [
    "—",
    "«",
    "¿",
    "€",
    "°",
    "\u00ad",
    "ﬁ",
    "㎏",
    "ǅ",
    "ʰ",
    "Ⅷ",
    "ａ",
    "𝐀",
    "𐐀",
    "\ue000",
    "\U000f0000",
    "\ufffd",
]
_CODE = (
    'def f(x: int = 0xFF) -> list[str]:\n    """Docs."""\n\treturn [f"{i:>3}" for i in range(x) if i % 2 != 0]\n\n\n'
    'for (int i = 0; i < n; ++i) { a[i] += b->c * 1e-9; } // done\r\n<div class="x">&amp;</div>\n| a | b |\n|---|---|\n'
    "https://example.org/a_b?c=d&e=%20#f user@example.org v1.2.3-rc4 camelCaseHTTPServer SCREAMING_CASE $HOME ${x}\n"
)


def trial_texts(content: dict[str, Any]) -> list[str]:
    """The texts on which gigatoken is compared with tokenizers: some 150,000 characters.

    Code, numbers, runs of white space, contractions, scripts, emoji, combining marks and odd code points in pairs and
    at random, a sample of all assigned code points, names of special and added tokens, entries of the vocabulary.

    Args:
        content: the `tokenizer.json`.
    """
    rng = stream(0, "trial texts")
    odd = odd_for_tokenizers()
    points = [chr(p) for p in itertools.chain(range(0x250), range(0x250, 0x40000, 97)) if not odd[p]]
    names = [token["content"] for token in content["added_tokens"]]
    names = names[:: len(names) // 50 + 1]
    byte_of = {letter: byte for byte, letter in enumerate(byte_characters())}
    entries = [entry for entry in content["model"]["vocab"] if all(letter in byte_of for letter in entry)]
    entries = entries[:: len(entries) // 2000 + 1]
    words = [bytes(map(byte_of.__getitem__, entry)).decode(errors="ignore") for entry in entries]
    parts = [*_PARTS, *names, *words[:: len(words) // 50 + 1]]
    return [
        _CODE,
        *(f"it's{c} x'll{c}{c}a '{c} {c}1{c} .{c}\n {c}  {c}" for c in points),
        *(a + b for a in _PARTS for b in _PARTS),
        *("".join(parts[i] for i in rng.integers(len(parts), size=7)) for _ in range(1000)),
        *(text for name in names for text in (name, f"a{name}b {name} \u0301{name}\u0301")),
        *words,
        *(" " * n + "x" + "\n" * n + " " * n + "a" * n + "1" * n for n in (3, 5, 17, 64, 100)),
    ]

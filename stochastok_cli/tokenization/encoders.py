"""Text to token ids by tiktoken or by Hugging Face tokenizers.

Special tokens are never recognized in text: their names are ordinary text, as in tiktoken's `encode_ordinary`.
"""

import functools
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.tokenization.gigatoken_encoder import GigatokenEncoder, needs_tiktoken
from stochastok_cli.tokenization.merges import byte_characters, merges_from_ranks

if TYPE_CHECKING:
    import tiktoken
    import tokenizers


class Encoder(Protocol):
    """The interface to a tokenizer library, as `Vocabulary` uses it."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ...

    def encode_batch(self, texts: Sequence[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts, one after another (uint32), and the number of ids of each (int64 `[texts]`)."""
        ...

    def pretokens(self, text: str) -> list[str]:
        """The parts of a text that byte-pair encoding never merges across."""
        ...

    def merges(self) -> list[tuple[bytes, bytes]] | None:
        """The merge list of a byte-level BPE, best rank first; None for another kind of tokenizer."""
        ...

    def no_merges_reason(self) -> str:
        """Why there is no merge list."""
        ...

    def unknown(self) -> int | None:
        """The id for text that the vocabulary can't encode; None if it can encode everything."""
        ...

    def tokenizer_json(self, special: dict[str, int]) -> str:
        """The tokenizer in the format of `tokenizer.json`; `special` has the id of each special token by its name."""
        ...


# The regular expression engine of tiktoken overflows its stack on some 1e6 white-space characters before a word.
# Dividing the text before the last space of such a run changes nothing: that space belongs to the word, the others
# are pretokens of their own.
_LONG_SPACE = re.compile(r"(?<!\s)\s{100000,}+(?=\S)")
_MAY_HAVE_LONG_SPACE = 100_000


# The names that gigatoken has for the pretokenization of encodings, where it divides text exactly as tiktoken does.
_GIGATOKEN_SCHEMES = {
    "gpt2": "gpt2",
    "sample2k": "gpt2",
    "r50k_base": "gpt2",
    "cl100k_base": "cl100k",
    "o200k_base": "o200k",
}


class TiktokenEncoder:
    """Byte-level BPE by tiktoken."""

    def __init__(self, encoding: "tiktoken.Encoding", merges: list[tuple[bytes, bytes]] | None = None):
        self._encoding = encoding
        self._merges = merges

    def encode(self, text: str) -> list[int]:
        return self._encode(text).tolist()

    @functools.cached_property
    def _gigatoken(self) -> GigatokenEncoder | None:
        """The fast encoder, if it is installed and knows the pretokenization of this encoding."""
        scheme = _GIGATOKEN_SCHEMES.get(self._encoding.name)
        try:
            return GigatokenEncoder(self._encoding._mergeable_ranks, scheme) if scheme else None
        except ImportError:
            return None

    def encode_batch(self, texts: Sequence[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        if self._gigatoken is None:
            with ThreadPoolExecutor(threads) as pool:
                return _concatenated(list(pool.map(self._encode, texts)))
        unusual = {i: self._encode(text) for i, text in enumerate(texts) if needs_tiktoken(text)}
        if not unusual:
            return self._gigatoken.encode_batch(texts, threads)
        ids, lengths = self._gigatoken.encode_batch([t for i, t in enumerate(texts) if i not in unusual], threads)
        usual = iter(np.split(ids, np.cumsum(lengths))[:-1])
        return _concatenated([unusual[i] if i in unusual else next(usual) for i in range(len(texts))])

    def _encode(self, text: str) -> np.ndarray:
        texts = [text]
        if len(text) > _MAY_HAVE_LONG_SPACE:
            cuts = [m.end() - 1 for m in _LONG_SPACE.finditer(text) if text[m.end() - 1] == " "]
            texts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        try:
            parts = [self._encoding.encode_to_numpy(part, disallowed_special=()) for part in texts]
        except UnicodeEncodeError:
            raise _lone_surrogate(text) from None
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise UserError(
                f"tiktoken cannot encode a text of {len(text):,} characters that begins {text[:30]!r}",
                fix="its white space or punctuation runs too long: cut the document",
                exit_code=FAILED,
            ) from None
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def pretokens(self, text: str) -> list[str]:
        import regex

        return regex.findall(self._encoding._pat_str, text)

    def merges(self) -> list[tuple[bytes, bytes]]:
        if self._merges is None:
            self._merges = merges_from_ranks(self._encoding._mergeable_ranks)
        return self._merges

    def no_merges_reason(self) -> str:
        return "all of its tokens are single bytes"

    def unknown(self) -> int | None:
        return None  # every text is encoded as bytes

    def tokenizer_json(self, special: dict[str, int]) -> str:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

        ranks = self._encoding._mergeable_ranks
        as_text = byte_characters()

        def entry(piece: bytes) -> str:
            return "".join(as_text[byte] for byte in piece)

        vocabulary = {entry(piece): rank for piece, rank in ranks.items()} | special
        tokenizer = Tokenizer(models.BPE(vocabulary, [(entry(a), entry(b)) for a, b in self.merges()]))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_as_oniguruma(self._encoding._pat_str)), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens([AddedToken(text, special=True) for text in special])
        return tokenizer.to_str()


def _as_oniguruma(pattern: str) -> str:
    """A pretokenization pattern in the regular expressions of Hugging Face tokenizers (Oniguruma).

    There, `$` would match at the end of any line, and possessive quantifiers have another syntax; these patterns
    match the same text without them.
    """
    return re.sub(r"([+*?]|\{\d+(?:,\d*)?\})\+", r"\1", pattern).replace("$", r"\z")


class TokenizersEncoder:
    """Any tokenizer of Hugging Face tokenizers, without truncation and padding."""

    def __init__(self, tokenizer: "tokenizers.Tokenizer"):
        tokenizer.encode_special_tokens = True  # the names of special tokens are ordinary text
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            raise _lone_surrogate(text) from None

    def encode_batch(self, texts: Sequence[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):
            raise next(
                (_lone_surrogate(text) for text in texts if _has_surrogate(text)), UserError("bad text")
            ) from None
        return _concatenated([np.array(encoding.ids, dtype=np.uint32) for encoding in encodings])

    def pretokens(self, text: str) -> list[str]:
        return [text[a:b] for _, (a, b) in self._tokenizer.pre_tokenizer.pre_tokenize_str(text)]

    def merges(self) -> list[tuple[bytes, bytes]] | None:
        if self.no_merges_reason():
            return None
        merges = json.loads(self._tokenizer.to_str())["model"]["merges"]
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
        byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        return [(bytes(byte_of[c] for c in a), bytes(byte_of[c] for c in b)) for a, b in pairs]

    def no_merges_reason(self) -> str:
        content = json.loads(self._tokenizer.to_str())
        if (model := content["model"]["type"]) != "BPE":
            return f"its model is {model}"
        if (content["decoder"] or {}).get("type") != "ByteLevel":
            return "its tokens are not byte-level"
        if self._tokenizer.normalizer is not None:
            return "it normalizes text before it merges"
        if self._tokenizer.pre_tokenizer is None:
            return "it has no pretokenizer"
        return "" if content["model"]["merges"] else "its merge list is empty"

    def unknown(self) -> int | None:
        model = json.loads(self._tokenizer.to_str())["model"]
        token = model.get("unk_token")
        return self._tokenizer.token_to_id(token) if token else model.get("unk_id")

    def tokenizer_json(self, special: dict[str, int]) -> str:
        return json.dumps(json.loads(self._tokenizer.to_str()), ensure_ascii=False)


def _concatenated(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return (np.concatenate(parts) if parts else np.empty(0, np.uint32)), lengths


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _lone_surrogate(text: str) -> UserError:
    i = next(i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    return UserError(f"a text holds a lone surrogate ({text[i]!r} at character {i}), which is no valid Unicode")

"""Text to token ids: the interface to tokenizer libraries, and tiktoken.

Special tokens are never recognized in text: their names are ordinary text, as in tiktoken's `encode_ordinary`.
"""

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stochastok_cli.errors import FAILED, UserError, first_line, is_rust_panic
from stochastok_cli.panics import panic_messages_held_back
from stochastok_cli.tokenization.gigatoken_encoder import (
    GigatokenEncoder,
    encode_apart,
    may_differ,
    unassigned_or_surrogate,
)
from stochastok_cli.tokenization.merges import byte_characters, merges_from_ranks

if TYPE_CHECKING:
    import tiktoken


class Encoder(Protocol):
    """The interface to a tokenizer library, as `Vocabulary` uses it."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ...

    def encode_batch(self, texts: Sequence[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts, one after another (uint32), and the number of ids of each (int64 `[texts]`)."""
        ...

    def pretokens(self, text: str) -> list[bytes]:
        """The parts of a text's bytes that byte-pair encoding never merges across."""
        ...

    def merges(self) -> list[tuple[bytes, bytes]] | None:
        """The merge list of a byte-level BPE, best rank first; None for another kind of tokenizer."""
        ...

    def no_merges_reason(self) -> str:
        """Why there is no merge list."""
        ...

    def whole_words(self) -> list[int]:
        """The ids of a byte-level BPE that a pretoken is encoded to although merges do not make them of its bytes."""
        ...

    def scores(self) -> dict[int, float] | None:
        """The log probability of each entry that a Unigram model may find in a text; None for another model."""
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


# The names that gigatoken has for the patterns of encodings, where it divides text exactly as tiktoken does.
_GIGATOKEN_SCHEMES = {
    "gpt2": "gpt2",
    "sample2k": "gpt2",
    "r50k_base": "gpt2",
    "cl100k_base": "cl100k",
    "o200k_base": "o200k",
}


class TiktokenEncoder:
    """Byte-level BPE by tiktoken.

    Args:
        encoding: the encoding.
        read_merges: reads its merge list; by default it is found from its ranks.
        form: the Unicode normalization form that text is brought to, such as NFC.
    """

    def __init__(
        self,
        encoding: "tiktoken.Encoding",
        read_merges: Callable[[], list[tuple[bytes, bytes]]] | None = None,
        form: str = "",
    ):
        self._encoding = encoding
        self._read_merges = read_merges
        self._form: Any = form

    def encode(self, text: str) -> list[int]:
        return self._encode(unicodedata.normalize(self._form, text) if self._form else text).tolist()

    @functools.cached_property
    def _gigatoken(self) -> GigatokenEncoder | None:
        """The fast encoder, if it is installed and knows the pretokenization of this encoding."""
        scheme = _GIGATOKEN_SCHEMES.get(self._encoding.name)
        try:
            return GigatokenEncoder.from_ranks(self._encoding._mergeable_ranks, scheme) if scheme else None
        except ImportError:
            return None

    def encode_batch(self, texts: Sequence[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        if self._form:
            texts = [unicodedata.normalize(self._form, text) for text in texts]
        by_tiktoken = functools.partial(self._encode_batch, threads=threads)
        if self._gigatoken is None:
            return by_tiktoken(texts)
        odd = unassigned_or_surrogate()
        usual = [None if may_differ(text, odd) else text for text in texts]
        with one_line_errors(texts):
            return encode_apart(
                texts, usual, functools.partial(self._gigatoken.encode_batch, threads=threads), by_tiktoken
            )

    def _encode_batch(self, texts: Sequence[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        with ThreadPoolExecutor(threads) as pool:
            return concatenated(list(pool.map(self._encode, texts)))

    def _encode(self, text: str) -> np.ndarray:
        texts = [text]
        if len(text) > _MAY_HAVE_LONG_SPACE:
            cuts = [m.end() - 1 for m in _LONG_SPACE.finditer(text) if text[m.end() - 1] == " "]
            texts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        with one_line_errors([text]):
            parts = [self._encoding.encode_to_numpy(part, disallowed_special=()) for part in texts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def pretokens(self, text: str) -> list[bytes]:
        import regex

        # Of a pattern with groups, `findall` would return the groups.
        return [match[0].encode() for match in regex.finditer(self._encoding._pat_str, text)]

    def merges(self) -> list[tuple[bytes, bytes]]:
        return self._merge_list

    @functools.cached_property
    def _merge_list(self) -> list[tuple[bytes, bytes]]:
        if self._read_merges is not None:
            return self._read_merges()
        return merges_from_ranks(self._encoding._mergeable_ranks)

    def no_merges_reason(self) -> str:
        return "all of its tokens are single bytes"

    def whole_words(self) -> list[int]:
        merged = {a + b for a, b in self.merges()}
        ranks = self._encoding._mergeable_ranks
        return [i for token, i in ranks.items() if len(token) > 1 and token not in merged]

    def scores(self) -> dict[int, float] | None:
        return None

    def unknown(self) -> int | None:
        return None  # every text is encoded as bytes

    def tokenizer_json(self, special: dict[str, int]) -> str:
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

        ranks = self._encoding._mergeable_ranks
        as_text = byte_characters()

        def entry(piece: bytes) -> str:
            return "".join(as_text[byte] for byte in piece)

        vocabulary = {entry(piece): rank for piece, rank in ranks.items()} | special
        merges = [(entry(a), entry(b)) for a, b in self.merges()]
        # tiktoken takes a pretoken that is an entry as it is.
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=bool(self.whole_words())))
        if self._form:
            tokenizer.normalizer = getattr(normalizers, self._form)()
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


@contextmanager
def one_line_errors(texts: Sequence[str]) -> Iterator[None]:
    """Turns what a library raises when it encodes texts into a `UserError`."""
    try:
        with panic_messages_held_back():
            yield
    except (UnicodeEncodeError, TypeError):
        _raise_lone_surrogate(texts)
        raise
    except BaseException as error:
        if not is_rust_panic(error) and type(error) not in (Exception, ValueError):  # the first of them by tokenizers
            raise
        raise _cannot_encode(texts, error) from None


@contextmanager
def reading_errors(name: object, kind: str = "tokenizer.json") -> Iterator[None]:
    """Turns what tokenizers raises when it reads a tokenizer into a `UserError`: it is no file of this kind."""
    try:
        with panic_messages_held_back():
            yield
    except BaseException as error:
        if not is_rust_panic(error) and type(error) not in (Exception, ValueError):
            raise
        raise UserError(f"{name} is not a {kind}: {first_line(error)}") from None


def _cannot_encode(texts: Sequence[str], error: BaseException) -> UserError:
    """The error for texts that a library fails to encode."""
    which = f"one of {len(texts)} texts"
    if len(texts) == 1:
        which = f"a text of {len(texts[0]):,} characters that begins {texts[0][:30]!r}"
    return UserError(
        f"the tokenizer cannot encode {which}: {first_line(error)}",
        fix="its white space or punctuation may run too long: cut the document",
        exit_code=FAILED,
    )


def _raise_lone_surrogate(texts: Sequence[str]) -> None:
    """Raises UserError if one of the texts holds a lone surrogate."""
    for text in texts:
        if surrogate := re.search("[\ud800-\udfff]", text):
            place = f"{surrogate[0]!r} at character {surrogate.start()}"
            raise UserError(f"a text holds a lone surrogate ({place}), which is no valid Unicode") from None


def concatenated(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The ids of many texts, one after another, and the number of ids of each (int64 `[texts]`)."""
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return (np.concatenate(parts) if parts else np.empty(0, np.uint32)), lengths

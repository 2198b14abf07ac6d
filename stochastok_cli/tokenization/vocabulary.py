"""The class `Vocabulary`: the bytes of each token, the special tokens, and how text becomes ids and back.

`loaders` has the functions that return one.
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.encoders import Encoder

END_OF_TEXT = "<|endoftext|>"
# Texts that tell patterns and normalizers apart. Fingerprints depend on them: they must stay as they are.
CUT_TEXTS = [
    "it's IT'S we'll WE'LL don't'x 'tis",
    "1 12 123 1234 12345678 a1b22c333 3.14",
    "a  b   c \n d\n\n\te\r\n\r\n  f  ",
]
CUT_TEXTS += [
    "(a) [b]{c} !d ?!e $f _g a.b a/b //c\n.../\n",
    "camelCase HTTPServer ABCdef",
    "e\u0301 \u00e9 A\u030a \u00c5",
]
CUT_TEXTS += [
    "\u0939\u093f\u0928\u094d\u0926\u0940",
    "\u65e5\u672c\u8a9e\u304b\u306a \u30ab\u30ca",
    " x",
    "  x",
    "x ",
    "\ufb01 \u338f \u00bd \u00b2",
]
CUT_TEXTS += ["The quick brown fox jumps over the lazy dog, unbelievably strawberry-flavoured internationalization."]
# The hash of how the bundled vocabularies cut text, by that of their entries.
_CUT_OF_BUNDLED = {
    "e145d95a08710160434e83ba6886197d": "56350f12b35a6857",  # gpt2
    "cd999f4eca3fd65e61a81194b577903c": "514f1e4651ffbec0",  # sample2k
}

_MAX_UNUSED = 2**16  # ids not in use, besides as many as there are entries


def state_without_caches(instance: Any) -> dict[str, Any]:
    """The state of an object to pickle: without cached properties, which may be large or can't be pickled."""
    cls = type(instance)
    return {k: v for k, v in vars(instance).items() if not isinstance(getattr(cls, k, None), functools.cached_property)}


def require_dense(ids: Iterable[int], name: str) -> None:
    """Raises UserError for an id of two entries, and for ids so far apart that most rows of a table would be empty."""
    ids = list(ids)
    if len(set(ids)) < len(ids):
        shared = next(i for i, count in Counter(ids).items() if count > 1)
        raise UserError(f"{name} has {Counter(ids)[shared]} entries with the id {shared}")
    if min(ids, default=0) < 0 or max(ids, default=0) > 2 * len(ids) + _MAX_UNUSED:
        raise UserError(f"{name} has {len(ids):,} entries, and one of them has the id {max(ids, key=abs):,}")


def pieces_by_id(entries: Mapping[int, bytes], name: str) -> list[bytes]:
    """The entries in the order of their ids; ids that are not in use have no bytes. See `require_dense`."""
    require_dense(entries, name)
    pieces = [b""] * (max(entries, default=-1) + 1)
    for i, piece in entries.items():
        pieces[i] = piece
    return pieces


class Vocabulary:
    """The tokens of a tokenizer.

    It can be pickled, as data loaders with worker processes need it.

    Args:
        name: the name or path that the user gave.
        pieces: the bytes of each id; for a special token the bytes of its name.
        special: the special ids and those not in use. No text is encoded to them, but to the one for unknown text.
        unsplittable: ordinary ids that are never split, and that no token is split into, as their text depends on
            their neighbors.
        added: ordinary ids that are found in a text before it is divided into pretokens (added tokens).
        end_of_text: the id that ends a document.
        encoder: makes the encoder when it is first needed (expanding a memmap needs none).
        pretokenizes_like_gpt2: whether pretokens follow GPT-2's pattern, for which there is compiled code.
    """

    def __init__(
        self,
        *,
        name: str,
        pieces: list[bytes],
        special: Iterable[int],
        unsplittable: Iterable[int] = (),
        added: Iterable[int] = (),
        end_of_text: int,
        encoder: Callable[[], Encoder],
        pretokenizes_like_gpt2: bool = False,
    ):
        self.name = name
        self.pieces = pieces
        self.special = frozenset(special)
        self.never_split = self.special.union(unsplittable)
        self.added = frozenset(added)
        self.end_of_text = end_of_text
        self.pretokenizes_like_gpt2 = pretokenizes_like_gpt2
        self._make_encoder = encoder

    def __getstate__(self) -> dict[str, Any]:
        return state_without_caches(self)

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return self._make_encoder()

    @property
    def size(self) -> int:
        """The number of ids."""
        return len(self.pieces)

    @property
    def dtype(self) -> np.dtype:
        """The dtype of ids on disk: little-endian uint16 if every id fits, else uint32."""
        return np.dtype("<u2") if self.size <= 2**16 else np.dtype("<u4")

    @functools.cached_property
    def widths(self) -> np.ndarray:
        """The number of bytes of each id, int64 `[size]`."""
        return np.array([len(piece) for piece in self.pieces], dtype=np.int64)

    @functools.cached_property
    def text_widths(self) -> np.ndarray:
        """The number of bytes of text that each id decodes to, int64 `[size]`: 0 for special tokens."""
        widths = self.widths.copy()
        widths[sorted(self.special)] = 0
        return widths

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of what decides ids and their bytes; equal for equal vocabularies, whatever file they are read from.

        It has two parts with a `-` between them: a hash of the bytes of every id, the ids never split and the
        end-of-text id, and a hash of the ids of fixed texts, which shows how text is cut (pattern, normalizer, merges).
        The bundled vocabularies have the first part alone, as all had in earlier versions (see `same_tokenizer`).
        """
        lengths = self.widths.astype("<u4")
        special = np.array([*sorted(self.never_split), self.end_of_text], dtype="<u4")
        entries = hashlib.sha256(b"|".join([lengths.tobytes(), special.tobytes(), *self.pieces])).hexdigest()[:32]
        if self.pretokenizes_like_gpt2:
            return entries
        cut = self._cut_hash()
        return entries if _CUT_OF_BUNDLED.get(entries) == cut else f"{entries}-{cut}"

    def _cut_hash(self) -> str:
        """A hash of the ids of fixed texts, and of entries of the vocabulary, alone and joined."""
        ordinary = [piece for i, piece in enumerate(self.pieces) if i not in self.never_split]
        entries = [piece.decode(errors="ignore") for piece in ordinary[:: len(ordinary) // 4096 + 1]]
        joined = ["".join(entries[i : i + 8]) for i in range(0, len(entries), 8)]
        ids = [np.array(self.encode(text), "<u4").tobytes() for text in [*CUT_TEXTS, *entries, *joined]]
        return hashlib.sha256(b"|".join(str(len(part)).encode() + part for part in ids)).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Name, fingerprint and size, as recorded in manifests."""
        return {"name": self.name, "fingerprint": self.fingerprint, "size": self.size}

    def encode(self, text: str) -> list[int]:
        """The canonical token ids of a text. The name of a special token is ordinary text."""
        return self._encoder.encode(text)

    def encode_continuation(self, text: str) -> list[int]:
        """The ids of a text that follows another text.

        They differ from `encode` only for tokenizers that add a space before every text (Llama 2): a text that begins
        with a space does not get a second one.
        """
        ids = self.encode(text)
        if text.startswith(" ") and self.decode_bytes(ids) != text.encode():
            without = self.encode(text[1:])
            if self.decode_bytes(without) == text.encode():
                return without
        return ids

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts.

        Args:
            texts: the texts.
            threads: how many threads encode them; the result does not depend on it.

        Returns:
            The ids one after another (dtype `self.dtype`) and the number of ids of each text (int64 `[texts]`).
        """
        ids, lengths = self._encoder.encode_batch(texts, threads)
        return ids.astype(self.dtype, copy=False), lengths

    def encode_continuations(self, texts: Sequence[str], threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The ids of many texts, each of which follows another text: those of `encode_continuation`.

        Args:
            texts: the texts.
            threads: how many threads encode them; the result does not depend on it.

        Returns:
            As `encode_batch`.
        """
        ids, lengths = self.encode_batch(texts, threads)
        parts = np.split(ids, np.cumsum(lengths)[:-1])
        doubled = [
            i
            for i, (text, part) in enumerate(zip(texts, parts, strict=False))
            if text.startswith(" ") and self.decode_bytes(part.tolist()) != text.encode()
        ]
        if not doubled:
            return ids, lengths
        shorter, shorter_lengths = self.encode_batch([texts[i][1:] for i in doubled], threads)
        for i, part in zip(doubled, np.split(shorter, np.cumsum(shorter_lengths)[:-1]), strict=True):
            if self.decode_bytes(part.tolist()) == texts[i].encode():
                parts[i] = part
        return np.concatenate(parts), np.array([len(part) for part in parts], np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; bytes that are not valid UTF-8 become U+FFFD.

        Args:
            ids: token ids, such as a list or an array.

        Returns:
            The text. Special tokens have their names in it.

        Raises:
            UserError: for an id that is not in the vocabulary, as -100, the label of an id without a loss.
        """
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids; a special token has the bytes of its name.

        Args:
            ids: token ids, such as a list or an array.

        Returns:
            The bytes.

        Raises:
            UserError: for an id that is not in the vocabulary.
        """
        pieces, size = self.pieces, len(self.pieces)
        tokens = ids.tolist() if isinstance(ids, np.ndarray) else [*ids]
        try:
            return b"".join([pieces[i if i >= 0 else size] for i in tokens])
        except IndexError:
            raise self.unknown_id(next(i for i in tokens if not 0 <= i < size)) from None

    def unknown_id(self, token: int) -> UserError:
        """The error for an id that is not in the vocabulary."""
        return UserError(f"the id {token} is not in the vocabulary {self.name!r}")

    def token_text(self, token: int) -> str:
        r"""The text of one id, for people: bytes that are no characters by themselves are written as `\xe6`.

        Args:
            token: a token id.

        Returns:
            The text.

        Raises:
            UserError: for an id that is not in the vocabulary.

        >>> from stochastok_cli import load_vocabulary
        >>> [load_vocabulary("gpt2").token_text(i) for i in (995, 162)]
        [' world', '\\xe6']
        """
        return self.token_bytes(token).decode("utf-8", errors="backslashreplace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one id; for a special token those of its name.

        Args:
            token: a token id.

        Returns:
            The bytes.

        Raises:
            UserError: for an id that is not in the vocabulary.
        """
        if not 0 <= token < len(self.pieces):
            raise self.unknown_id(token)
        return self.pieces[token]

    def is_special(self, token: int) -> bool:
        """Whether an id is special or not in use."""
        return token in self.special

    @functools.cached_property
    def merges(self) -> list[tuple[bytes, bytes]] | None:
        """The merge list of a byte-level BPE, best rank first; None for another kind of tokenizer."""
        return self._encoder.merges()

    @property
    def no_merges_reason(self) -> str:
        """Why `merges` is None or empty."""
        return self._encoder.no_merges_reason()

    @functools.cached_property
    def unknown(self) -> int | None:
        """The id for text that the vocabulary can't encode; None if it can encode everything."""
        return self._encoder.unknown()

    @functools.cached_property
    def whole_words(self) -> frozenset[int]:
        """The ids of a byte-level BPE that a pretoken is encoded to although merges do not make them of its bytes."""
        return frozenset(self._encoder.whole_words())

    @functools.cached_property
    def scores(self) -> dict[int, float] | None:
        """The log probability of each entry that a Unigram model may find in a text; None for another model."""
        return self._encoder.scores()

    def pretokens(self, text: str) -> list[bytes]:
        """The parts of a text's bytes that byte-pair encoding never merges across; they concatenate to them."""
        return self._encoder.pretokens(text)

    @property
    def _special_by_name(self) -> dict[str, int]:
        return {self.pieces[i].decode(): i for i in sorted(self.special)}

    def tokenizer_json(self) -> str:
        """The tokenizer in the format of `tokenizer.json`; it finds the names of special tokens in a text."""
        return self._encoder.tokenizer_json(self._special_by_name)

    def save_tokenizer(self, folder: Path, model_max_length: int | None = None) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, which `transformers.AutoTokenizer` opens.

        Its padding token is a special token whose name says so, and there is none without one. End-of-text must not be
        it: collators hide the labels of padding tokens, and a model would never learn where a text ends.

        Args:
            folder: an existing folder.
            model_max_length: the number of ids that the model takes, if the tokenizer belongs to one.
        """
        special = self._special_by_name
        end = self.pieces[self.end_of_text].decode()
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": end,
            "bos_token": end,
            "unk_token": end if self.unknown is None else self.pieces[self.unknown].decode(),
        }
        config |= {} if model_max_length is None else {"model_max_length": model_max_length}
        padding = [name for name in special if "pad" in name.lower() and name != end]
        config |= {"pad_token": padding[0]} if padding else {}
        config |= {"clean_up_tokenization_spaces": False, "stochastok_vocabulary": self.name}
        (folder / "tokenizer.json").write_text(self.tokenizer_json(), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def __repr__(self) -> str:
        return f"Vocabulary({self.name!r}, size={self.size})"

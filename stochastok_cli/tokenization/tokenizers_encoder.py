"""Text to token ids by Hugging Face tokenizers, without truncation, padding and special tokens."""

import functools
import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stochastok_cli.background import in_background
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.tokenization.encoders import concatenated, one_line_errors, reading_errors
from stochastok_cli.tokenization.merges import byte_characters
from stochastok_cli.tokenization.tokenizer_settings import components, unknown_token
from stochastok_cli.tokenization.verified_gigatoken import VerifiedGigatoken, verified_gigatoken
from stochastok_cli.tokenization.vocabulary import state_without_caches

if TYPE_CHECKING:
    import tokenizers

T = TypeVar("T")
_BYTE_NAME = re.compile(r"<0x[0-9A-F]{2}>")
_LONG_TEXT = 1000  # characters; a shorter one is encoded in the thread that calls, which is faster
_WORTH_GIGATOKEN = 2**20  # characters, which tokenizers encodes in about the time that gigatoken takes to be made


class SavedTokenizer:
    """A tokenizer with its `tokenizer.json`, which takes long to parse: once, and only where it is needed.

    It is pickled without that.

    Args:
        tokenizer: the tokenizer, whose settings no longer change.
        content: its `tokenizer.json`, as `tokenizers` writes it, if it is parsed already.
    """

    def __init__(self, tokenizer: "tokenizers.Tokenizer", content: dict[str, Any] | None = None):
        self.tokenizer = tokenizer
        if content is not None:
            self.content = content

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """The parsed `tokenizer.json`, which must not be changed."""
        return json.loads(self.tokenizer.to_str())

    def __getstate__(self) -> dict[str, Any]:
        return state_without_caches(self)


class TokenizersEncoder:
    """Any tokenizer of Hugging Face tokenizers.

    Args:
        saved: the tokenizer.
        never: the ids that no text may be encoded to. Their names are ordinary text.
    """

    def __init__(self, saved: SavedTokenizer, never: frozenset[int] = frozenset()):
        self._saved = saved
        self._never = never
        self._tokenizer = without_ids(saved, never)
        self._never_ids = np.array(sorted(never), np.uint32)
        self._characters = 0

    def encode(self, text: str) -> list[int]:
        if len(text) > _LONG_TEXT:
            return self.encode_batch([text], 1)[0].tolist()
        with one_line_errors([text]):
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not self._never.isdisjoint(ids):
            self._require_ordinary(np.array(ids))
        return ids

    def encode_batch(self, texts: Sequence[str], threads: int) -> tuple[np.ndarray, np.ndarray]:
        self._characters += sum(map(len, texts))
        if self._characters < _WORTH_GIGATOKEN or self._gigatoken is None:
            return self._encode_batch(texts)
        with one_line_errors(texts):
            ids, lengths = self._gigatoken.encode_batch(texts, threads, self._encode_batch)
        self._require_ordinary(ids)
        return ids, lengths

    @functools.cached_property
    def _gigatoken(self) -> VerifiedGigatoken | None:
        """A faster encoder, if its ids are the same."""
        return verified_gigatoken(self._tokenizer, self._content, self._encode_batch)

    def _encode_batch(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encode = functools.partial(self._tokenizer.encode_batch_fast, add_special_tokens=False)
        try:
            with one_line_errors(texts):
                encodings = interruptible(functools.partial(encode, texts))
        except UserError:
            if len(texts) > 1:
                for text in texts:  # the error names the text
                    self._encode_batch([text])
            raise
        ids, lengths = concatenated([np.array(encoding.ids, dtype=np.uint32) for encoding in encodings])
        self._require_ordinary(ids)
        return ids, lengths

    def _require_ordinary(self, ids: np.ndarray) -> None:
        special = np.isin(ids, self._never_ids)
        if special.any():
            number = int(ids[special].min())
            raise UserError(
                f"a text was encoded to the special token {self._saved.tokenizer.id_to_token(number)!r} ({number})",
                exit_code=FAILED,
            )

    def pretokens(self, text: str) -> list[bytes]:
        """The parts of the text's bytes. Each letter of a byte-level pretoken is one byte."""
        content, parts, start = text.encode(), [], 0
        with one_line_errors([text]):
            pieces = interruptible(functools.partial(self._pretokenize, text))
        lengths = [len(piece) for piece, _ in pieces]
        if sum(lengths) == len(content) + 1 and pieces[0][0].startswith("Ġ"):
            lengths[0] -= 1  # a space before the text (add_prefix_space)
        for length in lengths:
            if length:
                parts.append(content[start : start + length])
                start += length
        if start != len(content) or sum(lengths) != start:
            raise UserError(f"the pretokens of {text[:30]!r} are not its bytes", exit_code=FAILED)
        return parts

    def _pretokenize(self, text: str) -> list[tuple[str, Any]]:
        return self._tokenizer.pre_tokenizer.pre_tokenize_str(text)

    @functools.cached_property
    def _content(self) -> dict[str, Any]:
        is_saved = self._tokenizer is self._saved.tokenizer
        return self._saved.content if is_saved else json.loads(self._tokenizer.to_str())

    def merges(self) -> list[tuple[bytes, bytes]] | None:
        if self.no_merges_reason():
            return None
        byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        merges = self._content["model"]["merges"]
        return [
            (bytes(byte_of[c] for c in a), bytes(byte_of[c] for c in b))
            for a, b in merges
            if byte_of.keys() >= {*a, *b}  # no others are ever applied
        ]

    def no_merges_reason(self) -> str:
        model = self._content["model"]
        if model["type"] != "BPE":
            return f"its model is {model['type']}"
        steps = list(components(self._content["pre_tokenizer"]))
        if not any(step["type"] == "ByteLevel" for step in components(self._content["decoder"])):
            return "its tokens are not byte-level"
        if not any(step["type"] == "ByteLevel" for step in steps):
            return "text becomes bytes in its normalizer, before it is divided into pretokens"
        if any(step.get("add_prefix_space") for step in steps[1:]):
            return "it adds a space before each pretoken (add_prefix_space)"
        return "" if model["merges"] else "its merge list is empty"

    def whole_words(self) -> list[int]:
        from tokenizers import models

        model = self._content["model"]
        if not model.get("ignore_merges") or self.no_merges_reason():
            return []
        merging = models.BPE(model["vocab"], [(a, b) for a, b in model["merges"]])
        added = {token["content"] for token in self._content["added_tokens"]}
        ordinary = {word: i for word, i in model["vocab"].items() if i not in self._never and word not in added}
        letters = set(byte_characters())
        return [i for word, i in ordinary.items() if letters.issuperset(word) and len(merging.tokenize(word)) != 1]

    def scores(self) -> dict[int, float] | None:
        model = self._content["model"]
        if model["type"] != "Unigram":
            return None
        # Bytes stand for characters without an entry, whatever their scores are, and the unknown token for the rest.
        passed_over = {model["unk_id"], *self._never}
        if model["byte_fallback"]:
            passed_over.update(i for i, (entry, _) in enumerate(model["vocab"]) if _BYTE_NAME.fullmatch(entry))
        return {i: score for i, (_, score) in enumerate(model["vocab"]) if i not in passed_over}

    def unknown(self) -> int | None:
        token = unknown_token(self._saved.content["model"])
        return None if token is None else self._saved.tokenizer.token_to_id(token)

    def tokenizer_json(self, special: dict[str, int]) -> str:
        return json.dumps(self._saved.content, ensure_ascii=False)


def without_ids(saved: SavedTokenizer, never: frozenset[int]) -> "tokenizers.Tokenizer":
    """A tokenizer for which some entries and added tokens do not exist when it encodes text.

    SentencePiece does the same: control symbols and bytes are no pieces of text there. All other ids stay as they are.

    Args:
        saved: the tokenizer. It is not changed, but its `encode_special_tokens` is set.
        never: the ids of these entries.
    """
    from tokenizers import Tokenizer, models

    tokenizer = saved.tokenizer
    words = {word for i in never if (word := tokenizer.id_to_token(i)) is not None}
    in_model = {word for word in words if tokenizer.model.token_to_id(word) is not None}
    added = tokenizer.get_added_tokens_decoder()
    tokenizer.encode_special_tokens = True  # the names of special tokens are ordinary text
    all_special = all(added[i].special for i in never & added.keys())
    if not in_model and all_special and isinstance(tokenizer.model, models.BPE) and not tokenizer.model.byte_fallback:
        return tokenizer
    content, model = {**saved.content}, {**saved.content["model"]}  # what is changed below is copied
    content["model"] = model
    hidden = in_model & _reachable(model, words)
    ordinary = {token["id"] for token in content["added_tokens"] if token["id"] in never and not token["special"]}
    names_of_bytes = model.get("byte_fallback") and (model["type"] == "Unigram" or model["ignore_merges"])
    if not hidden and not ordinary and not names_of_bytes:
        return tokenizer
    # An added token with an entry in the model goes with it; one without keeps its place, which decides the ids of
    # those behind it, and is passed over as special tokens are.
    content["added_tokens"] = [
        {**token, "special": token["special"] or token["id"] in ordinary}
        for token in content["added_tokens"]
        if token["content"] not in hidden
    ]
    if names_of_bytes:
        content["pre_tokenizer"] = _without_byte_names(content["pre_tokenizer"])
    if model["type"] == "Unigram":
        model["vocab"] = [["" if word in hidden else word, score] for word, score in model["vocab"]]
    elif hidden:
        longest = model.get("max_input_chars_per_word", 0)  # WordPiece does not look for longer words
        model["vocab"] = {_unlike_text(i, longest) if w in hidden else w: i for w, i in model["vocab"].items()}
    if model["type"] == "BPE":
        model["merges"] = [(a, b) for a, b in model["merges"] if hidden.isdisjoint((a, b, a + b))]
    with reading_errors("the tokenizer without its special tokens"):
        copy = Tokenizer.from_str(json.dumps(content))
    copy.encode_special_tokens = True
    return copy


def _reachable(model: dict[str, Any], words: set[str]) -> set[str]:
    """Those of the words that a model may find in a text."""
    if model["type"] != "BPE" or model["ignore_merges"]:
        return words
    merged = {a + b for a, b in model["merges"]}
    return {word for word in words if len(word) == 1 or word in merged}


def _unlike_text(number: int, longest: int) -> str:
    return f"\0{number}\0" + "\0" * min(longest, 1000)


def _without_byte_names(pre_tokenizer: dict[str, Any] | None) -> dict[str, Any]:
    """A pre-tokenizer that divides `<0xE2>` in a text, which models would take for the byte E2."""
    divide = {"type": "Split", "pattern": {"Regex": r"<(?=0x[0-9A-F]{2}>)"}, "behavior": "MergedWithPrevious"}
    steps = [*components(pre_tokenizer), {**divide, "invert": False}]
    return {"type": "Sequence", "pretokenizers": steps}


def interruptible(call: Callable[[], T]) -> T:
    """The result of a call that may take long and releases the GIL, in a thread so that Ctrl-C ends the wait for it.

    A pattern can take hours on a document (catastrophic backtracking), in a library that looks for no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    return in_background(call).result()

"""Conversations as token ids, rendered by the chat template of a tokenizer, with a loss on the assistant's turns.

The template is the tokenizer's own, and `transformers` renders it (extra `hf`). A template that marks what the
assistant says (`{% generation %}`) decides the loss itself. For any other, a conversation is rendered up to each turn
of the assistant, with the header that asks for the turn, and again with the turn: what is added is the turn. The text
of the whole conversation must begin with these renderings.

The names of special tokens that a template writes become these tokens. In what people and assistants say they are
ordinary text: there they are hidden behind private characters while the template is rendered and its special tokens are
found, and come back when the text between special tokens is encoded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stochastok_cli.errors import FAILED, UserError, cannot_import, first_line
from stochastok_cli.quiet_libraries import quiet
from stochastok_cli.tokenization.encoders import one_line_errors, reading_errors
from stochastok_cli.tokenization.loaders import tokenizer_path
from stochastok_cli.tokenization.tokenizers_encoder import SavedTokenizer, without_ids
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    import tokenizers

Messages = Sequence[dict[str, Any]]
"""A conversation as `transformers` takes it: a role and a content for each message."""

_ASSISTANT = "assistant"
_NO_TEMPLATE = "name the tokenizer of a chat model, or put a chat_template.jinja beside its tokenizer.json"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PRIVATE_CHARACTERS = range(0xF0000, 0xFFFFE)
_PROBE = "\ue000"  # a content that is found again in the text, another private character


class Unusable(Exception):
    """A conversation that can't be an example; the message says why, and is equal for equal reasons."""


class Example(NamedTuple):
    """The ids of an example `[tokens]`, and whether each has a loss (bool)."""

    ids: np.ndarray
    loss_mask: np.ndarray


class UserTurn(NamedTuple):
    """The ids of a conversation that a user begins: those before a part of what is said, of the part, and after it."""

    before: list[int]
    ids: list[int]
    after: list[int]


@dataclass(frozen=True)
class _Rendered:
    """A conversation as text.

    Attributes:
        text: The text, with private characters for names of special tokens that are no special tokens.
        spans: The beginning and the end of each part of the text that has a loss, in order.
        hidden: The name behind each private character.
    """

    text: str
    spans: list[tuple[int, int]]
    hidden: dict[str, str]


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: the path of a folder with a tokenizer and its chat template, or its name on the Hub.
        vocabulary: the vocabulary of the tokenizer.
        fix: what to do where there is no chat template, for the error.

    Attributes:
        source: the text of the template.

    Raises:
        UserError: `transformers` is not installed or can't open the tokenizer, or there is no chat template.
    """

    def __init__(self, tokenizer: str | Path, vocabulary: Vocabulary, *, fix: str = _NO_TEMPLATE):
        import tokenizers

        self.vocabulary = vocabulary
        self._tokenizer = _open(tokenizer, fix)
        if not self._tokenizer.chat_template:
            raise UserError(f"{tokenizer} has no chat template", fix=fix)
        try:
            self.source: str = self._tokenizer.get_chat_template()
        except ValueError as error:  # of several, none is the default
            raise UserError(f"{tokenizer} has no usable chat template: {first_line(error)}", fix=fix) from None
        if not self.source.strip():
            raise UserError(f"the chat template of {tokenizer} is empty", fix=fix)
        self._marks_generation = _GENERATION.search(self.source) is not None
        content = vocabulary.tokenizer_json()
        with reading_errors(tokenizer):
            self._encoder = tokenizers.Tokenizer.from_str(content)
            self._ordinary_encoder = without_ids(
                SavedTokenizer(tokenizers.Tokenizer.from_str(content)), vocabulary.special
            )
        added = self._encoder.get_added_tokens_decoder()
        self._names = tuple(token.content for i, token in added.items() if i in vocabulary.special)
        longest_first = sorted(self._names, key=len, reverse=True)
        self._any_name = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._special_ids = np.array([i for i in added if i in vocabulary.special])

    def encode_batch(self, chats: Sequence[Messages]) -> list[Example | Unusable]:
        """The ids of conversations and their losses, or why one can't be an example."""
        rendered = [self._render_or_reason(messages) for messages in chats]
        texts = [item.text for item in rendered if isinstance(item, _Rendered)]
        with one_line_errors(texts):
            encodings = iter(self._encoder.encode_batch(texts, add_special_tokens=False))
        return [self._example(item, next(encodings)) if isinstance(item, _Rendered) else item for item in rendered]

    def encode_user_turn(self, content: str, begin: int = 0, end: int | None = None) -> UserTurn:
        """The canonical ids of what a user says first, and of the header that asks for the assistant's turn.

        Args:
            content: what the user says.
            begin: where the part of it begins whose ids are told apart.
            end: where that part ends.

        Raises Unusable for a content that the template does not take.
        """
        [message], hidden = self._hide_names([{"role": "user", "content": content}])
        text, around = (
            self._render([{**message, "content": part}], add_generation_prompt=True)
            for part in (message["content"], _PROBE)
        )
        before, content_is_there, after = around.partition(_PROBE)
        if not content_is_there:
            what = "leaves out what a user says" if text.strip() else "renders nothing for what a user says"
            raise Unusable(f"the chat template {what}")
        turn = text[len(before) : len(text) - len(after)]
        stripped = message["content"].find(turn)  # how much white space the template strips
        if before + turn + after != text or stripped < 0:
            raise Unusable("the chat template changes what a user says")
        shift = len(before) - stripped
        names = {name: character for character, name in hidden.items()}
        edges = [len(self._hide(content[:edge], names)) for edge in (begin, len(content) if end is None else end)]
        first, last = (min(max(edge + shift, len(before)), len(before) + len(turn)) for edge in edges)
        rest = [(start, stop) for start, stop in ((0, first), (last, len(text))) if start < stop]
        rendered = _Rendered(text, rest, hidden)
        with one_line_errors([text]):
            encoding = self._encoder.encode(text, add_special_tokens=False)
        ids, is_rest = self._ids_and_mask(rendered, encoding)
        own = np.flatnonzero(~is_rest)  # a token across an edge is not the part's
        middle = slice(int(own[0]), int(own[-1]) + 1) if len(own) else slice(len(ids), len(ids))
        parts = (ids[: middle.start], ids[middle], ids[middle.stop :])
        return UserTurn(*(part.tolist() for part in parts))

    def end_of_turn(self, messages: Messages) -> int | None:
        """The first special id after the answer to a conversation; None where the template writes none there.

        Raises Unusable for a conversation that the template does not take.
        """
        text = self._render([*self._hide_names(messages)[0], {"role": _ASSISTANT, "content": _PROBE}])
        _, answer_is_there, tail = text.rpartition(_PROBE)
        if not answer_is_there:
            return None
        ids = self._encoder.encode(tail, add_special_tokens=False).ids
        return next((i for i in ids if i in self.vocabulary.special), None)

    def _ids_and_mask(self, rendered: _Rendered, encoding: "tokenizers.Encoding") -> tuple[np.ndarray, np.ndarray]:
        """The ids of a text and whether each has a loss, with names of special tokens in messages as ordinary text."""
        ids = np.array(encoding.ids, np.int64)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        mask = overlaps(offsets, rendered.spans)
        if any(character in rendered.text for character in rendered.hidden):
            return self._with_names(rendered, ids, offsets, mask)
        return ids, mask

    def _example(self, rendered: _Rendered, encoding: "tokenizers.Encoding") -> Example | Unusable:
        try:
            ids, mask = self._ids_and_mask(rendered, encoding)
        except Unusable as reason:
            return reason
        if not mask.any():
            return Unusable("no token of an assistant's turn")
        return Example(ids.astype(self.vocabulary.dtype), mask)

    def _with_names(
        self, rendered: _Rendered, ids: np.ndarray, offsets: np.ndarray, mask: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes the text around private characters anew, with the names that they hide.

        Args:
            rendered: the conversation.
            ids: the ids of its text, with private characters.
            offsets: int64 `[tokens, 2]`, the part of the text of each id.
            mask: whether each id has a loss.
        """
        special = np.flatnonzero(np.isin(ids, self._special_ids))
        all_ids, masks = [], []
        first, begin = 0, 0  # the id and the character after the last special token
        for token in [*special.tolist(), len(ids)]:
            end = int(offsets[token, 0]) if token < len(ids) else len(rendered.text)
            part, part_mask = ids[first:token], mask[first:token]
            text = rendered.text[begin:end]
            if any(character in text for character in rendered.hidden):
                if self._encode_ordinary(text).ids != part.tolist():
                    raise Unusable("the name of a special token in a message, which this tokenizer can't encode apart")
                pieces = [rendered.hidden.get(character, character) for character in text]
                place = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])])
                spans = [
                    tuple(int(place[min(max(edge - begin, 0), len(text))]) for edge in span) for span in rendered.spans
                ]
                encoding = self._encode_ordinary("".join(pieces))
                part = np.array(encoding.ids, np.int64)
                part_mask = overlaps(np.array(encoding.offsets, np.int64).reshape(-1, 2), spans)  # type: ignore[arg-type]
            all_ids += [part, ids[token : token + 1]]
            masks += [part_mask, mask[token : token + 1]]
            first, begin = token + 1, int(offsets[token, 1]) if token < len(ids) else end
        return np.concatenate(all_ids), np.concatenate(masks)

    def _encode_ordinary(self, text: str) -> "tokenizers.Encoding":
        with one_line_errors([text]):
            return self._ordinary_encoder.encode(text, add_special_tokens=False)

    def _render_or_reason(self, messages: Messages) -> _Rendered | Unusable:
        if not any(message["role"] == _ASSISTANT for message in messages):
            return Unusable("no turn of an assistant" if messages else "no messages")
        messages, hidden = self._hide_names(messages)
        try:
            if self._marks_generation:
                text, spans = self._render_marked(messages)
            else:
                text = self._render(messages)
                spans = [self._turn(messages, i, text) for i, m in enumerate(messages) if m["role"] == _ASSISTANT]
        except Unusable as reason:
            return reason
        return _Rendered(text, spans, hidden)

    def _hide_names(self, messages: Messages) -> tuple[Messages, dict[str, str]]:
        """A conversation with private characters for the names of special tokens, and the name behind each."""
        texts = "\0".join(_texts(messages))
        names = set(self._any_name.findall(texts))
        free = (chr(code) for code in _PRIVATE_CHARACTERS if chr(code) not in texts)
        by_name = dict(zip(sorted(names), free, strict=False))
        hidden = {character: name for name, character in by_name.items()}
        return (self._hide(messages, by_name) if names else messages), hidden

    def _hide(self, value: Any, by_name: dict[str, str]) -> Any:
        """A value with private characters for the names of special tokens in all of its texts."""
        if isinstance(value, str):
            return self._any_name.sub(lambda match: by_name[match[0]], value)
        if isinstance(value, Mapping):
            return {self._hide(key, by_name): self._hide(item, by_name) for key, item in value.items()}
        return [self._hide(item, by_name) for item in value] if isinstance(value, list | tuple) else value

    def _render(self, messages: Messages, *, add_generation_prompt: bool = False) -> str:
        """The text of a conversation, as the template renders it."""
        with _template_errors():
            return self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )

    def _render_marked(self, messages: Messages) -> tuple[str, list[tuple[int, int]]]:
        """The text of a conversation, and the parts of it that the template marks as generated."""
        from transformers.utils.chat_template_utils import render_jinja_template

        with _template_errors():
            rendered: Any = render_jinja_template(
                conversations=[list(messages)],
                chat_template=self.source,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        [text], [spans] = rendered
        return text, sorted((start, end) for start, end in spans if start < end)

    def _turn(self, messages: Messages, i: int, text: str) -> tuple[int, int]:
        """Where the turn of message `i` begins and ends in the text of the whole conversation."""
        if i == 0:
            raise Unusable("the assistant's turn comes first, and the template has no header to it alone")
        prompt = self._render(messages[:i], add_generation_prompt=True)
        if not text.startswith(prompt):
            raise Unusable("the chat template renders earlier turns otherwise when another follows")
        start, end = len(prompt), self._end_of_turn(messages, i, text, len(prompt))
        turn = text[start:end].rstrip()
        # White space behind the token that ends a turn is written by the template; nobody generates it.
        return start, start + len(turn) if turn.endswith(self._names) else end

    def _end_of_turn(self, messages: Messages, i: int, text: str, start: int) -> int:
        through = self._render(messages[: i + 1])
        if text.startswith(through) and len(through) >= start:
            return len(through)
        # Templates of models that reason leave the reasoning out of all turns but the last (Qwen3). What such a turn
        # ends with is taken from a rendering in which it is the last, and looked for before the next message's text.
        if i + 1 < len(messages):
            next_message = {**messages[i + 1], "content": _PROBE}
            before_next, _, _ = self._render([*messages[: i + 1], next_message]).rpartition(_PROBE)
            as_last = self._render([*messages[:i], {**messages[i], "content": _PROBE}])
            _, probe, tail = as_last.rpartition(_PROBE)
            end = before_next.rfind(tail, start) if probe and tail.strip() else -1
            if end >= 0 and text.startswith(before_next):
                return end + len(tail)
        raise Unusable("the chat template renders the end of an assistant's turn otherwise when another follows")


def overlaps(offsets: np.ndarray, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Whether each token overlaps one of the spans, as `transformers` decides for `assistant_masks`.

    Args:
        offsets: int64 `[tokens, 2]`, the beginning and the end of each token in the text.
        spans: beginnings and ends, in order and apart.

    >>> overlaps(np.array([[0, 2], [2, 5], [5, 6]]), [(1, 3)])
    array([ True,  True, False])
    """
    if not spans:
        return np.zeros(len(offsets), bool)
    starts, ends = np.array(spans).T
    span = np.searchsorted(ends, offsets[:, 0], side="right")  # the first that ends after the token begins
    return (span < len(ends)) & (offsets[:, 1] > starts[np.minimum(span, len(ends) - 1)])


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, the keys of objects too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


@contextmanager
def _template_errors() -> Iterator[None]:
    """A context in which whatever a template raises makes a conversation unusable."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"chat templates: {first_line(error)}", fix=_INSTALL, exit_code=FAILED) from None
    except Exception as error:
        raise Unusable(f"the chat template refuses it: {first_line(error)}") from None


_INSTALL = "pip install 'stochastok[hf]'"


def _open(tokenizer: str | Path, fix: str) -> Any:
    """The tokenizer as `transformers` opens it."""
    path = tokenizer_path(tokenizer)
    if path is None:
        raise UserError(f"the tokenizer {str(tokenizer)!r} has no chat template", fix=fix)
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise cannot_import("a chat template", "transformers", "hf", error) from None
    folder = path if path.is_dir() else path.parent
    try:
        with quiet("transformers"), reading_errors(folder):
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"transformers can't open the tokenizer {tokenizer}: {first_line(error)}") from None

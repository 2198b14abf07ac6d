"""How rows of a source become examples: conversations, and prompts with completions."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stochastok_cli.data.bad_documents import BadDocument, Location
from stochastok_cli.data.chat_template import ChatTemplate, Example, Unusable
from stochastok_cli.data.file_readers import require_text
from stochastok_cli.data.table_rows import Row
from stochastok_cli.errors import UserError, short_json
from stochastok_cli.tokenization.vocabulary import Vocabulary


class ExampleEncoder(Protocol):
    """Makes examples of rows.

    Attributes:
        columns: the columns, each by the option that names it.
        options: what decides the examples, for the manifest.
    """

    columns: dict[str, str]
    options: dict[str, Any]

    def parse(self, row: Row) -> Any:
        """What `encode` takes as the values of the row. Raises BadDocument for a row of another form."""
        ...

    def encode(self, rows: list[Row], threads: int) -> list[Example | Unusable]:
        """The example of each parsed row, or why there is none."""
        ...


def make_encoder(
    messages_column: str | None,
    prompt_column: str | None,
    completion_column: str | None,
    tokenizer: str | Path,
    vocabulary: Vocabulary,
    errors: str,
) -> ExampleEncoder:
    """The encoder of conversations, or of prompts with completions.

    Args:
        messages_column: the column of conversations, or None.
        prompt_column: the column of prompts, or None.
        completion_column: the column of completions, or None.
        tokenizer: name or path of the tokenizer.
        vocabulary: its vocabulary.
        errors: what to do with characters that are not Unicode: "strict" or "replace".

    Raises:
        UserError: neither kind has all of its columns, or both are named, or the tokenizer has no chat template.
    """
    if messages_column is not None and prompt_column is None and completion_column is None:
        return _Conversations(messages_column, ChatTemplate(tokenizer, vocabulary), errors)
    if messages_column is None and prompt_column is not None and completion_column is not None:
        if prompt_column == completion_column:
            fix = "a completion has a column of its own"
            raise UserError(f"--prompt-column and --completion-column are both {prompt_column!r}", fix=fix)
        return _Completions(prompt_column, completion_column, vocabulary, errors)
    raise UserError(
        "the columns of the examples are not clear",
        fix="give --messages-column, or --prompt-column and --completion-column",
    )


class _Conversations:
    """Conversations, with a loss on the turns of the assistant."""

    def __init__(self, column: str, template: ChatTemplate, errors: str):
        self.columns = {"--messages-column": column}
        digest = hashlib.sha256(template.source.encode()).hexdigest()[:32]
        self.options = {"messages_column": column, "chat_template": digest}
        self._template, self._errors = template, errors

    def parse(self, row: Row) -> list[dict[str, Any]]:
        value, where = row.values[0], row.where
        [column] = self.columns.values()
        if isinstance(value, UnicodeDecodeError):
            require_text(value, column, where, self._errors)
        if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
            what = f"{column!r} holds {short_json(value)}, no list of messages"
            raise BadDocument(where, what, f"no list of messages in {column!r}")
        for number, message in enumerate(value, 1):
            if not isinstance(message.get("role"), str):
                renamed = {"from", "value"} <= message.keys()
                fix = "rename `from` to `role` and `value` to `content`" if renamed else "give it `role` and `content`"
                what = f"message {number} has no role, only {', '.join(message)[:100]}"
                raise BadDocument(where, what, "a message without a role", fix=fix)
        return [_without_nones(self._checked(message, where)) for message in value]

    def encode(self, rows: list[Row], threads: int) -> list[Example | Unusable]:
        return self._template.encode_batch([row.values for row in rows])

    def _checked(self, value: Any, where: Location) -> Any:
        """A value whose texts are all valid Unicode."""
        if isinstance(value, str | bytes):
            return require_text(value, "a message", where, self._errors)
        if isinstance(value, dict):
            return {key: self._checked(item, where) for key, item in value.items()}
        return [self._checked(item, where) for item in value] if isinstance(value, list) else value


def _without_nones(message: dict[str, Any]) -> dict[str, Any]:
    """A message without keys that have no value: tables have all keys in all rows, and templates look for keys."""
    return {key: value for key, value in message.items() if value is not None}


class _Completions:
    """Prompts with completions. The loss is on the completion and on the end-of-text token after it."""

    def __init__(self, prompt_column: str, completion_column: str, vocabulary: Vocabulary, errors: str):
        self.columns = {"--prompt-column": prompt_column, "--completion-column": completion_column}
        self.options = {"prompt_column": prompt_column, "completion_column": completion_column}
        self._vocabulary, self._errors = vocabulary, errors

    def parse(self, row: Row) -> list[str]:
        texts = []
        for column, value in zip(self.columns.values(), row.values, strict=True):
            if isinstance(value, list):
                raise BadDocument(
                    row.where,
                    f"{column!r} holds a list, not text",
                    f"a list in {column!r}",
                    fix="conversations are lists of messages in one column, which --messages-column names",
                )
            texts.append(require_text(value, column, row.where, self._errors))
        return texts

    def encode(self, rows: list[Row], threads: int) -> list[Example | Unusable]:
        texts = [row.values for row in rows]
        prompt_ids, lengths = self._vocabulary.encode_batch([prompt for prompt, _ in texts], threads)
        prompts = np.split(prompt_ids, np.cumsum(lengths)[:-1])
        ids, lengths = self._vocabulary.encode_continuations([completion for _, completion in texts], threads)
        completions = np.split(ids, np.cumsum(lengths)[:-1])
        return [
            self._example(prompt, completion, is_empty=not text)
            for prompt, completion, (_, text) in zip(prompts, completions, texts, strict=True)
        ]

    def _example(self, prompt: np.ndarray, completion: np.ndarray, *, is_empty: bool) -> Example | Unusable:
        if not len(prompt) and is_empty:
            return Unusable("neither a prompt nor a completion")
        end = np.array([self._vocabulary.end_of_text], self._vocabulary.dtype)
        ids = np.concatenate([prompt, completion, end])
        return Example(ids, np.arange(len(ids)) >= len(prompt))

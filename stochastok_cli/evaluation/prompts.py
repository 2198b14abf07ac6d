"""Prompts as token ids, as a model in a folder reads them, and the ids that end its answers."""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stochastok_cli.errors import UserError
from stochastok_cli.json_files import read_json
from stochastok_cli.models.companion_files import TOKENIZER
from stochastok_cli.tokenization.loaders import tokenizer_path
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    from stochastok_cli.data.chat_template import ChatTemplate

_NO_TEMPLATE = (
    "drop --chat, or give a checkpoint with a chat template (a chat_template.jinja beside its tokenizer.json)"
)


class EncodedPrompt(NamedTuple):
    """A prompt as ids.

    Attributes:
        before: Those that are no text of the prompt and keep their tokenization: what the tokenizer puts before every
            text, the beginning of a chat template.
        ids: The canonical ids of the prompt.
        after: Those after it that keep their tokenization.
    """

    before: list[int]
    ids: list[int]
    after: list[int] = []  # noqa: RUF012 (never changed)

    @property
    def all_ids(self) -> list[int]:
        """The prompt as the model reads it."""
        return [*self.before, *self.ids, *self.after]


class PromptEncoder:
    """Encodes prompts for a model.

    Args:
        folder: The files of the model or of its tokenizer; None where there are none.
        vocabulary: The model's vocabulary.
        chat: Whether a prompt is what a user says, rendered by the chat template in the folder.

    Attributes:
        before: The ids before every prompt that is no conversation: those that the tokenizer itself puts before every
            text, such as Llama's beginning-of-text.
    """

    def __init__(self, folder: Path | None, vocabulary: Vocabulary, *, chat: bool = False):
        self.folder = folder
        self.vocabulary = vocabulary
        self.chat = chat
        self.before = [] if chat or folder is None else ids_before_texts(folder)

    @classmethod
    def of(cls, vocabulary: Vocabulary, *, chat: bool = False) -> "PromptEncoder":
        """That of the folder that a vocabulary was read from, if it was, or of the tokenizer.json."""
        path = tokenizer_path(vocabulary.name)
        folder = path.parent if path is not None and path.name == TOKENIZER else path
        return cls(folder if folder is not None and folder.is_dir() else None, vocabulary, chat=chat)

    @cached_property
    def _template(self) -> "ChatTemplate":
        from stochastok_cli.data.chat_template import ChatTemplate

        if self.folder is None:
            raise UserError("--chat needs a checkpoint with a chat template", fix=_NO_TEMPLATE)
        return ChatTemplate(self.folder, self.vocabulary, fix=_NO_TEMPLATE)

    def encode(self, prompt: str, answer_begins: str = "") -> EncodedPrompt:
        """The canonical ids of a prompt. An empty one begins a document, after end-of-text.

        Args:
            prompt: The text.
            answer_begins: What the answer begins with; after the template's header of the answer in a conversation.

        Raises:
            UserError: The chat template does not take the prompt.
        """
        if self.chat:
            turn = self.encode_user_turn(prompt)
            begun = self.vocabulary.encode_continuation(answer_begins) if answer_begins else []
            return turn._replace(after=[*turn.after, *begun])
        ids = self.vocabulary.encode(prompt + answer_begins)
        return EncodedPrompt(self.before if self.before or ids else [self.vocabulary.end_of_text], ids)

    def encode_user_turn(self, text: str, before: str = "", after: str = "") -> EncodedPrompt:
        """The canonical ids of what a user says, in the chat template.

        Args:
            text: What may be tokenized in another way.
            before: What the user says before it.
            after: What the user says after it.

        Raises:
            UserError: The chat template does not take it.
        """
        from stochastok_cli.data.chat_template import Unusable

        content = before + text + after
        if not content.strip():
            raise UserError("the prompt is empty, and --chat needs what a user says")
        try:
            return EncodedPrompt(*self._template.encode_user_turn(content, len(before), len(before + text)))
        except Unusable as reason:
            raise UserError(f"--chat: {reason}") from None

    def stop_ids(self, prompt: str) -> set[int]:
        """The ids that end an answer: end-of-text, those that the model's files name, and the chat template's."""
        ids = {self.vocabulary.end_of_text}
        if self.folder is not None:
            ids |= model_stop_ids(self.folder)
        if self.chat:
            from stochastok_cli.data.chat_template import Unusable

            try:
                end = self._template.end_of_turn([{"role": "user", "content": prompt}])
            except Unusable as reason:
                raise UserError(f"--chat: {reason}") from None
            ids |= set() if end is None else {end}
        return ids


def model_stop_ids(folder: Path) -> set[int]:
    """The ids that a model's generation settings and its configuration name as the ends of a text."""
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name, dict[str, Any]).get("eos_token_id")
            ids |= {i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int)}
    return ids


def ids_before_texts(folder: Path) -> list[int]:
    """The special ids that a tokenizer.json puts before every text."""
    file = folder / TOKENIZER
    if not file.is_file():
        return []
    state = file.stat()
    return list(_ids_before_texts(file.resolve(), state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=8)  # every evaluator asks, and a file of many megabytes takes a second
def _ids_before_texts(file: Path, size: int, modified: int) -> Sequence[int]:
    """Those of a file of this size that was last modified then."""
    import tokenizers

    if b'"special_tokens"' not in file.read_bytes():  # those of a post-processor's template
        return []
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    encoding = tokenizer.encode("a")
    mask = encoding.special_tokens_mask
    return encoding.ids[: mask.index(0)] if 0 in mask else []

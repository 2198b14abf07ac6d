"""Prompts as token ids, as a model in a folder reads them, and the ids that end its answers."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import UserError
from stochastok_cli.json_files import read_json
from stochastok_cli.models.companion_files import TOKENIZER
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    from stochastok_cli.data.chat_template import ChatTemplate


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
        self.before = [] if chat or folder is None else _ids_before_texts(folder)

    @cached_property
    def _template(self) -> "ChatTemplate":
        from stochastok_cli.data.chat_template import ChatTemplate

        if self.folder is None:
            raise UserError("--chat needs a checkpoint with a chat template")
        return ChatTemplate(self.folder, self.vocabulary)

    def encode(self, prompt: str, answer_begins: str = "") -> tuple[list[int], list[int]]:
        """The ids before a prompt and its own canonical ids. An empty prompt begins a document, after end-of-text.

        Args:
            prompt: The text.
            answer_begins: What the answer begins with; after the template's header of the answer in a conversation.

        Raises:
            UserError: The chat template does not take the prompt.
        """
        if self.chat:
            ids = self._rendered(prompt)
            return [], ids + (self.vocabulary.encode_continuation(answer_begins) if answer_begins else [])
        ids = self.vocabulary.encode(prompt + answer_begins)
        return (self.before, ids) if self.before or ids else ([self.vocabulary.end_of_text], [])

    def _rendered(self, prompt: str) -> list[int]:
        from stochastok_cli.data.chat_template import Unusable

        if not prompt.strip():
            raise UserError("the prompt is empty, and --chat needs what a user says")
        try:
            return self._template.encode_prompt([{"role": "user", "content": prompt}])
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


def _ids_before_texts(folder: Path) -> list[int]:
    """The special ids that a tokenizer.json puts before every text."""
    import tokenizers

    file = folder / TOKENIZER
    if not file.is_file():
        return []
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    encoding = tokenizer.encode("a")
    mask = encoding.special_tokens_mask
    return encoding.ids[: mask.index(0)] if 0 in mask else []

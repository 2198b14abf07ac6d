"""The files of a model folder that training does not change: tokenizer, chat template, generation settings.

A checkpoint that continues from another program's model keeps them byte for byte.
"""

from collections.abc import Mapping
from pathlib import Path

TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
)
COMPANION_FILES = (*TOKENIZER_FILES, "generation_config.json")


def read_companion_files(folder: Path) -> dict[str, bytes]:
    """The bytes of those companion files that a model folder has, by name."""
    files = (folder / name for name in COMPANION_FILES)
    return {file.name: file.read_bytes() for file in files if file.is_file()}


def write_companion_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes what `read_companion_files` has read into a folder."""
    for name, content in files.items():
        (folder / name).write_bytes(content)

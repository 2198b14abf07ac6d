"""Names for the formats of tokenizers that are not read, so that a refusal says what a file is."""

import os
from pathlib import Path
from typing import Any

SUFFIXES = (".json", ".tiktoken", ".model", ".bpe")
"""The suffixes of files that hold tokenizers; a name that ends so is taken for a path."""

_TIKTOKEN = (
    "the ranks of a tiktoken encoding, without its pattern and special tokens (cl100k_base and others go by name)"
)
_FILES = {"tekken.json": "Mistral's tekken", "tokenizer.model": "SentencePiece, or the ranks of a tiktoken encoding"}
_FILES |= {"spiece.model": "SentencePiece", "vocab.json": "a vocabulary without its merges"}
_FILES |= {"vocab.txt": "WordPiece", "vocab.bpe": "merges without a vocabulary"}


def other_format(file: Path, content: dict[str, Any] | None = None) -> str:
    """What a file that is not a `tokenizer.json` is, as the end of a sentence; empty where that is unknown.

    Args:
        file: the file.
        content: its JSON object, if it holds one.
    """
    keys = set(content or ())
    what = _FILES.get(file.name, "")
    if file.suffix == ".tiktoken":
        what = _TIKTOKEN
    elif {"config", "vocab"} <= keys:
        what = "Mistral's tekken"
    elif "bpe_ranks" in keys:
        what = "the ranks and the pattern of js-tiktoken or of Claude's tokenizer"
    elif {"tokenizer_class"} <= keys or {"eos_token"} <= keys:
        what = "the configuration of a tokenizer"
    elif content and all(isinstance(i, int) for i in content.values()):
        what = "a vocabulary without its merges"
    return f" but {what}" if what else ""


def other_files(folder: Path) -> str:
    """The tokenizers in a folder that are no `tokenizer.json`, as the end of a sentence."""
    if not os.path.isdir(folder):
        return ""
    files = [file for file in sorted(folder.iterdir()) if file.suffix == ".tiktoken" or file.name in _FILES]
    return f" (the folder has {', '.join(file.name + other_format(file) for file in files)})" if files else ""

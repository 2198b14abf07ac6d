"""Whether `transformers.AutoTokenizer` gives the ids of a `tokenizer.json`, which it may override.

From version 5 on, classes such as `LlamaTokenizer` build normalizer and pre-tokenizer themselves, and a
`tokenizer_config.json` may name a class that does not fit its `tokenizer.json`.
"""

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

from stochastok_cli.errors import Notice
from stochastok_cli.quiet_libraries import quiet
from stochastok_cli.tokenization.encoders import reading_errors
from stochastok_cli.tokenization.vocabulary import CUT_TEXTS, Vocabulary


def compare_with_transformers(vocabulary: Vocabulary, folder: Path, config: dict[str, Any]) -> None:
    """Warns if `AutoTokenizer` encodes fixed texts to other ids than the vocabulary of a folder.

    That is looked at where `transformers` is imported already, and for the folders of models, but not for checkpoints
    of this package. A folder that `transformers` does not open is passed over.

    Args:
        vocabulary: that of the `tokenizer.json` in the folder.
        folder: the folder.
        config: its `tokenizer_config.json`.
    """
    if "stochastok_vocabulary" in config or not config:
        return
    is_model = (folder / "config.json").is_file() and importlib.util.find_spec("transformers") is not None
    if "transformers" not in sys.modules and not is_model:
        return
    differing = _differing_text(vocabulary, folder)
    if differing is not None:
        text, kind = differing
        warnings.warn(
            f"{vocabulary.name}: transformers ({kind}) gives other ids than its tokenizer.json, as for {text[:40]!r}; "
            "those of its tokenizer.json are taken",
            Notice,
            stacklevel=2,
        )


def _differing_text(vocabulary: Vocabulary, folder: Path) -> tuple[str, str] | None:
    """The first text with other ids, and the class of the tokenizer that gives them; None if there is none."""
    try:
        import transformers

        with quiet("transformers"), reading_errors(folder):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            for text in CUT_TEXTS:
                if list(tokenizer.encode(text, add_special_tokens=False)) != vocabulary.encode(text):
                    return text, type(tokenizer).__name__
    except Exception:  # whatever transformers raises for a folder that it does not open
        return None
    return None

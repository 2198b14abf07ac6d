"""The only client of the Hugging Face Hub: pull, push, and text to tokenize.

It speaks of arrays and paths, and imports `huggingface_hub` and `datasets` only when it talks to the Hub. Every
failure on the way is one `UserError`. The token is found by `huggingface_hub` in its usual places and never passes
through here.
"""

from stochastok_cli.hub.cards import model_card, recipe_card
from stochastok_cli.hub.client import resolve_repo, username
from stochastok_cli.hub.download import (
    HubDataset,
    TextRows,
    license_of,
    load_rows,
    load_text_dataset,
    stream_ids,
)
from stochastok_cli.hub.files import HubFiles, list_files
from stochastok_cli.hub.repo_ids import is_repo_id, parse_repo_id
from stochastok_cli.hub.snapshots import model_folder, tokenizer_folder
from stochastok_cli.hub.upload import PushResult, push_corpus, push_folder

__all__ = [
    "HubDataset",
    "HubFiles",
    "PushResult",
    "TextRows",
    "is_repo_id",
    "license_of",
    "list_files",
    "load_rows",
    "load_text_dataset",
    "model_card",
    "model_folder",
    "parse_repo_id",
    "push_corpus",
    "push_folder",
    "recipe_card",
    "resolve_repo",
    "stream_ids",
    "tokenizer_folder",
    "username",
]

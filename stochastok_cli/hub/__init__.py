"""The only client of the Hugging Face Hub: what is pulled from it and pushed to it.

It works with arrays and paths, and imports `huggingface_hub` and `datasets` only when it sends a request. Every
failure is one `UserError`. `huggingface_hub` finds the token in its usual places; it never passes through here.
"""

from stochastok_cli.hub.cards import model_card, recipe_card
from stochastok_cli.hub.client import is_repo_id, parse_repo_id, resolve_repo, username
from stochastok_cli.hub.files import (
    HubFiles,
    config_folder,
    list_files,
    model_folder,
    repo_of_snapshot,
    tokenizer_folder,
)
from stochastok_cli.hub.locate import license_of
from stochastok_cli.hub.streaming import HubDataset, RowValues, TextRows, load_columns, load_text_dataset, stream_ids
from stochastok_cli.hub.tables import load_rows
from stochastok_cli.hub.upload import PushResult, push_corpus, push_folder

__all__ = [
    "HubDataset",
    "HubFiles",
    "PushResult",
    "RowValues",
    "TextRows",
    "config_folder",
    "is_repo_id",
    "license_of",
    "list_files",
    "load_columns",
    "load_rows",
    "load_text_dataset",
    "model_card",
    "model_folder",
    "parse_repo_id",
    "push_corpus",
    "push_folder",
    "recipe_card",
    "repo_of_snapshot",
    "resolve_repo",
    "stream_ids",
    "tokenizer_folder",
    "username",
]

"""The only client of the Hugging Face Hub: what is pulled from it and pushed to it.

It works with arrays and paths, and imports `huggingface_hub` and `datasets` only when it sends a request; its own
modules are imported when a name of theirs is first used. Every failure is one `UserError`.
`huggingface_hub` finds the token in its usual places; it never passes through here.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stochastok_cli.hub.cards import model_card as model_card
    from stochastok_cli.hub.cards import recipe_card as recipe_card
    from stochastok_cli.hub.client import is_repo_id as is_repo_id
    from stochastok_cli.hub.client import no_path as no_path
    from stochastok_cli.hub.client import parse_repo_id as parse_repo_id
    from stochastok_cli.hub.client import resolve_repo as resolve_repo
    from stochastok_cli.hub.client import username as username
    from stochastok_cli.hub.files import HubFiles as HubFiles
    from stochastok_cli.hub.files import config_folder as config_folder
    from stochastok_cli.hub.files import list_files as list_files
    from stochastok_cli.hub.files import model_folder as model_folder
    from stochastok_cli.hub.files import repo_of_snapshot as repo_of_snapshot
    from stochastok_cli.hub.files import tokenizer_folder as tokenizer_folder
    from stochastok_cli.hub.streaming import HubDataset as HubDataset
    from stochastok_cli.hub.streaming import RowValues as RowValues
    from stochastok_cli.hub.streaming import TextRows as TextRows
    from stochastok_cli.hub.streaming import load_columns as load_columns
    from stochastok_cli.hub.streaming import load_text_dataset as load_text_dataset
    from stochastok_cli.hub.streaming import stream_ids as stream_ids
    from stochastok_cli.hub.tables import load_rows as load_rows
    from stochastok_cli.hub.upload import PushResult as PushResult
    from stochastok_cli.hub.upload import push_corpus as push_corpus
    from stochastok_cli.hub.upload import push_folder as push_folder

# The public names, and the module that each one is loaded from.
_MODULES = {
    "HubDataset": "stochastok_cli.hub.streaming",
    "HubFiles": "stochastok_cli.hub.files",
    "PushResult": "stochastok_cli.hub.upload",
    "RowValues": "stochastok_cli.hub.streaming",
    "TextRows": "stochastok_cli.hub.streaming",
    "config_folder": "stochastok_cli.hub.files",
    "is_repo_id": "stochastok_cli.hub.client",
    "list_files": "stochastok_cli.hub.files",
    "load_columns": "stochastok_cli.hub.streaming",
    "load_rows": "stochastok_cli.hub.tables",
    "load_text_dataset": "stochastok_cli.hub.streaming",
    "model_card": "stochastok_cli.hub.cards",
    "model_folder": "stochastok_cli.hub.files",
    "no_path": "stochastok_cli.hub.client",
    "parse_repo_id": "stochastok_cli.hub.client",
    "push_corpus": "stochastok_cli.hub.upload",
    "push_folder": "stochastok_cli.hub.upload",
    "recipe_card": "stochastok_cli.hub.cards",
    "repo_of_snapshot": "stochastok_cli.hub.files",
    "resolve_repo": "stochastok_cli.hub.client",
    "stream_ids": "stochastok_cli.hub.streaming",
    "tokenizer_folder": "stochastok_cli.hub.files",
    "username": "stochastok_cli.hub.client",
}
__all__ = [
    "HubDataset",
    "HubFiles",
    "PushResult",
    "RowValues",
    "TextRows",
    "config_folder",
    "is_repo_id",
    "list_files",
    "load_columns",
    "load_rows",
    "load_text_dataset",
    "model_card",
    "model_folder",
    "no_path",
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


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

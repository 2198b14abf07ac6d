"""The only client of the Hugging Face Hub: pull, push, and text to tokenize.

It speaks of arrays and paths, and imports `huggingface_hub` and `datasets` only when it talks to the Hub. Every
failure on the way is one `UserError`. The token is found by `huggingface_hub` in its usual places and never passes
through here.
"""

from stochastok_cli.hub.cards import dataset_card, model_card
from stochastok_cli.hub.conversation import destination, username
from stochastok_cli.hub.files import HubFiles, list_files
from stochastok_cli.hub.models import model_folder, tokenizer_folder
from stochastok_cli.hub.names import looks_like_repo, split_revision
from stochastok_cli.hub.pull import (
    HubDataset,
    TextRows,
    licence_of,
    load_rows,
    load_text_dataset,
    stream_ids,
)
from stochastok_cli.hub.push import Pushed, push_corpus, push_folder

__all__ = [
    "HubDataset",
    "HubFiles",
    "Pushed",
    "TextRows",
    "dataset_card",
    "destination",
    "licence_of",
    "list_files",
    "load_rows",
    "load_text_dataset",
    "looks_like_repo",
    "model_card",
    "model_folder",
    "push_corpus",
    "push_folder",
    "split_revision",
    "stream_ids",
    "tokenizer_folder",
    "username",
]

"""A tokenizer's files from the Hub."""

from pathlib import Path

from stochastok_cli.hub.conversation import conversation, patiently


def tokenizer_folder(repo: str, revision: str | None = None) -> Path:
    """The folder in the cache with `tokenizer.json` (and its configuration) of a model on the Hub.

    Once it is there it is found without a network.
    """
    from huggingface_hub import snapshot_download

    with conversation(repo, revision, or_cache=True):
        wanted = ["tokenizer.json", "tokenizer_config.json"]
        return Path(patiently(lambda: snapshot_download(repo, revision=revision, allow_patterns=wanted)))

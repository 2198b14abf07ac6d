"""A model's files from the Hub. Once they are in the cache they are folder without a network."""

from pathlib import Path

from stochastok_cli.hub.client import hub_errors, retry


def tokenizer_folder(repo: str, revision: str | None = None) -> Path:
    """The folder in the cache with a model's tokenizer and configuration."""
    return _snapshot(repo, revision, ["tokenizer.json", "tokenizer_config.json", "config.json"])


def model_folder(repo: str, revision: str | None = None) -> Path:
    """The same folder, with the weights as well: of safetensors alone, since other formats can hold programs."""
    return _snapshot(repo, revision, ["*.json", "*.safetensors"])


def _snapshot(repo: str, revision: str | None, wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(repo, revision, or_cache=True):
        folder = retry(
            lambda: snapshot_download(repo, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"])
        )
        return Path(folder)

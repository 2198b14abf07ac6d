"""Downloads files from the Hub as they are: those of a dataset repository, and a model or a tokenizer."""

import os
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.hub.client import hub_errors, require_listing, retry
from stochastok_cli.hub.temporary import temporary_folder
from stochastok_cli.json_files import parse_json
from stochastok_cli.paths import path_inside
from stochastok_cli.progress import ProgressCallback, no_progress

_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_OTHER_TOKENIZERS = ["tekken.json", "tokenizer.model", "tokenizer.model.*", "spiece.model", "*.tiktoken"]
_VOCABULARIES = ("vocab.txt", "merges.txt", "tokenizer.model", "spiece.model")  # of other programs than transformers


class HubFiles(NamedTuple):
    """The files of a dataset repository at one commit.

    Args:
        repo: the repository.
        revision: the SHA of the commit.
        paths: the paths of the files in the repository.
    """

    repo: str
    revision: str
    paths: tuple[str, ...]

    def json(self, path: str) -> Any:
        """The content of a small JSON file; None if it is not valid JSON."""
        with temporary_folder() as folder:
            content = self._download(path, folder).read_bytes()
        try:
            return parse_json(content, path)
        except UserError:
            return None

    def fetch(self, folder: str, names: list[str], target: Path, progress: ProgressCallback = no_progress) -> None:
        """Downloads `names` below `folder` of the repository into the local folder `target`."""
        for done, name in enumerate(names):
            destination = path_inside(target, name)
            if f"{folder}/{name}" not in self.paths:
                raise UserError(f"{self.repo} on the Hub lacks {folder}/{name}", exit_code=FAILED)
            with tempfile.TemporaryDirectory(dir=target) as temporary:  # in a folder that the next run removes
                destination.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self._download(f"{folder}/{name}", Path(temporary)), destination)
            progress(f"pull {PurePosixPath(folder).name}", done + 1, len(names))

    def _download(self, path: str, folder: Path) -> Path:
        with hub_errors(self.repo):
            from huggingface_hub import hf_hub_download

            return Path(
                retry(
                    lambda: hf_hub_download(
                        self.repo, path, repo_type="dataset", revision=self.revision, local_dir=folder
                    )
                )
            )


def list_files(repo: str, revision: str | None = None) -> HubFiles:
    """Lists the files of a dataset repository. Raises UserError if it does not exist or can't be read."""
    with hub_errors(repo, revision):
        from huggingface_hub import HfApi

        info = retry(lambda: HfApi().dataset_info(repo, revision=revision))
        require_listing(info, repo)
        return HubFiles(repo, str(info.sha), tuple(file.rfilename for file in info.siblings or []))


def tokenizer_folder(repo: str, revision: str | None = None) -> Path:
    """Downloads a model's tokenizer, chat template and configuration; returns their folder in the cache.

    Of a repository without a tokenizer.json, the files of other tokenizers are downloaded: tekken.json, SentencePiece
    models and ranks of tiktoken. Files that are in the cache need no network.
    """
    folder = _snapshot(repo, revision, ["tokenizer*.json", "special_tokens_map.json", "config.json", *_TEMPLATES])
    if (folder / "tokenizer.json").is_file():
        return folder
    return _snapshot(repo, folder.name, _OTHER_TOKENIZERS)  # of the same commit


def model_folder(repo: str, revision: str | None = None) -> Path:
    """Downloads a model with its tokenizer; returns the folder in the cache. Files in the cache need no network.

    Weights are taken as safetensors only, since other formats can contain programs.
    """
    return _snapshot(repo, revision, ["*.json", "*.safetensors", *_TEMPLATES, *_VOCABULARIES])


def config_folder(repo: str, revision: str | None = None) -> Path:
    """Downloads the configuration of a model, or of an adapter, alone; returns its folder in the cache."""
    return _snapshot(repo, revision, ["config.json", "adapter_config.json"])


def repo_of_snapshot(folder: Path) -> tuple[str, str] | None:
    """The repository and the commit of a folder in the cache of `huggingface_hub`; None for other folders.

    >>> commit = "0123456789abcdef0123456789abcdef01234567"
    >>> repo_of_snapshot(Path(f"hub/models--Qwen--Qwen3-0.6B/snapshots/{commit}"))
    ('Qwen/Qwen3-0.6B', '0123456789abcdef0123456789abcdef01234567')
    """
    commit, (kind, *repo) = folder.name, folder.parent.parent.name.split("--")
    if folder.parent.name == "snapshots" and kind == "models" and re.fullmatch("[0-9a-f]{40}", commit):
        return "/".join(repo), commit
    return None


def _snapshot(repo: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(repo, revision, or_cache=True):
        folder = retry(
            lambda: snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"])
        )
        return Path(folder)

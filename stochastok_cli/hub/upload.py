"""Uploads to the Hub: corpora as parquet files, and folders as they are.

Files are uploaded one by one and appear in one commit. A push that fails leaves the repository as it was, and the next
one skips the files that are uploaded already. A card that the repository has keeps the text of its owner.
"""

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from http.client import PRECONDITION_FAILED
from pathlib import Path
from typing import Any, Literal, NamedTuple

from stochastok_cli.errors import UserError, one_line
from stochastok_cli.hub import cards
from stochastok_cli.hub.card_update import update_card
from stochastok_cli.hub.client import hub_errors, require_listing, require_token, retry
from stochastok_cli.hub.parquet_files import Documents, write_shards
from stochastok_cli.hub.temporary import temporary_folder
from stochastok_cli.json_files import json_bytes
from stochastok_cli.manifest import MANIFEST, Manifest
from stochastok_cli.progress import ProgressCallback, no_progress

_COMMIT_ATTEMPTS = 5


class PushResult(NamedTuple):
    """The address of a repository that was pushed to, and the SHA of the commit."""

    url: str
    revision: str


def push_corpus(
    repo: str,
    splits: Mapping[str, Callable[[], Iterable[Documents]]],
    manifest: Manifest,
    *,
    retry_command: str,
    private: bool = False,
    license: str | None = None,
    progress: ProgressCallback = no_progress,
) -> PushResult:
    """Pushes a corpus as a dataset with the columns `ids` and `len`, its manifest and a card.

    Args:
        repo: the repository.
        splits: for each split a function that starts the iteration over its documents. A split without documents is
            left out, since `datasets` can't load one. The batches of documents do not change the files.
        manifest: the manifest of the corpus, with the dtype and the numbers of documents.
        retry_command: the command to name when the push fails.
        private: make the repository private when it is created.
        license: the license of the source, for the card.
        progress: called with the documents written to files. One file of about 256 MiB is on the disk at a time.
    """

    def files() -> Generator[tuple[str, Path | bytes]]:
        with temporary_folder() as folder:
            for split, documents in splits.items():
                if manifest.splits[split].documents:
                    yield from write_shards(split, documents(), manifest, folder, progress)
        yield MANIFEST, json_bytes(manifest.to_json())

    stale = re.compile(rf"data/({'|'.join(map(re.escape, splits))})-\d+-of-\d+\.parquet")
    card = cards.corpus_card(repo, manifest, license)
    return _push(repo, "dataset", files(), card=card, retry_command=retry_command, private=private, stale=stale)


def push_folder(
    repo: str,
    contents: Mapping[str, Path],
    *,
    card: str,
    retry_command: str,
    repo_type: Literal["dataset", "model"] = "dataset",
    private: bool = False,
    progress: ProgressCallback = no_progress,
) -> PushResult:
    """Pushes files as they are, with a card.

    Args:
        repo: the repository.
        contents: maps a path in the repository (`""` for its root) to a local file, or to a local folder, whose hidden
            files are left out. Other files in the repository below such a path (except its root) are deleted.
        card: the text of the card. Of a card that is there already, only the header and the marked section change.
        retry_command: the command to name when the push fails.
        repo_type: "dataset" or "model".
        private: make the repository private when it is created.
        progress: called with the number of uploaded files.
    """
    sources = {}
    for path, source in contents.items():
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            inside = file.relative_to(source).as_posix() if source.is_dir() else ""
            if file.is_file() and not re.search(r"(^|/)\.", inside):
                sources["/".join(filter(None, (path, inside)))] = file
    sources.pop(cards.NAME, None)

    def files() -> Generator[tuple[str, Path | bytes]]:
        for done, (path, file) in enumerate(sources.items()):
            progress("push", done, len(sources))
            yield path, file
        progress("push", len(sources), len(sources))

    stale = re.compile(rf"({'|'.join(re.escape(path) for path in contents if path)})/.*")
    return _push(repo, repo_type, files(), card=card, retry_command=retry_command, private=private, stale=stale)


def _push(
    repo: str,
    repo_type: str,
    files: Generator[tuple[str, Path | bytes]],
    *,
    card: str,
    retry_command: str,
    private: bool,
    stale: re.Pattern[str],
) -> PushResult:
    """Uploads the files one by one, then commits all of them, and deletes files that match `stale` and are not new.

    A large file is uploaded before the next one is made. The storage of the Hub identifies it by its checksum, so a
    second push does not send it again.
    """
    with hub_errors(repo, retry_command=retry_command), closing(files):
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

        require_token()
        api = HfApi()
        url = retry(lambda: api.create_repo(repo, repo_type=repo_type, private=private or None, exist_ok=True))
        info = retry(lambda: api.repo_info(repo, repo_type=repo_type))
        require_listing(info, repo)
        if private and not info.private:
            raise UserError(f"{repo} exists on the Hub and is public", fix="make it private there, or drop --private")
        update_card(repo, _existing_card(repo, repo_type, info), card)  # raises before anything is uploaded
        additions: list[CommitOperationAdd] = []
        for path, content in files:
            addition = CommitOperationAdd(path, content)
            if isinstance(content, Path) or path.endswith(".parquet"):
                api.preupload_lfs_files(repo, [addition], repo_type=repo_type)
            additions.append(addition)
        new = {addition.path_in_repo for addition in additions}

        def commit() -> str:
            info = api.repo_info(repo, repo_type=repo_type)
            require_listing(info, repo)
            existing = api.list_repo_files(repo, repo_type=repo_type, revision=info.sha)
            updated = update_card(repo, _existing_card(repo, repo_type, info), card)
            operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
                *additions,
                CommitOperationAdd(cards.NAME, updated.encode("utf-8", "backslashreplace")),
                *(CommitOperationDelete(path) for path in existing if stale.fullmatch(path) and path not in new),
            ]
            return api.create_commit(
                repo,
                operations,
                commit_message="Upload with stochastok",
                repo_type=repo_type,
                parent_commit=info.sha,
            ).oid

        return PushResult(one_line(str(url)), retry(lambda: _repeat_if_overtaken(commit)))


def _repeat_if_overtaken(commit: Callable[[], str]) -> str:
    """Returns `commit()`, which is called again if somebody else has committed to the repository meanwhile."""
    from huggingface_hub.errors import HfHubHTTPError

    for _ in range(_COMMIT_ATTEMPTS - 1):
        try:
            return commit()
        except HfHubHTTPError as error:
            if error.response.status_code != PRECONDITION_FAILED:
                raise
    return commit()


def _existing_card(repo: str, repo_type: str, info: Any) -> str:
    """The card of a repository at the commit of `info`; empty if it has none."""
    from huggingface_hub import hf_hub_download

    if not any(file.rfilename == cards.NAME for file in info.siblings or []):
        return ""
    file = hf_hub_download(repo, cards.NAME, repo_type=repo_type, revision=info.sha)
    try:
        return Path(file).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{repo}'s README.md is not UTF-8", fix="mend it on the Hub") from None

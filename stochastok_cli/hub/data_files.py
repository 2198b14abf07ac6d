"""The data files of a dataset on the Hub, downloaded one after another and compared with the checksums it lists."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stochastok_cli.atomic_writes import write_atomically
from stochastok_cli.errors import FAILED, UserError, one_line
from stochastok_cli.hub.client import retry
from stochastok_cli.json_files import read_json
from stochastok_cli.manifest import MANIFEST, file_checksum
from stochastok_cli.paths import path_inside

DESCRIPTIONS = ("README.md", "dataset_infos.json", MANIFEST)
"""Files at the top of a repository that describe its dataset."""
_MOST_STARS = 8  # of a pattern: the time to match it grows with their number
_LISTED_AT_ONCE = 500  # files in one request for checksums
_NUM_ROWS = "num_rows.json"
_FILES = "files"


def paths_in_repo(repo: str, revision: str, urls: Iterable[Any]) -> list[str]:
    """The paths in the repository of the files that `datasets` has found for a split.

    Raises UserError if one of them is elsewhere: the card of a dataset can name files of this machine.
    """
    paths = []
    for url in urls:
        match = re.fullmatch(rf"hf://datasets/[^@]+@{re.escape(revision)}/(.+)", str(url), re.DOTALL)
        if match is None:
            raise UserError(f"the card of {repo} on the Hub names data outside of the repository: {str(url)[:200]!r}")
        paths.append(match[1])
    return paths


def unread_paths(repo: str, revision: str, listed: Iterable[str], builder: Any, folder: str = "") -> list[str]:
    """The files of a repository that belong to no subset of the dataset.

    `datasets` reads the files of one format, and those that the card names. Hidden files and those that describe a
    dataset (its card, the manifest of this package) are left out.

    Args:
        repo: the repository.
        revision: the SHA of the commit.
        listed: the paths of the files in the repository.
        builder: the `datasets.DatasetBuilder` of one subset, which knows the patterns of the others.
        folder: the folder of the subset, where the others are elsewhere.
    """
    read = {path for urls in builder.config.data_files.values() for path in paths_in_repo(repo, revision, urls)}
    patterns = []
    for other in builder.builder_configs.values() if not folder else ():
        if other.name != builder.config.name:
            parent = f"{other.data_dir.strip('/')}/" if isinstance(other.data_dir, str) else ""
            patterns += [
                parent + str(pattern) for patterns in (other.data_files or {}).values() for pattern in patterns
            ]
    in_others = re.compile("|".join(map(_translated, patterns)) or r"(?!)")
    return [
        path
        for path in listed
        if path not in read
        and path.startswith(f"{folder}/" if folder else "")
        and not any(part.startswith(".") for part in path.split("/"))
        and path not in DESCRIPTIONS
        and not in_others.fullmatch(path)
    ]


def _translated(pattern: str) -> str:
    """A pattern of file names, as `fsspec` takes them, as a regular expression."""
    from fsspec.utils import glob_translate  # type: ignore[import-untyped]

    pattern = re.sub(r"^hf://datasets/[^@]+@[^/]+/", "", pattern)
    return glob_translate(pattern).removesuffix(r"\Z") if pattern.count("*") <= _MOST_STARS else r"(?!)"


class DataFiles:
    """Files of a dataset repository at one commit.

    Args:
        repo: the repository.
        revision: the SHA of the commit.
        paths: the paths in the repository, in the order in which they are read.
        folder: where a file lies while it is read. The numbers of rows of those that have been read are kept there too,
            so that an interrupted download need not fetch them again.
    """

    def __init__(self, repo: str, revision: str, paths: Sequence[str], folder: Path):
        self._repo = repo
        self._revision = revision
        self.paths = paths
        self._folder = folder
        self._entries: dict[str, Any] = {}
        self._num_rows = _read_num_rows(folder / _NUM_ROWS)

    def num_bytes(self) -> int:
        """The size of all files."""
        return sum(self._entry(path).size for path in self.paths)

    def num_rows(self, path: str) -> int | None:
        """The number of rows of a file, if `record_rows` was called with it."""
        return self._num_rows.get(path)

    def record_rows(self, path: str, rows: int) -> None:
        """Keeps the number of rows of a file that was read to its end."""
        self._num_rows[path] = rows
        write_atomically(self._folder / _NUM_ROWS, json.dumps(self._num_rows).encode())

    @contextmanager
    def download(self, paths: Sequence[str]) -> Iterator[list[Path]]:
        """The files on this machine, until the context ends.

        Raises UserError (exit code 1) if the content of one is not what the Hub lists.
        """
        target = self._folder / _FILES
        target.mkdir(parents=True, exist_ok=True)  # what an interrupted download has left there is continued
        local = []
        for path in paths:
            path_inside(target, path)
            entry = self._entry(path)
            local.append(self._fetch(path, target))
            if not _is_content_of(local[-1], entry):
                shutil.rmtree(target)
                raise self._damaged(path)
        try:
            yield local
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def download_to_cache(self) -> list[Path]:
        """The files in the cache of `huggingface_hub`, where `datasets` looks for them.

        Raises UserError (exit code 1) if the content of one is not what the Hub lists; it is removed.
        """
        local = []
        for path in self.paths:
            local.append(self._fetch(path))
            if not _is_content_of(local[-1], self._entry(path)):
                local[-1].resolve().unlink()
                local[-1].unlink(missing_ok=True)
                raise self._damaged(path)
        return local

    def _damaged(self, path: str) -> UserError:
        return UserError(
            f"{one_line(path)} of {self._repo} is damaged: its checksum is not the one that the Hub lists",
            exit_code=FAILED,
        )

    def _fetch(self, path: str, target: Path | None = None) -> Path:
        """Downloads a file to a folder, or else to the cache."""
        from huggingface_hub import hf_hub_download

        def fetch() -> str:
            return hf_hub_download(self._repo, path, repo_type="dataset", revision=self._revision, local_dir=target)

        return Path(retry(fetch))

    def _entry(self, path: str) -> Any:
        """The `RepoFile` of a file: its size and checksums."""
        if path not in self._entries:
            from huggingface_hub import HfApi, RepoFile

            first = self.paths.index(path)
            wanted = list(self.paths[first : first + _LISTED_AT_ONCE])
            listed = retry(
                lambda: HfApi().get_paths_info(self._repo, wanted, repo_type="dataset", revision=self._revision)
            )
            self._entries |= {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
        if path not in self._entries or type(self._entries[path].size) is not int:
            raise UserError(f"{self._repo} on the Hub lists no file {one_line(path)}", exit_code=FAILED)
        return self._entries[path]


def _is_content_of(file: Path, entry: Any) -> bool:
    """Whether a file has the checksum of an entry: a SHA-256 for large files, else that of git."""
    if entry.lfs is not None:
        return file_checksum(file).sha256 == entry.lfs.sha256
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == entry.blob_id


def _read_num_rows(file: Path) -> dict[str, int]:
    try:
        saved = read_json(file, dict[str, int])
    except (OSError, UserError):
        return {}
    return saved if min(saved.values(), default=0) >= 0 else {}

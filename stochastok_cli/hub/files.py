"""From the Hub: files of a dataset repository as they lie there."""

import json
import os
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.hub.client import hub_errors, retry
from stochastok_cli.progress import ProgressCallback, no_progress


class HubFiles(NamedTuple):
    """The files of a dataset repository at one commit."""

    repo: str
    revision: str  # the commit's sha
    paths: tuple[str, ...]

    def json(self, path: str) -> Any:
        """The content of a small JSON file; None where it is none."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                return json.loads(self._download(path, folder).read_bytes())
            except ValueError:
                return None

    def fetch(self, place: str, names: list[str], into: Path, progress: ProgressCallback = no_progress) -> None:
        """Downloads `names` below `place` into the folder `into`."""
        for done, name in enumerate(names):
            if f"{place}/{name}" not in self.paths or ".." in PurePosixPath(name).parts:
                raise UserError(f"{self.repo} on the Hub lacks {place}/{name}", exit_code=FAILED)
            with tempfile.TemporaryDirectory(dir=into) as scratch:
                (into / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self._download(f"{place}/{name}", scratch), into / name)
            progress(f"pull {PurePosixPath(place).name}", done + 1, len(names))

    def _download(self, path: str, folder: str) -> Path:
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
    """What a dataset repository holds. Raises UserError if it is not there or not to be had."""
    with hub_errors(repo, revision):
        from huggingface_hub import HfApi

        info = retry(lambda: HfApi().dataset_info(repo, revision=revision))
        assert info.sha is not None
        return HubFiles(repo, info.sha, tuple(file.rfilename for file in info.siblings or []))

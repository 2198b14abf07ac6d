"""Small datasets from the Hub, such as benchmarks, in the cache of `datasets`."""

import glob
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from stochastok_cli.errors import UserError
from stochastok_cli.hub.client import hub_errors, none_if_unreachable
from stochastok_cli.hub.data_files import DataFiles, paths_in_repo
from stochastok_cli.hub.locate import CONVERTED, explain_value_error, locate_dataset
from stochastok_cli.literal_paths import literal_path
from stochastok_cli.quiet_libraries import quiet


def load_rows(repo: str, *, subset: str | None = None, split: str) -> Any:
    """Loads one split of a small dataset; one that is in the cache needs no network.

    Files that are downloaded are compared with the checksums that the Hub lists.

    Args:
        repo: the dataset repository.
        subset: its subset (configuration).
        split: its split.

    Returns:
        A `datasets.Dataset`.

    Raises:
        UserError: there is no such dataset or split, a file is damaged, or the Hub can't be reached and the cache lacks
            it.
    """
    with quiet("datasets"), hub_errors(repo, or_cache=True):
        import datasets
        from huggingface_hub import constants

        # Without a connection, `datasets` would try for 20 seconds to reach the Hub before it looks into its cache.
        offline = constants.HF_HUB_OFFLINE
        located = None if offline else none_if_unreachable(lambda: locate_dataset(repo, None, subset))
        if located is not None:
            info, arguments = located
            if "data_dir" not in arguments:
                return _checked_rows(repo, info.sha, arguments, split)
            rows = _converted_rows(repo, arguments["data_dir"], split, revision=info.sha)
            if rows is None:
                raise UserError(f"{repo} has no split {split!r}")
            return rows
        with _offline(datasets.config):
            try:
                return explain_value_error(repo, lambda: datasets.load_dataset(repo, name=subset, split=split))
            except (UserError, ConnectionError):
                rows = _converted_rows(repo, subset or "*", split)
                if rows is None:
                    raise
                return rows


def _checked_rows(repo: str, revision: str, arguments: dict[str, Any], split: str) -> Any:
    """A split, as `datasets.load_dataset` loads it. Files that it has not read before are compared with the Hub's."""
    from datasets import load_dataset_builder

    builder = explain_value_error(repo, lambda: load_dataset_builder(repo, **arguments))
    if not Path(builder.cache_dir).is_dir():
        urls = dict.fromkeys(url for urls in builder.config.data_files.values() for url in urls)
        DataFiles(repo, revision, paths_in_repo(repo, revision, urls), Path()).download_to_cache()

    def read() -> Any:
        builder.download_and_prepare()
        return builder.as_dataset(split=split)

    return explain_value_error(repo, read)


def _converted_rows(repo: str, folder: str, split: str, *, revision: str | None = None) -> Any:
    """A split of a dataset that the Hub has converted to parquet files; None if there is no such split.

    Args:
        repo: the dataset repository.
        folder: the folder of the subset.
        split: the split.
        revision: the commit; None to look only into the cache.
    """
    from datasets import load_dataset
    from huggingface_hub import errors, snapshot_download

    pattern = f"{folder if folder == '*' else glob.escape(folder)}/{glob.escape(split)}/*.parquet"
    try:
        root = Path(
            snapshot_download(
                repo, repo_type="dataset", revision=CONVERTED, allow_patterns=pattern, local_files_only=revision is None
            )
        )
    except errors.LocalEntryNotFoundError:
        return None
    files = sorted(root.glob(pattern))
    if revision is not None and files:
        paths = [file.relative_to(root).as_posix() for file in files]
        DataFiles(repo, revision, paths, Path()).download_to_cache()
    if not files:
        return None
    with ExitStack() as stack:
        literals = [stack.enter_context(literal_path(file)) for file in files]
        cache_dir = next((literal.cache_dir for literal in literals if literal.is_temporary), None)
        return load_dataset(
            "parquet",
            data_files=[str(literal.path) for literal in literals],
            split="train",
            cache_dir=cache_dir,
            keep_in_memory=None if cache_dir is None else True,
        )


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before

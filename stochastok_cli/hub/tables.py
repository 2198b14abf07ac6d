"""Small datasets from the Hub, such as benchmarks, in the cache of `datasets`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stochastok_cli.errors import UserError
from stochastok_cli.hub.client import hub_errors, import_datasets, none_if_unreachable
from stochastok_cli.hub.locate import CONVERTED, explain_value_error, locate_dataset


def load_rows(repo: str, *, subset: str | None = None, split: str) -> Any:
    """Loads one split of a small dataset; one that is in the cache needs no network.

    Args:
        repo: the dataset repository.
        subset: its subset (configuration).
        split: its split.

    Returns:
        A `datasets.Dataset`.

    Raises:
        UserError: there is no such dataset or split, or the Hub can't be reached and the cache lacks it.
    """
    with hub_errors(repo, or_cache=True):
        from huggingface_hub import constants

        datasets = import_datasets()

        def load(**arguments: str | None) -> Any:
            return explain_value_error(repo, lambda: datasets.load_dataset(repo, split=split, **arguments))

        # Without a connection, `datasets` would try for 20 seconds to reach the Hub before it looks into its cache.
        offline = constants.HF_HUB_OFFLINE
        located = None if offline else none_if_unreachable(lambda: locate_dataset(repo, None, subset))
        if located is not None:
            _, arguments = located
            if "data_dir" not in arguments:
                return load(**arguments)
            rows = _converted_rows(repo, arguments["data_dir"], split)
            if rows is None:
                raise UserError(f"{repo} has no split {split!r}")
            return rows
        with _offline(datasets.config):
            try:
                return load(name=subset)
            except (UserError, ConnectionError):
                rows = _converted_rows(repo, subset or "*", split, local_files_only=True)
                if rows is None:
                    raise
                return rows


def _converted_rows(repo: str, folder: str, split: str, *, local_files_only: bool = False) -> Any:
    """A split of a dataset that the Hub has converted to parquet files; None if there is no such split."""
    from huggingface_hub import errors, snapshot_download

    pattern = f"{folder}/{split}/*.parquet"
    try:
        root = snapshot_download(
            repo, repo_type="dataset", revision=CONVERTED, allow_patterns=pattern, local_files_only=local_files_only
        )
    except errors.LocalEntryNotFoundError:
        return None
    files = sorted(map(str, Path(root).glob(pattern)))
    return import_datasets().load_dataset("parquet", data_files=files, split="train") if files else None


@contextmanager
def _offline(config: Any) -> Iterator[None]:
    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before

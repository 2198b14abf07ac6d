"""Rows of questions from a file, from a folder or from the Hub, all as a `datasets.Dataset`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli import hub
from stochastok_cli.data.arrow_datasets import without_bars
from stochastok_cli.errors import FAILED, UserError, did_you_mean

if TYPE_CHECKING:
    import datasets

READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {"keep_default_na": False}),  # an option may read "None" or "NA"
    ".tsv": ("csv", {"keep_default_na": False, "sep": "\t"}),
    ".parquet": ("parquet", {}),
}


def read_hub(what: str, repo: str, config: str | None, split: str) -> "datasets.Dataset":
    """A split of a dataset on the Hub, or of the copy in the cache. Raises UserError with the way out."""
    try:
        with without_bars():
            return hub.load_rows(repo, subset=config, split=split)
    except UserError as error:
        raise UserError(
            f"{what} can't be loaded: {error}",
            fix=f"a local copy can stand in for it: {what.split()[-1]}=PATH",
            exit_code=error.exit_code,
        ) from None


def read_path(what: str, path: Path, split: str) -> "datasets.Dataset":
    """All rows of a file, or one split of a folder: a saved `datasets` folder, or one that holds files of rows.

    A folder that has no splits, or only one, is taken as the split.
    """
    import datasets

    if not path.exists():
        raise UserError(f"{what}: {path} does not exist")
    if path.is_file() and path.suffix not in READERS:
        raise UserError(f"{what}: {path} is of an unknown kind", fix=f"give {', '.join(READERS)} or a folder of them")
    try:
        with without_bars():
            found = _read(path)
    except Exception as error:  # the readers below `datasets` raise whatever they like
        cause = error.__cause__ or error
        reason = (str(cause).splitlines() or ["it is empty"])[0]
        raise UserError(f"{what}: {path} can't be read: {reason}", exit_code=FAILED) from error
    if isinstance(found, datasets.Dataset):
        return found
    if split not in found and len(found) > 1:
        raise UserError(f"{what}: {path} has no split {split!r} (there are: {', '.join(found)})")
    return found[split] if split in found else next(iter(found.values()))


def _read(path: Path) -> "datasets.Dataset | datasets.DatasetDict":
    import datasets

    if path.is_file():
        reader, options = READERS[path.suffix]
        return datasets.load_dataset(reader, data_files=str(path), split="train", **options)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    return datasets.load_dataset(str(path))


def require_columns(what: str, dataset: "datasets.Dataset", columns: Sequence[str]) -> None:
    """Raises UserError naming the first column that is missing."""
    for column in columns:
        if column not in dataset.column_names:
            raise UserError(
                f"{what}: there is no column {column!r}{did_you_mean(column, dataset.column_names)}",
                fix=f"there are {', '.join(dataset.column_names)}; needed are {', '.join(columns)}",
            )

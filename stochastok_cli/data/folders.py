"""The folders of a data directory. This module imports no NumPy, for commands that only look."""

from pathlib import Path

from stochastok_cli.errors import did_you_mean


def memmap_dir(data_dir: Path) -> Path:
    """The folder of a data directory that holds the folders of `.bin` files."""
    return data_dir / "data_as_memmaps"


def dataset_dir(data_dir: Path) -> Path:
    """The folder of a data directory that holds the saved `datasets.DatasetDict`s."""
    return data_dir / "data_as_datasets"


def similar_dataset(folder: Path) -> str:
    """For a dataset that is not there: the suggestion of the one beside it with the most similar name, if any is."""
    siblings = [other.name for other in folder.parent.glob("*") if other.is_dir() and not other.name.startswith(".")]
    return did_you_mean(folder.name, siblings)

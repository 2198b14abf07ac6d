"""The folders of a data directory. This module imports nothing, for commands that only look."""

from pathlib import Path


def memmap_dir(data_dir: Path) -> Path:
    """The folder of a data directory that holds the folders of `.bin` files."""
    return data_dir / "data_as_memmaps"


def dataset_dir(data_dir: Path) -> Path:
    """The folder of a data directory that holds the saved `datasets.DatasetDict`s."""
    return data_dir / "data_as_datasets"

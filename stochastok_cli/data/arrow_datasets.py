"""Datasets on disk as `datasets` saves them: written from Arrow tables, and which of their files hold the rows."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import numpy as np

from stochastok_cli.errors import FAILED, UserError, short_name
from stochastok_cli.json_files import read_json
from stochastok_cli.manifest import SplitInfo
from stochastok_cli.paths import path_inside
from stochastok_cli.quiet_libraries import quiet

if TYPE_CHECKING:
    import pyarrow

SAVED_METADATA = ("state.json", "dataset_info.json")
"""The files of a saved `datasets.Dataset` that hold no rows."""


class _SavedSplits(TypedDict):
    """The file `dataset_dict.json` of a saved `datasets.DatasetDict`."""

    splits: list[str]


class _SavedPart(TypedDict):
    """A file of a saved `datasets.Dataset`."""

    filename: str


class _SavedState(TypedDict):
    """The file `state.json` of a saved `datasets.Dataset`."""

    _data_files: list[_SavedPart]
    _indices_data_files: NotRequired[Any]
    _indices_files: NotRequired[Any]


def write_dataset(folder: Path, splits: "dict[str, pyarrow.Table]") -> dict[str, SplitInfo]:
    """Saves one table per split so that `datasets.load_from_disk` opens them. Returns their sizes for the manifest."""
    import datasets

    with quiet("datasets"):  # it shows progress bars whether or not stderr is a terminal
        datasets.DatasetDict({split: datasets.Dataset(table) for split, table in splits.items()}).save_to_disk(folder)
    return {split: SplitInfo(table.num_rows) for split, table in splits.items()}


def list_column(values: np.ndarray, lengths: np.ndarray) -> "pyarrow.ListArray":
    """A column of lists: `values` holds the lists end to end, and `lengths` (int64 `[rows]`) the length of each."""
    import pyarrow

    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(pyarrow.array(starts), pyarrow.array(values))


def saved_split(folder: Path, split: str) -> Path:
    """The folder of a split of a `datasets.DatasetDict` that was saved.

    Raises UserError if it has no such split.
    """
    file = folder / "dataset_dict.json"
    splits = read_json(file, _SavedSplits)["splits"]
    if split not in splits:
        known = ", ".join(map(short_name, splits))
        raise UserError(f"{folder} has no split {split!r}", fix=f"name one with --split; there are: {known}")
    return path_inside(folder, split)


def saved_files(folder: Path) -> set[str]:
    """The names of the files that hold the rows of a `datasets.Dataset` that was saved.

    Raises UserError if one is missing, or if the rows are a selection of those in the files.
    """
    file = folder / "state.json"
    state = read_json(file, _SavedState)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        fix = "open it with `datasets.load_from_disk` and save it again"
        raise UserError(f"{folder} is a selection of rows, saved by an old version of `datasets`", fix=fix)
    names = {part["filename"] for part in state["_data_files"]}
    for name in sorted(names):
        if not path_inside(folder, name).is_file():
            raise UserError(f"{folder / name} is missing, which {file} names", exit_code=FAILED)
    return names

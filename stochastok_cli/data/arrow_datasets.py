"""Text datasets on disk: a saved `datasets.DatasetDict`, written from Arrow tables."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stochastok_cli.artifacts import SplitInfo

if TYPE_CHECKING:
    import pyarrow


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Turns the progress bars of `datasets` off: it shows them whether or not stderr is a terminal."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def write_dataset(folder: Path, splits: "dict[str, pyarrow.Table]") -> dict[str, SplitInfo]:
    """Saves one table per split so that `datasets.load_from_disk` opens them. Returns their sizes for the manifest."""
    import datasets

    with no_progress_bars():
        datasets.DatasetDict({split: datasets.Dataset(table) for split, table in splits.items()}).save_to_disk(folder)
    return {split: SplitInfo(table.num_rows) for split, table in splits.items()}


def list_column(values: np.ndarray, lengths: np.ndarray) -> "pyarrow.ListArray":
    """A column of lists: `values` holds the lists end to end, and `lengths` (int64 `[rows]`) the length of each."""
    import pyarrow

    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pyarrow.ListArray.from_arrays(pyarrow.array(starts), pyarrow.array(values))

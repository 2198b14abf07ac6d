"""What the tasks of a pipeline leave for each other: for each task a file of token ids, and arrays that describe it."""

import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stochastok_cli.artifacts import tasks_folder
from stochastok_cli.errors import FAILED, UserError


class PartWriter:
    """Writes the part of one task: `<rank>.bin`, ids end to end, and `<rank>.npz`, which appears last.

    A task that was killed leaves no `.npz`, and its next run writes both files again.

    Args:
        folder: the folder of the parts, made if it is not there.
        rank: the number of the task.
        dtype: the type of the ids.
    """

    def __init__(self, folder: Path, rank: int, dtype: np.dtype):
        folder.mkdir(parents=True, exist_ok=True)
        self._ids, self._arrays = part_files(folder, rank)
        self._arrays.unlink(missing_ok=True)
        self._dtype = dtype
        self.file: BinaryIO = open(self._ids, "wb", buffering=1 << 20)  # noqa: SIM115 - closed by `finish`

    def write(self, ids: np.ndarray) -> None:
        """Appends ids."""
        self.file.write(np.ascontiguousarray(ids, self._dtype).data)

    def finish(self, **arrays: np.ndarray | int) -> None:
        """Closes the file of ids and writes the arrays that describe it."""
        self.file.close()
        temporary = self._arrays.with_suffix(".npz.partial")
        with open(temporary, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        temporary.replace(self._arrays)


def part_files(folder: Path, rank: int) -> tuple[Path, Path]:
    """The files of the part of a task: the ids, and the arrays."""
    return folder / f"{rank:05d}.bin", folder / f"{rank:05d}.npz"


def read_arrays(folder: Path, tasks: int) -> list[dict[str, np.ndarray]]:
    """The arrays of all parts, in the order of the tasks.

    Raises:
        UserError: a task has not finished.
    """
    missing = [rank for rank in range(tasks) if not part_files(folder, rank)[1].is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {tasks} tasks have not finished, the first of them task {missing[0]} ({folder})",
            fix="run the same command again: finished tasks are not run again",
            exit_code=FAILED,
        )
    parts = []
    for rank in range(tasks):
        with np.load(part_files(folder, rank)[1]) as arrays:
            parts.append(dict(arrays))
    return parts


def work_folder(final: Path) -> Path:
    """Where the tasks that make a folder keep their progress, beside it."""
    return tasks_folder(final).absolute()


def remove_progress(final: Path) -> None:
    """Removes all that tasks have left for a finished folder, but the log of the task that calls this."""
    for path in work_folder(final).glob("*"):
        if path.name == "logs":
            for stage in path.glob("*"):
                if stage.name != "finish":
                    shutil.rmtree(stage, ignore_errors=True)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()

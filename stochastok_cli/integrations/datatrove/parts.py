"""What the tasks of a pipeline leave for each other: for each task a file of token ids, and arrays that describe it."""

import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stochastok_cli.artifacts import tasks_folder
from stochastok_cli.errors import FAILED, UserError

_COPY_BYTES = 1 << 24


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


def copy_bytes(source: BinaryIO, start: int, size: int, out: BinaryIO) -> None:
    """Appends `size` bytes from `start` of an open file to another one.

    Raises:
        UserError: the file is shorter.
    """
    source.seek(start)
    while size:
        piece = source.read(min(size, _COPY_BYTES))
        if not piece:
            raise UserError(f"{source.name} is cut short", fix="run it again with --force", exit_code=FAILED)
        out.write(piece)
        size -= len(piece)


def final_folder(folder: Path) -> Path:
    """The folder that is being made, whether it has its final name yet or not."""
    return folder.with_name(folder.name.removeprefix(".").removesuffix(".partial"))


def work_folder(folder: Path) -> Path:
    """Where the tasks that make a folder keep their progress: beside it, whether it has its final name yet or not."""
    return tasks_folder(final_folder(folder)).absolute()


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

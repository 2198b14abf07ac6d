"""Temporary folders that are removed even if the process is killed: then the next caller removes them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import filelock


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder below the home of `huggingface_hub` (HF_HOME), where large files are expected.

    Each folder has a lock that its process holds. A folder whose lock is free belongs to a process that was killed.
    """
    import filelock
    from huggingface_hub import constants

    root = Path(constants.HF_HOME) / "stochastok"
    root.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(root / ".lock"):  # nobody takes a folder for abandoned before its own process locks it
        for other in root.iterdir():
            if other.is_dir():
                _remove_if_abandoned(other)
        folder = Path(tempfile.mkdtemp(dir=root))
        lock = _lock_of(folder)
        lock.acquire()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _lock_of(folder: Path) -> "filelock.BaseFileLock":
    import filelock

    return filelock.FileLock(folder.with_suffix(".lock"))


def _remove_if_abandoned(folder: Path) -> None:
    import filelock

    lock = _lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return
    shutil.rmtree(folder, ignore_errors=True)
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()

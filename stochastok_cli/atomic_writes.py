"""Files and folders that take the place of older ones whole, and that are on the disk when they are said to be."""

import os
import shutil
import stat
from pathlib import Path

from stochastok_cli.paths import hidden_path_beside, without_link


def write_atomically(file: Path, content: bytes) -> None:
    """Writes one small file so that after a crash it has either its old content or the new one."""
    temporary = file.with_name(f".{file.name}.partial")
    try:
        with open(temporary, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(file.parent)


def rename_into_place(temporary: Path, final: Path) -> None:
    """Syncs a temporary folder and gives it its final name, replacing a folder of that name.

    Its files then have the mode that the umask gives (see `_open_to_others`).
    """
    _open_to_others(temporary)
    _sync(temporary)
    _replace(temporary, final)


def replaced_folder(final: Path) -> Path:
    """Where an older folder is for the moment in which another takes its place."""
    return hidden_path_beside(final, "old")


def _replace(temporary: Path, final: Path) -> None:
    """Renames a folder; a link of the final name stays, and the folder that it leads to is replaced.

    The folder that is replaced has its name again if the other can't take it.
    """
    old, final = replaced_folder(final), without_link(final)
    shutil.rmtree(old, ignore_errors=True)
    try:
        if final.exists():
            os.rename(final, old)
        os.rename(temporary, final)
    except BaseException:
        if old.exists() and not final.exists():
            os.rename(old, final)
        raise
    _sync_directory(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def files_below(folder: Path) -> list[str]:
    """The names of all files in a folder and in those below it, relative to it, in order."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _open_to_others(folder: Path) -> None:
    """Gives files, besides the mode that they have, the one that the umask gives: colleagues of a group can read them.

    `safetensors` and whatever goes through Python's `tempfile` write files that their owner alone can read. A file
    that is made here shows the mode: asking for the umask means to set it for a moment, in all threads.
    """
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for name in files_below(folder):
        file = folder / name
        before = file.stat().st_mode
        if not file.is_symlink() and mode & ~before:
            file.chmod(stat.S_IMODE(before | mode))


def _sync(folder: Path) -> None:
    for name in files_below(folder):
        descriptor = os.open(folder / name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for directory in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        _sync_directory(directory)


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

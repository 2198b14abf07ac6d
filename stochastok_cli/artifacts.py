"""Folders that are either complete or absent, with a manifest that describes what is in them.

A folder is built under a temporary name beside its final one, checksummed, synced to disk and renamed. A killed
command leaves only a temporary folder, which the next run of the same command removes. A lock lets one process at a
time make a folder.
"""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stochastok_cli import __version__
from stochastok_cli.atomic_writes import files_below, rename_into_place, replaced_folder
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.json_files import write_json
from stochastok_cli.manifest import MANIFEST, CommandInfo, FileInfo, Manifest, file_checksum, read_manifest
from stochastok_cli.paths import hidden_path_beside, nearest_existing_path, path_inside, without_link
from stochastok_cli.same_options import IsSameSource, require_same_options

if TYPE_CHECKING:
    import filelock


class Artifact(NamedTuple):
    """A finished folder and its manifest; `created` is False if it was there already, made with the same options."""

    path: Path
    manifest: Manifest
    created: bool


def create_artifact(
    final: Path,
    options: dict[str, Any],
    build: Callable[[Path], Manifest],
    *,
    force: bool = False,
    kept: Path | None = None,
    place_option: str = "--data-dir",
    is_same_source: IsSameSource | None = None,
) -> Artifact:
    """Makes the folder `final` by calling `build(temporary folder)`, unless it is there already.

    A folder made with the same options, all its files in full length, is left alone; one made with other options is
    an error unless `force`.

    Args:
        final: the folder, or a link to it.
        options: everything that decides the content; it goes into the manifest.
        build: writes the files into the folder that it is given, and returns the manifest's entries on their content.
        force: make the folder again even if it is there.
        kept: a folder beside the final one in which `build` keeps the progress of interrupted runs. It is removed when
            the final folder is complete.
        place_option: the option by which users choose another place, for errors.
        is_same_source: tells whether the folder that is there was made of the same source, where its option `source`
            is another text; without it, another text is another source.

    Raises:
        UserError: the folder is there, made with other options (exit code 2); the disk is full or read-only, or another
            process makes the same folder (exit code 1).
    """
    without_link(final)
    options = json.loads(json.dumps(options))
    if not force and (existing := _find_complete(final, options, is_same_source)):
        remove_leftovers(final, kept)
        return Artifact(final, existing, created=False)
    lock = _acquired_lock(final, place_option)
    temporary = _temporary(final)
    try:
        if not force and (existing := _find_complete(final, options, is_same_source)):  # a process has just made it
            return Artifact(final, existing, created=False)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        manifest = build(temporary)
        files = {name: file_checksum(temporary / name) for name in files_below(temporary)}
        made_by = CommandInfo(__version__, command_line())
        manifest = dataclasses.replace(manifest, options=options, made_by=made_by, files=files)
        write_json(temporary / MANIFEST, manifest.to_json())
        rename_into_place(temporary, final)
        if kept is not None:
            shutil.rmtree(kept, ignore_errors=True)
        return Artifact(final, manifest, created=True)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise UserError(f"{final} can't be written: {error.strerror}", exit_code=FAILED) from None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space is left on the disk for {final}", fix="free some and run it again", exit_code=FAILED
            ) from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.release()


def _acquired_lock(final: Path, place_option: str) -> "filelock.BaseFileLock":
    """The lock of a folder that this process now makes. Raises UserError where another one makes it, and where nothing
    can be written."""
    import filelock

    lock = _lock(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"another process is making {final}", fix="wait for it to end", exit_code=FAILED) from None
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise UserError(
            f"{final} can't be made: {error.strerror}", fix=f"give another place ({place_option})", exit_code=FAILED
        ) from None
    return lock


def remove_leftovers(final: Path, kept: Path | None = None) -> None:
    """Removes what a killed command has left beside a complete folder, unless another process is making it again.

    `kept` is as in `create_artifact`. A folder that this process can't write to is left as it is.
    """
    places = (_temporary(final), replaced_folder(final), kept)
    leftovers = [path for path in places if path is not None and path.exists()]
    if leftovers:
        import filelock

        with contextlib.suppress(filelock.Timeout, OSError), _lock(final).acquire(timeout=0):
            for path in leftovers:
                shutil.rmtree(path, ignore_errors=True)


def find_damage(folder: Path, files: Mapping[str, FileInfo]) -> str | None:
    """Describes the first of `files` that is missing from the folder or of another size; None if all are there."""
    for name, file in files.items():
        path = path_inside(folder, name)
        size = os.path.getsize(path) if os.path.isfile(path) else -1
        if size != file.bytes:
            state = "is missing" if size < 0 else f"has {size:,} bytes, not {file.bytes:,}"
            return f"{path} {state}"
    return None


def require_creatable(final: Path) -> None:
    """Makes a folder beside `final`, and removes it again, before work whose result `create_artifact` writes there.

    Raises:
        UserError: a file is in the way, a link leads nowhere, or the folder can't be made (exit code 1).
    """
    final = without_link(final).absolute()
    existing = nearest_existing_path(final)
    if not existing.is_dir():
        raise UserError(f"{final} can't be made: {existing} is a file", fix="name another folder")
    made: list[Path] = []
    try:
        missing = [folder for folder in final.parents if not folder.exists()]
        for folder in (*reversed(missing), hidden_path_beside(final, "probing")):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                made.append(folder)
    except OSError as error:
        raise UserError(
            f"{final} can't be made: {error.strerror}", fix="name another folder", exit_code=FAILED
        ) from None
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _find_complete(final: Path, options: dict[str, Any], is_same_source: IsSameSource | None) -> Manifest | None:
    """The manifest of a folder that is there, made with these options; None for one that is to be made.

    That is one that is not there, is empty or lacks a file. Raises UserError if it was made with other options.
    """
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return None
    manifest = read_manifest(final)
    require_same_options(final, manifest, options, is_same_source)
    return manifest if manifest and not find_damage(final, manifest.files) else None


def _lock(final: Path) -> "filelock.BaseFileLock":
    import filelock

    return filelock.FileLock(hidden_path_beside(final, "lock"))


def _temporary(final: Path) -> Path:
    """Where a folder is made."""
    return hidden_path_beside(final, "partial")


def tasks_folder(final: Path) -> Path:
    """Where the tasks of a pipeline that makes a folder keep their progress."""
    return hidden_path_beside(final, "tasks")


def command_line() -> str:
    """The command line of this process, as it is typed in a shell."""
    import shlex

    program = Path(sys.argv[0]).name
    typed = ["python", "-m", "stochastok_cli"] if program == "__main__.py" else ["python"]
    return shlex.join([*(["stochastok"] if program.startswith("stochastok") else typed), *sys.argv[1:]])

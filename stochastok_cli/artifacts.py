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
import re
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stochastok_cli import __version__
from stochastok_cli.errors import FAILED, UserError, short_name, short_repr
from stochastok_cli.manifest import (
    MANIFEST,
    CommandInfo,
    FileInfo,
    Manifest,
    file_checksum,
    read_manifest,
    same_tokenizer,
)

if TYPE_CHECKING:
    import filelock

_SOURCE_SIZES = {"source_bytes": "bytes of the source", "source_files": "files of the source"}
MOST_NAME_BYTES = 240
"""The longest name of a folder: file systems have room for 255 bytes, also for `.NAME.partial` and `NAME-old-12`."""


class Artifact(NamedTuple):
    """A finished folder and its manifest; `created` is False if it was there already, made with the same options."""

    path: Path
    manifest: Manifest
    created: bool


IsSameSource = Callable[[Manifest, bool], bool]
"""Whether a folder with this manifest was made of a source. The flag says whether the content of the source may be
compared, which takes as long as to read it."""


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
    _without_link(final)
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
        files = {name: file_checksum(temporary / name) for name in _files_below(temporary)}
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
    leftovers = [path for path in (_temporary(final), _replaced(final), kept) if path is not None and path.exists()]
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


def path_inside(folder: Path, name: str) -> Path:
    """The path of a file below a folder, for a name that comes from outside: a manifest, a listing, an index.

    Raises:
        UserError: the name is absolute or has an empty part, `.` or `..`, or a link leads its folder elsewhere.
    """
    leads_out = "/" in name and not (folder / name).parent.resolve().is_relative_to(folder.resolve())
    if leads_out or not _can_be_a_file(name):
        raise UserError(f"the file name {short_repr(name)} is not possible or leads out of {folder}", exit_code=FAILED)
    return folder / name


def _can_be_a_file(name: str) -> bool:
    """Whether a name is relative, has no part that leads elsewhere, and can be shown and written to a disk."""
    try:
        parts = [os.fsencode(part) for part in name.split("/")]
    except UnicodeEncodeError:
        return False
    printable = not any(character < " " or character in "\x7f\\" for character in name)
    return printable and len(name) < 2000 and all(part not in (b"", b".", b"..") and len(part) < 256 for part in parts)


def nearest_existing_path(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(candidate for candidate in (path, *path.absolute().parents) if candidate.exists())


def expand_home(path: str | Path) -> str:
    """A path with the home folder in place of `~` or `~USER` at its beginning, which a shell leaves there where it is
    quoted or follows `=`. One of a user who is not known stays as it is."""
    return os.path.expanduser(path)


def validate_folder_name(name: str) -> str:
    """Returns the name of a folder to make.

    Raises UserError for a name that is a path or hidden, and for one that can't be shown or written in every file:
    control characters, line ends, bytes that are not UTF-8. Nor may it be too long for a file system, with what is
    added to it for hidden files and folders beside the folder.
    """
    if not name or "/" in name or "\\" in name or name.startswith(".") or not name.isprintable():
        raise UserError(
            f"{name[:200]!r} can't be the name of a folder",
            fix="give one of printable characters, without slashes or a leading dot",
        )
    if (length := len(name.encode())) > MOST_NAME_BYTES:
        raise UserError(
            f"{name[:50]!r}… can't be the name of a folder: it has {length:,} bytes",
            fix=f"give one of at most {MOST_NAME_BYTES}",
        )
    return name


def json_bytes(content: Any) -> bytes:
    """Indented JSON in UTF-8 with a newline at the end. Bytes of paths that are not UTF-8 are escaped (`\\udcff`)."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def write_json(file: Path, content: Any) -> None:
    """Writes a file of `json_bytes`."""
    file.write_bytes(json_bytes(content))


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


def require_creatable(final: Path) -> None:
    """Makes a folder beside `final`, and removes it again, before work whose result `create_artifact` writes there.

    Raises:
        UserError: a file is in the way, a link leads nowhere, or the folder can't be made (exit code 1).
    """
    final = _without_link(final).absolute()
    existing = nearest_existing_path(final)
    if not existing.is_dir():
        raise UserError(f"{final} can't be made: {existing} is a file", fix="name another folder")
    made: list[Path] = []
    try:
        missing = [folder for folder in final.parents if not folder.exists()]
        for folder in (*reversed(missing), _beside(final, "probing")):
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


def rename_into_place(temporary: Path, final: Path) -> None:
    """Syncs a temporary folder and gives it its final name, replacing a folder of that name.

    Its files then have the mode that the umask gives (see `_open_to_others`).
    """
    _open_to_others(temporary)
    _sync(temporary)
    _replace(temporary, final)


def _find_complete(final: Path, options: dict[str, Any], is_same_source: IsSameSource | None) -> Manifest | None:
    """The manifest of a folder that is there, made with these options; None for one that is to be made.

    That is one that is not there, is empty or lacks a file. Raises UserError if it was made with other options.
    """
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return None
    manifest = read_manifest(final)
    _require_same_options(final, manifest, options, is_same_source)
    return manifest if manifest and not find_damage(final, manifest.files) else None


def _require_same_options(
    final: Path, manifest: Manifest | None, options: dict[str, Any], is_same_source: IsSameSource | None
) -> None:
    if manifest is None:
        raise UserError(
            f"{final} exists and has no manifest, so what it was made with is unknown",
            fix="give another name, remove it, or make it again with --force",
        )
    before = manifest.options
    if "tokenizer" not in before and manifest.tokenizer is not None and "tokenizer" in options:
        before = {**before, "tokenizer": manifest.tokenizer.fingerprint}  # earlier versions recorded it there alone
    differing = [key for key in sorted({*before, *options}) if before.get(key) != options.get(key)]
    if "tokenizer" in differing and same_tokenizer(before.get("tokenizer"), options.get("tokenizer")):
        differing.remove("tokenizer")
    if "limit" in differing:  # the size of the source is an option only where all of it is read
        differing = [key for key in differing if key not in _SOURCE_SIZES]
    if "source" in differing and is_same_source is not None and is_same_source(manifest, differing == ["source"]):
        differing.remove("source")
    if differing:
        raise _made_otherwise(final, manifest, before, options, differing)


def _made_otherwise(
    final: Path, manifest: Manifest, before: dict[str, Any], options: dict[str, Any], differing: list[str]
) -> UserError:
    """The error of a folder that is there, made with another value of the options `differing`.

    Another source comes first: then the folder is another dataset of the same name, which is not to be replaced.
    """
    how, fix = [], "--force makes it again"
    sources = before.get("source"), options.get("source")
    if "source" in differing and all(isinstance(name, str) and not _is_hash(name) for name in sources):
        how.append(f"of {short_repr(sources[0], 500)} and not of {short_repr(sources[1], 500)}")
        differing = [key for key in differing if key != "source" and key not in _SOURCE_SIZES]
        fix = "give it another name (--name), or make it again with --force"
    if differing:
        listed = (_describe_difference(key, before.get(key), options.get(key), manifest) for key in differing[:20])
        how.append(f"with other options: {', '.join(listed)}")
    return UserError(f"{final} exists, made {', '.join(how)}", fix=fix)


def _describe_difference(key: str, before: Any, now: Any, manifest: Manifest) -> str:
    """`p (there 0.1, now 0.2)`: an option of a folder that is there, and another value of it.

    Hashes tell people nothing: the tokenizer is named, and of anything else it is said that it is another.
    """
    name = _SOURCE_SIZES.get(key, short_name(key))
    if key == "tokenizer" and manifest.tokenizer is not None:
        return f"{name} (there {short_repr(manifest.tokenizer.name)}, now another)"
    if _is_hash(before) and _is_hash(now):
        return f"{name} (made again or changed since)" if key == "source" else f"{name} (another than there)"
    return f"{name} (there {_shown_option(before)}, now {_shown_option(now)})"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32,}(?:-[0-9a-f]+)?", value) is not None


def _shown_option(value: Any) -> str:
    words = {None: "not given", True: "on", False: "off"}
    return words[value] if value is None or isinstance(value, bool) else short_repr(value)


def _beside(final: Path, role: str) -> Path:
    """A hidden path beside a folder, or beside the folder that a link leads to."""
    folder = _without_link(final)
    return folder.parent / f".{folder.name}.{role}"


def _without_link(final: Path) -> Path:
    """The folder that a link leads to, or the path itself if it is none.

    Raises UserError if nothing is there that it leads to.
    """
    if not final.is_symlink():
        return final
    if not final.exists():
        raise UserError(
            f"{final} is a link to {os.readlink(final)}, which is not there", fix="make it, or the link anew"
        )
    return final.resolve()


def _lock(final: Path) -> "filelock.BaseFileLock":
    import filelock

    return filelock.FileLock(_beside(final, "lock"))


def _temporary(final: Path) -> Path:
    """Where a folder is made."""
    return _beside(final, "partial")


def tasks_folder(final: Path) -> Path:
    """Where the tasks of a pipeline that makes a folder keep their progress."""
    return _beside(final, "tasks")


def _replaced(final: Path) -> Path:
    """Where an older folder is for the moment in which another takes its place."""
    return _beside(final, "old")


def _replace(temporary: Path, final: Path) -> None:
    """Renames a folder; a link of the final name stays, and the folder that it leads to is replaced.

    The folder that is replaced has its name again if the other can't take it.
    """
    old, final = _replaced(final), _without_link(final)
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


def _files_below(folder: Path) -> list[str]:
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
    for name in _files_below(folder):
        file = folder / name
        before = file.stat().st_mode
        if not file.is_symlink() and mode & ~before:
            file.chmod(stat.S_IMODE(before | mode))


def _sync(folder: Path) -> None:
    for name in _files_below(folder):
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


def command_line() -> str:
    """The command line of this process, as it is typed in a shell."""
    import shlex

    program = Path(sys.argv[0]).name
    typed = ["python", "-m", "stochastok_cli"] if program == "__main__.py" else ["python"]
    return shlex.join([*(["stochastok"] if program.startswith("stochastok") else typed), *sys.argv[1:]])

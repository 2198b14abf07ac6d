"""Paths of files and folders, and names for them that come from outside: users, manifests, listings, indexes."""

import os
from pathlib import Path

from stochastok_cli.argument_checks import path_like
from stochastok_cli.errors import FAILED, UserError, short_repr

MOST_NAME_BYTES = 240
"""The longest name of a folder: file systems have room for 255 bytes, also for `.NAME.partial` and `NAME-old-12`."""


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


def require_path(path: str | Path, what: str) -> Path:
    """A path that a user gives. An empty text is none, although `Path` takes it for the working directory.

    Args:
        path: the path.
        what: what it is, for the error.

    Raises:
        UserError: it is empty, or no path.
    """
    if path == "":
        raise UserError(f"{what} is empty", fix="give a path, such as . for the current folder")
    return Path(path_like(what, path))


def path_with_name(path: Path) -> Path:
    """The path itself, or an absolute one where it ends without the name of a file or folder, as `.` and `..` do."""
    return path.resolve() if path.name in ("", "..") else path


def expand_home(path: str | Path) -> str:
    """A path with the home folder in place of `~` or `~USER` at its beginning, which a shell leaves there where it is
    quoted or follows `=`. One of a user who is not known stays as it is."""
    return os.path.expanduser(path)


def folder_name(name: str | None, by_default: str, option: str = "--name") -> str:
    """The name of a folder to make: the one that is given, or else one that is taken from a source.

    Args:
        name: the name that is given; None for none.
        by_default: the name taken from the source.
        option: the option with which users give a name.

    Returns:
        The name.

    Raises:
        UserError: it can't be the name of a folder (see `validate_folder_name`).
    """
    if name is not None:
        return validate_folder_name(name)
    try:
        return validate_folder_name(by_default)
    except UserError as error:
        raise UserError(f"the name by default: {error} ({option})") from None


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


def hidden_path_beside(final: Path, role: str) -> Path:
    """A hidden path beside a folder, or beside the folder that a link leads to."""
    folder = without_link(final)
    return folder.parent / f".{folder.name}.{role}"


def without_link(final: Path) -> Path:
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

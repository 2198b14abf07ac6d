"""Folders that are either complete or not there, and the manifest that says what is in them.

The one place where "complete" is decided: a folder is built under a temporary name beside its final one,
checksummed, synced to disk and renamed. A killed command leaves only a temporary folder, which the next run of the
same command removes. One maker at a time holds a lock.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from stochastok_cli import __version__
from stochastok_cli.errors import FAILED, UserError

MANIFEST = "manifest.json"


class Artifact(NamedTuple):
    """A finished folder, its manifest, and whether this call made it (or found it, made with the same options)."""

    path: Path
    manifest: dict[str, Any]
    created: bool


def create_artifact(
    final: Path, options: dict[str, Any], build: Callable[[Path], dict[str, Any]], *, force: bool = False
) -> Artifact:
    """Makes the folder `final` by calling `build(temporary folder)`, unless it is there already.

    `options` holds everything that decides the content (it goes into the manifest); `build` writes files and returns
    further manifest entries. A folder made with the same options, all its files in full length, is left alone; one
    made with other options is an error unless `force`. Raises UserError (exit code 1) for a full disk or when another
    process makes it.
    """
    options = json.loads(json.dumps(options))
    existing = None if force else read_manifest(final)
    if final.exists() and not force:
        _require_same(final, existing, options)
        if existing and not find_damage(final, existing):
            return Artifact(final, existing, created=False)
    final.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(final.parent / f".{final.name}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"another process is making {final}", fix="wait for it to end", exit_code=FAILED) from None
    temporary = final.parent / f".{final.name}.partial"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        entries = build(temporary)
        manifest = {
            "format": 1,
            **entries,
            "options": options,
            "made_by": {"version": __version__, "command": command_line()},
            "files": {name: file_checksum(temporary / name) for name in _files_below(temporary)},
        }
        write_json(temporary / MANIFEST, manifest)
        _sync(temporary)
        _replace(temporary, final)
        return Artifact(final, manifest, created=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"no space is left on the disk for {final}", fix="free some and run it again", exit_code=FAILED
            ) from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.release()


def find_damage(folder: Path, manifest: dict[str, Any]) -> str | None:
    """The first file of the manifest that is not there in full length, and what is wrong with it; None if all are."""
    for name, entry in manifest.get("files", {}).items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else -1
        if size != entry["bytes"]:
            state = "is missing" if size < 0 else f"has {size:,} bytes, not {entry['bytes']:,}"
            return f"{folder / name} {state}"
    return None


def nearest_existing_path(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def validate_folder_name(name: str) -> str:
    """The name of a folder to make. Raises UserError for one that would lead elsewhere."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or name.startswith("."):
        raise UserError(f"{name!r} can't be the name of a folder", fix="give a name without slashes or a leading dot")
    return name


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None where it has none. Raises UserError if it is damaged."""
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise UserError(f"{file} is damaged", fix="make the folder again with --force", exit_code=FAILED)
    return manifest


def content_fingerprint(manifest: dict[str, Any]) -> str:
    """A name for the content of a folder: a hash over the checksums of its files (not over how it was made)."""
    sums = sorted((name, entry["sha256"]) for name, entry in manifest["files"].items())
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:32]


def file_checksum(file: Path) -> dict[str, Any]:
    """`{"bytes": size, "sha256": hex digest}` of one file."""
    with open(file, "rb") as stream:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_atomically(file: Path, content: bytes) -> None:
    """Writes one small file so that it has either its old content or the new, whatever happens."""
    temporary = file.with_name(f".{file.name}.partial")
    with open(temporary, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)
    _sync_directory(file.parent)


def rename_into_place(temporary: Path, final: Path) -> None:
    """Syncs a folder that was built aside and gives it its final name, replacing what stands there."""
    _sync(temporary)
    _replace(temporary, final)


def _require_same(final: Path, manifest: dict[str, Any] | None, options: dict[str, Any]) -> None:
    if manifest is None:
        raise UserError(
            f"{final} exists and has no manifest, so what it was made with is unknown",
            fix="give another name, remove it, or make it again with --force",
        )
    made = manifest.get("options", {})
    differing = [key for key in sorted({*made, *options}) if made.get(key) != options.get(key)]
    if differing:
        listed = ", ".join(f"{key} (there {made.get(key)!r}, now {options.get(key)!r})" for key in differing)
        raise UserError(f"{final} exists, made with other options: {listed}", fix="--force makes it again")


def _replace(temporary: Path, final: Path) -> None:
    old = final.parent / f".{final.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)
    os.rename(temporary, final)
    _sync_directory(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _sync(folder: Path) -> None:
    for name in _files_below(folder):
        descriptor = os.open(folder / name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    _sync_directory(folder)


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def command_line() -> str:
    """The command that is running, as a person would type it."""
    import shlex

    program = Path(sys.argv[0]).name
    typed = ["python", "-m", "stochastok_cli"] if program == "__main__.py" else ["python"]
    return shlex.join([*(["stochastok"] if program.startswith("stochastok") else typed), *sys.argv[1:]])

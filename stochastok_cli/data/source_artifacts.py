"""Folders that are made of a source: whether one that is there was made of the same, and a source that changes."""

import dataclasses
import functools
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from stochastok_cli.artifacts import Artifact, create_artifact
from stochastok_cli.background import in_background
from stochastok_cli.data.source_files import file_type
from stochastok_cli.errors import FAILED, Notice, UserError
from stochastok_cli.manifest import Manifest, SourceInfo
from stochastok_cli.progress import ProgressCallback


class Source(Protocol):
    """What a folder of ids is made of."""

    def listing(self) -> str | None:
        """A hash of the names, sizes and times of its files; None for a source without files."""
        ...

    def made_from(self) -> SourceInfo:
        """Its description, with a checksum of its content."""
        ...


def create_from_source(
    final: Path,
    options: dict[str, Any],
    name: str,
    source: Source,
    build: Callable[[Path, ProgressCallback], Manifest],
    *,
    progress: ProgressCallback,
    force: bool,
    kept: Path | None = None,
    place_option: str = "--data-dir",
) -> Artifact:
    """`create_artifact` for a folder that is made of a source, which must not change while it is read.

    A folder that is there already may have been made of the source by another path, such as `texts` and `texts/`. If it
    was made of another file or folder with the same content, a `Notice` says so.

    Args:
        final: the folder.
        options: what it is made with.
        name: the name of the source, for errors.
        source: the source, whose checksum is computed while `build` works.
        build: fills a folder and returns its manifest, in which the source is then entered. It is given the folder
            and the callback to call with its progress, which raises the error with which the checksum has failed.
        progress: called with the progress of `build`.
        force: make the folder again if it is there already.
        kept, place_option: as in `create_artifact`.

    Raises:
        UserError: the source changed meanwhile, or since the folder that is there already was made.
    """
    listing = source.listing()
    made_from = functools.cache(source.made_from)  # of the state that `listing` describes, see `build_unchanged`
    is_named = options.get("source") == name  # a source that is a dataset has its fingerprint there

    def build_unchanged(folder: Path) -> Manifest:
        checksum = in_background(made_from)
        manifest = build(folder, _until_failure(checksum, progress))
        if source.listing() != listing:
            raise UserError(f"{name} was changed while it was read", fix="run it again", exit_code=FAILED)
        return dataclasses.replace(manifest, made_from=dataclasses.replace(checksum.result(), listing=listing))

    def is_same_source(manifest: Manifest, may_read: bool) -> bool:
        before = manifest.options.get("source")
        if not is_named or not isinstance(before, str):
            return False
        if os.path.isfile(name) and file_type(Path(before)).lower() != file_type(Path(name)).lower():
            return False  # the same bytes are read in another way
        if _is_same_path(before, name):
            return True
        recorded = manifest.made_from.fingerprint if manifest.made_from else None
        return may_read and recorded is not None and recorded == made_from().fingerprint

    made = create_artifact(
        final,
        options,
        build_unchanged,
        force=force,
        kept=kept,
        place_option=place_option,
        is_same_source=is_same_source,
    )
    if not made.created:
        require_same_source(made, name, listing, lambda: made_from().fingerprint)
        before = str(made.manifest.options.get("source"))
        if is_named and before != name and not _is_same_path(before, name):
            warnings.warn(f"{made.path} was made of {before}, and {name} holds the same", Notice, stacklevel=3)
    return made


def _is_same_path(first: str, second: str) -> bool:
    """Whether two paths lead to one file or folder that is there."""
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return False


def _until_failure(call: Future[Any], progress: ProgressCallback) -> ProgressCallback:
    """A callback for the calling thread that raises the error of a call in the background, if it has failed.

    Work that would be thrown away ends there. In other threads, whose end nobody would notice, it raises nothing.
    """
    thread = threading.get_ident()

    def report(description: str, completed: int, total: int) -> None:
        if call.done() and threading.get_ident() == thread:
            call.result()
        progress(description, completed, total)

    return report


def require_same_source(
    made: Artifact, source: str, listing: str | None, fingerprint: Callable[[], str | None]
) -> None:
    """Raises UserError if a folder that is there already was made when its source held something else.

    Args:
        made: the folder that is there already.
        source: the name of the source, for the error.
        listing: the listing of the files of the source now; None for a source without files.
        fingerprint: computes the fingerprint of the source now; called only if its files were changed or renamed.
    """
    before = made.manifest.made_from
    if before is None or before.fingerprint is None or before.listing == listing:
        return
    if fingerprint() != before.fingerprint:
        raise UserError(f"{made.path} exists, made when {source} held another text", fix="--force makes it again")

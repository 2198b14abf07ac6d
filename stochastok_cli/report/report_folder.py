"""The folder of a report, which is complete or absent. Only what an earlier report wrote is ever replaced."""

import os
from collections.abc import Callable
from pathlib import Path

from stochastok_cli.artifacts import create_artifact, require_creatable
from stochastok_cli.errors import UserError, short_name
from stochastok_cli.manifest import MANIFEST, Manifest, file_checksum, read_manifest
from stochastok_cli.paths import nearest_existing_path

KIND = "report"
"""The kind in the manifest of a report."""
PLOTS = "plots"
OF_FILE_BROWSERS = (".DS_Store", "Thumbs.db")
"""Files that appear in a folder when somebody looks at it."""


def require_report_folder(folder: Path) -> None:
    """Raises UserError if a report can't be written to a folder, or if that would remove what is no report's."""
    existing = nearest_existing_path(folder)
    if not existing.is_dir():
        raise UserError(f"--report {folder}: {existing} is a file", fix="name a folder")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(f"--report {folder} is the current folder, or above it", fix="name a folder for the report")
    if os.path.ismount(folder):
        raise UserError(f"--report {folder}: a disk is mounted there", fix="name a folder in it")
    if folder.is_dir() and (other := _file_of_no_report(folder)) is not None:
        raise UserError(
            f"--report {folder} would replace {short_name(other)}, which no report wrote or which was changed since",
            fix="name another folder, or move it away",
        )
    require_creatable(folder)


def create_report_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Makes the folder of a report by calling `write(temporary folder)`, in the place of an older report.

    Raises:
        UserError: as `require_report_folder`; the disk is full, or another process makes the same folder.
    """

    def build(temporary: Path) -> Manifest:
        write(temporary)
        return Manifest(kind=KIND)

    require_report_folder(folder)
    create_artifact(folder, {}, build, force=True, place_option="--report")


def _file_of_no_report(folder: Path) -> str | None:
    """The first file, link or folder, by its path in a folder, that is not as a report wrote it."""
    try:
        manifest = read_manifest(folder)
    except (UserError, OSError):
        manifest = None
    files = manifest.files if manifest is not None and manifest.kind == KIND else {}
    written = {MANIFEST, *files} if files else set()
    folders = {str(Path(name).parent) for name in files} | ({PLOTS} if files else set())
    for parent, subfolders, names in os.walk(folder):
        subfolders.sort()
        for name in sorted((*subfolders, *names)):
            path = Path(parent, name)
            relative = str(path.relative_to(folder))
            if path.is_symlink() or (name in subfolders and relative not in folders):
                return relative
            if name in subfolders or name in OF_FILE_BROWSERS:
                continue
            if relative not in written or not path.is_file():
                return relative
            if relative in files and file_checksum(path) != files[relative]:
                return relative
    return None

"""What users are told about an error of the operating system."""

import errno
import os
import shutil

from stochastok_cli.errors import NO_SPACE, shorten

_SMALL_FILE = 64 * 2**10  # bytes


def describe_os_error(error: OSError) -> str:
    """The error as one line: with the file where Python names one, and else what is known of the disk that is full.

    Python names no file where one that is open can't be written.
    """
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename:
        return f"{shorten(str(error.filename), 500)}: {reason}"
    if error.errno not in (*NO_SPACE, errno.EROFS):
        return reason
    full = [name for name, folder in _folders().items() if _is_full(folder)]
    disk = f"the disk of {' and '.join(full)} is full" if full else "see the disks of outputs, caches and TMPDIR"
    fix = "; make room and run it again" if error.errno in NO_SPACE else ""
    return f"a file can't be written: {reason} ({disk}; --debug shows which file){fix}"


def _folders() -> dict[str, str]:
    """The folders that most files are written below, by what they are called."""
    return {
        "the current folder": os.curdir,
        "temporary files": os.environ.get("TMPDIR") or "/tmp",
        "the home folder": os.path.expanduser("~"),
    }


def _is_full(folder: str) -> bool:
    try:
        return shutil.disk_usage(folder).free < _SMALL_FILE
    except OSError:  # it is not there
        return False

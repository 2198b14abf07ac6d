"""What is said where a file of a run can't be written."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stochastok_cli.errors import FAILED, NO_SPACE, UserError

_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)


@contextmanager
def explain_write_failure(path: Path) -> Iterator[None]:
    """Raises an OSError of the block, which writes a file or folder, as a UserError that names it."""
    try:
        yield
    except OSError as error:
        fix = "make room and run the same command again" if error.errno in NO_SPACE else ""
        if error.errno in _NOT_WRITABLE:
            fix = "make it writable; or, for a new run, set general.paths.checkpoint_dir to a folder that is"
        raise UserError(f"{path} can't be written: {error.strerror or error}", fix=fix, exit_code=FAILED) from None

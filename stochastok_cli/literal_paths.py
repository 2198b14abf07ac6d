"""Paths on this machine that the libraries of Hugging Face read as they are.

`datasets` and `fsspec` look for files that match a path with `*`, `?` or brackets, even where there is one of that very
name, and take `::` and `://` for parts of a URL.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_SPECIAL = re.compile(r"[*?[\]]|::|:/")


class LiteralPath(NamedTuple):
    """An existing file or folder under a path without special characters.

    Args:
        path: that path.
        cache_dir: the `cache_dir` with which `datasets` must read it; None for its own.
    """

    path: Path
    cache_dir: str | None

    @property
    def is_temporary(self) -> bool:
        """Whether the path and the cache are there only within the context, so that rows must be kept in memory."""
        return self.cache_dir is not None


@contextmanager
def literal_path(path: Path) -> Iterator[LiteralPath]:
    """A context with an absolute path to an existing file or folder that has no special characters.

    It is the path itself unless that has some; then it is a temporary one with links to the files. `datasets` names its
    cached tables after paths, so they are temporary, too.
    """
    path = path.absolute()
    if not _SPECIAL.search(str(path)):
        yield LiteralPath(path, None)
        return
    with tempfile.TemporaryDirectory(prefix="stochastok-") as temporary:
        link = Path(temporary, f"link{path.suffix if not _SPECIAL.search(path.suffix) else ''}")
        _link_files(path, link)
        yield LiteralPath(link, str(Path(temporary, "cache")))


def _link_files(path: Path, link: Path) -> None:
    """Links a file, or all of a folder into a folder of its own: `datasets` would look where a link leads."""
    if not path.is_dir():
        link.symlink_to(path)
        return
    for root, folders, files in os.walk(path):
        parent = link / os.path.relpath(root, path)
        parent.mkdir()
        for name in (*files, *(name for name in folders if os.path.islink(os.path.join(root, name)))):
            (parent / name).symlink_to(os.path.join(root, name))

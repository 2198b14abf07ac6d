"""The callback by which long-running functions report their progress."""

from collections.abc import Callable

ProgressCallback = Callable[[str, int, int], None]
"""Called as `callback(description, completed, total)`; `total` is 0 where it is unknown."""


def no_progress(description: str, completed: int, total: int) -> None:
    """The `ProgressCallback` that shows nothing."""

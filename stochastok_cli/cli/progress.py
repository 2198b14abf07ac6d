"""What a person sees while a command runs: notes and progress bars, all on stderr.

Bars appear only in a terminal; `--quiet` silences bars and notes. Errors and results are not its business.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

quiet = False


def note(text: str) -> None:
    """A line for people, on stderr."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Gives a function `(what, done, total)` that draws one bar for each `what`; `total` 0 where it is unknown."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeLeftColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, int] = {}
        last = 0.0

        def report(what: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if what in tasks and done != total and now - last < 0.05:
                return
            last = now
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total or None)
            progress.update(tasks[what], completed=done, total=total or None)  # type: ignore[arg-type]

        yield report

"""Notes and progress bars, on stderr. Bars are shown only in a terminal; `--quiet` silences both."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from stochastok_cli.progress import ProgressCallback, no_progress

quiet = False


def note(text: str) -> None:
    """Prints a line on stderr, unless `--quiet`."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """A context that gives a `ProgressCallback`, which draws a progress bar for each description."""
    if quiet or not sys.stderr.isatty():
        yield no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeftColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeLeftColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, int] = {}
        last = 0.0

        def report(description: str, completed: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if description in tasks and completed != total and now - last < 0.05:
                return
            last = now
            if description not in tasks:
                tasks[description] = progress.add_task(description, total=total or None)
            progress.update(tasks[description], completed=completed, total=total or None)  # type: ignore[arg-type]

        yield report

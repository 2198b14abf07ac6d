"""How often a row was seen, counted over all the processes of one machine that read a dataset."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock


class Occurrences:
    """Counts keys exactly, together with the workers of a data loader.

    Rows of the same key are alike, so it does not matter which worker gets which of their numbers: all rows together
    are the same for any number of workers. The counts are in an SQLite file of a temporary folder, which goes with this
    object.
    """

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="stochastok-occurrences-"))
        self.path = folder / "seen.sqlite"
        self._connection: Any = None
        self._process = -1
        weakref.finalize(self, _remove, folder, os.getpid())

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.path, self._connection, self._process = state["path"], None, -1

    def count(self, keys: Sequence[int]) -> list[int]:
        """How often each of these 64-bit keys was counted before, and counts it."""
        connection = self._connect()
        connection.execute("BEGIN IMMEDIATE")
        with connection:
            return [self._count(connection, key - 2**63) for key in keys]

    def clear(self) -> None:
        """Begins anew."""
        if self.path.exists():
            self._connect().execute("DELETE FROM seen")

    @staticmethod
    def _count(connection: Any, key: int) -> int:
        connection.execute("INSERT INTO seen VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET times = times + 1", (key,))
        times: int = connection.execute("SELECT times FROM seen WHERE key = ?", (key,)).fetchone()[0]
        return times - 1

    def _connect(self) -> Any:
        import sqlite3

        if self._process != os.getpid():  # a connection must not be taken into a forked process
            connection = sqlite3.connect(self.path, timeout=600, isolation_level=None)
            with FileLock(f"{self.path}.lock"):  # SQLite does not wait for others that set the mode
                for setting in ("journal_mode = WAL", "synchronous = OFF"):
                    connection.execute(f"PRAGMA {setting}")
                connection.execute("CREATE TABLE IF NOT EXISTS seen (key INTEGER PRIMARY KEY, times INTEGER NOT NULL)")
            self._connection, self._process = connection, os.getpid()
        return self._connection


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a forked process, whose copy ends earlier
        shutil.rmtree(folder, ignore_errors=True)

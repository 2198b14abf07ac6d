"""A pull that broke off goes on where it was: what has arrived lies beside the folder that it will become.

.<name>.pull/
  train.bin  val.bin   ids as they came in
  progress.json        what they are of, and how many documents and tokens of each split are safe on the disk
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stochastok_cli.artifacts import SplitInfo, write_atomically

PROGRESS = "progress.json"
SAVE_SECONDS = 5.0  # what a killed pull has to fetch again


class PartialPull:
    """The files of one pull."""

    def __init__(self, folder: Path):
        self._folder = folder

    def open(self, source: dict[str, Any], dtype: np.dtype) -> None:
        """Looks at what is there. `source` says what is pulled: files of anything else are removed."""
        self._source = source
        self._dtype = dtype
        self.counts: dict[str, dict[str, int]] = self._found()
        if not self.counts:
            self.discard()
        self._folder.mkdir(parents=True, exist_ok=True)

    def _found(self) -> dict[str, dict[str, int]]:
        try:
            saved = json.loads((self._folder / PROGRESS).read_text(encoding="utf-8"))
            counts = saved["splits"] if saved["source"] == self._source else {}
            whole = all(self._file(split).stat().st_size >= self._bytes(entry) for split, entry in counts.items())
            return counts if whole else {}
        except (OSError, ValueError, KeyError):
            return {}

    def write(self, split: str, ids_from: Callable[[int], Iterator[tuple[np.ndarray, int]]]) -> SplitInfo:
        """Appends what a split lacks and returns its counts.

        `ids_from(row)` starts the iteration from a document on: ids, and how many documents they are.
        """
        counts = self.counts.setdefault(split, {"documents": 0, "tokens": 0})
        self._file(split).touch()
        with open(self._file(split), "r+b") as out:
            out.truncate(self._bytes(counts))
            out.seek(0, os.SEEK_END)
            saved = time.monotonic()
            try:
                for ids, documents in ids_from(counts["documents"]):
                    out.write(np.ascontiguousarray(ids, self._dtype).data)
                    counts["documents"] += documents
                    counts["tokens"] += len(ids)
                    if time.monotonic() - saved >= SAVE_SECONDS:
                        self._save(out)
                        saved = time.monotonic()
            finally:
                self._save(out)
        return SplitInfo(counts["documents"], counts["tokens"])

    def hand_over(self, folder: Path) -> None:
        """Puts the files into `folder`, too: they stay here as well until that folder is safe (`discard`)."""
        for split in self.counts:
            file = self._file(split)
            try:
                os.link(file, folder / file.name)
            except OSError:  # a file system without links
                os.replace(file, folder / file.name)

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _save(self, out: BinaryIO) -> None:
        out.flush()
        os.fsync(out.fileno())
        progress = {"source": self._source, "splits": self.counts}
        write_atomically(self._folder / PROGRESS, json.dumps(progress).encode())

    def _file(self, split: str) -> Path:
        return self._folder / f"{split}.bin"

    def _bytes(self, counts: dict[str, int]) -> int:
        return counts["tokens"] * self._dtype.itemsize

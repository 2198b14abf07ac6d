"""Keeps the downloaded part of an interrupted download, so that the next one continues from there.

.<name>.pull/
  train.bin  val.bin   the ids that have arrived
  progress.json        what is downloaded, and how many documents and tokens of each split are safely on the disk
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stochastok_cli.artifacts import SplitInfo, path_inside, write_atomically
from stochastok_cli.errors import UserError
from stochastok_cli.json_files import read_json

PROGRESS = "progress.json"
SAVE_SECONDS = 5.0  # seconds between saves; a killed download loses what arrived since the last one


@dataclass(frozen=True)
class _Progress:
    """The content of `progress.json`."""

    source: dict[str, Any]
    splits: dict[str, dict[str, int]]

    def __post_init__(self) -> None:
        for counts in self.splits.values():
            if counts.keys() != {"documents", "tokens"}:
                raise ValueError("a split has a number of documents and one of tokens")
            SplitInfo(counts["documents"], counts["tokens"])  # raises ValueError for impossible numbers


class PartialDownload:
    """The files of one download, in a hidden folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    def open(self, source: dict[str, Any], dtype: np.dtype) -> None:
        """Reads what is there. `source` identifies what is downloaded; files of anything else are removed."""
        self._source = source
        self._dtype = dtype
        self._counts = self._read_progress()
        if not self._counts:
            self.discard()
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, split: str, ids_from: Callable[[int], Iterator[tuple[np.ndarray, int]]]) -> SplitInfo:
        """Downloads the documents of a split that are missing, and appends them.

        `ids_from(row)` starts the iteration at a document and yields batches: their ids and their number of documents.
        """
        counts = self._counts.setdefault(split, {"documents": 0, "tokens": 0})
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

    def copy_to(self, folder: Path) -> None:
        """Puts the files into `folder`. They stay here as well, until `discard`."""
        for split in self._counts:
            file = self._file(split)
            try:
                os.link(file, folder / file.name)
            except OSError:  # a file system without links
                os.replace(file, folder / file.name)

    def discard(self) -> None:
        """Removes the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read_progress(self) -> dict[str, dict[str, int]]:
        try:
            saved = read_json(self._folder / PROGRESS, _Progress)
            counts = saved.splits if saved.source == self._source else {}
            complete = all(self._file(split).stat().st_size >= self._bytes(entry) for split, entry in counts.items())
            return counts if complete else {}
        except (OSError, UserError):
            return {}

    def _save(self, out: BinaryIO) -> None:
        out.flush()
        os.fsync(out.fileno())
        progress = {"source": self._source, "splits": self._counts}
        write_atomically(self._folder / PROGRESS, json.dumps(progress).encode())

    def _file(self, split: str) -> Path:
        return path_inside(self._folder, f"{split}.bin")

    def _bytes(self, counts: dict[str, int]) -> int:
        return counts["tokens"] * self._dtype.itemsize

"""Keeps the downloaded part of an interrupted download, so that the next one continues from there.

.<name>.pull/
  train.bin  val.bin   the ids that have arrived
  progress.json        what is downloaded, and how many documents and tokens of each split are safely on the disk
  train/  val/         files of the Hub that are being read
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

from stochastok_cli.atomic_writes import write_atomically
from stochastok_cli.data.memmap import SPLITS
from stochastok_cli.errors import UserError
from stochastok_cli.json_files import read_json
from stochastok_cli.manifest import FileInfo, SplitInfo, file_checksum

PROGRESS = "progress.json"
SAVE_SECONDS = 5.0  # seconds between saves; a killed download loses what arrived since the last one


@dataclass(frozen=True)
class _Progress:
    """The content of `progress.json`."""

    source: dict[str, Any]
    splits: dict[str, dict[str, int]]

    def __post_init__(self) -> None:
        for split, counts in self.splits.items():
            if split not in SPLITS:
                raise ValueError(f"the splits are {' and '.join(SPLITS)}")
            if counts.keys() != {"documents", "tokens"}:
                raise ValueError("a split has a number of documents and one of tokens")
            SplitInfo(counts["documents"], counts["tokens"])  # raises ValueError for impossible numbers


class PartialDownload:
    """The files of one download, in a hidden folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def open(self, source: dict[str, Any], dtype: np.dtype, final: Path) -> None:
        """Reads what is there. Files of another download are removed, and those of one that was finished.

        Args:
            source: identifies what is downloaded.
            dtype: the type of the ids.
            final: the folder that the download becomes. If it has the same files, a process was killed after it had
                finished this download.
        """
        self._source = source
        self._dtype = dtype
        self._counts = {} if self._is_finished(final) else self._read_progress()
        if not self._counts:
            self.discard()
        self.folder.mkdir(parents=True, exist_ok=True)

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
                    counts = {
                        "documents": counts["documents"] + documents,
                        "tokens": counts["tokens"] + len(ids),
                    }
                    self._counts[split] = counts  # both at once: an interrupt may come between any two statements
                    if time.monotonic() - saved >= SAVE_SECONDS:
                        self._save(out)
                        saved = time.monotonic()
            finally:
                self._save(out)
        return SplitInfo(counts["documents"], counts["tokens"])

    def files_folder(self, split: str) -> Path:
        """Where the files of the Hub lie while they are read."""
        return self.folder / split

    def checksum(self, split: str) -> FileInfo:
        """The size and the checksum of the ids of a split."""
        return file_checksum(self._file(split))

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
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_finished(self, final: Path) -> bool:
        pairs = [(self._file(split), final / self._file(split).name) for split in SPLITS]
        return any(here.is_file() and there.is_file() and here.samefile(there) for here, there in pairs)

    def _read_progress(self) -> dict[str, dict[str, int]]:
        """The documents and tokens of each split that are on the disk; empty if the file is of something else."""
        try:
            saved = read_json(self.folder / PROGRESS, _Progress)
            counts = saved.splits if saved.source == self._source else {}
            complete = all(self._file(split).stat().st_size >= self._bytes(entry) for split, entry in counts.items())
            return counts if complete else {}
        except (OSError, UserError):
            return {}

    def _save(self, out: BinaryIO) -> None:
        out.flush()
        os.fsync(out.fileno())
        progress = {"source": self._source, "splits": self._counts}
        write_atomically(self.folder / PROGRESS, json.dumps(progress).encode())

    def _file(self, split: str) -> Path:
        return self.folder / f"{split}.bin"

    def _bytes(self, counts: dict[str, int]) -> int:
        return counts["tokens"] * self._dtype.itemsize

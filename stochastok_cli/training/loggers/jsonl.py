"""The files of a run: `config.yaml`, `metrics.jsonl` and `starts.jsonl` for programs, and `train.log` for people."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from stochastok_cli import __version__
from stochastok_cli.atomic_writes import write_atomically
from stochastok_cli.config import Config
from stochastok_cli.errors import UserError
from stochastok_cli.json_files import checked, parse_json
from stochastok_cli.models.checkpoint_reader import recorded_weights
from stochastok_cli.training.events import Evaluated, Event, Listener, Logged, Saved, Started, describe, metrics_of
from stochastok_cli.training.write_failures import explain_write_failure

LARGEST = 2**63 - 1
"""The largest whole number in a record."""


@dataclass(frozen=True)
class RunStart:
    """One line of a `starts.jsonl`: a run was started, or continued.

    Attributes:
        time: When, in UTC: `2026-11-27T08:22:01Z`.
        iteration: How many iterations were done.
        trained_parameters: How many parameters are trained; a shared one counts once.
        device: The name of the device of rank 0, "CPU" or that of a GPU.
        ranks: How many processes trained.
        kernels: The backend: reference or fused.
        version: Of this program.
        torch: The version of PyTorch.
        parent: The checkpoint that a new run starts from; None for fresh weights, for a run that is continued, and in
            files of earlier versions.
        data: Name and fingerprint of the dataset, with `method` and `p` by which it was made (None for canonical ids);
            without these two where the dataset has no manifest. None in files of earlier versions.
        parent_weights: The checksum of its weights (see `checkpoint_reader.recorded_weights`), where it has one.
        changed: The keys of the configuration that are others than before, with the values before and now.
    """

    time: str
    iteration: int
    trained_parameters: int
    device: str
    ranks: int
    kernels: str
    version: str
    torch: str
    parent: str | None = None
    data: dict[str, str | int | float | None] | None = None
    parent_weights: str | None = None
    changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def config_logger(file: Path, config: Config) -> Listener:
    """A listener that writes a `config.yaml` when something has been trained with it, or evaluated.

    Until then the file of a run that goes on says what its weights were trained with, so that a continuation which is
    refused or killed before its first iteration changes nothing. (A new run has its file from the beginning.)
    """
    content = config.to_yaml().encode()
    is_written = False

    def write(event: Event) -> None:
        nonlocal is_written
        if not is_written and isinstance(event, Logged | Evaluated | Saved):
            with explain_write_failure(file):
                write_atomically(file, content)
            is_written = True

    return write


@contextmanager
def jsonl_logger(file: Path) -> Iterator[Listener]:
    """A listener that appends to a `metrics.jsonl`: a JSON object per line, with the iteration and metrics by name."""
    with _appending(file) as append:

        def write(event: Event) -> None:
            if isinstance(event, Logged | Evaluated):
                # JSON has no infinity, which is the perplexity of a model that has diverged.
                metrics = {name: value if math.isfinite(value) else None for name, value in metrics_of(event).items()}
                append(json.dumps({"iteration": event.iteration, **metrics}) + "\n")

        yield write


@contextmanager
def _appending(file: Path) -> Iterator[Callable[[str], object]]:
    """A function that appends whole lines to a file. Raises UserError (exit code 1) if it can't be written."""
    with explain_write_failure(file):
        stream = open(file, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115

    def append(text: str) -> None:
        with explain_write_failure(file):
            stream.write(text)

    try:
        yield append
    finally:
        with explain_write_failure(file):  # it tries again to write what it could not
            stream.close()


def starts_logger(file: Path, changed: dict[str, tuple[Any, Any]]) -> Listener:
    """A listener that adds a line to a `starts.jsonl` when training starts: on what, and with which versions.

    `changed` is that of `RunStart`.
    """

    def write(event: Event) -> None:
        if isinstance(event, Started):
            import torch

            start = RunStart(
                time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                iteration=event.iteration,
                trained_parameters=event.parameters,
                device=event.device,
                ranks=event.ranks,
                kernels=event.kernels,
                version=__version__,
                torch=torch.__version__,
                parent=None if event.parent is None else str(event.parent),
                data=event.data,
                parent_weights=None if event.parent is None else recorded_weights(event.parent),
                changed=changed,
            )
            torn = file.is_file() and not file.read_bytes().endswith(b"\n")  # by a full disk
            with _appending(file) as append:
                append("\n" * (torn and file.stat().st_size > 0) + json.dumps(asdict(start)) + "\n")

    return write


def read_starts(file: Path) -> tuple[list[RunStart], int]:
    """The starts of a run, first one first, and how many lines of the file are none. No file has no starts."""
    starts = [_parse_start(line) for line in (file.read_bytes().splitlines() if file.exists() else ())]
    return [start for start in starts if start is not None], starts.count(None)


def remove_damaged_starts(file: Path) -> int:
    """Removes the lines of a `starts.jsonl` that are no starts, and returns how many there were."""
    damaged = read_starts(file)[1]
    if damaged:
        lines = file.read_bytes().splitlines()
        write_atomically(file, b"".join(line + b"\n" for line in lines if _parse_start(line) is not None))
    return damaged


def _parse_start(line: bytes) -> RunStart | None:
    try:
        return checked(parse_json(line, ""), RunStart, "")
    except UserError:
        return None


def beginning(starts: Sequence[RunStart]) -> RunStart | None:
    """The start at which the weights of a run began: the last one without a checkpoint. None where none is recorded."""
    return next((start for start in reversed(starts) if start.iteration == 0), None)


@contextmanager
def log_file_logger(file: Path) -> Iterator[Listener]:
    """A listener that appends to a `train.log`: lines of text with date and time."""
    with _appending(file) as append:

        def write(event: Event) -> None:
            text = describe(event)
            if text:
                append(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

        yield write


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The records of a `metrics.jsonl`, without lines that a killed process left torn. No file has no records."""
    return parse_records(file.read_bytes())[0] if file.is_file() else []


def damaged_lines_note(file: Path, damaged: int, intact: int) -> str:
    """What users are told about damaged lines of a file that is only read."""
    return f"{file}: {damaged:,} of {intact + damaged:,} lines are damaged and left out"


def parse_records(content: bytes, *, is_written: bool = False) -> tuple[list[dict[str, Any]], int]:
    """The records in the bytes of a `metrics.jsonl`, and how many of its lines are none.

    A last line that has no end is not counted where `is_written`: a process that trains is about to end it.
    """
    import msgspec

    if content.endswith(b"\n"):
        with suppress(msgspec.DecodeError, UnicodeDecodeError):  # several times as fast, where all lines are whole
            whole_number = Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
            decode = msgspec.json.Decoder(dict[str, whole_number | float | None]).decode
            records = [decode(line) for line in content.split(b"\n")[:-1]]
            # It also takes keys that are given twice, and carriage returns, which end a line, too.
            is_unique = content.count(b'":') == sum(map(len, records)) and b"\r" not in content
            if is_unique and {type(record.get("iteration")) for record in records} <= {int}:
                return records, 0
    lines = [parse_record(line) for line in content.splitlines()]
    unfinished = is_written and bool(lines) and lines[-1] is None and not content.endswith(b"\n")
    return [record for record in lines if record is not None], sum(record is None for record in lines) - unfinished


def parse_record(line: bytes) -> dict[str, Any] | None:
    """The record in a line of a `metrics.jsonl`: finite numbers and nulls by name. None if the line is no whole record.

    Numbers that are not finite, which other programs write (`NaN`, `Infinity`, `1e999`), become null, as in the files
    of this program.
    """
    try:
        record = checked(parse_json(line, ""), dict[str, int | float | None], "")
    except UserError:
        return None
    iteration = record.get("iteration")
    if not isinstance(iteration, int) or abs(iteration) > LARGEST:
        return None
    return {name: value if _is_finite(value) else None for name, value in record.items()}


def _is_finite(value: float | None) -> bool:
    try:
        return value is not None and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False

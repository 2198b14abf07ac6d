"""What a run tells, and the listeners that write it into the run's folder. The loop knows no console."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Note:
    """Something that a person should know."""

    text: str


@dataclass(frozen=True)
class Started:
    """Training is about to begin at `iteration`."""

    folder: Path
    iteration: int
    max_iters: int
    parameters: int
    tokens_per_iteration: int
    device: str
    kernels: str  # reference or fused
    ranks: int


@dataclass(frozen=True)
class Compiled:
    seconds: float  # not counted in tokens per second


@dataclass(frozen=True)
class Logged:
    """Figures of one iteration; `iteration` of them are done."""

    iteration: int
    max_iters: int
    loss: float  # nats a token, the mean over all windows of all ranks
    learning_rate: float
    gradient_norm: float  # before clipping
    tokens_per_second: float  # since the last log, of all ranks, evaluation and saving left out
    seconds_left: float
    utilization: float | None = None  # of the model's operations against the GPUs' peak (MFU), where it is known
    memory: int | None = None  # the most bytes that rank 0 has held on its GPU


@dataclass(frozen=True)
class Evaluating:
    """An evaluation begins."""

    iteration: int


@dataclass(frozen=True)
class Evaluated:
    iteration: int
    metrics: dict[str, float]  # by the names of `stochastok eval --json`, and `validation/…`
    seconds: float


@dataclass(frozen=True)
class Saved:
    iteration: int
    folder: Path
    seconds: float


@dataclass(frozen=True)
class Stopped:
    """A signal has stopped the run; its checkpoint is saved."""

    iteration: int
    signal: str


@dataclass(frozen=True)
class Profiled:
    trace: Path  # opens in Perfetto
    table: str  # the kernels that took most time


Event = Note | Started | Compiled | Logged | Evaluating | Evaluated | Saved | Stopped | Profiled
Listener = Callable[[Event], None]


@contextmanager
def metrics_file(file: Path) -> Iterator[Listener]:
    """A listener that writes `metrics.jsonl`: an object a line, with the iteration and the metrics by their names."""
    with open(file, "a", encoding="utf-8", buffering=1) as stream:

        def write(event: Event) -> None:
            if isinstance(event, Logged | Evaluated):
                # JSON has no infinity, which is the perplexity of a model that has gone astray.
                metrics = {name: value if math.isfinite(value) else None for name, value in metrics_of(event).items()}
                stream.write(json.dumps({"iteration": event.iteration, **metrics}) + "\n")

        yield write


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl` (none where there is no file), but for what a killed process left torn."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [record for line in lines if (record := metrics_line(line)) is not None]


def metrics_line(line: str) -> dict[str, Any] | None:
    """A line of a `metrics.jsonl`; None for what is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("iteration"), int) else None


@contextmanager
def log_file(file: Path) -> Iterator[Listener]:
    """A listener that writes `train.log`: dated lines for people."""
    with open(file, "a", encoding="utf-8", buffering=1) as stream:

        def write(event: Event) -> None:
            text = describe(event)
            if text:
                stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

        yield write


def metrics_of(event: Logged | Evaluated) -> dict[str, float]:
    """The figures of an event by the names under which they are recorded."""
    if isinstance(event, Evaluated):
        return event.metrics
    figures = {
        "train/loss": event.loss,
        "train/learning_rate": event.learning_rate,
        "train/gradient_norm": event.gradient_norm,
        "train/tokens_per_second": event.tokens_per_second,
        "train/flops_utilization": event.utilization,
        "train/peak_memory_bytes": event.memory,
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def describe(event: Event) -> str:
    """An event as a line for people; empty where there is nothing to read."""
    match event:
        case Note(text):
            return text
        case Started(folder, iteration, max_iters, parameters, tokens, device, kernels, ranks):
            where = (f"{ranks} × {device}" if ranks > 1 else device) + f", {kernels} kernels"
            return (
                f"{folder}: iterations {iteration:,} to {max_iters:,} of {tokens:,} tokens each, "
                f"{parameters:,} parameters, on {where}"
            )
        case Compiled(seconds):
            return f"compiled in {seconds:.0f} s"
        case Logged(iteration, _, loss, rate, norm):
            return (
                f"iteration {iteration:,}  loss {loss:.4f}  lr {rate:.3g}  gradient {norm:.3g}  "
                f"{speed(event)}  {duration(event.seconds_left)} left"
            )
        case Evaluated(iteration, metrics, seconds):
            listed = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            return f"iteration {iteration:,}  {listed}  ({seconds:.1f} s)"
        case Saved(_, folder, seconds):
            return f"saved {folder} ({seconds:.1f} s)"
        case Stopped(iteration, signal):
            return f"stopped by {signal} after iteration {iteration:,}"
        case Profiled(trace, table):
            return f"profile: {trace}\n{table}"
    return ""


def speed(event: Logged) -> str:
    """How fast an iteration goes and what it takes of the GPU: `1,441,000 tokens/s  43% of peak  43.5 GiB`."""
    parts = [f"{event.tokens_per_second:,.0f} tokens/s"]
    parts += [f"{event.utilization:.0%} of peak"] if event.utilization is not None else []
    parts += [f"{event.memory / 2**30:.1f} GiB"] if event.memory is not None else []
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """A length of time for people: `42 s`, `3 min 20 s`, `5 h 07 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"

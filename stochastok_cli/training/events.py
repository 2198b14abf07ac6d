"""The events of a run, which loggers listen to, and their texts."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Note:
    """A message for the user."""

    text: str


@dataclass(frozen=True)
class Started:
    """Training starts, with `iteration` iterations done."""

    folder: Path
    iteration: int
    max_iters: int
    parameters: int
    tokens_per_iteration: int
    device: str
    kernels: str  # reference or fused
    ranks: int
    parent: Path | None = None  # the checkpoint that a new run starts from
    data: dict[str, Any] | None = None  # name and fingerprint of the dataset, and how it was expanded


@dataclass(frozen=True)
class Compiled:
    """The backend has compiled its kernels."""

    seconds: float  # not counted in tokens per second


@dataclass(frozen=True)
class Logged:
    """Metrics of the iteration after which `iteration` iterations are done."""

    iteration: int
    max_iters: int
    loss: float  # nats per token, the mean over the windows of all ranks
    learning_rate: float
    gradient_norm: float  # before clipping
    tokens_per_second: float  # of all ranks since the last log, without evaluating and saving
    seconds_left: float
    bits_per_byte: float | None = None  # the loss over the bytes of the text that has a loss
    utilization: float | None = None  # of the GPUs' peak (MFU); None where that is unknown
    expand_prop: float | None = None  # p of the expansion; None where it does not change
    memory: int | None = None  # bytes, the most that rank 0 has allocated on its GPU


@dataclass(frozen=True)
class Evaluating:
    """An evaluation starts."""

    iteration: int


@dataclass(frozen=True)
class Evaluated:
    """An evaluation is done."""

    iteration: int
    metrics: dict[str, float]  # `validation/…`, and the names of `stochastok eval --json`
    seconds: float
    shown: Sequence[str] | None = None  # the names of the metrics that are printed; all where None


@dataclass(frozen=True)
class Saved:
    """A checkpoint is written."""

    iteration: int
    folder: Path
    seconds: float  # in which training stood still
    background_seconds: float | None = None  # in which it was written while training went on


@dataclass(frozen=True)
class Stopped:
    """A signal has stopped the run, after its checkpoint was written."""

    iteration: int
    signal: str


@dataclass(frozen=True)
class Profiled:
    """The profiler has recorded its iterations."""

    trace: Path  # opens in Perfetto
    table: str  # the kernels that took most time


Event = Note | Started | Compiled | Logged | Evaluating | Evaluated | Saved | Stopped | Profiled
Listener = Callable[[Event], None]


def metrics_of(event: Logged | Evaluated) -> dict[str, float]:
    """The metrics of an event by the names under which they are recorded."""
    if isinstance(event, Evaluated):
        return event.metrics
    metrics = {
        "train/loss": event.loss,
        "train/bits_per_byte": event.bits_per_byte,
        "train/learning_rate": event.learning_rate,
        "train/expand_prop": event.expand_prop,
        "train/gradient_norm": event.gradient_norm,
        "train/tokens_per_second": event.tokens_per_second,
        "train/flops_utilization": event.utilization,
        "train/peak_memory_bytes": event.memory,
    }
    return {name: value for name, value in metrics.items() if value is not None}


def describe(event: Event) -> str:
    """An event as a line of text; empty for one that is not shown."""
    match event:
        case Note(text):
            return text
        case Started(folder, iteration, max_iters, parameters, tokens, device, kernels, ranks):
            devices = f"{ranks} × {device}" if ranks > 1 else device
            return (
                f"{folder}: iterations {iteration:,} to {max_iters:,} of {tokens:,} tokens each, "
                f"{parameters:,} parameters, on {devices}, {kernels} kernels"
            )
        case Compiled(seconds):
            return f"compiled in {seconds:.0f} s"
        case Logged(iteration, _, _, rate, norm):
            p = f"  p {event.expand_prop:.3g}" if event.expand_prop is not None else ""
            return (
                f"iteration {iteration:,}  {format_loss(event)}  lr {rate:.3g}{p}  gradient {norm:.3g}  "
                f"{format_speed(event)}  {format_duration(event.seconds_left)} left"
            )
        case Evaluated(iteration, metrics, seconds, shown):
            names = metrics if shown is None else shown
            listed = [f"{name} {format_metric(name, metrics[name])}" for name in names]
            others = len(metrics) - len(listed)
            listed += [f"{others:,} more in metrics.jsonl"] if others else []
            return f"iteration {iteration:,}  {'  '.join(listed)}  ({seconds:.1f} s)"
        case Saved(_, folder, seconds, None):
            return f"saved {folder} ({seconds:.1f} s)"
        case Saved(_, folder, seconds, background_seconds):
            return f"saved {folder} ({seconds:.1f} s, and {background_seconds:.1f} s in the background)"
        case Stopped(iteration, signal):
            return f"stopped by {signal} after iteration {iteration:,}"
        case Profiled(trace, table):
            return f"profile: {trace}\n{table}"
    return ""


def format_loss(event: Logged) -> str:
    """The loss in nats per token and, where it is known, in bits per byte: `loss 3.2189  1.0312 bits/byte`."""
    return f"loss {event.loss:.4f}" + (f"  {event.bits_per_byte:.4f} bits/byte" if event.bits_per_byte else "")


def format_metric(name: str, value: float) -> str:
    """A metric with four decimals; a perplexity, which may be large, with four digits.

    >>> format_metric("validation/loss", 10.82491), format_metric("validation/perplexity", 50257.18)
    ('10.8249', '50,257')
    >>> format_metric("validation/perplexity", 21.3456)
    '21.35'
    """
    if not name.endswith("perplexity"):
        return f"{value:.4f}"
    return f"{value:,.{max(0, 3 - int(math.log10(value)))}f}" if 1 <= value < math.inf else f"{value:g}"


def format_speed(event: Logged) -> str:
    """Speed, utilization and memory where they are known: `1,441,000 tokens/s  43% of peak  43.5 GiB`."""
    parts = [f"{event.tokens_per_second:,.0f} tokens/s"]
    parts += [f"{event.utilization:.0%} of peak"] if event.utilization is not None else []
    parts += [f"{event.memory / 2**30:.1f} GiB"] if event.memory is not None else []
    return "  ".join(parts)


def format_duration(seconds: float) -> str:
    """A number of seconds as text with one or two units.

    >>> format_duration(42.3), format_duration(200), format_duration(18420)
    ('42 s', '3 min 20 s', '5 h 07 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"

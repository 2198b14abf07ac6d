"""Curves of training runs over iterations, tokens or time."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stochastok_cli.evaluation.base import Evaluator
from stochastok_cli.evaluation.registry import metric_of_key
from stochastok_cli.report.paper_values import PaperValue, paper_figure
from stochastok_cli.report.plots import (
    GREY,
    Plot,
    add_legend,
    color,
    figure_of,
    file_name,
    hollow_marker,
    legend_label,
    line_style,
    new_axes,
)
from stochastok_cli.report.runs import ReportedRun, XAxis, has_different_datasets, labels_of_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BITS_PER_BYTE = "bits_per_byte"
ON_UNITS = "Nats per token compare runs on equal tokens; bits per byte compare any two tokenizations of the same text."
WIDTH, HEIGHT = 5.0, 2.7
MARKED = 15
"""A curve of at most so many points shows each of them."""
SMOOTHED = ("train/loss", f"train/{BITS_PER_BYTE}", "train/gradient_norm", "train/tokens_per_second")
SMOOTHING = 0.02
"""The standard deviation of the Gaussian, as a part of the number of records."""
BINS = 300
"""The parts of the axis in which noise is drawn by its extremes."""
LEAST_SMOOTHED = 20
"""Curves of fewer points are not smoothed, unless another one of the plot has so many."""
LEAST_KEPT = 5
"""How many points of a curve must stay where its first ones are left out."""
Y_LABELS = {
    "loss": "nats per token",
    BITS_PER_BYTE: "bits per byte",
    "gradient_norm": "norm before clipping",
    "tokens_per_second": "tokens/s",
    "flops_utilization": "of the GPUs' peak",
    "expand_prop": "p",
}
"""By the last part of a metric's name."""


class Series(NamedTuple):
    """A metric of a run: NaN where a value was not finite.

    Attributes:
        x: float64 `[points]`.
        y: float64 `[points]`.
    """

    x: np.ndarray
    y: np.ndarray


def training_plots(
    runs: Sequence[ReportedRun], x_axis: XAxis = "iteration", *, on_page: bool = False
) -> Iterator[Plot]:
    """A plot for each metric of training that has a curve, with all runs in it.

    Args:
        runs: The runs, whose order decides the colors.
        x_axis: What the curves are drawn over; runs that do not know it are left out.
        on_page: Whether the plots stand side by side on a page, which names the runs; else each names them.

    Yields:
        Plots; equal names of different metrics are possible.
    """
    for name in curve_names(runs):
        plot = _training_plot(name, runs, x_axis, on_page=on_page)
        if plot is not None:
            yield plot


def curve_names(runs: Sequence[ReportedRun]) -> list[str]:
    """The metrics that get a curve: bits per byte, losses, accuracies, then the rate, the gradient and the speed."""
    names = dict.fromkeys(name for run in runs for record in run.records for name in record)
    return sorted((name for name in names if _rank(name, names) is not None), key=lambda name: _rank(name, names) or 0)


def _rank(name: str, names: dict[str, None]) -> int | None:
    """The place of a metric among the plots; None for one without a plot."""
    group, _, kind = name.rpartition("/")
    if kind == BITS_PER_BYTE:
        return {"validation": 1, "train": 2}.get(group, 3)
    evaluator, metric = metric_of_key(name) or (Evaluator, kind)
    if name.startswith(f"{BITS_PER_BYTE}/"):  # but not how sure they are
        return None if evaluator.directions.get(metric) is None else 3
    if metric == "accuracy":  # on the scale where chance is 0, where there is that
        return None if f"{group}/normalized_accuracy" in names else 6
    if metric in (*evaluator.accuracies, "normalized_accuracy"):
        return 6
    ranks = {
        "validation/loss": 4,
        "train/loss": 5,
        "validation_expanded/loss": 5,
        "train/learning_rate": 7,
        "train/gradient_norm": 8,
        "train/expand_prop": 9,
        "train/tokens_per_second": 10,
        "train/flops_utilization": 11,
    }
    return ranks.get(name)


def _training_plot(name: str, runs: Sequence[ReportedRun], x_axis: XAxis, *, on_page: bool) -> Plot | None:
    paper = paper_figure(name)
    margins = {"left": 0.165, "right": 0.74 if paper else 0.98, "bottom": 0.17, "top": 0.9} if on_page else None
    axes = new_axes(name, width=WIDTH, height=HEIGHT, margins=margins)
    unit = _time_unit(runs) if x_axis == "time" else 1.0
    captions, notes, num_lost, num_drawn = [], [], 0, 0
    all_series = [series_of(run, name, x_axis) for run in runs]
    longest = max((len(series.y) for series in all_series if series is not None), default=0)
    smoothed = name in SMOOTHED and longest >= LEAST_SMOOTHED  # all curves, so that none looks noisier than another
    for k, series, run_label in zip(places(runs), all_series, labels_of_curves(runs), strict=True):
        if series is None:
            continue
        x, y = series.x / unit, series.y
        num_drawn += 1
        num_lost += int(np.isnan(y).sum())
        label = legend_label(run_label)
        if smoothed:
            axes.plot(*envelope(x, y), color=color(k), linewidth=0.6, alpha=0.5 / len(runs) ** 0.5, zorder=1.8)
            axes.plot(x, smooth(y), color=color(k), linestyle=line_style(k), linewidth=1.7, label=label)
        else:
            marker = hollow_marker(k) if len(y) <= MARKED else {}
            axes.plot(x, y, color=color(k), linestyle=line_style(k), markersize=4.5, label=label, **marker)
    if not num_drawn:
        return None
    axes.set_xlabel(_x_label(x_axis, unit))
    if x_axis == "tokens":
        axes.xaxis.set_major_formatter(_count_text)
    kind = BITS_PER_BYTE if BITS_PER_BYTE in name.split("/") else name.rpartition("/")[2]
    axes.set_ylabel(Y_LABELS.get(kind, ""))
    captions += _set_scale(axes, kind)
    of_dataset = name.startswith(("train/", "validation"))  # an evaluator's bits per byte are all of one text
    if kind == "loss" or (kind == BITS_PER_BYTE and of_dataset and has_different_datasets(runs)):
        notes.append(ON_UNITS)
    if smoothed:
        notes.append(
            f"Thin lines: as logged; thick ones: smoothed by a Gaussian of {SMOOTHING:.0%} of the records, "
            "of one record at least."
        )
    if x_axis == "time":
        notes.append("The time is that of training, without evaluating and saving, by the logged tokens a second.")
    if num_lost:
        captions.append(
            "1 value that was not finite leaves a gap."
            if num_lost == 1
            else f"{num_lost:,} values that were not finite leave gaps."
        )
    if num_drawn < len(runs):
        captions.append(f"Without {len(runs) - num_drawn} of {len(runs)} runs, which have no values here.")
    if not on_page:
        add_legend(axes)
    if paper:
        _draw_paper_values(axes, paper.values)
        captions.append(f"Dashed: what the paper reports ({paper.source}) for its 50M models.")
    return Plot(f"training-{file_name(name)}", " ".join(captions), figure_of(axes), tuple(notes))


def places(runs: Sequence[ReportedRun]) -> list[int]:
    """The places of runs, which decide their colors."""
    return [i if run.place is None else run.place for i, run in enumerate(runs)]


def series_of(run: ReportedRun, name: str, x_axis: XAxis) -> Series | None:
    """A metric of a run; None where the run has not recorded it, or does not know the axis."""
    points = [(i, record[name]) for i, record in enumerate(run.records) if name in record]
    x = run.x_values(x_axis)
    if not points or x is None:
        return None
    y = [math.nan if value is None else value for _, value in points]
    return Series(np.array([x[i] for i, _ in points], dtype=np.float64), np.array(y, dtype=np.float64))


def smooth(values: np.ndarray) -> np.ndarray:
    """Values `[n]` smoothed by a Gaussian whose standard deviation is SMOOTHING of their number, or 1. It is cut at the
    ends, and passes over NaN.

    >>> smooth(np.array([1.0, 1.0, np.nan, 1.0])).tolist()
    [1.0, 1.0, nan, 1.0]
    """
    deviation = max(len(values) * SMOOTHING, 1.0)
    reach = math.ceil(4 * deviation)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    known = ~np.isnan(values)
    weights = np.convolve(known.astype(np.float64), kernel)[reach:-reach]
    sums = np.convolve(np.where(known, values, 0.0), kernel)[reach:-reach]
    return np.where(known, sums / np.maximum(weights, 1.0), np.nan)


def envelope(x: np.ndarray, y: np.ndarray) -> Series:
    """A line of at most 2 × BINS points that looks the same: the least and the greatest value of equal parts.

    >>> x = np.arange(4 * BINS)
    >>> len(envelope(x, x % 7).x) == 2 * BINS, envelope(x[:9], x[:9]).y.tolist()
    (True, [0, 1, 2, 3, 4, 5, 6, 7, 8])
    """
    if len(x) <= 2 * BINS or np.isnan(y).any():
        return Series(x, y)
    kept: set[int] = set()
    for part in np.array_split(np.arange(len(x)), BINS):
        kept |= {int(part[y[part].argmin()]), int(part[y[part].argmax()])}
    chosen = sorted(kept)
    return Series(x[chosen], y[chosen])


def _count_text(value: float, _: object = None) -> str:
    """A number of tokens as the label of a tick.

    >>> [_count_text(value) for value in (0, 500, 12500, 2e6, 7.5e9, 1e12)]
    ['0', '500', '12.5k', '2M', '7.5B', '1T']
    """
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _time_unit(runs: Sequence[ReportedRun]) -> float:
    """The seconds of the unit of the axis: seconds, minutes or hours."""
    longest = max((x[-1] for run in runs if (x := run.x_values("time"))), default=0.0)
    return 3600.0 if longest >= 7200 else 60.0 if longest >= 120 else 1.0


def _x_label(x_axis: XAxis, unit: float) -> str:
    if x_axis == "time":
        return f"training time, {'hours' if unit == 3600 else 'minutes' if unit == 60 else 'seconds'}"
    return x_axis


def _set_scale(axes: "Axes", kind: str) -> list[str]:
    """Sets the scale of the y axis by the kind of metric, draws chance, and returns sentences on it."""
    if kind in ("tokens_per_second", "flops_utilization", "expand_prop"):
        axes.set_ylim(bottom=0)
    if kind == "tokens_per_second":
        axes.yaxis.set_major_formatter(_count_text)
    if kind == "gradient_norm" and _spans_decades(axes):
        from matplotlib.ticker import LogLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    if kind in ("loss", BITS_PER_BYTE):
        return _leave_out_start(axes)
    if kind == "normalized_accuracy":
        axes.axhline(0, color=GREY, linewidth=1, zorder=1)
        return ["The grey line at 0 is chance, 1 is perfect."]
    return []


def _spans_decades(axes: "Axes") -> bool:
    """Whether all values are positive, and the greatest more than ten times the least."""
    values = np.concatenate([np.array(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    values = values[np.isfinite(values)]
    return len(values) > 0 and bool(values.min() > 0 and values.max() > 10 * values.min())


def _leave_out_start(axes: "Axes") -> list[str]:
    """Ends the y axis above the values after the first tenth of each curve, where the start would press them flat.

    Only values above the others are left out, and only of curves of which LEAST_KEPT points stay: a line that comes
    from outside to two or three points says less than all of them on one axis.
    """
    curves = [np.array(line.get_data(), dtype=np.float64) for line in axes.lines]
    curves = [curve[:, np.isfinite(curve[1])] for curve in curves]
    later = [y[x >= 0.1 * x[-1]] for x, y in curves if len(x)]
    if not later or not len(kept := np.concatenate(later)):
        return []
    lowest, highest = min(y.min() for _, y in curves if len(y)), kept.max()
    height = max(highest - lowest, 0.01 * highest)
    if axes.get_ylim()[1] < highest + 0.5 * height:
        return []
    top = highest + 0.1 * height
    if any((y > top).any() and (y <= top).sum() < LEAST_KEPT for _, y in curves):
        return []
    axes.set_ylim(lowest - 0.06 * height, top)
    return ["The first values lie above the axis."]


def _draw_paper_values(axes: "Axes", values: Sequence[PaperValue]) -> None:
    """Dashed lines, each with its name and value at the right edge."""
    for label, value in values:
        axes.axhline(value, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        text = f" {label} {value:.2f}"
        axes.annotate(text, (1, value), xycoords=axes.get_yaxis_transform(), va="center", color=GREY, fontsize=8)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.05), max(high, 1.05))

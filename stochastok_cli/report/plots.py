"""Plots of results and of training, as matplotlib figures (the extra `report`)."""

import itertools
import logging
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import Curve, EvalResult, Metric
from stochastok_cli.report.paper_values import PaperValue, paper_figure
from stochastok_cli.report.tables import has_parts_table, metric_label, part_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colors, which color-blind readers can tell apart."""
GREY = "#767676"
LINE = 80
"""Letters that fit the width of a figure."""
LABEL = 40
"""Letters of a line of a label beside or below the axes."""
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "stochastok",
}
ACCURACIES = ("accuracy", "exact_match", "worst_case")
"""Names of metrics that lie between 0 and 1 and are drawn in the plots of accuracy."""
LOSSES = ("train/loss", "validation/loss", "validation_expanded/loss")
BITS_PER_BYTE = "bits_per_byte"
TRAINING_SUFFIXES = ("/normalized_accuracy", "/exact_match", f"/{BITS_PER_BYTE}")
"""The ends of those names in `metrics.jsonl` that get a training curve besides the losses."""
Records = Sequence[Mapping[str, Any]]
"""The lines of a run's `metrics.jsonl`."""


class Plot(NamedTuple):
    """A figure, the name of its files, and the sentence below it."""

    name: str
    caption: str
    figure: "Figure"


def require_matplotlib() -> None:
    """Raises UserError where the extra is not installed."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it can't write to the home directory
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("plots need matplotlib", fix="pip install 'stochastok[report]', or drop --report") from None


def plots_of(results: Sequence[EvalResult], runs: Mapping[str, Records]) -> Iterator[Plot]:
    """All plots of a report.

    Args:
        results: One for each checkpoint.
        runs: The training records of the checkpoints' runs, by label.

    Yields:
        Plots of accuracy, of curves and of training, as far as there are numbers for them.
    """
    import matplotlib

    with matplotlib.rc_context(STYLE):
        names: set[str] = set()
        for plots in (
            _accuracy_plots(results),
            _distance_plots(results),
            _alignment_plots(results),
            _training_plots(runs),
        ):
            for plot in plots:
                # Different labels may give one file name; some file systems do not tell capitals apart.
                number = next(n for n in itertools.count(1) if _numbered(plot.name, n).lower() not in names)
                names.add(_numbered(plot.name, number).lower())
                yield plot._replace(name=_numbered(plot.name, number))


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _new_axes(title: str, *, width: float = 7.5, height: float = 3.6) -> "Axes":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(_literal(title))
    return axes


def _figure_of(axes: "Axes") -> "Figure":
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _literal(text: str, width: int = LINE) -> str:
    """The text in lines of at most `width` letters, with dollar signs that matplotlib does not take for formulas."""
    return textwrap.fill(text, width).replace("$", r"\$")


def _legend_label(text: str) -> str:
    """The text as a label of a legend; legends leave out what begins with an underscore."""
    return _literal(f"\u200b{text}" if text.startswith("_") else text, LABEL)


def _file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in label)


def _add_legend(axes: "Axes") -> None:
    """The names of the lines below the axes, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    lines = [line for label in labels for line in label.split("\n")]
    columns = max(1, min(3, LINE // (max(map(len, lines), default=0) + 6)))
    figure = _figure_of(axes)
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(lines) / columns))
    figure.legend(handles, labels, loc="outside lower left", fontsize=9, ncols=columns)


# ------------------------------------------------------------------------------------------------ results


def _accuracy_plots(results: Sequence[EvalResult]) -> Iterator[Plot]:
    """Accuracies with their intervals: all benchmarks together, and the parts of each."""
    whole: dict[str, Metric] = {}  # y labels and metrics
    parts: dict[tuple[str, str], dict[str, Metric]] = {}  # by evaluator and benchmark
    for metric in (metric for result in results for metric in result.metrics):
        if metric.name not in ACCURACIES:
            continue
        if metric.part and has_parts_table(metric.evaluator):
            parts.setdefault((metric.evaluator, metric.benchmark), {})[part_label(metric)] = metric
        else:
            whole[metric.benchmark if metric.name == "accuracy" else metric_label(metric)] = metric
    if whole:
        yield Plot("accuracy", "Accuracy with 95% intervals over the questions.", _dots("Accuracy", whole, results))
    for (evaluator, benchmark), metrics in parts.items():
        of_benchmark = {
            label: metric
            for label, metric in whole.items()
            if (metric.evaluator, metric.benchmark, metric.name) == (evaluator, benchmark, "accuracy")
        }
        figure = _dots(f"{benchmark}: parts", of_benchmark | metrics, results)
        caption = f"Accuracy on parts of {benchmark} and in other tokenizations, with 95% intervals over the questions."
        yield Plot(f"parts-{_file_name(benchmark)}", caption, figure)


def _dots(title: str, metrics: Mapping[str, Metric], results: Sequence[EvalResult]) -> "Figure":
    """For each metric, by its label, a dot with its interval for each checkpoint, read from top to bottom."""
    title = title if len(results) > 1 else f"{title} of {results[0].label}"
    axes = _new_axes(title, height=1.1 + len(metrics) * (0.26 + 0.17 * len(results)))
    for k, result in enumerate(results):
        by_key = {metric.key: metric for metric in result.metrics}
        offset = (k - (len(results) - 1) / 2) * 0.6 / max(len(results), 2)
        for i, of_first in enumerate(metrics.values()):
            metric = by_key.get(of_first.key)
            if metric is None:
                continue
            low, high = metric.interval or (metric.value, metric.value)
            axes.plot([low, high], [i + offset] * 2, color=_color(k), linewidth=1.6, solid_capstyle="butt")
            label = _legend_label(result.label) if i == 0 else None
            axes.plot(metric.value, i + offset, "o", color=_color(k), markersize=5, label=label)
    axes.set_yticks(range(len(metrics)), [_literal(label, LABEL) for label in metrics])
    axes.set_ylim(len(metrics) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    if len(results) > 1:
        _add_legend(axes)
    return _figure_of(axes)


def _curves(
    results: Sequence[EvalResult], evaluator: str
) -> dict[tuple[str, str], list[tuple[int, EvalResult, Curve]]]:
    """The curves of an evaluator by benchmark and part, each with the index and the result of its checkpoint."""
    curves: dict[tuple[str, str], list[tuple[int, EvalResult, Curve]]] = {}
    for k, result in enumerate(results):
        for curve in result.curves:
            if curve.evaluator == evaluator:
                curves.setdefault((curve.benchmark, curve.part), []).append((k, result, curve))
    return curves


def _distance_plots(results: Sequence[EvalResult]) -> Iterator[Plot]:
    """Accuracy against the distance from the canonical tokenization."""
    for (benchmark, method), curves in _curves(results, "mcq").items():
        axes = _new_axes(f"{benchmark}, tokenized by {method}")
        for k, result, curve in curves:
            x, y, n = ([point[name] for point in curve.points] for name in ("x", "y", "n"))
            low, high = ([point[name] for point in curve.points] for name in ("low", "high"))
            axes.plot(x, y, "-", color=_color(k), label=_legend_label(result.label))
            axes.fill_between(x, low, high, color=_color(k), alpha=0.15, linewidth=0)
            largest = max(n, default=1.0)
            axes.scatter(x, y, [10 + 70 * count / largest for count in n], color=_color(k), zorder=3)
            for metric in result.metrics:
                if (metric.evaluator, metric.benchmark, metric.part, metric.name) == ("mcq", benchmark, "", "accuracy"):
                    axes.plot(0, metric.value, "D", color=_color(k), markersize=7, fillstyle="none")
        axes.set_xlabel("splits over the largest possible number of splits (◇ canonical)")
        axes.set_ylabel("accuracy")
        axes.set_ylim(-0.02, 1.02)
        _add_legend(axes)
        caption = (
            "Accuracy by the distance of the question from its canonical tokenization, in bins of 0.1. Larger dots "
            "stand for more answers, shaded areas are 95% intervals over the questions."
        )
        yield Plot(f"distance-{_file_name(benchmark)}-{method}", caption, _figure_of(axes))


def _alignment_plots(results: Sequence[EvalResult]) -> Iterator[Plot]:
    """Distances by layer (the paper's Figure 13), and for each checkpoint words in a plane (its Figure 12)."""
    for (method, part), curves in _curves(results, "alignment").items():
        if part == "pca":
            for _, result, curve in curves:
                yield _words_plot(method, result, curve)
        else:
            yield _layers_plot(method, curves)


def _layers_plot(method: str, curves: Sequence[tuple[int, EvalResult, Curve]]) -> Plot:
    axes = _new_axes(f"Distance between the tokenizations of a word ({method})")
    for k, result, curve in curves:
        x, y = [point["x"] for point in curve.points], [point["y"] for point in curve.points]
        axes.plot(x, y, "o-", color=_color(k), label=_legend_label(result.label))
    axes.set_xlabel("attention layer")
    axes.set_ylabel("over the distance between words")
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({point["x"] for _, _, curve in curves for point in curve.points}))
    _add_legend(axes)
    caption = "Mean distance of the activations at the last token, layer by layer."
    return Plot(f"alignment-{method}", caption, _figure_of(axes))


def _words_plot(method: str, result: EvalResult, curve: Curve) -> Plot:
    words: dict[str, list[tuple[float, float]]] = {}
    for point in curve.points:
        words.setdefault(point["word"], []).append((point["x"], point["y"]))
    axes = _new_axes(f"{result.label}: tokenizations of {len(words)} words ({method})", height=5.5)
    for k, (word, points) in enumerate(words.items()):
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, 18, color=_color(k), marker="osD^v"[k // len(COLORS) % 5])
        for i in range(1, len(points)):
            axes.plot([x[0], x[i]], [y[0], y[i]], color=_color(k), linewidth=0.5, alpha=0.6)
        axes.annotate(f" {_literal(word)}", (x[0], y[0]), fontsize=8)
    axes.grid(visible=False)
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second")
    caption = (
        "Activations at the last token of a word after the last attention layer: a dot for each tokenization, the "
        "canonical one with the word."
    )
    return Plot(f"alignment-pca-{method}-{_file_name(result.label)}", caption, _figure_of(axes))


# ------------------------------------------------------------------------------------------------ training


def _training_plots(runs: Mapping[str, Records]) -> Iterator[Plot]:
    """A plot for each loss, bits per byte, accuracy and exact match recorded during training, with all runs in it."""
    names = dict.fromkeys(name for records in runs.values() for record in records for name in record)
    for name in names:
        if name in LOSSES or name.endswith(TRAINING_SUFFIXES) or name.startswith(f"{BITS_PER_BYTE}/"):
            yield _training_plot(name, runs)


def _training_plot(name: str, runs: Mapping[str, Records]) -> Plot:
    axes = _new_axes(name)
    for k, (label, records) in enumerate(runs.items()):
        points = [(record["iteration"], record[name]) for record in records if record.get(name) is not None]
        x, y = [point[0] for point in points], [point[1] for point in points]
        axes.plot(x, y, "-" if len(x) > 40 else "o-", color=_color(k), markersize=4, label=_legend_label(label))
    axes.set_xlabel("iteration")
    caption = f"{name} during training."
    if name in LOSSES:
        axes.set_ylabel("nats per token")
        caption += " Nats per token compare runs on equal tokens; bits per byte compare any two tokenizations."
    elif BITS_PER_BYTE in name.split("/"):
        axes.set_ylabel("bits per byte")
    _add_legend(axes)
    if figure := paper_figure(name):
        _draw_paper_values(axes, figure.values)
        caption += f" Dashed: what the paper reports ({figure.source}) for its 50M models."
    return Plot(f"training-{_file_name(name)}", caption, _figure_of(axes))


def _draw_paper_values(axes: "Axes", values: Sequence[PaperValue]) -> None:
    """Dashed lines, each with its name and value at the right edge."""
    for label, value in values:
        axes.axhline(value, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        text = f" {label} {value:.2f}"
        axes.annotate(text, (1, value), xycoords=axes.get_yaxis_transform(), va="center", color=GREY, fontsize=8)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.05), max(high, 1.05))

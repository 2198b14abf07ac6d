"""Plots of results: accuracies, paired differences, curves over tokenizations and inside the model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from stochastok_cli.evaluation.base import Evaluator
from stochastok_cli.evaluation.comparison import PairedComparison
from stochastok_cli.evaluation.evaluators import EVALUATORS
from stochastok_cli.evaluation.results import Curve, EvalResult, Metric
from stochastok_cli.report.plot_text import literal, rows_of_labels
from stochastok_cli.report.plots import (
    COLORS,
    GREY,
    LABEL,
    MARKERS,
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
from stochastok_cli.report.tables import NORMALIZED, has_parts_table, metric_label, part_label
from stochastok_cli.tokenization.methods import tokenization_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ON_CHANCE = " A grey line stands where uniform guesses are, as far as that is known."


def result_plots(results: Sequence[EvalResult]) -> Iterator[Plot]:
    """Plots of accuracy and of curves, as far as there are numbers for them. Names of files may occur twice."""
    yield from _accuracy_plots(results)
    yield from _tokenization_plots(results)
    yield from _alignment_plots(results)


def paired_plots(comparisons: Sequence[PairedComparison]) -> Iterator[Plot]:
    """Forest plots of differences, one for right and wrong answers, and one for each kind of other values."""
    groups: dict[str, dict[str, Metric]] = {}  # metrics by key, by the name of the plot
    for comparison in comparisons:
        for metric in comparison.first.metrics:
            if metric.key in comparison.differences and metric.name not in NORMALIZED:
                kind = f"{metric.evaluator}-{metric.name}"
                name = "paired" if metric.outcome_range else f"paired-{file_name(kind)}"
                groups.setdefault(name, {})[metric.key] = metric
    for name, metrics in groups.items():
        yield Plot(
            name,
            "Differences on the same questions with their 95% intervals. An interval that does not hold 0 is one that "
            "the choice of questions does not explain; the choice of the seed of training may.",
            _forest(metrics, comparisons),
        )


def _forest(metrics: Mapping[str, Metric], comparisons: Sequence[PairedComparison]) -> "Figure":
    """For each metric, by its key, a dot with its interval for each comparison, and the numbers on the right."""
    first = comparisons[0].first.label
    alone = len(comparisons) == 1
    title = f"{comparisons[0].second.label} − {first}" if alone else f"Differences from {first}"
    labels = {key: metric_label(metric) for key, metric in metrics.items()}
    benchmarks = {metric.benchmark for metric in metrics.values()}
    if len(benchmarks) == 1:  # named in the title alone
        [benchmark] = benchmarks
        title = f"{benchmark}: {title}"
        labels = {key: label.removeprefix(benchmark).strip() or label for key, label in labels.items()}
    row = 0.26 + 0.17 * len(comparisons)
    shown = [literal(label, 30) for label in labels.values()]
    places, height = rows_of_labels(shown, row)
    axes = new_axes(title, width=7.0, height=1.0 + height)
    axes.axvline(0, color=GREY, linewidth=1)
    for k, comparison in enumerate(comparisons):
        offset = (k - (len(comparisons) - 1) / 2) * 0.6 / max(len(comparisons), 2) * row
        for i, key in enumerate(labels):
            if key not in comparison.differences:
                continue
            value, (low, high), *_ = comparison.differences[key]
            style = {"color": color(k + 1), "linestyle": line_style(k + 1)}
            y = places[i] + offset
            axes.plot([low, high], [y, y], linewidth=1.8, solid_capstyle="butt", **style)
            label = legend_label(f"{comparison.second.label} − {first}") if i == 0 else None
            axes.plot(value, y, "s", color=color(k + 1), markersize=5, label=label)
            text = f" {value:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
            axes.annotate(text, (1, y), xycoords=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.set_yticks(places, shown)
    axes.set_ylim(height, 0)
    furthest = max(map(abs, axes.get_xlim()))
    axes.set_xlim(-furthest, furthest)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("difference")
    if not alone:
        add_legend(axes)
    return figure_of(axes)


def _accuracy_plots(results: Sequence[EvalResult]) -> Iterator[Plot]:
    """Accuracies with their intervals: all benchmarks together, and the parts of each."""
    whole: dict[str, Metric] = {}  # y labels and metrics
    parts: dict[tuple[str, str], dict[str, Metric]] = {}  # by evaluator and benchmark
    for metric in (metric for result in results for metric in result.metrics):
        if metric.name not in EVALUATORS.get(metric.evaluator, Evaluator).accuracies:
            continue
        if metric.part and has_parts_table(metric.evaluator):
            parts.setdefault((metric.evaluator, metric.benchmark), {})[part_label(metric)] = metric
        else:
            whole[metric.benchmark if metric.name == "accuracy" else metric_label(metric)] = metric
    if whole:
        yield Plot(
            "accuracy",
            f"Accuracy with 95% intervals over the questions.{_ON_CHANCE}",
            _dots("accuracy", whole, results),
        )
    for (evaluator, benchmark), metrics in parts.items():
        of_benchmark = {
            label: metric
            for label, metric in whole.items()
            if (metric.evaluator, metric.benchmark, metric.name) == (evaluator, benchmark, "accuracy")
        }
        figure = _dots(f"parts of {benchmark}", of_benchmark | metrics, results)
        caption = f"Accuracy on parts of {benchmark} and in other tokenizations, with 95% intervals over the questions."
        caption += _ON_CHANCE
        yield Plot(f"parts-{file_name(benchmark)}", caption, figure)


def _dots(title: str, metrics: Mapping[str, Metric], results: Sequence[EvalResult]) -> "Figure":
    """For each metric, by its label, a dot with its interval for each checkpoint, read from top to bottom."""
    title = title if len(results) > 1 else f"{results[0].label}: {title}"
    row = 0.26 + 0.17 * len(results)
    labels = [literal(label, LABEL) for label in metrics]
    places, height = rows_of_labels(labels, row)
    axes = new_axes(title, height=1.1 + height)
    for y, of_first in zip(places, metrics.values(), strict=True):
        if of_first.chance is not None:
            axes.plot([of_first.chance] * 2, [y - 0.42 * row, y + 0.42 * row], color=GREY, linewidth=1.2, zorder=1)
    for k, result in enumerate(results):
        by_key = {metric.key: metric for metric in result.metrics}
        offset = (k - (len(results) - 1) / 2) * 0.6 / max(len(results), 2) * row
        for i, of_first in enumerate(metrics.values()):
            metric = by_key.get(of_first.key)
            if metric is None:
                continue
            low, high = metric.interval or (metric.value, metric.value)
            style = {"color": color(k), "linestyle": line_style(k)}
            y = places[i] + offset
            axes.plot([low, high], [y, y], linewidth=1.6, solid_capstyle="butt", **style)
            label = legend_label(result.label) if i == 0 else None
            axes.plot(metric.value, y, "o", color=color(k), markersize=5, label=label)
    axes.set_yticks(places, labels)
    axes.set_ylim(height, 0)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    if len(results) > 1:
        add_legend(axes)
    return figure_of(axes)


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


def _tokenization_plots(results: Sequence[EvalResult]) -> Iterator[Plot]:
    """Accuracy against the distance from the canonical tokenization, and against the budget of a search."""
    for (benchmark, part), curves in _curves(results, "mcq").items():
        is_search = part == "adversarial"
        axes = new_axes(
            f"{benchmark}, adversarial" if is_search else f"{benchmark}, tokenized by {tokenization_text(part)}"
        )
        canonical: list[float] = []  # accuracies of the models that are drawn
        for k, result, curve in curves:
            x, y, n, low, high = ([point[name] for point in curve.points] for name in ("x", "y", "n", "low", "high"))
            style = {"color": color(k), "linestyle": line_style(k)}
            axes.plot(x, y, **style)
            axes.plot([], [], **style, **hollow_marker(k), label=legend_label(result.label))
            axes.fill_between(x, low, high, color=color(k), alpha=0.15, linewidth=0)
            largest = max(n, default=1.0)
            sizes = [30.0] * len(n) if is_search else [24 + 70 * count / largest for count in n]
            shape = MARKERS[k % len(MARKERS)]
            axes.scatter(x, y, sizes, marker=shape, facecolors="none", edgecolors=color(k), linewidths=1.5, zorder=3)
            for metric in result.metrics:
                if (metric.evaluator, metric.benchmark, metric.part, metric.name) == ("mcq", benchmark, "", "accuracy"):
                    if not is_search:
                        size = 7 + 3 * canonical.count(metric.value)  # around those of other models
                        axes.plot(0, metric.value, "D", color=color(k), markersize=size, fillstyle="none")
                        canonical.append(metric.value)
                    if metric.chance is not None:
                        axes.axhline(metric.chance, color=GREY, linewidth=1, zorder=1)
        axes.set_ylabel("accuracy")
        axes.set_ylim(-0.02, 1.02)
        if is_search:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlabel("forward passes of the search (1: canonical)")
            caption = "Accuracy that is left after a search for the most harmful tokenization, by its budget."
        else:
            axes.set_xlabel("splits over the largest possible number of splits (◇ canonical)")
            caption = (
                "Accuracy by the distance of the question from its canonical tokenization, in bins of 0.1. Larger "
                "marks stand for more answers."
            )
        add_legend(axes)
        caption += " Shaded areas are 95% intervals over the questions; grey: guesses."
        name = "budget" if is_search else "distance"
        yield Plot(f"{name}-{file_name(benchmark)}-{part}", caption, figure_of(axes))


def _alignment_plots(results: Sequence[EvalResult]) -> Iterator[Plot]:
    """Distances by layer (the paper's Figure 13), and for each checkpoint words in a plane (its Figure 12)."""
    for (method, part), curves in _curves(results, "alignment").items():
        if part == "pca":
            for _, result, curve in curves:
                yield _words_plot(method, result, curve)
        else:
            yield _layers_plot(method, curves)


def _layers_plot(method: str, curves: Sequence[tuple[int, EvalResult, Curve]]) -> Plot:
    axes = new_axes(f"Distance between the tokenizations of a word ({tokenization_text(method)})")
    for k, result, curve in curves:
        x, y = [point["x"] for point in curve.points], [point["y"] for point in curve.points]
        axes.plot(x, y, linestyle=line_style(k), color=color(k), label=legend_label(result.label), **hollow_marker(k))
    axes.set_xlabel("attention layer")
    axes.set_ylabel("over the distance between words")
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({point["x"] for _, _, curve in curves for point in curve.points}))
    add_legend(axes)
    caption = "Mean distance of the activations at the last token, layer by layer."
    return Plot(f"alignment-{method}", caption, figure_of(axes))


def _words_plot(method: str, result: EvalResult, curve: Curve) -> Plot:
    words: dict[str, list[tuple[float, float]]] = {}
    for point in curve.points:
        words.setdefault(point["word"], []).append((point["x"], point["y"]))
    axes = new_axes(f"{result.label}: tokenizations of {len(words)} words ({tokenization_text(method)})", height=5.5)
    for k, (word, points) in enumerate(words.items()):
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, 18, color=color(k), marker="osD^v"[k // len(COLORS) % 5])
        for i in range(1, len(points)):
            axes.plot([x[0], x[i]], [y[0], y[i]], color=color(k), linewidth=0.5, alpha=0.6)
        axes.annotate(f" {literal(word, LABEL)}", (x[0], y[0]), fontsize=8)
    axes.grid(visible=False)
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second")
    caption = (
        "Activations at the last token of a word after the last attention layer: a dot for each tokenization, the "
        "canonical one with the word."
    )
    return Plot(f"alignment-pca-{method}-{file_name(result.label)}", caption, figure_of(axes))

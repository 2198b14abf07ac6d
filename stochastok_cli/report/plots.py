"""Plots of results and of training, as matplotlib figures (the extra `report`). Numbers in, figures out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import UserError
from stochastok_cli.report.paper_values import PaperValue, paper_values
from stochastok_cli.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#767676"
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
Records = Sequence[Mapping[str, Any]]
"""The lines of a run's `metrics.jsonl`."""


def require_matplotlib() -> None:
    """Raises UserError where the extra is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("plots need matplotlib", fix="pip install 'stochastok[report]', or drop --report") from None


def figures(rows: Sequence[Row], runs: Mapping[str, Records]) -> "Iterator[tuple[str, str, Figure]]":
    """`(file name, caption, figure)` of all that the results of checkpoints and the records of their runs give."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield from _results(rows)
        yield from _distances(rows)
        yield from _alignment(rows)
        yield from _training(runs)


def _figure(title: str, *, width: float = 7.5, height: float = 3.6) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _results(rows: Sequence[Row]) -> "Iterator[tuple[str, str, Figure]]":
    """Accuracies with their intervals: all benchmarks together, and the parts of each."""
    names = [name for name in rows[0].metrics if name.endswith(("/accuracy", "/exact_match", "/worst_case"))]
    whole = [name for name in names if name.count("/") == 2 or name.startswith("math_generation")]
    if whole:
        yield "accuracy", "Accuracy with 95% intervals over the questions.", _bars("Accuracy", whole, rows)
    for benchmark in dict.fromkeys(name.rsplit("/", 2)[0] for name in names if name not in whole):
        parts = [name for name in names if name not in whole and name.startswith(f"{benchmark}/")]
        asked = benchmark.partition("/")[2]
        caption = f"Accuracy on parts of {asked} and in other tokenizations, with 95% intervals over the questions."
        yield f"parts-{asked}", caption, _bars(f"{asked}: parts", [f"{benchmark}/accuracy", *parts], rows)


def _bars(title: str, names: Sequence[str], rows: Sequence[Row]) -> "Figure":
    """A group of dots with intervals for each metric, read from top to bottom."""
    figure, axes = _figure(title, height=1.1 + len(names) * (0.26 + 0.17 * len(rows)))
    for k, row in enumerate(rows):
        offset = (k - (len(rows) - 1) / 2) * 0.6 / max(len(rows), 2)
        for i, name in enumerate(names):
            if name not in row.metrics:
                continue
            value = row.metrics[name]
            low, high = row.intervals.get(name, (value, value))
            colour = COLOURS[k % len(COLOURS)]
            axes.plot([low, high], [i + offset] * 2, color=colour, linewidth=1.6, solid_capstyle="butt")
            axes.plot(value, i + offset, "o", color=colour, markersize=5, label=row.label if i == 0 else None)
    axes.set_yticks(range(len(names)), [_spoken(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    if len(rows) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
    else:
        axes.set_title(f"{title} of {rows[0].label}")
    return figure


def _distances(rows: Sequence[Row]) -> "Iterator[tuple[str, str, Figure]]":
    """Accuracy against the distance from the canonical tokenization, from the checkpoints' curves."""
    for name in dict.fromkeys(name for row in rows for name in row.curves if name.startswith("mcq/")):
        asked, method = name.split("/")[1:3]
        figure, axes = _figure(f"{asked}, cut by {method}")
        for k, row in enumerate(rows):
            points = row.curves.get(name, [])
            colour = COLOURS[k % len(COLOURS)]
            x, y = [p["x"] for p in points], [p["y"] for p in points]
            most = max((p["n"] for p in points), default=1.0)
            axes.plot(x, y, "-", color=colour, label=row.label)
            low, high = [p["low"] for p in points], [p["high"] for p in points]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.scatter(x, y, [10 + 70 * p["n"] / most for p in points], color=colour, zorder=3)
            canonical = row.metrics.get(f"mcq/{asked}/accuracy")
            if canonical is not None:
                axes.plot(0, canonical, "D", color=colour, markersize=7, fillstyle="none")
        axes.set_xlabel("splits over the most there can be (◇ canonical)")
        axes.set_ylabel("accuracy")
        axes.set_ylim(-0.02, 1.02)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        caption = (
            "Accuracy of answers by how far the question was cut from its canonical tokenization; bins of 0.1, larger "
            "dots for more answers, shaded 95% intervals over the questions."
        )
        yield f"distance-{asked}-{method}", caption, figure


def _alignment(rows: Sequence[Row]) -> "Iterator[tuple[str, str, Figure]]":
    """Distances by layer, all checkpoints in one plot (the paper's Figure 13); words in a plane for each (its 12)."""
    for name in dict.fromkeys(name for row in rows for name in row.curves if name.startswith("alignment/")):
        method = name.split("/")[1]
        if name.endswith("/pca"):
            for row in (row for row in rows if name in row.curves):
                words = dict.fromkeys(point["word"] for point in row.curves.get(name, []))
                figure, axes = _figure(f"{row.label}: tokenizations of {len(words)} words ({method})", height=5.5)
                for k, word in enumerate(words):
                    x, y = zip(*[(p["x"], p["y"]) for p in row.curves[name] if p["word"] == word], strict=True)
                    axes.scatter(x, y, 18, color=COLOURS[k % len(COLOURS)], marker="osD^v"[k // len(COLOURS) % 5])
                    for i in range(1, len(x)):
                        axes.plot([x[0], x[i]], [y[0], y[i]], color=COLOURS[k % len(COLOURS)], linewidth=0.5, alpha=0.6)
                    axes.annotate(f" {word}", (x[0], y[0]), fontsize=8)
                axes.grid(visible=False)
                axes.set_xlabel("first principal component")
                axes.set_ylabel("second")
                caption = (
                    "Activations at a word's last id after the last attention layer: a dot for each tokenization, "
                )
                caption += "the canonical one with the word."
                yield f"alignment-pca-{method}-{_file_name(row.label)}", caption, figure
            continue
        figure, axes = _figure(f"Distance between the tokenizations of a word ({method})")
        for k, row in enumerate(rows):
            points = row.curves.get(name, [])
            colour = COLOURS[k % len(COLOURS)]
            axes.plot([p["x"] for p in points], [p["y"] for p in points], "o-", color=colour, label=row.label)
        axes.set_xlabel("attention layer")
        axes.set_ylabel("over the distance between words")
        axes.set_ylim(bottom=0)
        axes.set_xticks(sorted({point["x"] for row in rows for point in row.curves.get(name, [])}))
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=9)
        yield f"alignment-{method}", "Mean distance of last-id activations, layer by layer.", figure


def _file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in label)


def _training(runs: Mapping[str, Records]) -> "Iterator[tuple[str, str, Figure]]":
    """A plot for each recorded metric that tells something of a run's course, all runs in it."""
    recorded = dict.fromkeys(name for records in runs.values() for record in records for name in record)
    for name in recorded:
        loss = name in ("train/loss", "validation/loss")
        if not loss and not name.endswith(("/normalized_accuracy", "/exact_match")):
            continue
        figure, axes = _figure(name if loss else name.partition("/")[2].replace("_", " ").replace("/", " "))
        for k, (label, records) in enumerate(runs.items()):
            points = [(record["iteration"], record[name]) for record in records if record.get(name) is not None]
            x, y = [point[0] for point in points], [point[1] for point in points]
            axes.plot(x, y, "-" if len(x) > 40 else "o-", color=COLOURS[k % len(COLOURS)], markersize=4, label=label)
        axes.set_xlabel("iteration")
        axes.set_ylabel("nats a token" if loss else "")
        source, lines = paper_values(name)
        _draw_paper_values(axes, lines)
        axes.legend(
            fontsize=9, loc="best" if loss else "upper left", bbox_to_anchor=None if loss else (0, -0.18), ncols=3
        )
        caption = f"Course of {name}."
        if lines:
            caption += f" Dashed: what the paper reports ({source}) for its 50M models."
        yield f"training-{name.replace('/', '-')}", caption, figure


def _draw_paper_values(axes: "Axes", lines: Sequence[PaperValue]) -> None:
    """Dashed lines, each with its name and value at the right edge."""
    for line in lines:
        axes.axhline(line.value, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        text = f" {line.label} {line.value:.2f}"
        axes.annotate(text, (1, line.value), xycoords=axes.get_yaxis_transform(), va="center", color=GREY, fontsize=8)
    if lines:
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -0.05), max(high, 1.05))


def _spoken(name: str) -> str:
    """
    >>> _spoken("mcq/langgame-val/starts_with/accuracy"), _spoken("mcq/arc/accuracy")
    ('starts with', 'arc')
    """
    evaluator, *rest = name.split("/")
    if evaluator == "mcq" and rest[-1] == "accuracy":
        rest = rest[-2:-1]
    elif evaluator == "mcq" and len(rest) == 3:
        rest = rest[1:]
    return " ".join(rest).replace("_", " ")

"""Long names in plots: every text is inside of its figure, and none runs into another."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from stochastok_cli.evaluation.comparison import compare_paired
from stochastok_cli.evaluation.results import Curve, EvalResult, Metric
from stochastok_cli.report.plot_text import literal, text_width
from stochastok_cli.report.plots import plot_style
from stochastok_cli.report.result_plots import paired_plots, result_plots
from stochastok_cli.report.runs import ReportedRun
from stochastok_cli.report.training_plots import training_plots

NAME = "instruction_tuning-langgame-from-pretraining-openwebtext-tokenized"
KIND = "which of these words is the one that has the most letters of them all, wherever they stand in the list"
POINTS = [{"x": x, "y": 0.5, "n": 9, "low": 0.4, "high": 0.6} for x in (0.1, 0.3)]
WORDS = [{"word": "tree", "x": x, "y": x} for x in (0.1, 0.3)]


def result(label: str, seed: int) -> EvalResult:
    random = np.random.default_rng(seed)
    metrics = []
    for part in ("", "first", KIND, "longest"):
        right = (random.random(20) < 0.5).astype(float)
        metrics.append(Metric("mcq", "langgame-val", part, "accuracy", right.mean(), 20, right, chance=0.25))
    curves = [
        Curve("mcq", "langgame-val", "uniform0.5", POINTS),
        Curve("alignment", "uniform0.5", "", POINTS),
        Curve("alignment", "uniform0.5", "pca", WORDS),
    ]
    return EvalResult(label, label, 5, metrics, curves)


@pytest.mark.parametrize(
    "names",
    [
        pytest.param((NAME, f"{NAME}0.1"), marks=pytest.mark.slow),
        (f"a{'-long_name' * 15}", f"b{'-long_name' * 15}", "W" * 70),
    ],
)
def test_no_text_is_cut_or_runs_into_another(names):
    results = [result(name, seed) for seed, name in enumerate(names)]
    records = [{"iteration": i, f"mcq/{name}/accuracy": 0.5} for i in (1, 2) for name in names]
    runs = [ReportedRun(name, {}, records) for name in names]
    with plot_style():
        plots = [
            *paired_plots([compare_paired(results[0], other) for other in results[1:]]),
            *result_plots(results),
            *result_plots(results[:1]),
            *training_plots(runs),
            *training_plots(runs, on_page=True),
        ]
        assert len(plots) >= 12
        for plot in plots:
            canvas = FigureCanvasAgg(plot.figure)
            canvas.draw()
            width, height = canvas.get_width_height()
            of_axes = plot.figure.axes[0]
            low, high = sorted(of_axes.get_ylim())
            ticks = [tick.label1 for tick in of_axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
            of_ticks = {tick.label1 for axis in (of_axes.xaxis, of_axes.yaxis) for tick in axis.get_major_ticks()}
            shown = [text for text in plot.figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
            for text in [*(text for text in shown if text not in of_ticks), *ticks]:
                box = text.get_window_extent()
                is_inside = box.x0 > -1 and box.x1 < width + 1 and box.y0 > -1 and box.y1 < height + 1
                assert is_inside, (plot.name, text.get_text(), box)
            boxes = sorted((label.get_window_extent() for label in ticks), key=lambda box: box.y0)
            assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes)), plot.name


def test_lines_end_where_a_word_does():
    assert literal("starts with accuracy", 12) == "starts with\naccuracy"
    assert literal("one-two_three/four", 8) == "one-two_\nthree/\nfour"
    assert literal("a $x^2$", 40) == r"a \$x^2\$" and literal("", 9) == ""
    long = literal("W" * 50 + " i" * 50, 20)
    assert all(text_width(line) <= 20 for line in long.split("\n"))
    assert long.replace("\n", "").replace(" ", "") == "W" * 50 + "i" * 50

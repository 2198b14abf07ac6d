"""Exact match of addition in every tokenization while a model trains on one: the plot in the README.

Usage: python benchmarks/plot_addition.py docs/addition.svg stochastok=RUN/metrics.jsonl base=RUN/metrics.jsonl …
(needs matplotlib). A panel for each run; the name before the `=` is the tokenization that it was trained on.
"""

import json
import sys
from pathlib import Path

import matplotlib

from stochastok_cli.data.recipes.addition_tokenizations import FORMS
from stochastok_cli.report.plots import COLORS, STYLE

matplotlib.use("Agg")
from matplotlib import pyplot


def curve(metrics: Path, form: str) -> tuple[list[int], list[float]]:
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    name = f"math_generation/val/{form}/exact_match"
    points = [(line["iteration"], line[name]) for line in lines if name in line]
    return [iteration for iteration, _ in points], [match for _, match in points]


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    target, *runs = sys.argv[1:]
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, len(runs), figsize=(3.1 * len(runs) + 1.2, 3.2), sharey=True, squeeze=False)
        for axis, run in zip(axes[0], runs, strict=True):
            name, _, metrics = run.partition("=")
            for color, form in zip(COLORS, FORMS, strict=False):
                axis.plot(*curve(Path(metrics), form), color=color, marker=".", label=f"asked in {form}")
            axis.set_title(f"trained on {name}")
            axis.set_xlabel("iterations")
        axes[0][0].set_ylabel("exact match, unseen sums")
        axes[0][0].set_ylim(-0.02, 1.02)
        axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(target, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()

"""A table and a plot of one metric over training, of runs with several seeds, beside the values that a paper reports.

    python examples/reproduce/summarize.py --runs CHECKPOINT_DIR --metric mcq/langgame-val/normalized_accuracy \\
        --out results/fig01 canonical:canonical-0,canonical-1 stochastok:stochastok-0,stochastok-1

Each group is `NAME:RUN,RUN,…`, its runs in the order of their seeds. Intervals are Student's 95% intervals over runs.
Differences are from the first group, run by run. Writes OUT.md, OUT.svg (with matplotlib, the extra `report`) and
OUT.jsonl, the raw values.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from stochastok_cli.evaluation.statistics import Spread, spread

Curve = Mapping[int, float]
"""A metric's values by iteration."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of all runs")
    parser.add_argument("--metric", required=True, help="a key of metrics.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="the path of the results, without an ending")
    parser.add_argument("--title", default="")
    parser.add_argument(
        "--paper", nargs="*", default=[], metavar="NAME=VALUE", help="what the paper reports of a group"
    )
    parser.add_argument("groups", nargs="+", metavar="NAME:RUN,RUN,…")
    arguments = parser.parse_args()
    groups = {}
    for group in arguments.groups:
        name, _, runs = group.partition(":")
        groups[name] = {run: curve(arguments.runs / run / "metrics.jsonl", arguments.metric) for run in runs.split(",")}
    paper = {name: float(value) for name, _, value in (item.rpartition("=") for item in arguments.paper)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    text = f"{arguments.title or arguments.metric}\n\n{table(groups, paper)}\n"
    arguments.out.with_suffix(".md").write_text(text, encoding="utf-8")
    with open(arguments.out.with_suffix(".jsonl"), "w", encoding="utf-8") as file:
        for name, runs_of_group in groups.items():
            for run, values in runs_of_group.items():
                for iteration, value in values.items():
                    row = {"group": name, "run": run, "iteration": iteration, arguments.metric: value}
                    file.write(json.dumps(row) + "\n")
    print(text)
    try:
        plot(groups, paper, arguments)
    except ImportError:
        print("no plot: it needs matplotlib (pip install 'stochastok[report]')")


def curve(metrics: Path, metric: str) -> Curve:
    """The metric's values by iteration, of a run that has them."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    values = {line["iteration"]: line[metric] for line in lines if metric in line}
    if not values:
        raise SystemExit(f"error: {metrics} has no {metric}")
    return values


def table(groups: Mapping[str, Mapping[str, Curve]], paper: Mapping[str, float]) -> str:
    """Markdown: the last value of each run, their mean with its interval, and the difference from the first group."""
    lines = ["| | runs | mean [95% interval over runs] | difference from the first row, run by run | the paper |"]
    lines.append("|---|---|---|---|---|")
    first = last_values(next(iter(groups.values())))
    for i, (name, runs) in enumerate(groups.items()):
        values = last_values(runs)
        differences = [b - a for a, b in zip(first, values, strict=False)]
        cells = [
            name,
            ", ".join(f"{value:.3f}" for value in values),
            interval(values),
            interval(differences, sign="+") if i and len(values) == len(first) else "",
            f"{paper[name]:g}" if name in paper else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def last_values(runs: Mapping[str, Curve]) -> list[float]:
    return [values[max(values)] for values in runs.values()]


def interval(values: Sequence[float], sign: str = "") -> str:
    """The mean, with its interval where there are two runs or more."""
    if len(values) < 2:
        return f"{values[0]:{sign}.3f} (one run: no interval)"
    result: Spread = spread(values)
    low, high = result.interval
    return f"{result.mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def plot(groups: Mapping[str, Mapping[str, Curve]], paper: Mapping[str, float], arguments: argparse.Namespace) -> None:
    """A thin line for each run, a thick one for the mean of a group, a dotted one for what the paper reports."""
    import matplotlib
    from matplotlib.figure import Figure

    from stochastok_cli.report.plots import COLORS, STYLE

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        axes = figure.subplots()
        for i, (name, runs) in enumerate(groups.items()):
            color = COLORS[i % len(COLORS)]
            for values in runs.values():
                axes.plot(list(values), list(values.values()), color=color, linewidth=0.7, alpha=0.6)
            shared = sorted(set.intersection(*(set(values) for values in runs.values())))
            means = [math.fsum(values[x] for values in runs.values()) / len(runs) for x in shared]
            axes.plot(shared, means, color=color, linewidth=2, label=f"{name} (mean of {len(runs)})")
            if name in paper:
                axes.axhline(
                    paper[name], color=color, linewidth=1, linestyle=":", label=f"{name}: the paper, at its end"
                )
        axes.set_title(arguments.title or arguments.metric)
        axes.set_xlabel("iterations")
        axes.set_ylabel(arguments.metric.rpartition("/")[2].replace("_", " "))
        figure.legend(loc="outside lower left", fontsize=9, ncols=2)
        figure.savefig(arguments.out.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()

"""Tables and plots of metrics of runs with several seeds, beside the values that the paper reports.

    python examples/reproduce/summarize.py --from CHECKPOINT_DIR --metric mcq/langgame-val/normalized_accuracy \\
        --out results/fig01 canonical:canonical-0,canonical-1 stochastok:stochastok-0,stochastok-1

Each group is `NAME:RUN,RUN,…`, its runs in the order of their seeds. The value of a run comes from
`FOLDER/RUN/metrics.jsonl`, at every iteration that has it, or from `FOLDER/RUN.json`, which holds what `stochastok eval
RUN --json` printed. Intervals are Student's 95% intervals over runs. Differences are from the first group, run by run.
Writes OUT.md, OUT.svg (with matplotlib, the extra `report`) and OUT.jsonl, the raw values.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stochastok_cli.evaluation.statistics import Spread, spread
from stochastok_cli.report.paper_values import FIGURES, paper_figure
from stochastok_cli.training.loggers.jsonl import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = Mapping[float, float]
"""Values of one run by iteration, or by what else is on the x axis."""


class Result(NamedTuple):
    """One metric of all runs.

    Attributes:
        key: Its name in `metrics.jsonl` and in `eval --json`.
        groups: The curves of each group, by run.
        paper: What the paper reports of groups.
        curves: Whether the curves are plotted, rather than their last values.
        by_x: Whether the table has columns for tenths of the x axis, or for whole numbers, rather than last values.
    """

    key: str
    groups: Mapping[str, Mapping[str, Curve]]
    paper: Mapping[str, float]
    curves: bool
    by_x: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folders", type=Path, action="append", required=True, metavar="FOLDER")
    parser.add_argument("--metric", dest="metrics", action="append", default=[], help="the name of a metric")
    parser.add_argument(
        "--curve", dest="curves", action="append", default=[], help="the name of a curve of `eval --json`"
    )
    parser.add_argument("--out", type=Path, required=True, help="the path of the results, without an ending")
    parser.add_argument("--title", required=True)
    parser.add_argument("--x", default="iterations", help="what is on the x axis")
    parser.add_argument("--last", action="store_true", help="plot the last values alone")
    parser.add_argument("--paper", metavar="FIGURE", help="the figure of the paper whose values stand beside")
    parser.add_argument("groups", nargs="+", metavar="NAME:RUN,RUN,…")
    arguments = parser.parse_args()
    groups = parse_groups(parser, arguments.groups)
    if not arguments.metrics and not arguments.curves:
        parser.error("--metric or --curve is missing")
    if arguments.paper and arguments.paper not in {figure.source for figure in FIGURES}:
        parser.error(f"the paper's {arguments.paper} is not known")
    results = []
    for key in (*arguments.metrics, *arguments.curves):
        curves = {name: {run: curve(arguments.folders, run, key) for run in runs} for name, runs in groups.items()}
        plotted = not arguments.last and any(len(c) > 1 for runs in curves.values() for c in runs.values())
        require_equal_ends(key, curves)
        figure = arguments.paper and paper_figure(key, arguments.paper)
        paper = {name: value for name, value in (figure.values if figure else ()) if name in groups}
        results.append(Result(key, curves, paper, plotted, key in arguments.curves))
    text = "\n\n".join([arguments.title, *(section(result, arguments.x) for result in results)]) + "\n"
    rows = (row for result in results for row in raw_values(result, arguments.x))
    write_results(arguments.out, text, rows, lambda: plot(results, arguments))


def parse_groups(parser: argparse.ArgumentParser, groups: Sequence[str]) -> dict[str, list[str]]:
    """The runs of each NAME:RUN,RUN,… by its name."""
    named = {name: runs.split(",") for name, _, runs in (group.partition(":") for group in groups)}
    if len(named) < len(groups):
        parser.error("two groups have one name")
    return named


def write_results(out: Path, text: str, rows: Iterable[dict], plot: Callable[[], None]) -> None:
    """Writes OUT.md and OUT.jsonl, prints the text, and calls `plot`, which writes OUT.svg."""
    out.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{out}.md").write_text(text, encoding="utf-8")
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    Path(f"{out}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(text)
    try:
        plot()
    except ImportError:
        print("no plot: it needs matplotlib (pip install 'stochastok[report]')")


# ------------------------------------------------------------------------------------------------ values


def curve(folders: Sequence[Path], run: str, key: str) -> Curve:
    """The values of one metric or curve of a run, from the first folder that has it."""
    for folder in folders:
        values = dict(points(folder, run, key))
        if values:
            return values
    raise SystemExit(f"error: no {key} of {run} in {', '.join(map(str, folders))}")


def require_equal_ends(key: str, groups: Mapping[str, Mapping[str, Curve]]) -> None:
    """Ends the program where curves of training end at different iterations: a run was stopped."""
    ends = {run: max(values) for runs in groups.values() for run, values in runs.items() if len(values) > 1}
    if len(set(ends.values())) > 1 and all(float(end).is_integer() for end in ends.values()):
        first, last = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
        raise SystemExit(
            f"error: {key} of {first} ends at {ends[first]:g}, of {last} at {ends[last]:g}; finish the run"
        )


def points(folder: Path, run: str, key: str) -> Iterator[tuple[float, float]]:
    for record in read_metrics(folder / run / "metrics.jsonl"):
        if record.get(key) is not None:  # null stands for what is not finite
            yield record["iteration"], record[key]
    evaluation = folder / f"{run}.json"
    if evaluation.exists():
        for line in map(json.loads, evaluation.read_text(encoding="utf-8").splitlines()):
            if key in line.get("metrics", {}):
                yield line["iteration"], line["metrics"][key]
            for point in line.get("curves", {}).get(key, []):
                yield point["x"], point["y"]


def raw_values(result: Result, x: str) -> Iterator[dict]:
    for name, runs in result.groups.items():
        for run, values in runs.items():
            for at, value in values.items():
                yield {"group": name, "run": run, x.replace("iterations", "iteration"): at, result.key: value}


# ------------------------------------------------------------------------------------------------ tables


def section(result: Result, x: str) -> str:
    return f"{by_x(result, x)}\n\n{by_run(result, x)}" if result.by_x else by_run(result, x)


def by_x(result: Result, x: str) -> str:
    """Markdown: the mean over runs by what is on the x axis, in tenths where runs have different values of it."""
    curves = [c for runs in result.groups.values() for c in runs.values()]
    digits = 3 if all(set(c) == set(curves[0]) for c in curves) else 1
    columns = sorted({round(at, digits) for c in curves for at in c})
    lines = [f"`{result.key}`, the mean over runs by {x}:", ""]
    lines += [f"| | {' | '.join(f'{at:g}' for at in columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, runs in result.groups.items():
        points = [(round(at, digits), value) for c in runs.values() for at, value in c.items()]
        cells = [[value for at, value in points if at == column] for column in columns]
        means = [f"{math.fsum(values) / len(values):.3f}" if values else "" for values in cells]
        lines.append(f"| {name} | {' | '.join(means)} |")
    return "\n".join(lines)


def by_run(result: Result, x: str) -> str:
    """Markdown: the last value of each run, their mean with its interval, and the difference from the first group."""
    ends = sorted({max(values) for runs in result.groups.values() for values in runs.values()})
    at = f" at {x.removesuffix('s')} {ends[0]:g}" if len(ends) == 1 else f", the last value over {x}"
    lines = [f"`{result.key}`{at}:", ""]
    lines += ["| | runs | mean [95% interval over runs] | difference from the first row, run by run | the paper |"]
    lines += ["|---|---|---|---|---|"]
    first = last_values(next(iter(result.groups.values())))
    for i, (name, runs) in enumerate(result.groups.items()):
        values = last_values(runs)
        cells = [
            name,
            ", ".join(f"{value:.3f}" for value in values),
            interval(values),
            interval([b - a for a, b in zip(first, values, strict=True)], sign="+") if i else "",
            f"{result.paper[name]:g}" if name in result.paper else "",
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


# ------------------------------------------------------------------------------------------------ plots


def plot(results: Sequence[Result], arguments: argparse.Namespace) -> None:
    """A panel for each metric, one below the other."""
    import matplotlib
    from matplotlib.figure import Figure

    from stochastok_cli.report.plots import STYLE

    heights = [3.8 if result.curves else 0.9 + 0.3 * len(result.groups) for result in results]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, sum(heights) + 0.9), layout="constrained")
        last = not any(result.curves for result in results)
        panels = figure.subplots(len(results), squeeze=False, height_ratios=heights, sharex=last)[:, 0]
        for axes, result in zip(panels, results, strict=True):
            (draw_curves if result.curves else draw_last_values)(axes, result)
        panels[-1].set_xlabel("" if last else arguments.x)
        figure.suptitle(arguments.title, x=0.02, ha="left", fontsize=12)
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside lower left", fontsize=9, ncols=2)
        figure.savefig(Path(f"{arguments.out}.svg"), metadata={"Date": None})


def draw_curves(axes: "Axes", result: Result) -> None:
    """A line for each run, a dotted one for what the paper reports. Where runs of a group were evaluated at the same
    iterations, not at the same seconds, they are thin beside a thick one for their mean."""
    from stochastok_cli.report.plots import COLORS

    for i, (name, runs) in enumerate(result.groups.items()):
        color = COLORS[i % len(COLORS)]
        shared = sorted(set.intersection(*(set(values) for values in runs.values())))
        has_mean = len(runs) > 1 and len(shared) > 1  # all are evaluated at second 0
        for j, values in enumerate(runs.values()):
            label = None if has_mean or j else f"{name} ({len(runs)} {'runs' if len(runs) > 1 else 'run'})"
            width, alpha = (0.7, 0.6) if has_mean else (1.2, 0.9)
            axes.plot(list(values), list(values.values()), color=color, linewidth=width, alpha=alpha, label=label)
        if has_mean:
            means = [math.fsum(values[at] for values in runs.values()) / len(runs) for at in shared]
            axes.plot(shared, means, color=color, linewidth=2, label=f"{name} (mean of {len(runs)})")
        if name in result.paper:
            label = f"{name}: the paper, at its end"
            axes.axhline(result.paper[name], color=color, linewidth=1, linestyle=":", label=label)
    axes.set_title(result.key, fontsize=9)


def draw_last_values(axes: "Axes", result: Result) -> None:
    """For each group, a dot for each run, their mean with its interval, and what the paper reports."""
    from stochastok_cli.report.plots import COLORS

    for i, (name, runs) in enumerate(result.groups.items()):
        values, color = last_values(runs), COLORS[i % len(COLORS)]
        axes.plot(values, [i] * len(values), "o", color=color, markersize=4, alpha=0.5)
        if len(values) > 1:
            low, high = spread(values).interval
            axes.errorbar(spread(values).mean, i, xerr=(high - low) / 2, fmt="|", color=color, capsize=3)
        if name in result.paper:
            label = None if any(drawn in result.paper for drawn in list(result.groups)[:i]) else "the paper"
            axes.plot(result.paper[name], i, "D", markerfacecolor="none", color="black", markersize=6, label=label)
    axes.set_yticks(range(len(result.groups)), list(result.groups))
    axes.set_ylim(len(result.groups) - 0.5, -0.5)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.set_title(result.key, fontsize=9)


if __name__ == "__main__":
    main()

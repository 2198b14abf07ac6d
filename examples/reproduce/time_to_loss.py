"""Seconds of training until a run has the loss at which another one ends, by runs with several seeds.

    python examples/reproduce/time_to_loss.py --from CHECKPOINT_DIR --title TITLE --out results/speedrun-time \\
        pretraining-canonical:RUN,RUN speedrun-canonical:RUN,RUN

Each group is `NAME:RUN,RUN,…`, its runs in the order of their seeds. The reference of a group is the first one whose
name has the same part after the first hyphen (above, the first group for both). The loss to reach is, seed by seed, the
last validation loss of the reference; a reference of one run is that of all seeds. The time is that of the first
evaluation at which the loss is as low, without evaluating and saving. Writes OUT.md, OUT.jsonl, the raw values, and
OUT.svg (with matplotlib, the extra `report`).
"""

import argparse
from pathlib import Path

from summarize import Curve, Result, draw_curves, interval, parse_groups, raw_values, write_results

from stochastok_cli.report.runs import read_reported_run

LOSS = "validation/loss"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--out", type=Path, required=True, help="the path of the results, without an ending")
    parser.add_argument("--title", required=True)
    parser.add_argument("groups", nargs="+", metavar="NAME:RUN,RUN,…")
    arguments = parser.parse_args()
    named = parse_groups(parser, arguments.groups)
    groups = {name: {run: loss_by_seconds(arguments.folder, run) for run in runs} for name, runs in named.items()}
    result = Result(LOSS, groups, {}, curves=True, by_x=False)
    text = f"{arguments.title}\n\n{table(groups)}\n"
    write_results(arguments.out, text, raw_values(result, "seconds"), lambda: plot(result, arguments))


def loss_by_seconds(folder: Path, run: str) -> Curve:
    """The validation losses of a run by seconds of training."""
    reported = read_reported_run(folder / run, run)
    seconds = reported.x_values("time")
    if seconds is None:
        raise SystemExit(f"error: {folder / run} has no speed in its metrics.jsonl, so the time is not known")
    curve = {at: record[LOSS] for at, record in zip(seconds, reported.records, strict=True) if record.get(LOSS)}
    if not curve:
        raise SystemExit(f"error: {folder / run} has no {LOSS} in its metrics.jsonl")
    return curve


def table(groups: dict[str, dict[str, Curve]]) -> str:
    lines = [
        "| | last loss | seconds of training | seconds to the reference's last loss | share of its time |",
        "|---|---|---|---|---|",
    ]
    for name, runs in groups.items():
        reference = next(other for other in groups if other.partition("-")[2] == name.partition("-")[2])
        targets = list(groups[reference].values())
        if len(targets) == 1:
            targets *= len(runs)
        reached = [
            next((at for at, loss in curve.items() if loss <= last(target)), None)
            for curve, target in zip(runs.values(), targets, strict=True)
        ]
        cells = [name, ", ".join(f"{last(curve):.3f}" for curve in runs.values())]
        cells.append(", ".join(f"{max(curve):.0f}" for curve in runs.values()))
        cells.append(", ".join("not reached" if at is None else f"{at:.0f}" for at in reached))
        if name == reference or None in reached:
            cells.append("")
        else:
            cells.append(interval([at / max(target) for at, target in zip(reached, targets, strict=True)]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def last(curve: Curve) -> float:
    return curve[max(curve)]


def plot(result: Result, arguments: argparse.Namespace) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    from stochastok_cli.report.plots import STYLE

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.8), layout="constrained")
        axes = figure.subplots()
        draw_curves(axes, result)
        # The losses of the first tenth of a run would take most of the height.
        curves = [curve for runs in result.groups.values() for curve in runs.values()]
        losses = [loss for curve in curves for at, loss in curve.items() if at >= max(curve) / 10]
        axes.set_ylim(min(losses) - 0.05, max(losses) + 0.05)
        axes.set_xlabel("seconds of training")
        figure.suptitle(arguments.title, x=0.02, ha="left", fontsize=12)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", fontsize=9, ncols=2)
        figure.savefig(Path(f"{arguments.out}.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()

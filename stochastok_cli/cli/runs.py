"""`stochastok runs`: the runs under a folder, and where the configurations of two differ."""

import gc
import itertools
import json
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochastok_cli.cli import candidates, options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.cli.streams import escaped
from stochastok_cli.cli.text_table import Entry, print_table
from stochastok_cli.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from stochastok_cli.training.run_summary import RunSummary


class State(StrEnum):
    """The states of a run, as `stochastok_cli.training.run_summary` has them."""

    RUNNING = "running"
    STOPPED = "stopped"
    COMPLETE = "complete"
    DAMAGED = "damaged"


MISSING = "–"
DEFAULT_METRIC = "validation/bits_per_byte"


@subcommand
def runs(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The folder that holds the runs.")] = Path(
        "checkpoints"
    ),
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="The metric of the column `best`, as in metrics.jsonl. Where it is given, the best is first.",
            show_default=DEFAULT_METRIC,
            autocompletion=candidates.metrics,
        ),
    ] = None,
    state: Annotated[
        State | None, typer.Option("--state", help="Only the runs that show this state.", show_default="all")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first so many runs.", show_default="all")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Show only where the configurations of two runs differ, by name under FOLDER or by path.",
            autocompletion=candidates.runs_in_folder,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FOLDER",
            help="Write cards of the runs (or of the two compared), where their configurations differ, and their "
            "curves as one HTML page, with the plots as PNG and SVG. Needs the extra `report`.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object for each run (or for the comparison).")
    ] = False,
) -> None:
    """List the runs under a folder, the one that has changed last first.

    Each has its dataset, expansion, the checkpoint that it started from, how
    many iterations are done, the latest losses in nats per token and in bits per
    byte, the best value of a metric, its age since it last wrote, and its state:
    running, stopped or complete; damaged, too, where a file can't be read. Other
    folders are passed over.
    """
    if report is not None:
        from stochastok_cli.report.plots import require_matplotlib
        from stochastok_cli.report.report_folder import require_report_folder

        require_matplotlib()
        options.refuse_stdout("--report", report)
        require_report_folder(report)
    if compare is not None:
        options.require_effect(runs, "beside --compare", metric=metric, state=state, limit=limit)
        from stochastok_cli.training.runs import find_run

        pair = [find_run(name, folder) for name in compare]
        if report is not None:  # before anything is printed, since stdout may be closed
            _write_report(report, list(zip(pair, compare, strict=True)))
        _print_differences(pair, compare, as_json)
        return
    from stochastok_cli.training.runs import find_runs

    gc.set_threshold(100_000, 10, 10)  # records are many objects without cycles, which take a while to look for
    summaries = [run for run in find_runs(folder) if state is None or run.is_in(state.value)]
    if not summaries:
        missing = f"there are no runs under {folder}" + (f" in the state {state}" if state else "")
        if report is not None:
            raise UserError(f"{missing} to report")
        progress.note(missing)
        return
    if metric is not None:
        summaries = _best_first(summaries, metric)
    summaries = summaries[:limit]
    if report is not None:
        _write_report(report, [(run, run.name) for run in summaries])
    if as_json:
        for run in summaries:
            print(json.dumps(run.to_json(), allow_nan=False))
    else:
        _print_runs(summaries, metric or DEFAULT_METRIC)
    if metric is not None:
        for text in filter(None, (_dataset_note(summaries, metric), _windows_note(summaries, metric))):
            progress.note(f"note: {text}")
    for run in summaries:
        for problem in run.problems:
            progress.note(f"note: {problem}")


def _best_first(summaries: "list[RunSummary]", metric: str) -> "list[RunSummary]":
    """The runs by a metric, those without it last. Raises UserError if none has a best value of it."""
    from stochastok_cli.training.run_summary import lower_is_better

    best = {run.folder: best.value for run in summaries if (best := run.best_of(metric)) is not None}
    lower = lower_is_better(metric)
    if not best:
        known = sorted({name for run in summaries for name in run.best})
        if not any(metric in run.metrics for run in summaries):
            problem = f"no run has the metric {metric!r}{did_you_mean(metric, known)}"
        elif lower is None:
            problem = f"the metric {metric!r} has no best value, since neither less nor more of it is better"
        else:
            problem = f"no run has a finite value of the metric {metric!r}"
        raise UserError(problem, fix=f"there are: {', '.join(known)}" if known else "")
    with_metric = [run for run in summaries if run.folder in best]
    with_metric.sort(key=lambda run: best[run.folder] if lower else -best[run.folder])
    return with_metric + [run for run in summaries if run.folder not in best]


def _dataset_note(summaries: "list[RunSummary]", metric: str) -> str:
    """What the order by a metric of training or validation is worth where the datasets differ; "" where they do not."""
    from stochastok_cli.evaluation.registry import EVALUATORS

    names = list(dict.fromkeys(run.dataset for run in summaries if run.dataset and run.best_of(metric) is not None))
    if len(names) < 2 or metric.partition("/")[0] in EVALUATORS:  # an evaluator's benchmark is the same for all runs
        return ""
    shown = names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} others"]
    same = "text, in whatever tokenization" if metric.endswith("bits_per_byte") else "tokens"
    return f"the runs have different datasets ({', '.join(shown)}): {metric} compares only runs on the same {same}"


def _windows_note(summaries: "list[RunSummary]", metric: str) -> str:
    """Where validations of the runs were of different sizes; "" where they were not."""
    if not metric.startswith("validation"):
        return ""
    sizes: set[int] = set()
    for run in summaries:
        if run.config is not None and run.best_of(metric) is not None:
            training = run.config.trainer.training
            earlier = (start.changed.get("trainer.training.eval_iters", ()) for start in run.starts)
            sizes |= {n * training.batch_size for n in (training.eval_iters, *itertools.chain(*earlier))}
    if len(sizes) < 2:
        return ""
    listed = ", ".join(f"{size:,}" for size in sorted(sizes))
    return f"the runs were validated on different numbers of windows ({listed}): {metric} differs by that, too"


def _write_report(report: Path, labeled: "list[tuple[RunSummary, str]]") -> None:
    """Writes a report on runs, each with what it calls them."""
    from stochastok_cli.artifacts import command_line
    from stochastok_cli.report.html import write_runs_report
    from stochastok_cli.report.plots import COLORS, LINE_STYLES
    from stochastok_cli.report.runs import reported_run

    different = len(COLORS) * len(LINE_STYLES)
    if len(labeled) > different:
        progress.note(
            f"note: of {len(labeled)} runs, those after the first {different} have lines that look like others"
        )
    runs = [reported_run(run, label) for run, label in labeled]
    page = write_runs_report(report, runs, command=command_line(), date=time.strftime("%Y-%m-%d"))
    progress.note(f"report: {page}")


def _print_runs(summaries: "list[RunSummary]", metric: str) -> None:
    """Prints two lines a run, since all of it would not fit one; in a narrow terminal some more."""
    best_of = "bits/byte" if metric == DEFAULT_METRIC else metric.removeprefix("validation/").replace("/", "\n")
    headings = (
        "run\n  from",
        "dataset\n  method p",
        "iteration\nof",
        "loss:\ntrain\nval",
        "bits/byte:\ntrain\nval",
        f"best\n{best_of}",
        "state\nage",
    )
    rows: list[list[str]] = []
    entries: list[Entry] = []
    now = time.time()
    for run in summaries:
        name, dataset = escaped(run.name), escaped(run.dataset or MISSING)
        parent = escaped(_short(run.parent)) if run.parent else ""
        expansion = _expansion(run)
        iteration, length = f"{run.iteration:,}", MISSING if run.max_iters is None else f"{run.max_iters:,}"
        losses = [_number(run.metrics.get(f"{split}/loss")) for split in ("train", "validation")]
        bits = [_number(run.metrics.get(f"{split}/bits_per_byte")) for split in ("train", "validation")]
        best = run.best_of(metric)
        state = [run.state, _age(now - run.changed)]
        state += ["damaged"] if run.is_damaged and run.state != "damaged" else []
        rows.append(
            [
                name + (f"\n  {parent}" if parent else ""),
                dataset + (f"\n  {expansion}" if expansion else ""),
                f"{iteration}\n{length}"
                + (f"\nsaved {run.checkpoint_iteration:,}" if run.is_ahead_of_checkpoint else ""),
                "\n".join(losses),
                "\n".join(bits),
                f"{best.value:.4f}\nat {best.iteration:,}" if best else MISSING,
                "\n".join(state),
            ]
        )
        pairs = [
            ("from", parent),
            ("dataset", dataset),
            ("method p", expansion),
            ("iteration", run.shown_iterations),
            ("loss", f"train {losses[0]}, val {losses[1]}"),
            ("bits/byte", f"train {bits[0]}, val {bits[1]}"),
            ("best", f"{best.value:.4f} at {best.iteration:,}" if best else ""),
            ("of", metric if best and metric != DEFAULT_METRIC else ""),
            ("state", ", ".join(state)),
        ]
        entries.append((name, [(key, value) for key, value in pairs if value]))
    print_table(headings, rows, entries)


def _expansion(run: "RunSummary") -> str:
    """Method and p; "" for canonical data."""
    if run.method is None:
        return "" if run.is_expansion_known or run.config is None else "unknown"
    return run.method if run.p is None else f"{run.method} {run.p:g}{' to 0' if run.p_schedule else ''}"


def _short(checkpoint: str) -> str:
    """The name of a run or a model, without the folders above it; of one of several checkpoints, with its step."""
    parts = Path(checkpoint).parts
    return "/".join(parts[-2:] if parts[-1].startswith("step_") else parts[-1:])


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _age(seconds: float) -> str:
    """A time span in its largest unit.

    >>> _age(42), _age(200), _age(18420), _age(3e6)
    ('42 s', '3 min', '5 h', '34 d')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(int(seconds), 0)} s"


def _print_differences(pair: "list[RunSummary]", names: tuple[str, str], as_json: bool) -> None:
    """Prints where two runs differ."""
    from stochastok_cli.training.same_run import differing_values

    first, second = (run.config.to_dict() for run in pair if run.config is not None)
    differences = differing_values(first, second)
    if as_json:
        shown = [{"key": key, "values": list(values)} for key, values in differences.items()]
        problems = [problem for run in pair for problem in run.problems]
        tree = {"schema": 1, "compare": [str(run.folder) for run in pair], "differences": shown, "problems": problems}
        print(json.dumps(tree))
    elif differences:
        rows = [(key, *map(_yaml, values)) for key, values in differences.items()]
        entries = [(key, list(zip(names, map(_yaml, values), strict=True))) for key, values in differences.items()]
        print_table(("key", *map(escaped, names)), rows, entries)
    else:
        whole = not any(run.is_damaged for run in pair)
        progress.note(f"the configurations are equal{'' if whole else ', as far as they can be read'}")
    data = [run.data for run in pair]
    if None not in data and data[0] != data[1] and "trainer.dataset.name" not in differences:
        progress.note("note: the data of the two runs have one name and other bytes")
    for run in pair:
        for problem in run.problems:
            progress.note(f"note: {problem}")


def _yaml(value: Any) -> str:
    """A value as in a YAML file, in one line."""
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()

"""Evaluation results as tables, built from the fields of metrics. `report.rendering` renders them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stochastok_cli.evaluation.comparison import Aggregate, PairedComparison
from stochastok_cli.evaluation.evaluators import EVALUATORS
from stochastok_cli.evaluation.results import EvalResult, Metric
from stochastok_cli.tokenization.methods import tokenization_text

MISSING = "–"
NARROW_HEADINGS = {
    "path_confidence": "path\nconf.",
    "ground_confidence": "ground\nconf.",
    "num_options": "options",
    "normalized_accuracy": "norm.\naccuracy",
    "normalized_path_confidence": "norm.\npath\nconf.",
}
NORMALIZED = ("normalized_accuracy", "normalized_path_confidence")
"""Metrics that repeat another one on the scale where chance is 0."""


@dataclass(frozen=True)
class Cell:
    """The text of one cell.

    Attributes:
        value: A number or a name.
        interval: The interval of the number, `[0.04 0.10]`; "" where there is none.
    """

    value: str
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".strip()


@dataclass(frozen=True)
class Column:
    """The heading of a column and how the terminal shows it.

    Attributes:
        heading: The heading in one line.
        narrow: The heading on the terminal, in several short lines; `heading` where it is "".
        wrap: Whether the terminal may break the column's text into lines.
        show_intervals: Whether the terminal shows the intervals of the column's cells.
        is_name: Whether the cells hold names or other text, which a page aligns left and may break into lines.
    """

    heading: str
    narrow: str = ""
    wrap: bool = False
    show_intervals: bool = True
    is_name: bool = False


@dataclass(frozen=True)
class Table:
    """A table of results. The first column holds names and is aligned left, the others are aligned right.

    Attributes:
        section: What several tables have in common: the title of the evaluator.
        title: The subject of this table; "" where the section is title enough.
        columns: Headings.
        rows: One cell for each column.
        notes: Sentences below the table.
        stack_intervals: Whether the terminal puts intervals below their values, which takes less width.
        is_text: Whether the cells hold text, which is aligned left and broken into lines.
    """

    section: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    stack_intervals: bool = False
    is_text: bool = False

    @property
    def full_title(self) -> str:
        """Section and title in one line."""
        return ": ".join(filter(None, (self.section, self.title)))


def tables_of(results: Sequence[EvalResult]) -> list[Table]:
    """All metrics of some checkpoints.

    Args:
        results: One for each checkpoint.

    Returns:
        For each benchmark a table with a row for each checkpoint, followed by one with a row for each of its parts
        if the evaluator sets `Evaluator.parts_table`. Metrics that are named like their evaluator share one
        table, with a column for each benchmark. Below the last table of an evaluator stands what its metrics are.
    """
    groups: dict[tuple[str, str, bool], dict[str, Metric]] = {}
    for result in results:
        for metric in result.metrics:
            shared = metric.name == metric.evaluator
            by_part = metric.part != "" and has_parts_table(metric.evaluator)
            group = metric.evaluator, "" if shared else metric.benchmark, by_part
            groups.setdefault(group, {}).setdefault(metric.key, metric)
    last = {evaluator: (benchmark, by_part) for evaluator, benchmark, by_part in groups}
    tables = []
    for (evaluator, benchmark, by_part), metrics in groups.items():
        make = _parts_table if by_part else _checkpoints_table
        table = make(evaluator, benchmark, list(metrics.values()), results)
        is_last = (benchmark, by_part) == last[evaluator]
        tables.append(replace(table, notes=_meanings(evaluator, results)) if is_last else table)
    return tables


def _meanings(evaluator: str, results: Sequence[EvalResult]) -> list[str]:
    """A line for each metric and each part of an evaluator that needs an explanation."""
    if evaluator not in EVALUATORS:
        return []
    metrics = [metric for result in results for metric in result.metrics if metric.evaluator == evaluator]
    parts = {metric.part for metric in metrics}
    meanings = EVALUATORS[evaluator].explained({metric.name for metric in metrics})
    meanings |= {part: text for part, text in EVALUATORS[evaluator].part_meanings.items() if part in parts}
    return [f"{name.replace('_', ' ')}: {meaning}" for name, meaning in meanings.items()]


def _checkpoints_table(
    evaluator: str, benchmark: str, metrics: Sequence[Metric], results: Sequence[EvalResult]
) -> Table:
    """A row for each checkpoint, a column for each metric."""
    keys = {metric.key for metric in metrics}
    counts = {metric.n for result in results for metric in result.metrics if metric.key in keys and metric.n}
    title = benchmark
    if benchmark and counts:
        unit = _unit(evaluator)
        title += f" ({', '.join(f'{n:,}' for n in sorted(counts))} {unit.removesuffix('s') if counts == {1} else unit})"
    columns = [Column("checkpoint", wrap=True), Column("iteration"), *map(_metric_column, metrics)]
    rows = []
    for result in results:
        by_key = {metric.key: metric for metric in result.metrics}
        iteration = "" if result.iteration is None else f"{result.iteration:,}"
        rows.append([Cell(result.label), Cell(iteration), *(_cell(by_key.get(metric.key)) for metric in metrics)])
    return Table(_section(evaluator), title, columns, rows, stack_intervals=True)


def _parts_table(evaluator: str, benchmark: str, metrics: Sequence[Metric], results: Sequence[EvalResult]) -> Table:
    """A row for each metric of a part, a column for each checkpoint."""
    by_key = [{metric.key: metric for metric in result.metrics} for result in results]
    is_accuracy = any(metric.name == "accuracy" for metric in metrics)
    columns = [Column("accuracy on" if is_accuracy else "", wrap=True), Column("number")]
    columns += [Column(result.label, wrap=True) for result in results]
    rows = [
        [
            Cell(part_label(metric)),
            Cell("" if metric.n is None else f"{metric.n:,}"),
            *(_cell(of_result.get(metric.key)) for of_result in by_key),
        ]
        for metric in metrics
    ]
    tokenizations = {metric.part for metric in metrics if _is_of_tokenization(metric)}
    are_tokenizations = {metric.part in tokenizations for metric in metrics}
    kinds = [kind for kind, there in (("parts", False), ("other tokenizations", True)) if there in are_tokenizations]
    title = _parts_title(evaluator).format(benchmark=benchmark, parts=" and ".join(kinds))
    return Table(_section(evaluator), title, columns, rows)


def _is_of_tokenization(metric: Metric) -> bool:
    """Whether the part of a metric is another tokenization of all questions, and no group of them."""
    if metric.part in ("adversarial", "transfer") or tokenization_text(metric.part) != metric.part:
        return True
    return metric.name in ("worst_case", "any_case", "worst_sample", "edit_distance", "growth")


def comparison_table(comparison: PairedComparison | Aggregate) -> Table:
    """The table of either kind of comparison."""
    return paired_table(comparison) if isinstance(comparison, PairedComparison) else aggregate_table(comparison)


def paired_table(comparison: PairedComparison) -> Table:
    """For each metric both values, the difference with its interval, and on how many questions each one was better.

    Normalized metrics are left out: they repeat others on another scale.
    """
    first, second = comparison.first, comparison.second
    headings = "metric", "n", "first", "second", "second\n- first", "95%\ninterval", "first\nbetter", "second\nbetter"
    values = second.values
    rows = []
    for metric in first.metrics:
        difference = comparison.differences.get(metric.key)
        if difference is None or metric.outcomes is None or metric.name in NORMALIZED:
            continue
        rows.append(
            [
                Cell(metric_label(metric)),
                Cell(f"{len(metric.outcomes):,}"),
                Cell(f"{metric.value:.3f}"),
                Cell(f"{values[metric.key]:.3f}"),
                Cell(f"{difference.difference:+.3f}"),
                Cell("", interval_text(difference.interval, "+.2f")),
                Cell(f"{difference.first_better:,}"),
                Cell(f"{difference.second_better:,}"),
            ]
        )
    title = f"{second.label} minus {first.label} on the same questions, with 95% intervals"
    return Table("Paired", title, _columns(headings), rows)


def aggregate_table(aggregate: Aggregate) -> Table:
    """For each metric the mean over the runs, their standard deviation, the interval of the mean, and the range."""
    results = aggregate.results
    rows = []
    for metric in results[0].metrics:
        if metric.key not in aggregate.spreads:
            continue
        mean, deviation, interval = aggregate.spreads[metric.key]
        values = [result.values[metric.key] for result in results]
        rows.append(
            [
                Cell(metric_label(metric)),
                Cell(f"{mean:.3f}"),
                Cell(f"{deviation:.3f}"),
                Cell("", interval_text(interval)),
                Cell(f"{min(values):.3f}"),
                Cell(f"{max(values):.3f}"),
            ]
        )
    columns = _columns(("metric", "mean", "deviation", "95% interval", "least", "most"))
    note = "The interval is Student's 95% interval of the mean over the runs."
    return Table(f"Over {len(results)} runs", ", ".join(result.label for result in results), columns, rows, [note])


def _section(evaluator: str) -> str:
    return EVALUATORS[evaluator].title if evaluator in EVALUATORS else evaluator


def _unit(evaluator: str) -> str:
    return EVALUATORS[evaluator].unit if evaluator in EVALUATORS else "questions"


def _parts_title(evaluator: str) -> str:
    return EVALUATORS[evaluator].parts_table if evaluator in EVALUATORS else ""


def has_parts_table(evaluator: str) -> bool:
    """Whether the parts of an evaluator's benchmarks are rows of a table of their own."""
    return bool(_parts_title(evaluator))


def _cell(metric: Metric | None) -> Cell:
    if metric is None:
        return Cell(MISSING)
    interval = "" if metric.interval is None else interval_text(metric.interval)
    return Cell(value_text(metric.name, metric.value), interval)


def _columns(headings: Sequence[str]) -> list[Column]:
    return [Column(heading.replace("\n", " "), heading, wrap=i == 0) for i, heading in enumerate(headings)]


def _metric_column(metric: Metric) -> Column:
    if metric.name == metric.evaluator:
        return Column(metric.benchmark, folder_heading(metric.benchmark))
    heading = " ".join(filter(None, (tokenization_text(metric.part), metric.name))).replace("_", " ")
    narrow = "" if metric.part else NARROW_HEADINGS.get(metric.name, "")
    return Column(heading, narrow or heading.replace(" ", "\n"), show_intervals=metric.name not in NORMALIZED)


def folder_heading(folder: str) -> str:
    """A narrow heading for a folder of tokenized text, which is named after the data and the method of expansion.

    >>> folder_heading("web-tokenized"), folder_heading("web-tokenized-stochastok1.0")
    ('web\\ncanonical', 'web\\nstochastok 1.0')
    """
    match = re.fullmatch(r"(.+)-tokenized(?:-(.+?)(\d[\d.e-]*))?", folder)
    if match is None:
        return folder
    dataset, method, p = match.groups()
    return f"{dataset}\n{f'{method} {p}' if method else 'canonical'}"


def part_label(metric: Metric) -> str:
    """The label of a metric of a part in a table about its benchmark. The label of an accuracy is the part's name.

    >>> part_label(Metric("mcq", "langgame-val", "starts_with", "accuracy", 0.5))
    'starts with'
    >>> part_label(Metric("mcq", "langgame-val", "stochastok0.1", "worst_case", 0.5))
    'stochastok:0.1 worst case'
    """
    part = tokenization_text(metric.part)
    return (part if metric.name == "accuracy" else f"{part} {metric.name}").replace("_", " ")


def metric_label(metric: Metric) -> str:
    """The label of a metric in a table about its evaluator.

    >>> metric_label(Metric("mcq", "langgame-val", "starts_with", "accuracy", 0.5))
    'langgame-val starts with accuracy'
    >>> metric_label(Metric("bits_per_byte", "web-tokenized", "", "bits_per_byte", 1.0))
    'web-tokenized'
    """
    name = "" if metric.name == metric.evaluator else metric.name
    benchmark = tokenization_text(metric.benchmark) if metric.evaluator == "alignment" else metric.benchmark
    part = tokenization_text(metric.part)
    return " ".join(filter(None, (benchmark, part.replace("_", " "), name.replace("_", " "))))


def value_text(name: str, value: float) -> str:
    """The value of a metric of this name: a count, an error with two digits, or anything else with three decimals.

    >>> value_text("truncated", 1200), value_text("accuracy", 0.5), value_text("monte_carlo_error", 0.0000321)
    ('1,200', '0.500', '3.2e-05')
    """
    if name in ("truncated", "left_canonical", "effective_sample_size"):
        return f"{value:,.0f}"
    return f"{value:.2g}" if name == "monte_carlo_error" else f"{value:.3f}"


def interval_text(interval: tuple[float, float], form: str = ".2f") -> str:
    """An interval as a cell of a table.

    >>> interval_text((0.0412, 0.1))
    '[0.04 0.10]'
    """
    return f"[{interval[0]:{form}} {interval[1]:{form}}]"

"""Two checkpoints question by question, and several seeds of one run: objects for scripts and tables for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from stochastok_cli.config import flatten
from stochastok_cli.evaluation.findings import differences
from stochastok_cli.evaluation.statistics import Difference, Spread, spread
from stochastok_cli.report.tables import Row, interval_text


def paired(first: Row, second: Row) -> dict[str, Difference]:
    """What the second has more than the first, of every metric that is a mean over the same questions."""
    return differences(first.outcomes, second.outcomes)


def paired_json(first: Row, second: Row, found: Mapping[str, Difference]) -> dict[str, Any]:
    """As a line of `stochastok eval --paired --json`."""
    entries = {name: difference._asdict() for name, difference in found.items()}
    n = {name: len(first.outcomes[name]) for name in found}
    return {"schema": 1, "paired": [first.checkpoint, second.checkpoint], "differences": entries, "n": n}


def paired_table(first: Row, second: Row, found: Mapping[str, Difference]) -> Group:
    """A row for each metric: both values, the difference with its interval, and who was better how often."""
    title = f"Paired: {second.label} minus {first.label} on the same questions, with 95% intervals"
    table = _table(
        ["metric", "n", "first", "second", "second\n- first", "95%\ninterval", "first\nbetter", "second\nbetter"]
    )
    for name, one in found.items():
        if "/normalized_" in name:  # the same on another scale
            continue
        values = f"{first.metrics[name]:.3f}", f"{second.metrics[name]:.3f}", f"{one.difference:+.3f}"
        counts = f"{one.first_better:,}", f"{one.second_better:,}"
        n = f"{len(first.outcomes[name]):,}"
        table.add_row(_spoken(name), n, *values, interval_text(one.interval, "+.2f"), *counts)
    return Group(Text(title, style="bold"), table, "")


def over_seeds(rows: Sequence[Row]) -> dict[str, Spread]:
    """The spread of every metric that all runs have."""
    names = [name for name in rows[0].metrics if all(name in row.metrics for row in rows)]
    return {name: spread([row.metrics[name] for row in rows]) for name in names}


def seeds_json(rows: Sequence[Row], found: Mapping[str, Spread]) -> dict[str, Any]:
    """As a line of `stochastok eval --aggregate --json`."""
    return {
        "schema": 1,
        "aggregate": [row.checkpoint for row in rows],
        "iteration": [row.iteration for row in rows],
        "metrics": {name: one.mean for name, one in found.items()},
        "deviations": {name: one.deviation for name, one in found.items()},
        "intervals": {name: one.interval for name, one in found.items()},
        "n": dict(rows[0].n),
    }


def seeds_table(rows: Sequence[Row], found: Mapping[str, Spread]) -> Group:
    """A row for each metric: mean over the runs, their deviation, Student's interval, the least and the most."""
    table = _table(["metric", "mean", "deviation", "95% interval", "least", "most"])
    for name, one in found.items():
        values = [row.metrics[name] for row in rows]
        numbers = f"{one.mean:.3f}", f"{one.deviation:.3f}", interval_text(one.interval)
        table.add_row(_spoken(name), *numbers, f"{min(values):.3f}", f"{max(values):.3f}")
    return Group(Text(f"Over {len(rows)} runs: {', '.join(row.label for row in rows)}", style="bold"), table, "")


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted keys in which configurations differ.

    >>> differing_keys([{"general": {"seed": 0, "device": "cpu"}}, {"general": {"seed": 1, "device": "cpu"}}])
    ['general.seed']
    """
    flat = [flatten(config) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    return [key for key in keys if any(config.get(key) != flat[0].get(key) for config in flat)]


def _spoken(name: str) -> str:
    """
    >>> _spoken("mcq/langgame-val/starts_with/accuracy")
    'langgame-val starts with accuracy'
    """
    return name.partition("/")[2].replace("/", " ").replace("_", " ")


def _table(headings: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table

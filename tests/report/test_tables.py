"""Tables for people: which there are, and what stands in them."""

import io
import re

import numpy as np
from rich.console import Console

from stochastok_cli.evaluation.metrics import multiple_choice_metrics
from stochastok_cli.report.tables import Row, metric_tables


def rendered(rows: list[Row], width: int = 80) -> list[list[str]]:
    """The lines of all tables, each as its cells."""
    console = Console(width=width, file=io.StringIO())
    for table in metric_tables(rows):
        console.print(table)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [re.split(r"\s{2,}", line.strip()) for line in lines]


def test_bits_per_byte_of_two_checkpoints_is_one_table():
    folders = "bits_per_byte/sample-tokenized", "bits_per_byte/sample-tokenized-stochastok1.0"
    rows = [
        Row("canonical", 1200, dict(zip(folders, (2.5341, 4.54), strict=True)), {}),
        Row("expanded", None, dict(zip(folders, (2.57, 3.7), strict=True)), {}),
    ]
    title, *heading, rule, first, second, _ = rendered(rows)
    assert title == ["Bits per byte of the validation text (lower is better)"]
    assert heading == [["sample", "sample"], ["checkpoint", "iteration", "canonical", "stochastok 1.0"]]
    assert set(rule[0]) == {"─"}
    assert first == ["canonical", "1,200", "2.534", "4.540"]
    assert second == ["expanded", "2.570", "3.700"]


def test_a_table_for_each_benchmark_and_each_split_of_addition():
    metrics = {
        "mcq/arc/accuracy": 0.5,
        "mcq/arc/truncated": 3,
        "mcq/blimp/accuracy": 0.75,
        "math_generation/val/base/exact_match": 1.0,
        "math_generation/val/character/exact_match": 0.25,
    }
    n = {"mcq/arc": 1000, "mcq/blimp": 20, "math_generation/val/base": 90, "math_generation/val/character": 90}
    lines = rendered([Row("run", 5, metrics, n), Row("other", 6, {"mcq/arc/accuracy": 0.4}, n)])
    assert [line[0] for line in lines if "questions" in line[0]] == [
        "Multiple choice: arc (1,000 questions)",
        "Multiple choice: blimp (20 questions)",
        "Addition: val (90 questions)",
    ]
    assert ["run", "5", "0.500", "3"] in lines
    assert ["other", "6", "0.400", "–"] in lines
    assert ["run", "5", "1.000", "0.250"] in lines


def test_all_metrics_of_multiple_choice_are_whole_at_80_columns():
    metrics = {f"mcq/arc/{name}": -11.0114 for name in multiple_choice_metrics([np.zeros(2)])}
    for label in ("run", "a-long-name-of-a-run-from-another-run-from-a-third"):
        lines = rendered([Row(label, 30000, metrics, {})])
        assert next(line for line in lines if "30,000" in line)[1:] == ["30,000", *["-11.011"] * 6]

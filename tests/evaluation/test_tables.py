"""Tables for people: which there are, and what stands in them."""

import io

from rich.console import Console

from stochastok_cli.report.tables import Row, metric_tables


def rendered(rows: list[Row]) -> list[str]:
    console = Console(width=160, file=io.StringIO())
    for table in metric_tables(rows):
        console.print(table)
    return console.file.getvalue().splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")]


def test_bits_per_byte_of_two_checkpoints_is_one_table():
    rows = [
        Row(
            label,
            iteration,
            {"bits_per_byte/sample-tokenized": a, "bits_per_byte/sample-tokenized-stochastok1.0": b},
            {"bits_per_byte/sample-tokenized": 1000, "bits_per_byte/sample-tokenized-stochastok1.0": 1700},
        )
        for label, iteration, a, b in [("canonical", 1200, 2.5341, 4.54), ("expanded", None, 2.57, 3.7)]
    ]
    lines = rendered(rows)
    assert lines[0].strip() == "Bits per byte of the validation text (lower is better)"
    assert [cells(line) for line in lines if "│" in line or "┃" in line] == [
        ["", "", "sample", "sample"],
        ["checkpoint", "iteration", "canonical", "stochastok 1.0"],
        ["canonical", "1,200", "2.534", "4.540"],
        ["expanded", "", "2.570", "3.700"],
    ]


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
    titles = [line.strip() for line in lines if "questions" in line]
    assert titles == [
        "Multiple choice: arc (1,000 questions)",
        "Multiple choice: blimp (20 questions)",
        "Addition: val (90 questions)",
    ]
    found = [cells(line) for line in lines if "│" in line]
    assert ["run", "5", "0.500", "3"] in found
    assert ["other", "6", "0.400", "–"] in found
    assert ["run", "5", "1.000", "0.250"] in found

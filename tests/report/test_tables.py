"""Tables: which there are, what their cells hold, and how the terminal shows them."""

import dataclasses
import io
import re

import numpy as np
import pytest
from rich.console import Console

from stochastok_cli.evaluation.answers import ChangedAnswers
from stochastok_cli.evaluation.comparison import aggregate, compare_paired
from stochastok_cli.evaluation.evaluators import EVALUATORS
from stochastok_cli.evaluation.metrics import multiple_choice_metrics
from stochastok_cli.evaluation.results import EvalResult, Metric
from stochastok_cli.report.rendering import to_html, to_markdown, to_rich
from stochastok_cli.report.sections import ChangedExamples
from stochastok_cli.report.tables import Cell, Column, Table, aggregate_table, paired_table, tables_of


def rendered(tables: list[Table], width: int = 80) -> list[list[str]]:
    """The lines of tables on a terminal, each as its cells."""
    console = Console(width=width, file=io.StringIO())
    for table in tables:
        console.print(to_rich(table, width))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [re.split(r"\s{2,}", line.strip()) for line in lines]


def result(label: str, iteration: int | None, *metrics: Metric) -> EvalResult:
    return EvalResult(f"runs/{label}", label, iteration, list(metrics))


def bits_per_byte(folder: str, value: float) -> Metric:
    return Metric("bits_per_byte", folder, "", "bits_per_byte", value, 1000)


def test_bits_per_byte_of_two_checkpoints_is_one_table():
    folders = "sample-tokenized", "sample-tokenized-stochastok1.0"
    results = [
        result("canonical", 1200, *map(bits_per_byte, folders, (2.5341, 4.54))),
        result("expanded", None, *map(bits_per_byte, folders, (2.57, 3.7))),
    ]
    title, *heading, rule, first, second, _ = rendered(tables_of(results))
    assert title == ["Bits per byte of the validation text (lower is better)"]
    assert heading == [["sample", "sample"], ["checkpoint", "iteration", "canonical", "stochastok 1.0"]]
    assert set(rule[0]) == {"─"}
    assert first == ["canonical", "1,200", "2.534", "4.540"]
    assert second == ["expanded", "2.570", "3.700"]


def test_a_table_for_each_benchmark_and_each_split_of_addition():
    run = result(
        "run",
        5,
        Metric("mcq", "arc", "", "accuracy", 0.5, 1000),
        Metric("mcq", "arc", "", "truncated", 3, 1000),
        Metric("mcq", "blimp", "", "accuracy", 0.75, 20),
        Metric("math_generation", "val", "base", "exact_match", 1.0, 90),
        Metric("math_generation", "val", "character", "exact_match", 0.25, 90),
    )
    other = result("other", 6, Metric("mcq", "arc", "", "accuracy", 0.4, 1000))
    lines = rendered(tables_of([run, other]))
    assert [line[0] for line in lines if "questions" in line[0]] == [
        "Multiple choice: arc (1,000 questions)",
        "Multiple choice: blimp (20 questions)",
        "Addition: val (90 questions)",
    ]
    assert ["run", "5", "0.500", "3"] in lines
    assert ["other", "6", "0.400", "–"] in lines
    assert ["run", "5", "1.000", "0.250"] in lines


def test_all_metrics_of_multiple_choice_are_whole_at_80_columns():
    metrics = [Metric("mcq", "arc", "", name, -11.0114) for name in multiple_choice_metrics([np.zeros(2)])]
    for label in ("run", "a-long-name-of-a-run-from-another-run-from-a-third"):
        lines = rendered(tables_of([result(label, 30000, *metrics)]))
        assert next(line for line in lines if "30,000" in line)[1:] == ["30,000", *["-11.011"] * 6]


def test_a_table_that_does_not_fit_is_transposed():
    forms = "base", "stochastok", "character", "bpe_dropout"
    right = np.array([1.0, 0.0])
    metrics = [Metric("math_generation", "val", form, "exact_match", 0.5, 2, right) for form in forms]
    tables = tables_of([result("run", 30000, *metrics), result("other", None, *metrics)])
    assert ["run", "30,000", *["0.500"] * 4] in rendered(tables, 200)
    lines = rendered(tables, 68)
    assert ["run", "other"] in lines and ["iteration", "30,000"] in lines
    assert ["bpe dropout exact match", "0.500 [0.09 0.91]", "0.500 [0.09 0.91]"] in lines


def test_parts_are_rows_with_their_number_of_questions():
    right = np.array([1.0, 0.0, 1.0, 1.0])
    whole = Metric("mcq", "arc", "", "accuracy", 0.75, 4, right)
    part = Metric("mcq", "arc", "starts_with", "accuracy", 0.5, 2, right[:2])
    worst = Metric("mcq", "arc", "uniform0.5", "worst_case", 0.25, 4)
    tables = tables_of([result("a", 1, whole, part, worst), result("b", 2, whole)])
    assert [table.title for table in tables] == ["arc (4 questions)", "arc, parts and other tokenizations"]
    assert [column.heading for column in tables[1].columns] == ["accuracy on", "number", "a", "b"]
    assert [[str(cell) for cell in row] for row in tables[1].rows] == [
        ["starts with", "2", "0.500 [0.09 0.91]", "–"],
        ["uniform:0.5 worst case", "4", "0.250", "–"],
    ]


@pytest.mark.parametrize(
    ("part", "title"),
    [("starts_with", "parts"), ("uniform0.5", "other tokenizations"), ("adversarial", "other tokenizations")],
)
def test_the_title_of_parts_names_what_is_there(part, title):
    [table] = tables_of([result("a", 1, Metric("mcq", "arc", part, "accuracy", 0.5, 4))])
    assert table.title == f"arc, {title}"
    assert (
        ChangedExamples("a", ChangedAnswers("mcq", "arc", "stochastok0.5", 1, 1, [])).title == "arc, stochastok:0.5: a"
    )


def test_an_evaluator_that_is_not_known_gets_tables_too():
    [table] = tables_of([result("a", 1, Metric("toy", "colors", "red", "hits", 0.5, 8))])
    assert (table.section, table.title) == ("toy", "colors (8 questions)")
    assert [column.heading for column in table.columns] == ["checkpoint", "iteration", "red hits"]


@pytest.fixture
def pair() -> list[EvalResult]:
    outcomes = np.array([1.0, 0.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, 0.0])
    return [
        result(
            label,
            1,
            Metric("mcq", "arc", "", "accuracy", right.mean(), 4, right),
            Metric("mcq", "arc", "", "normalized_accuracy", right.mean(), 4, right),
            Metric("mcq", "arc", "", "num_options", 2.0, 4),
        )
        for label, right in zip("ab", outcomes, strict=True)
    ]


def test_the_table_of_a_paired_comparison(pair):
    table = paired_table(compare_paired(*pair))
    assert table.full_title == "Paired: b minus a on the same questions, with 95% intervals"
    [row] = table.rows  # normalized metrics repeat others, and num_options has no outcomes
    assert [cell.value for cell in row] == ["arc accuracy", "4", "0.500", "0.750", "+0.250", "", "1", "2"]
    assert row[5].interval.startswith("[-0.")


@pytest.mark.parametrize("width", [40, 60, 72])
def test_a_paired_comparison_is_whole_on_a_narrow_terminal(width):
    right = np.array([1.0, 0.0, 0.0, 1.0])
    part = "a kind with a long name"
    first, second = (result(label, 1, Metric("mcq", "langgame-val", part, "accuracy", 0.5, 4, right)) for label in "ab")
    table = paired_table(compare_paired(first, second))
    lines = rendered([table], width)
    assert " ".join(map(" ".join, lines)).count("langgame-val a kind with a long name accuracy") == 1
    for pair in (["n", "4"], ["first", "0.500"], ["second - first", "+0.000"], ["second better", "0"]):
        assert pair in lines
    assert len(rendered([table], 110)) < 8  # columns where there is room
    assert rendered([dataclasses.replace(table, rows=[])], width)


def test_the_table_of_several_seeds(pair):
    table = aggregate_table(aggregate(pair))
    assert table.full_title == "Over 2 runs: a, b"
    assert [[cell.value for cell in row] for row in table.rows][::2] == [
        ["arc accuracy", "0.625", "0.177", "", "0.500", "0.750"],
        ["arc num options", "2.000", "0.000", "", "2.000", "2.000"],
    ]


def test_labels_are_data_in_every_rendering():
    table = Table("[red]s", "t", [Column("x|y"), Column("<b>")], [[Cell("[bold]a|b"), Cell("1", "[0 2]")]], ["[i]n"])
    title, heading, _, row, note, _ = rendered([table])
    assert (title, heading, row, note) == (["[red]s: t"], ["x|y", "<b>"], ["[bold]a|b", "1 [0 2]"], ["[i]n"])
    assert to_markdown(table).splitlines()[::2] == [r"| x\|y | &lt;b&gt; |", r"| [bold]a\|b | 1 [0 2] |", "[i]n"]
    assert "<th>&lt;b&gt;</th>" in to_html(
        table
    ) and '<td data-column="&lt;b&gt;">1 <small>[0 2]</small></td>' in to_html(table)


def test_below_the_last_table_of_an_evaluator_stands_what_its_columns_are():
    scores = [np.array([-1.0, -2.0]), np.array([-3.0, -2.0])]
    run = result(
        "run",
        5,
        *(
            Metric("mcq", name, "", m, v, 2)
            for name in ("arc", "blimp")
            for m, v in multiple_choice_metrics(scores).items()
        ),
        Metric("alignment", "uniform1.0", "layer_1", "distance", 2.0, 9),
        Metric("alignment", "uniform1.0", "layer_1", "relative", 0.5, 9),
    )
    arc, blimp, alignment = tables_of([run])
    assert not arc.notes
    # Every column whose heading does not explain itself has a line.
    headings = {column.heading for column in blimp.columns} - {"checkpoint", "iteration", "accuracy"}
    assert {note.partition(":")[0] for note in blimp.notes} == headings
    assert {note.partition(":")[0] for note in alignment.notes} == {"distance", "relative"}
    text = "\n".join(" ".join(line) for line in rendered([arc, blimp, alignment]))
    assert text.count("ground confidence: mean log-likelihood of the right option, in nats") == 1
    assert "relative: distance over the mean distance" in to_markdown(alignment) + to_html(alignment)


def test_every_evaluator_explains_the_metrics_of_its_tables():
    metrics = {"mcq": ("path_confidence", "worst_sample", "passes"), "bits_per_byte": ("monte_carlo_error",)}
    for evaluator, names in metrics.items():
        assert set(names) <= set(EVALUATORS[evaluator].meanings)

"""Reports on disk: every file, that the page stands alone, and what plots show."""

import csv
import dataclasses
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.evaluation.comparison import aggregate, compare_paired
from stochastok_cli.evaluation.results import Curve, EvalResult, Metric
from stochastok_cli.report import plots
from stochastok_cli.report.html import write_report
from stochastok_cli.report.paper_values import paper_figure
from stochastok_cli.report.rendering import escape_markdown, print_tables, to_csv
from stochastok_cli.report.result_plots import result_plots
from stochastok_cli.report.runs import ReportedRun
from stochastok_cli.report.tables import paired_table, tables_of
from stochastok_cli.report.training_plots import training_plots

POINT = {"y": 0.6, "low": 0.5, "high": 0.7}


def checkpoint(label: str, seed: int) -> EvalResult:
    right = (np.random.default_rng(seed).random(40) < 0.6).astype(float)
    normalized = (right - 0.25) / 0.75

    def metric(part: str, name: str, value: float, n: int, outcomes: np.ndarray | None = None) -> Metric:
        return Metric("mcq", "langgame-val", part, name, value, n, outcomes)

    return EvalResult(
        f"runs/{label}/step_300",
        label,
        300,
        [
            metric("", "accuracy", right.mean(), 40, right),
            metric("", "normalized_accuracy", normalized.mean(), 40, normalized),
            metric("", "truncated", 3, 40),
            metric("starts_with", "accuracy", right[:9].mean(), 9),
            metric("uniform0.5", "accuracy", 0.5, 40),
        ],
        [Curve("mcq", "langgame-val", "uniform0.5", [POINT | {"x": 0.1, "n": 30.0}, POINT | {"x": 0.3, "n": 10.0}])],
        {"mcq/langgame-val": 40, "mcq/langgame-val/starts_with": 9},
    )


RESULTS = [checkpoint("canonical & co", 0), checkpoint("stochastok", 1)]
LOW, HIGH = RESULTS[1].metrics[0].interval
RUNS = [
    ReportedRun(
        "canonical & co",
        [
            {"iteration": 0, "validation/loss": 8.0, "mcq/langgame-val/normalized_accuracy": 0.0},
            {"iteration": 10, "train/loss": 5.0, "train/bits_per_byte": 2.5},
            {"iteration": 100, "validation/loss": None, "mcq/langgame-val/normalized_accuracy": 0.4},
        ],
    ),
    ReportedRun("stochastok", [{"iteration": 0, "validation/loss": 8.0}, {"iteration": 100, "validation/loss": 5.0}]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    comparisons = [compare_paired(*RESULTS), aggregate(RESULTS)]
    page = write_report(folder, RESULTS, RUNS, command="stochastok eval <a> b", comparisons=comparisons)
    assert page == folder / "report.html"
    return folder


VOID = ("meta", "path", "use", "input", "wbr")


class Page(HTMLParser):
    """Checks that elements are closed in their order; collects what would be loaded from elsewhere, and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for key, value in attrs if key == "id"]
        self.loaded += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("#", "data:"))]

    def handle_startendtag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.handle_starttag(tag, attrs) if tag in VOID else self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "h2", "code"):
            self.cells.append(data.strip())


def test_points_of_equal_values_are_all_seen():
    from matplotlib.collections import PathCollection

    same = [dataclasses.replace(RESULTS[0], label=label) for label in "ab"]
    [plot] = [one for one in result_plots(same) if one.name == "distance-langgame-val-uniform0.5"]
    [axes] = plot.figure.axes
    first, second = (one for one in axes.collections if isinstance(one, PathCollection))
    assert first.get_offsets().tolist() == second.get_offsets().tolist() == [[0.1, 0.6], [0.3, 0.6]]
    assert len(first.get_facecolors()) == len(second.get_facecolors()) == 0
    assert first.get_paths()[0].vertices.shape != second.get_paths()[0].vertices.shape
    inner, outer = (line for line in axes.lines if line.get_marker() == "D")
    assert inner.get_xydata().tolist() == outer.get_xydata().tolist()
    assert (inner.get_fillstyle(), inner.get_markersize() < outer.get_markersize()) == ("none", True)
    records = [{"iteration": i, "train/learning_rate": 1.0} for i in (1, 2)]
    [plot] = training_plots([ReportedRun("a", records), ReportedRun("b", records)])
    lines = plot.figure.axes[0].lines
    assert lines[0].get_marker() != lines[1].get_marker() and lines[1].get_markerfacecolor() == "none"


def test_accuracy_by_budget_is_a_plot_of_its_own():
    points = [POINT | {"x": x, "n": 40.0} for x in (1, 2, 4, 10)]
    result = dataclasses.replace(RESULTS[0], curves=[*RESULTS[0].curves, Curve("mcq", "arc", "adversarial", points)])
    with plots.plot_style():
        by_name = {plot.name: plot for plot in result_plots([result])}
    assert {"distance-langgame-val-uniform0.5", "budget-arc-adversarial"} <= set(by_name)
    [axes] = by_name["budget-arc-adversarial"].figure.axes
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 4, 10]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "forward passes of the search (1: canonical)")


def test_the_page_is_whole_and_loads_nothing(folder):
    page = Page((folder / "report.html").read_text())
    assert page.open == [] and page.loaded == []
    assert len(page.ids) == len(set(page.ids))
    text = (folder / "report.html").read_text()
    assert "<script" not in text and "@import" not in text and not re.search(r"url\((?!#)|https?://", text)
    assert "default-src 'none'" in text
    assert {"canonical & co", "stochastok", "starts with", "stochastok eval <a> b"} <= set(page.cells)


def test_every_reference_in_a_drawing_is_there(folder):
    text = (folder / "report.html").read_text()
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    assert used and {a or b for a, b in used} <= set(Page(text).ids)


def test_tables_in_every_form(folder):
    results = json.loads((folder / "results.json").read_text())
    assert [one.get("checkpoint") for one in results] == [*(result.checkpoint for result in RESULTS), None, None]
    lines = list(csv.DictReader((folder / "results.csv").open()))
    assert len(lines) == sum(len(result.metrics) for result in RESULTS)
    first = lines[0]
    assert (first["metric"], first["n"]) == ("mcq/langgame-val/accuracy", "40")
    assert float(first["value"]) == RESULTS[0].values["mcq/langgame-val/accuracy"]
    assert (float(first["low"]), float(first["high"])) == RESULTS[0].metrics[0].interval
    assert (lines[2]["value"], lines[2]["low"]) == ("3", "")
    text = (folder / "report.md").read_text()
    assert "## langgame-val (40 questions)" in text
    value = RESULTS[1].values["mcq/langgame-val/accuracy"]
    assert f"| stochastok | 300 | {value:.3f} [{LOW:.2f} {HIGH:.2f}] |" in text
    assert "### stochastok minus canonical & co on the same questions" in text and "## Over 2 runs" in text
    for name in re.findall(r"\((plots/[^)]+)\)", text):
        assert (folder / name).is_file()


def test_plots_in_both_forms(folder):
    names = {file.stem for file in (folder / "plots").iterdir()}
    assert names == {
        "accuracy",
        "paired",
        "parts-langgame-val",
        "distance-langgame-val-uniform0.5",
        "training-train-loss",
        "training-train-bits_per_byte",
        "training-validation-loss",
        "training-mcq-langgame-val-normalized_accuracy",
    }
    for name in names:
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / "plots" / f"{name}.svg").read_text()


def test_the_papers_lines_are_drawn_where_they_apply():
    drawn = {plot.name: plot.figure.axes[0] for plot in training_plots(RUNS)}
    texts = [text.get_text().strip() for text in drawn["training-mcq-langgame-val-normalized_accuracy"].texts]
    assert texts == ["stochastok-0.1 1.00", "bpe-dropout-0.1 0.80", "canonical 0.65", "no pretraining 0.05"]
    assert not drawn["training-validation-loss"].texts
    assert drawn["training-validation-loss"].get_ylabel() == "nats per token"
    assert drawn["training-train-bits_per_byte"].get_ylabel() == "bits per byte"
    first, chance, *_ = drawn["training-mcq-langgame-val-normalized_accuracy"].lines
    assert first.get_ydata().tolist() == [0.0, 0.4] and set(chance.get_ydata()) == {0}


def test_where_the_paper_reports_something():
    assert paper_figure("mcq/cute/normalized_accuracy").source == "Fig. 4"
    sweep = dict(paper_figure("mcq/langgame-val/normalized_accuracy", "Fig. 5").values)
    assert sweep["stochastok-0.01"] == 0.98
    assert paper_figure("mcq/cute/normalized_accuracy", "Fig. 5") is None
    assert paper_figure("math_generation/val/character/exact_match").source == "Fig. 8"
    for name in ("mcq/cute-val/normalized_accuracy", "mcq/arc/normalized_accuracy", "validation/loss"):
        assert paper_figure(name) is None


def test_dollar_signs_in_labels_are_no_formulas():
    [plot] = training_plots([ReportedRun("a $x_1$ run", [{"iteration": 0, "train/loss": 8.0}])])
    plot.figure.canvas.draw()
    [text] = plot.figure.legends[0].get_texts()
    assert text.get_text() == r"a \$x_1\$ run"


def test_the_same_results_give_the_same_files(folder, tmp_path):
    comparisons = [compare_paired(*RESULTS), aggregate(RESULTS)]
    write_report(tmp_path, RESULTS, RUNS, command="stochastok eval <a> b", comparisons=comparisons)
    for file in folder.rglob("*.*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / file.relative_to(folder)).read_bytes(), file


def test_a_checkpoint_alone_without_a_run(tmp_path):
    bare = EvalResult("", "other", None, [Metric("bits_per_byte", "text", "", "bits_per_byte", 2.5, 100)])
    write_report(tmp_path, [bare], [], command="x")
    assert to_csv([bare]).splitlines()[1] == ",,bits_per_byte/text,2.5,,,100"
    assert not list((tmp_path / "plots").iterdir())


def test_labels_that_are_not_utf8_are_written(tmp_path):
    """A path of bytes that are not UTF-8 has half surrogate pairs in Python."""
    bare = EvalResult("runs/a\udcff", "other", None, [Metric("bits_per_byte", "text", "", "bits_per_byte", 2.5, 100)])
    write_report(tmp_path, [bare], [], command="stochastok eval a\udcff")
    for name in ("report.html", "report.md", "results.csv", "results.json"):
        assert "a\\udcff" in (tmp_path / name).read_text()


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="--report needs matplotlib, which is not installed; pip install"):
        plots.require_matplotlib()


def test_a_matplotlib_that_can_not_be_imported(monkeypatch, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('libpng.so: wrong ELF class')\n")
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    message = "is installed and can't be imported (libpng.so: wrong ELF class); install it again: pip install"
    with pytest.raises(UserError, match=re.escape(message)) as info:
        plots.require_matplotlib()
    assert info.value.exit_code == FAILED


# Names of runs that matplotlib, Markdown, HTML or rich would read as something else.
NAMES = [
    r"x$\foo$",
    "y" * 79 + r"$\frac$",
    "[red]",
    "[/red]",
    "_run",
    "<script>",
    "a|b",
    "`c`",
    "*d*",
    "&lt;",
    "[l](u)",
    "x^{_",
    "%s{0}",
    'a id="b" : #000000 href="#c" url(#d)',
]


@pytest.mark.filterwarnings("error")
def test_names_are_shown_as_they_are(tmp_path, capsys):
    results = [
        EvalResult(name, name, 3, [Metric("mcq", "arc", "", "accuracy", 0.5, 40, RESULTS[0].metrics[0].outcomes)])
        for name in NAMES
    ]
    results[0].metrics.append(Metric("bits_per_byte", "<b>", "", "bits_per_byte", 2.5, 100))
    command = "stochastok eval '<script>'"
    comparisons = [compare_paired(results[0], second) for second in results]
    write_report(tmp_path, results, [], command=command, comparisons=comparisons)
    page = (tmp_path / "report.html").read_text()
    assert {*NAMES, command, "<b>"} <= set(Page(page).cells)
    assert f"{NAMES[-1]}</text>" in page  # in a legend
    markdown = (tmp_path / "report.md").read_text().replace(f"`{command}`", "")
    assert "<script" not in markdown and "<b>" not in markdown
    print_tables([*tables_of(results), *map(paired_table, comparisons)])
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)


def test_names_in_plots_are_no_formulas_and_none_is_left_out():
    results = [checkpoint(name, 0) for name in NAMES]
    curve = [Curve("alignment", "uniform1.0", "", [{"x": 1, "y": 0.5, "n": 3}])]
    results = [dataclasses.replace(result, metrics=result.metrics[:1], curves=curve) for result in results]
    [training] = training_plots([ReportedRun(name, RUNS[1].records) for name in NAMES])
    for plot in (*result_plots(results), training):
        texts = plot.figure.legends[0].get_texts()
        shown = [text.get_text().replace("\n", "").replace("\u200b", "") for text in texts]
        assert shown == [name.replace("$", r"\$") for name in NAMES]
        assert not any(text._preprocess_math(text.get_text())[1] for text in texts)  # True for a formula
    words = Curve("alignment", "uniform1.0", "pca", [{"x": 0, "y": 1, "word": name} for name in NAMES])
    [plot] = result_plots([EvalResult(NAMES[1], NAMES[1], None, [], [words])])
    [axes] = plot.figure.axes
    assert not any(text._preprocess_math(text.get_text())[1] for text in [axes.title, *axes.texts])
    plot.figure.canvas.draw()


def test_names_that_give_one_file_name_get_a_file_each(tmp_path):
    curve = Curve("alignment", "uniform1.0", "pca", [{"x": 0, "y": 1, "word": "w"}])
    results = [EvalResult(label, label, None, [], [curve]) for label in ("a b", "a-b", "A-B")]
    write_report(tmp_path, results, [], command="x")
    names = {file.stem for file in (tmp_path / "plots").iterdir()}
    pca = "alignment-pca-uniform1.0"
    assert names == {f"{pca}-a-b", f"{pca}-a-b-2", f"{pca}-A-B-3"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("langgame-val starts_with [0.04 0.10] & co", "langgame-val starts_with [0.04 0.10] & co"),
        ("<b>&lt;", "&lt;b&gt;&amp;lt;"),
        ("a|b `c` *d* _e_ ~f~", r"a\|b \`c\` \*d\* \_e\_ \~f\~"),
        (r"$x$ \foo", r"\$x\$ \\foo"),
        ("![x](y) [z]", r"!\[x](y) [z]"),
        ("# no heading", r"\# no heading"),
    ],
)
def test_markdown_shows_text_as_it_is(text, expected):
    assert escape_markdown(text) == expected

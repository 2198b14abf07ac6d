"""Reports on disk: every file, that the page stands alone, and what plots show."""

import csv
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from stochastok_cli.errors import UserError
from stochastok_cli.report import comparisons, plots
from stochastok_cli.report.html import to_csv, write_report
from stochastok_cli.report.paper_values import paper_values
from stochastok_cli.report.tables import Row

CURVE = {"y": 0.6, "low": 0.5, "high": 0.7}  # of a point of a curve, the same for all


def row(label: str, seed: int) -> Row:
    right = (np.random.default_rng(seed).random(40) < 0.6).astype(float)
    metrics = {
        "mcq/langgame-val/accuracy": right.mean(),
        "mcq/langgame-val/normalized_accuracy": (right.mean() - 0.25) / 0.75,
        "mcq/langgame-val/truncated": 3,
        "mcq/langgame-val/starts_with/accuracy": right[:9].mean(),
        "mcq/langgame-val/uniform0.5/accuracy": 0.5,
    }
    return Row(
        label,
        300,
        metrics,
        {"mcq/langgame-val": 40, "mcq/langgame-val/starts_with": 9},
        {"mcq/langgame-val/accuracy": (0.41, 0.72)},
        {"mcq/langgame-val/accuracy": right},
        f"runs/{label}/step_300",
        {"mcq/langgame-val/uniform0.5": [CURVE | {"x": 0.1, "n": 30.0}, CURVE | {"x": 0.3, "n": 10.0}]},
    )


ROWS = [row("canonical & co", 0), row("stochastok", 1)]
RUNS = {
    "canonical & co": [
        {"iteration": 0, "validation/loss": 8.0, "mcq/langgame-val/normalized_accuracy": 0.0},
        {"iteration": 10, "train/loss": 5.0},
        {"iteration": 100, "validation/loss": None, "mcq/langgame-val/normalized_accuracy": 0.4},
    ],
    "stochastok": [{"iteration": 0, "validation/loss": 8.0}, {"iteration": 100, "validation/loss": 5.0}],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    pair = comparisons.paired_json(ROWS[0], ROWS[1], comparisons.paired(*ROWS))
    page = write_report(folder, ROWS, RUNS, command="stochastok eval <a> b", comparisons=[pair])
    assert page == folder / "report.html"
    return folder


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
        if tag not in ("meta", "path", "use"):
            self.open.append(tag)
        self.ids += [value for key, value in attrs if key == "id"]
        self.loaded += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("#", "data:"))]

    def handle_startendtag(self, tag, attrs):
        if tag not in ("meta", "path", "use"):
            self.open.append(tag)
        self.handle_starttag(tag, attrs) if tag in ("meta", "path", "use") else self.open.pop()

    def handle_endtag(self, tag):
        if tag not in ("meta", "path", "use"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th", "h2", "code"):
            self.cells.append(data.strip())


def test_the_page_is_whole_and_loads_nothing(folder):
    page = Page((folder / "report.html").read_text())
    assert page.open == [] and page.loaded == []
    assert len(page.ids) == len(set(page.ids))
    assert {"canonical & co", "stochastok", "starts with", "stochastok eval <a> b"} <= set(page.cells)


def test_every_reference_in_a_drawing_is_there(folder):
    text = (folder / "report.html").read_text()
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    assert used and {a or b for a, b in used} <= set(Page(text).ids)


def test_tables_in_every_form(folder):
    results = json.loads((folder / "results.json").read_text())
    assert [one.get("checkpoint") for one in results] == [*(row.checkpoint for row in ROWS), None]
    lines = list(csv.DictReader((folder / "results.csv").open()))
    assert len(lines) == sum(len(row.metrics) for row in ROWS)
    first = lines[0]
    assert (first["metric"], first["low"], first["n"]) == ("mcq/langgame-val/accuracy", "0.41", "40")
    assert float(first["value"]) == ROWS[0].metrics["mcq/langgame-val/accuracy"]
    text = (folder / "report.md").read_text()
    assert "## langgame-val (40 questions)" in text
    assert f"| stochastok | 300 | {ROWS[1].metrics['mcq/langgame-val/accuracy']:.3f} [0.41 0.72] |" in text
    for name in re.findall(r"\((plots/[^)]+)\)", text):
        assert (folder / name).is_file()


def test_plots_in_both_forms(folder):
    names = {file.stem for file in (folder / "plots").iterdir()}
    assert names == {
        "accuracy",
        "parts-langgame-val",
        "distance-langgame-val-uniform0.5",
        "training-train-loss",
        "training-validation-loss",
        "training-mcq-langgame-val-normalized_accuracy",
    }
    for name in names:
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / "plots" / f"{name}.svg").read_text()


def test_the_papers_lines_are_drawn_where_they_apply():
    drawn = {name: figure.axes[0] for name, _, figure in plots.figures(ROWS, RUNS)}
    texts = [text.get_text().strip() for text in drawn["training-mcq-langgame-val-normalized_accuracy"].texts]
    assert texts == ["StochasTok 1.00", "BPE-dropout 0.80", "deterministic 0.65", "no pretraining 0.05"]
    assert not drawn["training-validation-loss"].texts
    first, *_ = drawn["training-mcq-langgame-val-normalized_accuracy"].lines
    assert first.get_ydata().tolist() == [0.0, 0.4]


def test_where_the_paper_reports_something():
    assert paper_values("mcq/cute/normalized_accuracy")[0] == "Fig. 4"
    assert paper_values("math_generation/val/character/exact_match")[0] == "Fig. 8"
    for name in ("mcq/cute-val/normalized_accuracy", "mcq/arc/normalized_accuracy", "validation/loss"):
        assert paper_values(name) == ("", [])


def test_the_same_results_give_the_same_files(folder, tmp_path):
    pair = comparisons.paired_json(ROWS[0], ROWS[1], comparisons.paired(*ROWS))
    write_report(tmp_path, ROWS, RUNS, command="stochastok eval <a> b", comparisons=[pair])
    for file in folder.rglob("*.*"):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / file.relative_to(folder)).read_bytes(), file


def test_a_checkpoint_alone_without_a_run(tmp_path):
    bare = Row("other", None, {"bits_per_byte/text": 2.5}, {"bits_per_byte/text": 100})
    write_report(tmp_path, [bare], {}, command="x")
    assert to_csv([bare]).splitlines()[1] == ",,bits_per_byte/text,2.5,,,100"
    assert not list((tmp_path / "plots").iterdir())


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="plots need matplotlib; pip install"):
        plots.require_matplotlib()

"""Training runs in a report: their axes, cards, differences and curves; and the questions that it shows."""

import dataclasses
import json
import sys

import numpy as np
import pytest

import stochastok_cli.cli.runs  # noqa: F401 (registers the subcommand)
from stochastok_cli.cli.app import main
from stochastok_cli.evaluation.answers import Answers
from stochastok_cli.evaluation.results import EvalResult
from stochastok_cli.report.plots import COLORS
from stochastok_cli.report.questions import counts_text, kind_text, question_examples
from stochastok_cli.report.rendering import to_html
from stochastok_cli.report.run_card import ROWS, run_tables
from stochastok_cli.report.runs import ReportedRun, labels_of_curves, read_reported_run
from stochastok_cli.report.training_plots import curve_names, series_of, smooth, training_plots
from tests.training.test_runs import START, write_run

TOKENS = 2048
"""Tokens of an iteration of the configuration `quickstart`."""


def logged(iteration: int, tokens_per_second: float | None = 1024.0, loss: float | None = 4.0) -> dict:
    return {"iteration": iteration, "train/loss": loss, "train/tokens_per_second": tokens_per_second}


def test_the_axes_of_a_run(tmp_path):
    records = [
        {"iteration": 0, "validation/loss": 8.0},
        logged(2),
        {"iteration": 3, "validation/loss": 7.0},
        logged(4, 2048.0),
        {"iteration": 4, "validation/loss": 6.0},
    ]
    run = read_reported_run(write_run(tmp_path / "a", records=records, done=4), "a")
    assert run.x_values("iteration") == [0, 2, 3, 4, 4]
    assert run.x_values("tokens") == [0, 2 * TOKENS, 3 * TOKENS, 4 * TOKENS, 4 * TOKENS]
    assert run.x_values("time") == [0, 4, 5, 6, 6]  # 2 iterations at half an iteration a second, 2 at one
    x, y = series_of(run, "validation/loss", "time")
    assert (x.tolist(), y.tolist()) == ([0, 5, 6], [8, 7, 6])
    bare = dataclasses.replace(run, summary=None)
    assert bare.x_values("tokens") is None and bare.x_values("time") is None
    assert dataclasses.replace(run, records=[logged(2, None)]).x_values("time") is None


def test_the_smoothed_curve():
    assert smooth(np.full(100, 3.0)) == pytest.approx(np.full(100, 3.0))  # also at the ends
    records = np.arange(500)
    weights = smooth((records == 250).astype(float))
    assert weights.sum() == pytest.approx(1) and (weights * records).sum() == pytest.approx(250)
    assert (weights * (records - 250) ** 2).sum() ** 0.5 == pytest.approx(10, rel=0.01)  # 2% of the records


def test_what_the_card_takes_from_the_data(tmp_path):
    data = tmp_path / "data" / "data_as_memmaps" / "sample-tokenized"
    data.mkdir(parents=True)
    tree = {
        "format": 1,
        "tokenizer": {"name": "sample2k", "fingerprint": "cd99", "size": 2048},
        "splits": {"train": {"documents": 30, "tokens": 1234}},
        "made_from": {"name": "sample"},
        "files": {},
    }
    (data / "manifest.json").write_text(json.dumps(tree))
    paths = f"general.paths.data_dir={tmp_path / 'data'}"
    folders = [write_run(tmp_path / name, paths, done=done, starts=False) for name, done in (("a", None), ("b", 8))]
    _, cards, _ = run_tables([read_reported_run(folder, folder.name) for folder in folders])
    rows = {name.value: [cell.value for cell in cells] for name, *cells in cards.rows}
    assert rows["size of the data"] == ["1,234 tokens in 30 documents", "–"]  # the second was trained on other bytes
    assert (rows["tokenizer"][0], rows["data made from"][0]) == ("sample2k, 2,048 entries", "sample")
    assert rows["method and p"] == ["none", "–"]
    assert ["its data" in note or "made again since" in note for note in cards.notes] == [True, False]


def test_the_card_of_a_run(tmp_path):
    folder = write_run(tmp_path / "a", "general.seed=7", records=[logged(8)], done=8, starts=False)
    run = read_reported_run(folder, "a")
    [card] = run_tables([run])
    rows = {name.value: cell.value for name, cell in card.rows}
    assert rows["seed"] == "7" and rows["tokens seen"] == f"{8 * TOKENS:,}" and rows["iterations"] == "8 of 8"
    assert (rows["data"], rows["fingerprint of the data"]) == ("sample-tokenized", "f")
    assert rows["training time"] == "16 s, without evaluating and saving"
    assert "device" not in rows and "Not recorded by these runs: devices" in card.notes[1]
    assert rows["method and p"] == "–" and "expansion of its data is unknown" in card.notes[0]
    again = dataclasses.replace(START, time="2026-11-28T00:00:00Z", iteration=4, device="CPU", ranks=1)
    [card] = run_tables([dataclasses.replace(run, starts=[START, again])])
    rows = {name.value: cell.value for name, cell in card.rows}
    assert rows["device"] == "2 × NVIDIA H100, fused kernels; CPU, fused kernels"
    assert rows["trained parameters"] == "988,288" and rows["versions"] == "stochastok 0.1.0, PyTorch 2.13.0"
    assert (rows["started"], rows["continued at iteration"]) == ("2026-11-27 08:22 UTC", "4 (2026-11-28 00:00 UTC)")
    assert len(card.notes) == 1


def test_the_cards_say_what_can_not_be_read(tmp_path):
    torn = write_run(tmp_path / "torn", "trainer.dataset.expand_prop=0.5", "trainer.dataset.expand_schedule=linear")
    (torn / "metrics.jsonl").open("a").write("no record\n")
    (write_run(tmp_path / "lost", done=8, starts=False) / "config.yaml").write_text("model: [")
    (write_run(tmp_path / "damaged") / "config.yaml").write_text("model: [")
    runs = [read_reported_run(tmp_path / name, name) for name in ("torn", "lost", "damaged")]
    _, cards, differences = run_tables(runs)
    rows = {name.value: [cell.value for cell in cells] for name, *cells in cards.rows}
    assert rows["state"] == ["stopped, damaged", "complete, damaged", "damaged"]
    assert rows["method and p"] == ["stochastok, p = 0.5 to 0, linear", "–", "–"]  # there are no data to look at
    assert [name for name in ROWS if name in rows] == list(rows)
    assert "metrics.jsonl: 1 of 5 lines are damaged and left out" in cards.notes[0]
    assert sum("config.yaml is not valid YAML" in note for note in cards.notes) == 2
    assert len(differences.columns) == 3


@pytest.mark.parametrize(
    ("options", "done", "shown"),
    [
        ("", 40, "0.003 to 0.00267, cosine toward 0.0003, 5 of warm-up"),  # the cosine is that of 150 iterations
        ("lr_decay_iters=35", 41, "0.003 to 0.0003, cosine, 5 of warm-up"),
        ("", 3, "rising to 0.003, 3 of 5 of warm-up"),
        ("", 0, "rising to 0.003, 0 of 5 of warm-up"),
        (
            "trainer.optimizer.name=muon",
            40,
            "0.003 to 0.00267, cosine toward 0.0003, 5 of warm-up; Muon's 6.67 times that",
        ),
        ("warmup_iters=0", 0, "0.003 to 0.003, cosine toward 0.0003, 0 of warm-up"),
    ],
)
def test_the_card_has_the_learning_rate_that_a_run_has_reached(tmp_path, options, done, shown):
    settings = ["max_iters=50", "lr_decay_iters=150", "warmup_iters=5", *options.split()]
    settings = [one if one.startswith("trainer.") else f"trainer.training.{one}" for one in settings]
    folder = write_run(tmp_path / "a", *settings, records=[logged(done)])
    [card] = run_tables([read_reported_run(folder, "a")])
    assert {name.value: cell.value for name, cell in card.rows}["learning rate"] == shown


def test_where_five_runs_differ(tmp_path):
    seeds = (0, 1, 2, 2, 0)
    runs = [
        read_reported_run(write_run(tmp_path / f"r{i}", f"general.seed={seed}", done=8), f"r{i}")
        for i, seed in enumerate(seeds)
    ]
    tables = run_tables(runs)
    assert [(table.section, len(table.columns) - 1) for table in tables] == [
        ("Overview", 8),
        ("Run cards", 4),
        ("Run cards", 1),
        ("What differs", 4),
        ("What differs", 1),
    ]
    overview = {column.heading: cell.value for column, cell in zip(tables[0].columns, tables[0].rows[0], strict=True)}
    assert overview["iteration"] == runs[0].summary.shown_iterations and " of " in overview["iteration"]
    assert '<th class="name">state</th>' in to_html(tables[0]) and '<td class="name" data-column="state">' in to_html(
        tables[0]
    )
    rows = [[str(cell) for cell in row] for table in tables[3:] for row in table.rows]
    assert rows == [["general.seed", "0", "1", "2", "2"], ["general.seed", "0"]]
    *others, equal = run_tables([runs[2]] * 5)
    assert "What differs" not in [table.section for table in others]  # it is said once, of however many runs
    assert not equal.rows and equal.notes == ["The configurations are equal."]


def test_runs_of_different_datasets_are_told_apart(tmp_path):
    record = {"iteration": 8, "train/loss": 4.0, "validation/bits_per_byte": 2.0, "bits_per_byte/owt-tokenized": 2.0}
    folders = {
        name: write_run(tmp_path / name, f"trainer.dataset.name={dataset}", records=[record], done=8)
        for name, dataset in (("a", "one"), ("b", "two"), ("c", "two"))
    }
    runs = [read_reported_run(folder, name) for name, folder in folders.items()]
    overview, *_ = run_tables(runs)
    assert [[cell.value for cell in row[:2]] for row in overview.rows] == [["a", "one"], ["b", "two"], ["c", "two"]]
    plots = {plot.name: plot for plot in training_plots(runs)}
    legend = [text.get_text() for text in plots["training-validation-bits_per_byte"].figure.legends[0].get_texts()]
    assert legend == ["a (one)", "b (two)", "c (two)"]
    of_same_text = "any two tokenizations of the same text"
    assert {name: any(of_same_text in note for note in plot.notes) for name, plot in plots.items()} == {
        "training-validation-bits_per_byte": True,
        "training-bits_per_byte-owt-tokenized": False,  # the text is the same for all runs
        "training-train-loss": True,
    }
    assert labels_of_curves(runs) == legend and "The runs have different datasets" in overview.notes[1]
    same, *_ = run_tables(runs[1:])
    assert len(same.notes) == 1
    [plot, *_] = training_plots(runs[1:])
    assert plot.notes == () and plot.figure.axes[0].get_legend_handles_labels()[1] == ["b", "c"]


def test_what_curves_say_of_values_that_are_not_there():
    runs = [
        ReportedRun("a", [logged(1), logged(2, loss=None), logged(3)]),
        ReportedRun("b", [{"iteration": 3, "validation/loss": 2.0}]),
    ]
    assert curve_names(runs) == ["validation/loss", "train/loss", "train/tokens_per_second"]
    plots = {plot.name: plot for plot in training_plots(runs)}
    assert "1 value that was not finite leaves a gap." in plots["training-train-loss"].caption
    assert "Without 1 of 2 runs" in plots["training-train-loss"].caption
    assert np.isnan(plots["training-train-loss"].figure.axes[0].lines[0].get_ydata()).tolist() == [False, True, False]
    assert list(training_plots(runs, "tokens")) == []


def test_a_high_start_does_not_press_curves_flat():
    run = ReportedRun("a", [{"iteration": i, "validation/loss": 100.0 if i == 0 else 4 - i / 10} for i in range(11)])
    [plot] = training_plots([run])
    low, high = plot.figure.axes[0].get_ylim()
    assert 2.5 < low < 3 and 3.9 < high < 4.5 and "The first values lie above the axis." in plot.caption


@pytest.mark.parametrize(
    ("values", "is_left_out"),
    [
        ([100.0, *np.linspace(4, 3, 10)], True),
        ([1.0, 100.0, *np.linspace(4, 3, 30)], True),  # the best value comes first, then a jump
        ([2.1, *np.linspace(8, 7.8, 10)], False),  # a rate that is too high for what training starts from
        ([100.0, 4.0], False),
        ([100.0, 4.0, 3.0], False),
    ],
)
def test_what_is_left_out_of_a_curve_lies_above_the_axis(values, is_left_out):
    [plot] = training_plots([ReportedRun("a", [{"iteration": i, "validation/loss": y} for i, y in enumerate(values)])])
    low, high = plot.figure.axes[0].get_ylim()
    assert low < min(values)
    assert (high < max(values)) == is_left_out == ("The first values lie above the axis." in plot.caption)


def test_a_run_has_the_color_of_its_checkpoint():
    runs = [ReportedRun("a", [logged(1)], place=2), ReportedRun("b", [logged(1)], place=0)]
    loss, _ = training_plots(runs)
    assert [line.get_color() for line in loss.figure.axes[0].lines] == [COLORS[2], COLORS[0]]


def test_accuracy_is_drawn_on_the_scale_of_chance_where_that_is_recorded():
    names = ["mcq/a/accuracy", "mcq/a/normalized_accuracy", "mcq/b/accuracy"]
    assert curve_names([ReportedRun("a", [{"iteration": 1, **dict.fromkeys(names, 0.5)}])]) == names[1:]


def test_every_accuracy_has_a_curve_and_what_says_how_sure_a_value_is_has_none():
    accuracies = ["generation/cute/prefix_match", "math_generation/val/base/answer_found", "mcq/a/kind/accuracy"]
    bits = ["bits_per_byte/owt-tokenized", "bits_per_byte/owt-tokenized/uniform0.5/canonical"]
    others = ["bits_per_byte/owt-tokenized/uniform0.5/effective_sample_size", "mcq/a/path_confidence", "mcq/a/growth"]
    record = {"iteration": 1, **dict.fromkeys([*others, *accuracies, *bits], 0.5)}
    assert curve_names([ReportedRun("a", [record])]) == [*bits, *accuracies]


@pytest.fixture
def run_runs(monkeypatch, capsys):
    """Runs `stochastok runs`; returns its exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["stochastok", "runs", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (ended.value.code, *capsys.readouterr())

    return run


def test_the_report_of_the_command(run_runs, tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        write_run(tmp_path / name, f"general.seed={seed}", records=[logged(4), logged(8)], done=8)
    code, out, err = run_runs(tmp_path, "--report", tmp_path / "out", "--json")
    assert (code, err) == (0, f"report: {tmp_path / 'out' / 'report.html'}\n")
    lines = [json.loads(line) for line in out.splitlines()]
    assert json.loads((tmp_path / "out" / "runs.json").read_text()) == lines
    page = (tmp_path / "out" / "report.html").read_text()
    for title in ("Overview", "Run cards", "What differs", "Curves", "over training time"):
        assert f">{title}<" in page
    assert {file.name for file in (tmp_path / "out" / "plots").iterdir()} == {
        f"training-train-{name}.{kind}" for name in ("loss", "tokens_per_second") for kind in ("png", "svg")
    }
    code, *_ = run_runs(tmp_path, "--compare", "a", "c", "--report", tmp_path / "pair")
    assert code == 0 and len(json.loads((tmp_path / "pair" / "runs.json").read_text())) == 2
    assert "| general.seed | 0 | 2 |" in (tmp_path / "pair" / "report.md").read_text()
    code, _, err = run_runs(tmp_path, "--report", tmp_path / "a" / "config.yaml")
    assert code == 2 and "config.yaml is a file" in err


# ------------------------------------------------------------------------------------------------ questions


def answered(label: str, right: list[bool], *, generated: bool = False) -> EvalResult:
    questions = [f"question {i}" for i in range(len(right))]
    options = [[f"right {i}"] if generated else [f"right {i}", "wrong", "other"] for i in range(len(right))]
    answers = [of_question[0] if is_right else "wrong" for of_question, is_right in zip(options, right, strict=True)]
    probabilities = None if generated else [0.5] * len(right)
    one = Answers("mcq", "arc", "", questions, options, answers, right, probabilities)
    return EvalResult(label, label, None, answers=[one])


def test_which_questions_are_shown():
    a = answered("a", [i < 20 for i in range(40)])
    b = answered("b", [i % 2 == 0 for i in range(40)])
    [examples] = question_examples([a, b])
    assert examples.counts == {"all": 10, "some": 20, "none": 10}
    assert [kind_text(one) for one in examples.examples] == 2 * ["right by both"] + 4 * ["right by 1 of 2"] + 2 * [
        "right by none"
    ]
    for one in examples.examples:
        assert one.question == f"question {one.row - 1}" and one.options[0] == f"right {one.row - 1}"
        assert [answer.is_correct for answer in one.answers] == [one.row <= 20, one.row % 2 == 1]
        assert all(one.options[answer.option] == "wrong" for answer in one.answers if not answer.is_correct)
    assert counts_text(examples).startswith("Of 40 questions: 10 right by both, 20 by one, 10 by neither.")
    assert question_examples([a, b]) == [examples]


def test_generated_answers_and_other_questions():
    [examples] = question_examples([answered("a", [False, True], generated=True)])
    assert [(one.row, list(one.options)) for one in examples.examples] == [
        (2, ["right 1"]),
        (1, ["right 0", "wrong"]),
    ]
    groups = question_examples([answered("a", [True]), answered("b", [True, False])])  # other questions, no comparison
    assert [len(group.examples[0].answers) for group in groups] == [1, 1]

"""`stochastok runs`: runs as their files describe them, and where two configurations differ."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import get_args

import pytest
from preloaded_python import run_python, run_stochastok

from stochastok_cli.cli import runs as cli
from stochastok_cli.cli.runs import _best_first, _dataset_note, _print_runs
from stochastok_cli.config import load_config
from stochastok_cli.errors import Notice, UserError
from stochastok_cli.json_files import json_bytes
from stochastok_cli.manifest import read_manifest
from stochastok_cli.report.runs import read_reported_run
from stochastok_cli.training.loggers.jsonl import RunStart
from stochastok_cli.training.run_dir import is_running, run_lock
from stochastok_cli.training.run_summary import State
from stochastok_cli.training.runs import find_run, find_runs
from stochastok_cli.training.train import train

RECORDS = [
    {"iteration": 2, "train/loss": 5.0, "train/bits_per_byte": 2.5},
    {"iteration": 4, "train/loss": 4.0, "train/bits_per_byte": 2.0},
    {"iteration": 4, "validation/loss": 4.5, "validation/bits_per_byte": 2.25, "mcq/arc/accuracy": 0.5},
    {"iteration": 8, "validation/loss": 4.75, "validation/bits_per_byte": 2.375, "mcq/arc/accuracy": None},
]


START = RunStart("2026-11-27T08:22:01Z", 0, 988288, "NVIDIA H100", 2, "fused", "0.1.0", "2.13.0")
OLD_START = {key: value for key, value in dataclasses.asdict(START).items() if key not in ("parent", "data")}


def write_run(folder: Path, *overrides: str, records=RECORDS, done: int | None = None, starts: bool = True) -> Path:
    """A run as training leaves it, with an empty model, on canonical data; without `starts` as of an old version."""
    config = load_config("quickstart", ["trainer.training.max_iters=8", *overrides])
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config.to_yaml())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if starts:
        data = {"name": config.trainer.dataset.name, "fingerprint": "f", "method": None, "p": None}
        (folder / "starts.jsonl").write_text(json.dumps(OLD_START | {"data": data}) + "\n")
    if done is not None:
        checkpoint = folder / f"step_{done}"
        checkpoint.mkdir()
        for name in ("model.safetensors", "optimizer.safetensors"):
            (checkpoint / name).write_bytes(b"")
        state = {
            "format": 1,
            "iteration": done,
            "evaluation_pending": False,
            "validation_loss": None,
            "data": {"name": config.trainer.dataset.name, "fingerprint": "f"},
            "config": config.to_dict(),
            "files": dict.fromkeys(("model.safetensors", "optimizer.safetensors"), 0),
        }
        (checkpoint / "training_state.json").write_bytes(json_bytes(state))
    return folder


def test_a_run_is_locked_by_whatever_path_it_is_reached(tmp_path):
    folder = write_run(tmp_path / "disk" / "run", done=4)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(folder)
    for locked, other in ((folder, tmp_path / "runs" / "link"), (tmp_path / "runs" / "link", folder)):
        with run_lock(locked):
            assert is_running(locked) and is_running(other)
            with pytest.raises(UserError, match="another process is training in"), run_lock(other):
                pass
        assert not is_running(other)


def test_the_state_of_a_run(tmp_path):
    write_run(tmp_path / "complete", done=8)
    write_run(tmp_path / "deeper" / "stopped", done=4)
    write_run(tmp_path / "begun", records=[])
    running = write_run(tmp_path / "running", done=8)
    with run_lock(running):
        states = {run.name: (run.state, run.iteration, run.max_iters) for run in find_runs(tmp_path)}
        listed = run_stochastok("runs", tmp_path, "--state", "stopped", "--json").stdout.splitlines()
    assert {json.loads(line)["run"] for line in listed} == {"deeper/stopped", "begun"}
    assert [*cli.State] == [*get_args(State)]
    assert states == {
        "complete": ("complete", 8, 8),
        "deeper/stopped": ("stopped", 8, 8),
        "begun": ("stopped", 0, 8),
        "running": ("running", 8, 8),
    }
    assert find_run("running", tmp_path).state == "complete"
    none = run_stochastok("runs", tmp_path, "--state", "running")
    assert (none.returncode, none.stdout, none.stderr) == (
        0,
        "",
        f"there are no runs under {tmp_path} in the state running\n",
    )
    assert not (tmp_path / ".complete.lock").exists()


def test_a_run_that_was_trained(configured, tmp_path):
    config = configured("trainer.training.max_iters=2", "trainer.dataset.expand_prop=0.5")
    trained = train(config, run_name="a")
    (run,) = find_runs(tmp_path / "runs")
    assert (run.state, run.checkpoint, run.iteration) == ("complete", trained.checkpoint, 2)
    assert (run.config, run.dataset, run.method, run.p) == (config, "sample-tokenized", "stochastok", 0.5)
    assert run.starts[0].data == {**run.data, "method": None, "p": None}
    assert trained.metrics.items() <= run.metrics.items()
    assert run.best["validation/loss"].value == trained.metrics["validation/loss"]
    (tmp_path / "runs" / "a" / "step_2" / "model.safetensors").write_bytes(b"")
    assert find_run("a", tmp_path / "runs").state == "stopped"


def test_the_method_of_the_data_is_that_which_the_run_was_trained_on(data_dir, tmp_path, monkeypatch):
    paths = f"general.paths.data_dir={tmp_path / 'data'}", "trainer.dataset.name=d"
    dataset = tmp_path / "data" / "data_as_memmaps" / "d"
    dataset.mkdir(parents=True)
    tree = json.loads((data_dir / "data_as_memmaps" / "sample-tokenized" / "manifest.json").read_text())
    tree["options"] |= {"method": "uniform", "p": 0.25}
    (dataset / "manifest.json").write_bytes(json_bytes(tree))
    fingerprint = read_manifest(dataset).fingerprint

    write_run(tmp_path / "runs" / "windows", f"general.paths.data_dir={data_dir}", "trainer.dataset.expand_prop=0.5")
    write_run(
        tmp_path / "runs" / "rule", f"general.paths.data_dir={data_dir}", "trainer.dataset.expand_method=character"
    )
    recorded = write_run(tmp_path / "runs" / "recorded", *paths, done=8)
    data = {"name": "d", "fingerprint": "f", "method": "stochastok", "p": 0.1}
    lines = [{**OLD_START, "data": {**data, "fingerprint": "g", "p": 0.9}}, {**OLD_START, "data": data}]
    (recorded / "starts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    no_manifest = write_run(tmp_path / "runs" / "no manifest", *paths)
    (no_manifest / "starts.jsonl").write_text(json.dumps({**OLD_START, "data": {"name": "d", "fingerprint": "f"}}))
    write_run(tmp_path / "runs" / "not begun", *paths, starts=False)
    write_run(tmp_path / "runs" / "old, same data", *paths, done=8, starts=False)
    state = tmp_path / "runs" / "old, same data" / "step_8" / "training_state.json"
    state.write_text(state.read_text().replace('"fingerprint": "f"', f'"fingerprint": "{fingerprint}"'))
    write_run(tmp_path / "runs" / "old, other data", *paths, done=8, starts=False)

    def expansions() -> dict:
        return {run.name: (run.method, run.p, run.is_expansion_known) for run in find_runs(tmp_path / "runs")}

    always = {
        "windows": ("stochastok", 0.5, True),
        "rule": ("character", None, True),
        "recorded": ("stochastok", 0.1, True),
        "no manifest": (None, None, False),
        "old, other data": (None, None, False),
    }
    made = ("uniform", 0.25, True)
    assert expansions() == {**always, "not begun": made, "old, same data": made}
    by_name = {run.name: run for run in find_runs(tmp_path / "runs")}
    assert [run.name for run in by_name.values() if run.problems] == ["old, other data"]
    other = by_name["old, other data"]
    assert "is unknown" in other.problems[0] and "was made again since" in other.problems[0]
    assert other.shown_state == "complete"  # nothing of the run is damaged
    (dataset / "manifest.json").unlink()
    assert expansions() == {**always, "not begun": (None, None, False), "old, same data": (None, None, False)}
    assert "has no manifest" in find_run("old, same data", tmp_path / "runs").problems[0]
    dataset.rmdir()
    shown = run_stochastok("runs", tmp_path / "runs", COLUMNS="200")
    assert shown.stderr.count("is unknown") == shown.stderr.count("its data are not in") == 2
    assert shown.stdout.count("unknown") == 4


def test_the_iteration_of_the_checkpoint_is_shown_where_a_killed_run_was_further(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "killed", "trainer.training.max_iters=24", done=4)
    write_run(tmp_path / "new", "trainer.training.max_iters=24", records=RECORDS[:1])
    write_run(tmp_path / "whole", done=8)
    shown = {run.name: run.shown_iterations for run in find_runs(tmp_path)}
    assert shown == {"killed": "8 of 24, checkpoint 4", "new": "2 of 24, no checkpoint", "whole": "8 of 8"}
    with run_lock(tmp_path / "killed"):
        assert find_run("killed", tmp_path).shown_iterations == "8 of 24"
    for columns, expected in ((60, ["8 of 24, checkpoint 4"]), (200, ["saved 4", "saved 0"])):
        monkeypatch.setenv("COLUMNS", str(columns))
        _print_runs(find_runs(tmp_path), "train/loss")
        out = capsys.readouterr().out
        assert all(text in out for text in expected)
        assert "saved 8" not in out


def test_a_p_that_falls_is_shown_so(tmp_path, capsys):
    options = ("trainer.dataset.expand_prop=0.3", "trainer.dataset.expand_schedule=linear")
    write_run(tmp_path / "a", *options, done=8)
    _print_runs(find_runs(tmp_path), "train/loss")
    assert "stochastok 0.3 to 0" in capsys.readouterr().out


def test_what_is_no_run_is_ignored(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("a: 1\n")
    (tmp_path / "model" / "step_x").mkdir(parents=True)
    write_run(tmp_path / ".hidden")
    assert find_runs(tmp_path) == []
    listed = run_stochastok("runs", tmp_path)
    assert (listed.returncode, listed.stdout) == (0, "")
    assert listed.stderr == f"there are no runs under {tmp_path}\n"


def test_damaged_files_are_named(tmp_path):
    lines = write_run(tmp_path / "lines", done=8) / "metrics.jsonl"
    lines.write_bytes(b'{"iteration": 1, "train/l\n' + lines.read_bytes() + b'{"iteration": 9')  # the end is torn
    (empty := write_run(tmp_path / "empty", done=8) / "metrics.jsonl").write_bytes(b"")
    (write_run(tmp_path / "config", done=4) / "config.yaml").write_text("model: [")
    (write_run(tmp_path / "both") / "config.yaml").write_bytes(b"\xff")
    (write_run(tmp_path / "lost", done=8) / "config.yaml").unlink()
    starts = write_run(tmp_path / "starts", done=8) / "starts.jsonl"
    starts.write_text('{"time": "2026\n' + starts.read_text())
    runs = {run.name: run for run in find_runs(tmp_path)}
    assert {name: run.state for name, run in runs.items()} == {
        "starts": "complete",
        "lines": "complete",
        "empty": "complete",
        "config": "stopped",  # the checkpoint has the configuration as well
        "both": "damaged",
        "lost": "complete",
    }
    assert runs["lines"].problems == [f"{lines}: 2 of 6 lines are damaged and left out"]
    with run_lock(lines.parent):  # whose process is about to end the last line
        assert find_run("lines", tmp_path).problems == [f"{lines}: 1 of 5 lines are damaged and left out"]
    assert runs["empty"].problems == [f"{empty} is empty"]
    assert runs["starts"].problems == [f"{starts}: 1 of 2 lines are damaged and left out"]
    assert (len(runs["starts"].starts), runs["starts"].is_damaged) == (1, True)
    assert runs["lines"].metrics["validation/loss"] == 4.75
    listed = run_stochastok("runs", tmp_path, COLUMNS="100")
    assert listed.returncode == 0
    assert listed.stderr.count("note: ") == 8
    assert listed.stderr.count("what is shown is the configuration of its latest checkpoint") == 2
    assert "Traceback" not in listed.stderr
    assert listed.stdout.count("damaged") == 6
    for state, expected in (("damaged", set(runs)), ("complete", {"starts", "lines", "empty", "lost"})):
        found = [
            json.loads(line)
            for line in run_stochastok("runs", tmp_path, "--state", state, "--json").stdout.splitlines()
        ]
        assert {run["run"] for run in found} == expected
        assert all(run["damaged"] for run in found)
    with pytest.raises(UserError, match="both can't be compared"):
        find_run("both", tmp_path)


def test_a_run_that_has_lost_its_configuration_and_all_checkpoints_is_listed(tmp_path):
    (write_run(tmp_path / "lost") / "config.yaml").unlink()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metrics.jsonl").write_text("")  # any program may have this
    (run,) = find_runs(tmp_path)
    assert (run.name, run.state, run.iteration) == ("lost", "damaged", 8)
    assert run.problems == [f"{tmp_path / 'lost' / 'config.yaml'} is missing"]
    assert run.to_json()["damaged"]
    write_run(tmp_path / "whole", done=8)
    assert [run.is_in("damaged") for run in find_runs(tmp_path)] == [run.name == "lost" for run in find_runs(tmp_path)]


def test_folders_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    secret = write_run(tmp_path / "runs" / "secret", done=8)
    write_run(tmp_path / "runs" / "open", done=8)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and not str(path).startswith(str(secret)))
    with pytest.warns(Notice, match="secret can't be read: Permission denied"):
        assert [run.name for run in find_runs(tmp_path / "runs")] == ["open"]
    with pytest.raises(UserError, match="secret can't be read: Permission denied"):
        find_run("secret", tmp_path / "runs")


def test_a_report_is_made_of_what_can_be_read(tmp_path):
    run = write_run(tmp_path / "a", done=8)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()  # as unreadable as a file without the right to read it, also for root
    reported = read_reported_run(run, "a", tmp_path)
    assert reported.records == []
    assert any("metrics.jsonl can't be read" in problem for problem in reported.summary.problems)
    assert reported.summary.shown_state == "complete, damaged"
    nothing = run_stochastok("runs", tmp_path / "a" / "step_8", "--report", tmp_path / "report")
    assert (nothing.returncode, "to report" in nothing.stderr) == (2, True)


def test_the_list_fits_100_columns_and_has_everything(tmp_path):
    name = "instruction_tuning-langgame-from-pretraining-openwebtext-tokenized-stochastok0.1"
    overrides = ["trainer.dataset.expand_prop=0.1", "trainer.dataset.name=openwebtext-tokenized-stochastok0.1"]
    write_run(tmp_path / name, *overrides, "trainer.checkpoint_name=checkpoints/first/step_30000", done=4)
    write_run(tmp_path / "b", records=RECORDS[:1])
    shown = run_stochastok("runs", tmp_path, COLUMNS="100").stdout
    assert max(map(len, shown.splitlines())) <= 100
    for text in ("stochastok 0.1", "4.0000", "4.7500", "2.3750", "2.2500", "at 4", "stopped, ", " s\n"):
        assert text in shown, text
    without_width = {key: value for key, value in os.environ.items() if key != "COLUMNS"}  # pytest-xdist sets it
    piped = ("-m", "stochastok_cli", "runs", tmp_path, "--metric", "mcq/arc/accuracy")
    wide = run_python(*piped, env=without_width).stdout
    assert wide.index(name) < wide.index("\nb ")
    assert "first/step_30000" in wide
    assert "0.5000" in wide
    rows = [json.loads(line) for line in run_stochastok("runs", tmp_path, "--json").stdout.splitlines()]
    row = next(row for row in rows if row["run"] == name)
    assert (row["state"], row["parent"], row["p"]) == ("stopped", "checkpoints/first/step_30000", 0.1)
    assert row["best"]["validation/loss"] == {"value": 4.5, "iteration": 4}
    assert row["best"]["mcq/arc/accuracy"] == {"value": 0.5, "iteration": 4}
    assert row["metrics"]["mcq/arc/accuracy"] is None


@pytest.mark.parametrize("columns", [40, 60, 70, 80, 200])
def test_names_are_whole_in_any_terminal(tmp_path, monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    names = ["a" * 12, "b" * 60]
    dataset = "openwebtext-tokenized-stochastok0.1"
    for name in names:
        write_run(tmp_path / name, f"trainer.dataset.name={dataset}", "trainer.checkpoint_name=first/step_2")
    _print_runs(find_runs(tmp_path), "mcq/arc/accuracy")
    shown = capsys.readouterr().out
    for text in (*names, dataset, "step_2", "4.0000", "4.7500", "2.0000", "2.3750", "0.5000", "stopped", " s"):
        assert text in shown
    lines = [line.rstrip() for line in shown.splitlines()]
    if columns < 200:  # a few lines of keys and values
        assert set(names) <= set(lines)
        assert max(len(line) for line in lines if dataset not in line and line not in names) <= 40
    else:
        assert {len(line) for line in lines if "─" in line} == {max(map(len, lines))}


def test_a_note_where_runs_that_are_ranked_have_different_datasets(tmp_path):
    for name, dataset in (("a", "one"), ("b", "two"), ("c", "two")):
        write_run(tmp_path / name, f"trainer.dataset.name={dataset}", records=RECORDS)
    shown = run_stochastok("runs", tmp_path, "--metric", "validation/bits_per_byte", "--json")
    assert shown.stderr == (
        "note: the runs have different datasets (two, one): validation/bits_per_byte compares only runs on the same "
        "text, in whatever tokenization\n"
    )
    runs = find_runs(tmp_path)
    assert _dataset_note(runs, "train/loss").endswith("train/loss compares only runs on the same tokens")
    assert _dataset_note(runs, "mcq/arc/accuracy") == ""  # of one benchmark for all of them
    assert _dataset_note([run for run in runs if run.name != "a"], "train/loss") == ""
    assert run_stochastok("runs", tmp_path).stderr == ""  # these are not ranked


def test_the_best_of_any_metric_that_has_one(tmp_path):
    write_run(tmp_path / "a", records=[{"iteration": 2, "train/loss": 5.0, "train/learning_rate": 1.0}])
    write_run(
        tmp_path / "b",
        records=[{"iteration": 4, "train/loss": 4.0, "mcq/arc/accuracy": 0.5, "bits_per_byte/owt-tokenized": 1.0}],
    )
    assert next(iter(_best_first(find_runs(tmp_path), "bits_per_byte/owt-tokenized"))).name == "b"
    odd = write_run(tmp_path / "c", records=[])
    numbers = ("NaN", "-Infinity", "1e999", "-" + "9" * 400, "4.5", "4.5")
    text = "".join(f'{{"iteration": {i}, "train/loss": {number}}}\n' for i, number in enumerate(numbers))
    (odd / "metrics.jsonl").write_text(text + '{"iteration": 9, "validation/loss": NaN, "train/loss": Infinity}\n')
    listed = run_stochastok("runs", tmp_path, "--metric", "train/loss", "--json")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in listed.stdout.splitlines()]
    best = [(row["run"], row["best"]["train/loss"]["value"]) for row in rows]
    assert best == [("b", 4.0), ("c", 4.5), ("a", 5.0)]
    assert rows[1]["best"] == {"train/loss": {"value": 4.5, "iteration": 4}}
    assert rows[1]["metrics"]["train/loss"] is None
    limited = run_stochastok("runs", tmp_path, "--metric", "train/loss", "--json", "--limit", "2")
    assert limited.stdout.splitlines() == listed.stdout.splitlines()[:2]
    assert next(iter(_best_first(find_runs(tmp_path), "mcq/arc/accuracy"))).name == "b"
    for metric, message in {
        "train/learning_rate": "has no best value, since neither less nor more of it is better",
        "train/los": "did you mean 'train/loss'?",
        "validation/loss": "no run has a finite value of the metric 'validation/loss'",
    }.items():
        with pytest.raises(UserError, match=re.escape(message)) as wrong:
            _best_first(find_runs(tmp_path), metric)
        assert str(wrong.value).endswith("there are: bits_per_byte/owt-tokenized, mcq/arc/accuracy, train/loss")


def test_two_configurations_are_compared(tmp_path):
    write_run(tmp_path / "a", done=8)
    text = (write_run(tmp_path / "b", "trainer.optimizer.lr=0.5", "general.seed=3") / "config.yaml").read_text()
    (tmp_path / "b" / "config.yaml").write_text(text.replace("    beta1: 0.9\n", ""))  # the default, as in a
    compared = json.loads(run_stochastok("runs", tmp_path, "--compare", "a", tmp_path / "b", "--json").stdout)
    assert compared["differences"] == [
        {"key": "trainer.optimizer.lr", "values": [find_run("a", tmp_path).config.trainer.optimizer.lr, 0.5]},
        {"key": "general.seed", "values": [0, 3]},
    ]
    shown = run_stochastok("runs", tmp_path, "--compare", "a", "b", COLUMNS="100").stdout
    assert [line.split()[0] for line in shown.splitlines()[2:]] == ["trainer.optimizer.lr", "general.seed"]
    equal = run_stochastok("runs", tmp_path, "--compare", "a", "a")
    assert (equal.returncode, equal.stdout, equal.stderr) == (0, "", "the configurations are equal\n")


def test_a_configuration_of_another_version_is_told_with_its_key(tmp_path):
    write_run(tmp_path / "a", done=8)
    file = write_run(tmp_path / "future", done=8) / "config.yaml"
    file.write_text(file.read_text() + "  novelty: 3\n")
    reason = f"{file} is not a configuration of this program: "
    problem = find_run("future", tmp_path).problems[0]
    assert problem.startswith(reason) and "general.novelty" in problem and "\n" not in problem
    compared = run_stochastok("runs", tmp_path, "--compare", "a", "future")
    first, *notes = compared.stderr.splitlines()
    assert first == "the configurations are equal, as far as they can be read"
    assert notes[0].startswith(f"note: {reason}") and "of its latest checkpoint" in notes[1]
    tree = json.loads(run_stochastok("runs", tmp_path, "--compare", "a", "future", "--json").stdout)
    assert len(tree["problems"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "the folder absent does not exist"),
        (["file"], "the folder file is a file"),
        ([".", "--compare", "a", "aa"], "no run 'aa', neither in . nor as a path; did you mean 'a'?"),
        ([".", "--compare", "a", "a", "--metric", "x"], "--metric would have no effect beside --compare"),
        ([".", "--state", "stoped"], "Invalid value for '--state': 'stoped' is not one of"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    write_run(tmp_path / "a")
    done = run_stochastok("runs", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1


def test_a_note_where_runs_that_are_ranked_were_validated_on_other_windows(tmp_path):
    for name, batches in (("a", 2), ("b", 2), ("c", 4)):
        options = ("trainer.training.batch_size=3", f"trainer.training.eval_iters={batches}")
        write_run(tmp_path / name, *options, records=RECORDS)
    shown = run_stochastok("runs", tmp_path, "--metric", "validation/bits_per_byte", "--json")
    note = (
        "the runs were validated on different numbers of windows (6, 12): validation/bits_per_byte differs by that, too"
    )
    assert shown.stderr == f"note: {note}\n"
    shutil.rmtree(tmp_path / "c")
    assert not run_stochastok("runs", tmp_path, "--metric", "validation/bits_per_byte", "--json").stderr

"""Resuming: N iterations and N more equal 2N, bit for bit on a CPU, dropout included."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from stochastok_cli.config import config_from_file, load_config
from stochastok_cli.errors import INTERRUPTED, STOPPED_WITH_CHECKPOINT, StoppedBySignal, UserError
from stochastok_cli.models.checkpoint_reader import read_state
from stochastok_cli.training import checkpoint_cleanup, run_dir
from stochastok_cli.training.events import Started
from stochastok_cli.training.loggers.jsonl import read_starts
from stochastok_cli.training.plan import plan
from stochastok_cli.training.runs import read_run
from stochastok_cli.training.same_run import require_same_decay
from stochastok_cli.training.signals import stop_signals
from stochastok_cli.training.train import train
from tests.training.conftest import COMMAND
from tests.training.runs import metrics, steps, tensors

LONG = (
    "trainer.training.max_iters=120",
    "trainer.training.checkpoint_interval=25",
    "trainer.training.eval_interval=30",
)


def test_n_then_n_more_equals_2n(configured):
    straight = train(configured(), run_name="straight")
    halfway = train(configured("trainer.training.max_iters=4"), run_name="halves")
    assert (halfway.iteration, halfway.checkpoint.name) == (4, "step_4")
    more = train(configured(), run_name="halves")
    assert more.created
    assert tensors(more.checkpoint) == tensors(straight.checkpoint)
    assert metrics(more.folder) == metrics(straight.folder)
    assert metrics(straight.folder)[-1]["validation/loss"] < metrics(straight.folder)[0]["validation/loss"]


def test_a_run_resumes_whatever_way_its_dataset_is_named(configured, data_dir, monkeypatch):
    straight = train(configured())
    absolute = data_dir / "data_as_memmaps" / "sample-tokenized"
    monkeypatch.chdir(data_dir)
    for iterations, named in (("4", absolute), ("6", "data_as_memmaps/sample-tokenized/"), ("8", "sample-tokenized")):
        options = (f"trainer.dataset.name={named}", "general.logging.run_name_prefix=paths")
        resumed = train(configured(*options, f"trainer.training.max_iters={iterations}"))
        assert resumed.folder.name == "paths-sample-tokenized"
    assert tensors(resumed.checkpoint) == tensors(straight.checkpoint)
    assert metrics(resumed.folder)[-1] == metrics(straight.folder)[-1]
    at_path = train(configured(f"trainer.dataset.name={absolute}"))
    assert (at_path.created, at_path.folder) == (False, straight.folder)


def test_a_complete_run_is_left_alone(configured):
    first = train(configured(), run_name="a")
    before = {f: f.stat().st_mtime_ns for f in first.folder.rglob("*")}
    again = train(configured(), run_name="a")
    assert (again.created, again.folder, again.checkpoint) == (False, first.folder, first.checkpoint)
    assert {f: f.stat().st_mtime_ns for f in first.folder.rglob("*")} == before


def test_permanent_checkpoints_stay_when_the_run_is_killed_resumed_and_has_another_interval(configured, monkeypatch):
    def options(max_iters, permanent):
        values = {"checkpoint_interval": 2, "keep_checkpoints": 1, "eval_interval": 100}
        values |= {"max_iters": max_iters, "permanent_checkpoint_interval": permanent}
        return configured(*(f"trainer.training.{name}={value}" for name, value in values.items()))

    run = train(options(8, 3), run_name="a")
    assert steps(run.folder) == ["step_3", "step_6", "step_8"]  # the last is also the best
    with monkeypatch.context() as patch:  # nothing is deleted, as if the process had been killed after its last save
        patch.setattr(checkpoint_cleanup, "checkpoints_to_delete", lambda losses, keep, permanent: [])
        train(options(11, 3), run_name="a")
    assert steps(run.folder) == ["step_3", "step_6", "step_8", "step_9", "step_10", "step_11"]
    best = min((8, 11), key=lambda n: read_state(run.folder / f"step_{n}").validation_loss)
    assert not train(options(11, 3), run_name="a").created
    assert steps(run.folder) == [f"step_{n}" for n in sorted({3, 6, best, 9, 11})]
    train(options(13, "null"), run_name="a")
    assert {"step_3", "step_6", "step_9", "step_13"} <= set(steps(run.folder))  # they were saved as permanent ones
    assert "step_12" not in steps(run.folder)


@pytest.mark.parametrize("killed", ["before the first deletion", "between two", "in the last"])
def test_a_kill_while_superseded_checkpoints_are_deleted_leaves_none_for_good(configured, monkeypatch, killed):
    options = ("trainer.training.checkpoint_interval=2", "trainer.training.max_iters=6")
    with monkeypatch.context() as patch:  # nothing is deleted, as if the process had been killed at that moment
        patch.setattr(checkpoint_cleanup, "checkpoints_to_delete", lambda losses, keep, permanent: [])
        run = train(configured(*options, "trainer.training.keep_checkpoints=1"), run_name="a")
    assert steps(run.folder) == ["step_2", "step_4", "step_6"]
    best = min((2, 4, 6), key=lambda n: read_state(run.folder / f"step_{n}").validation_loss or float("inf"))
    first, *others = [n for n in (2, 4, 6) if n not in (6, best)]
    if killed != "before the first deletion":
        (run.folder / f"step_{first}").rename(run.folder / f".step_{first}.deleted")
    if killed == "in the last":
        for n in others:
            shutil.rmtree(run.folder / f"step_{n}")
    with run_dir.run_lock(run.folder):  # another process trains: nothing is touched
        before = sorted(f.name for f in run.folder.iterdir())
        train(configured(*options), run_name="a")
        assert sorted(f.name for f in run.folder.iterdir()) == before
    again = train(configured(*options), run_name="a")
    assert not again.created
    assert steps(run.folder) == [f"step_{n}" for n in sorted({best, 6})]
    assert not list(run.folder.glob(".step_*"))


def test_instruction_data_with_expansion_resumes_bit_for_bit(configured):
    options = (
        "trainer.dataset.name=langgame",
        "trainer.dataset.is_instruction=true",
        "trainer.dataset.expand_prop=0.2",
        "model.context_window=128",
    )
    straight = train(configured(*options), run_name="straight")
    train(configured(*options, "trainer.training.max_iters=5"), run_name="parts")
    parts = train(configured(*options), run_name="parts")
    assert tensors(parts.checkpoint) == tensors(straight.checkpoint)


@pytest.mark.parametrize("data", [(), ("trainer.dataset.name=langgame", "trainer.dataset.is_instruction=true")])
def test_a_run_whose_p_falls_resumes_bit_for_bit_and_is_not_made_longer(configured, data):
    options = (*data, "trainer.dataset.expand_prop=0.8", "trainer.dataset.expand_schedule=linear")
    options += ("model.context_window=128", "trainer.training.max_iters=4", "trainer.training.log_interval=1")
    options += ("trainer.training.checkpoint_interval=2", "trainer.training.keep_checkpoints=null")
    straight = train(configured(*options), run_name="straight")
    logged = [m["train/expand_prop"] for m in metrics(straight.folder) if "train/expand_prop" in m]
    assert logged == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert "  p 0.6  " in (straight.folder / "train.log").read_text()
    parts = straight.folder.with_name("parts")
    shutil.copytree(straight.folder, parts)
    for step in ("step_3", "step_4"):
        shutil.rmtree(parts / step, ignore_errors=True)
    assert plan(configured(*options), run_name="parts").expansion == "stochastok, p = 0.4 to 0.2 (linear)"
    again = train(configured(*options), run_name="parts")
    assert again.created
    assert tensors(again.checkpoint) == tensors(straight.checkpoint)
    (parts / "starts.jsonl").open("a").write('{"time": "2026')  # the end of a process that was killed
    starts, damaged = read_starts(parts / "starts.jsonl")
    assert ([start.iteration for start in starts], damaged) == ([0, 2], 1)
    with pytest.raises(UserError, match="lowers p toward iteration 4, and 4 are done"):
        train(configured(*options, "trainer.training.max_iters=6"), run_name="parts")


@pytest.fixture
def straight(configured):
    """The long run, never interrupted."""
    return train(configured(*LONG), run_name="straight")


def start(config_file, tmp_path):
    """The long run as a process of its own, once it has begun to log iterations (or has ended)."""
    process = subprocess.Popen(
        [*COMMAND, "--config", str(config_file), "--run-name", "broken", *LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "runs" / "broken"
    log = folder / "train.log"
    size = log.stat().st_size if log.exists() else 0

    def is_logging():
        return log.exists() and re.search(r"iteration \d+  loss", log.read_bytes()[size:].decode())

    while process.poll() is None and not is_logging():
        time.sleep(0.01)
    return process, folder


@pytest.mark.slow
def test_stopped_and_killed_at_random_moments_it_gives_the_same_weights_in_the_end(config_file, tmp_path, straight):
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGUSR1):
        process, folder = start(config_file, tmp_path)
        time.sleep(random.uniform(0, 0.15))
        process.send_signal(number)
        out, error = process.communicate()
        if (folder / "step_120").exists():
            break  # it had finished before the signal came, or while it came
        assert out == ""
        if number != signal.SIGKILL:
            assert process.returncode == STOPPED_WITH_CHECKPOINT, error
            match = re.search(rf"stopped by {number.name} after iteration (\d+); run the same command again", error)
            assert steps(folder)[-1] == f"step_{match[1]}"
    process, folder = start(config_file, tmp_path)
    out, error = process.communicate()
    assert (process.returncode, out) == (0, f"{folder}\n"), error
    assert tensors(folder / "step_120") == tensors(straight.checkpoint)
    assert metrics(folder) == metrics(straight.folder)
    assert [f.name for f in folder.iterdir() if f.name.startswith(".")] == []  # nothing half-written is left


def test_interrupted_before_the_first_iteration_nothing_is_saved(config_file, tmp_path):
    process = subprocess.Popen(
        [*COMMAND, "--config", str(config_file), "trainer.training.eval_iters=1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("runs/*/train.log")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate()
    assert process.returncode == INTERRUPTED, error
    assert out == ""
    assert error.endswith("error: interrupted\n")
    assert not list(tmp_path.glob("runs/*/step_*"))


def test_metrics_after_the_checkpoint_are_cut_back(configured):
    stopped = train(configured("trainer.training.max_iters=4"), run_name="a")
    file = stopped.folder / "metrics.jsonl"
    kept = file.read_text()
    file.write_text(kept + '{"iteration": 5, "train/loss": 1.0}\n{"iteration": 6, "train/lo')
    train(configured(), run_name="a")
    assert file.read_text().startswith(kept)
    assert [line["iteration"] for line in metrics(stopped.folder)] == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8]


def test_a_torn_checkpoint_is_never_loaded(configured):
    straight = train(configured(), run_name="straight")
    torn = train(configured(), run_name="torn")
    weights = torn.checkpoint / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    notes = []
    again = train(configured(), run_name="torn", listeners=[notes.append])
    assert again.created
    assert any("step_8 is incomplete and ignored" in getattr(note, "text", "") for note in notes)
    assert any("going on from" in getattr(note, "text", "") and "step_4" in note.text for note in notes)
    assert tensors(again.checkpoint) == tensors(straight.checkpoint)


def test_a_run_that_has_lost_its_checkpoints_keeps_its_metrics(configured):
    run = train(configured(), run_name="a")
    before = (run.folder / "metrics.jsonl").read_bytes()
    for weights in run.folder.glob("step_*/model.safetensors"):
        os.truncate(weights, 1000)
    with pytest.raises(UserError, match="holds no complete checkpoint: step_8 is incomplete; training would begin"):
        train(configured(), run_name="a")
    for step in run.folder.glob("step_*"):
        shutil.rmtree(step)
    with pytest.raises(UserError, match="holds no checkpoint, though its metrics reach iteration 8") as refused:
        train(configured(), run_name="a")
    assert refused.value.exit_code == 1
    assert (run.folder / "metrics.jsonl").read_bytes() == before
    assert any("holds no checkpoint" in problem for problem in read_run(run.folder, run.folder.parent).problems)
    again = train(configured(), run_name="a", force=True)
    assert (again.folder.with_name("a-old-1") / "metrics.jsonl").read_bytes() == before


def test_a_longer_run_that_is_killed_before_it_has_trained_is_still_the_shorter_one(configured):
    shorter, longer = (configured(f"trainer.training.max_iters={n}") for n in (1, 2))
    run = train(shorter, run_name="a")
    before = (run.folder / "config.yaml").read_bytes()

    def kill(event):
        if isinstance(event, Started):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(longer, run_name="a", listeners=[kill])
    assert (run.folder / "config.yaml").read_bytes() == before
    assert read_run(run.folder, run.folder.parent).state == "complete"
    assert not train(shorter, run_name="a").created
    assert train(longer, run_name="a").created
    assert config_from_file(run.folder / "config.yaml") == longer


def test_what_was_changed_in_a_run_that_goes_on_is_recorded_and_unlike_losses_do_not_compete(configured):
    def part(max_iters, eval_iters):
        values = {"max_iters": max_iters, "eval_iters": eval_iters, "keep_checkpoints": 1, "eval_interval": 1}
        return configured(*(f"trainer.training.{name}={value}" for name, value in values.items()))

    run = train(part(1, 2), run_name="a")
    state = run.checkpoint / "training_state.json"
    tree = json.loads(state.read_text())
    state.write_text(json.dumps(tree | {"validation_loss": 99.0}))  # the best and the only one of its kind
    notes = []
    train(part(3, 1), run_name="a", listeners=[notes.append])
    changed = "trainer.training.max_iters (there 1, now 3), trainer.training.eval_iters (there 2, now 1)"
    (note,) = (note.text for note in notes if getattr(note, "text", "").startswith("changed from here on"))
    assert changed in note and note.endswith("are over other windows")
    assert note in (run.folder / "train.log").read_text()
    first, second = read_starts(run.folder / "starts.jsonl")[0]
    assert first.changed == {}
    assert second.changed == {"trainer.training.eval_iters": (2, 1), "trainer.training.max_iters": (1, 3)}
    assert {"step_1", "step_3"} <= set(steps(run.folder))
    train(part(4, 1), run_name="a")
    assert (
        "changed from here on: trainer.training.max_iters (there 3, now 4)\n" in (run.folder / "train.log").read_text()
    )


def test_another_spelling_of_a_path_is_no_change(configured):
    folder = configured().general.paths.checkpoint_dir
    run = train(configured("trainer.training.max_iters=1"), run_name="a")
    spelled = f"general.paths.checkpoint_dir={Path(folder) / '..' / Path(folder).name}"
    train(configured("trainer.training.max_iters=2", spelled), run_name="a")
    assert read_starts(run.folder / "starts.jsonl")[0][1].changed == {"trainer.training.max_iters": (1, 2)}


def test_a_run_without_its_first_checkpoint_begins_again_and_says_so(configured):
    run = train(configured(), run_name="a")
    for step in run.folder.glob("step_*"):
        shutil.rmtree(step)
    file = run.folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if json.loads(line)["iteration"] <= 4))
    notes = []
    again = train(configured(), run_name="a", listeners=[notes.append])
    texts = [getattr(note, "text", "") for note in notes]
    assert any("no checkpoint yet and begins again; metrics up to iteration" in text for text in texts)
    assert again.iteration == 8


def test_an_evaluation_that_a_signal_postponed_is_made_later(configured):
    straight = train(configured(), run_name="straight")

    def stop_at_4(event):
        if getattr(event, "loss", None) and event.iteration == 4:  # an evaluation is due here
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedBySignal, match="stopped by SIGTERM after iteration 4"):
        train(configured(), run_name="stopped", listeners=[stop_at_4])
    again = train(configured(), run_name="stopped")
    assert metrics(again.folder) == metrics(straight.folder)


def test_a_terminal_that_is_closed_stops_training_unless_that_is_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop_signals() as stop:
            stop.armed = True
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal == "SIGHUP"
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_longer_run_keeps_the_decay_that_has_begun(configured):
    options = ("trainer.optimizer.schedule=wsd", "trainer.optimizer.wsd_decay_iters=3")
    train(configured(*options, "trainer.training.max_iters=5", "trainer.training.checkpoint_interval=1"), run_name="x")
    with pytest.raises(UserError, match="decays toward iteration 5 since iteration 2, and 5 are done"):
        train(configured(*options, "trainer.training.checkpoint_interval=1"), run_name="x")


@pytest.mark.parametrize(("done", "refused"), [(7, False), (8, True)])
def test_a_run_is_made_longer_until_its_decay_has_begun(done, refused):
    """Iterations before it have the same rate, whatever the length of the run."""
    options = ["trainer.optimizer.schedule=wsd", "trainer.optimizer.wsd_decay_iters=3"]
    options += ["trainer.training.warmup_iters=1"]
    before, now = (load_config("pretraining", [*options, f"trainer.training.max_iters={n}"]) for n in (10, 20))
    with pytest.raises(UserError, match="since iteration 7, and 8 are done") if refused else nullcontext():
        require_same_decay(done, before, now)
    require_same_decay(done, before, before)

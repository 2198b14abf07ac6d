"""Checkpoints that are written while training goes on: the same files, complete or absent, and none lost."""

import errno
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from preloaded_python import run_python

from stochastok_cli.errors import FAILED, STOPPED_WITH_CHECKPOINT, UserError
from stochastok_cli.models.checkpoint_reader import checkpoints
from stochastok_cli.models.intact_checkpoints import require_intact
from stochastok_cli.training import checkpoint_writer, data_parallel, events
from stochastok_cli.training.background_writer import HostBuffers
from stochastok_cli.training.train import train
from tests.models.huggingface_families import random_model
from tests.training.runs import metrics, steps, tensors

ASYNC = "trainer.training.async_save=true"
EVERY_2 = ("trainer.training.checkpoint_interval=2", "trainer.training.keep_checkpoints=null")


def files(checkpoint):
    """The bytes of all files but the training state, which has the configuration."""
    return {file.name: file.read_bytes() for file in checkpoint.rglob("*") if file.name != "training_state.json"}


def slowly(monkeypatch, seconds):
    """Makes writes begin after iterations in which the tensors change."""
    save_whole = data_parallel.save_whole

    def save_late(tensors, folder):
        time.sleep(seconds)
        save_whole(tensors, folder)

    monkeypatch.setattr(data_parallel, "save_whole", save_late)


@pytest.mark.parametrize(("family", "dtype"), [(None, "float32"), (None, "bfloat16"), ("gpt2", "float32")])
def test_the_files_are_those_of_a_run_that_waits(configured, monkeypatch, tmp_path, vocabulary, family, dtype):
    options = [*EVERY_2, f"trainer.training.checkpoint_dtype={dtype}", "trainer.training.eval_interval=100"]
    if family is not None:
        random_model(family).save_pretrained(tmp_path / family)
        vocabulary.save_tokenizer(tmp_path / family)
        options.append(f"trainer.checkpoint_name={tmp_path / family}")
    expected = train(configured(*options), run_name="waits")
    slowly(monkeypatch, 0.05)
    seen = []
    run = train(configured(*options, ASYNC), run_name="async", listeners=[seen.append])
    assert steps(run.folder) == ["step_2", "step_4", "step_6", "step_8"]
    for name in steps(run.folder):
        require_intact(run.folder / name, with_optimizer=True)
        assert files(run.folder / name) == files(expected.folder / name)
    assert metrics(run.folder) == metrics(expected.folder)
    saved = [event for event in seen if isinstance(event, events.Saved)]
    assert [event.iteration for event in saved] == [2, 4, 6, 8]
    assert all(event.background_seconds >= 0.05 for event in saved)
    after_first = seen[seen.index(saved[0]) - 1]
    assert isinstance(after_first, events.Logged) and after_first.iteration > 2  # training went on meanwhile


def test_one_write_at_a_time_and_the_old_checkpoint_stays_until_the_new_one_is_there(configured, monkeypatch, tmp_path):
    there, rename = [], checkpoint_writer.rename_into_place

    def rename_late(temporary, final):
        time.sleep(0.05)
        assert threading.current_thread() is not threading.main_thread()
        there.append((final.name, steps(final.parent), [f.name for f in final.parent.glob(".step_*")]))
        rename(temporary, final)

    monkeypatch.setattr(checkpoint_writer, "rename_into_place", rename_late)
    options = ("trainer.training.checkpoint_interval=2", "trainer.training.keep_checkpoints=1")
    run = train(configured(*options, ASYNC, "trainer.training.eval_interval=100"))
    assert there == [
        ("step_2", [], [".step_2.partial"]),
        ("step_4", ["step_2"], [".step_4.partial"]),
        ("step_6", ["step_4"], [".step_6.partial"]),
        ("step_8", ["step_6"], [".step_8.partial"]),
    ]
    assert steps(run.folder) == ["step_8"]


@pytest.mark.parametrize("failing", [2, 8])
def test_a_write_that_fails_ends_the_run_in_one_line(configured, monkeypatch, failing):
    rename = checkpoint_writer.rename_into_place

    def full(temporary, final):
        if final.name == f"step_{failing}":
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(temporary, final)

    straight = train(configured(*EVERY_2), run_name="straight")
    monkeypatch.setattr(checkpoint_writer, "rename_into_place", full)
    seen = []
    with pytest.raises(UserError, match=f"step_{failing} can't be written: No space left on device; make room") as info:
        train(configured(*EVERY_2, ASYNC), run_name="a", listeners=[seen.append])
    assert info.value.exit_code == FAILED
    folder = straight.folder.with_name("a")
    assert steps(folder) == [f"step_{n}" for n in range(2, failing, 2)]
    assert not list(folder.glob(".step_*"))
    assert [event.iteration for event in seen if isinstance(event, events.Saved)] == list(range(2, failing, 2))
    monkeypatch.undo()
    again = train(configured(*EVERY_2, ASYNC), run_name="a")
    assert tensors(again.checkpoint) == tensors(straight.checkpoint)
    assert metrics(again.folder) == metrics(straight.folder)


@pytest.mark.parametrize("fails", [False, True])
def test_another_error_waits_for_the_write_and_a_write_that_fails_then_is_noted(configured, monkeypatch, fails):
    rename = checkpoint_writer.rename_into_place

    def rename_late(temporary, final):
        time.sleep(0.2)
        if fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(temporary, final)

    monkeypatch.setattr(checkpoint_writer, "rename_into_place", rename_late)
    seen = []

    def stop(event):
        seen.append(event)
        if isinstance(event, events.Logged) and event.iteration == 3:
            raise UserError("something else")

    with pytest.raises(UserError, match="something else"):
        train(configured(*EVERY_2, ASYNC), run_name="a", listeners=[stop])
    assert not any(thread.name == "checkpoint writer" for thread in threading.enumerate())
    folder = Path(configured().general.paths.checkpoint_dir) / "a"
    assert [path.name for path in folder.glob("*step_*")] == ([] if fails else ["step_2"])
    last = seen[-1]
    assert "No space left on device" in last.text if fails else isinstance(last, events.Saved)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_leaves_the_checkpoint_before(configured):
    import resource

    before = train(configured("trainer.training.max_iters=4"), run_name="a")
    size = (before.checkpoint / "optimizer.safetensors").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, limits[1]))
    try:
        with pytest.raises(UserError, match="step_6 can't be written: "):
            train(configured(*EVERY_2, ASYNC), run_name="a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [f.name for f in before.folder.iterdir() if "step" in f.name] == ["step_4"]
    assert train(configured(ASYNC), run_name="a").checkpoint.name == "step_8"


HOOK = """
import os, signal, sys, time
from pathlib import Path
from stochastok_cli.cli.app import main
from stochastok_cli.training import checkpoint_writer

def hooked(name, step, action):
    original = getattr(checkpoint_writer, name)
    def function(path, *arguments):
        run = path if path.name == "broken" else path.parent
        if name == "delete_obsolete" or path.name == f".step_{step}.partial":
            while f"iteration {step + 1}  loss" not in (run / "train.log").read_text():
                time.sleep(0.002)
            action()
        original(path, *arguments)
    setattr(checkpoint_writer, name, function)
"""
KILL = "lambda: os.kill(os.getpid(), signal.SIGKILL)"
TERMINATE = "lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(0.3))"


def run_hooked(config_file, hook, *options):
    """`stochastok train` in a process of its own, in which a function of the writer is preceded by an action."""
    code = f"{HOOK}\nhooked({hook})\nsys.argv[0] = 'stochastok'\nmain()"
    return run_python("-c", code, "train", "--config", config_file, "--run-name", "broken", ASYNC, *options)


@pytest.mark.parametrize(
    ("hook", "left"),
    [
        (f"'rename_into_place', 4, {KILL}", [".step_4.partial", "step_2"]),
        pytest.param(f"'rename_into_place', 2, {KILL}", [".step_2.partial"], marks=pytest.mark.slow),
        pytest.param(f"'delete_obsolete', 2, {KILL}", ["step_2"], marks=pytest.mark.slow),
    ],
)
def test_a_process_killed_while_it_writes_loses_no_checkpoint(configured, config_file, hook, left):
    options = ("trainer.training.checkpoint_interval=2", "trainer.training.keep_checkpoints=1")
    straight = train(configured(*options), run_name="straight")
    done = run_hooked(config_file, hook, *options)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = straight.folder.with_name("broken")
    assert sorted(path.name for path in folder.glob("*step_*")) == left
    assert [path.name for path, _ in checkpoints(folder).values()] == [name for name in left if name[0] != "."]
    again = train(configured(*options, ASYNC), run_name="broken")
    assert tensors(again.checkpoint) == tensors(straight.checkpoint)
    assert metrics(again.folder) == metrics(straight.folder)
    assert steps(again.folder) == steps(straight.folder)
    assert not list(folder.glob(".step_*"))


@pytest.mark.slow
def test_a_signal_waits_for_the_write_and_saves(configured, config_file):
    straight = train(configured(*EVERY_2), run_name="straight")
    done = run_hooked(config_file, f"'rename_into_place', 2, {TERMINATE}", *EVERY_2)
    assert done.returncode == STOPPED_WITH_CHECKPOINT, done.stderr
    match = re.search(r"stopped by SIGTERM after iteration (\d+); run the same command again", done.stderr)
    folder = straight.folder.with_name("broken")
    assert steps(folder) == ["step_2", f"step_{match[1]}"]
    assert [path.name for path, _ in checkpoints(folder).values()] == steps(folder)
    log = (folder / "train.log").read_text()
    assert log.index("/step_2 ") < log.index(f"/step_{match[1]} ") < log.index("stopped by")
    again = train(configured(*EVERY_2), run_name="broken")
    assert tensors(again.checkpoint) == tensors(straight.checkpoint)
    assert metrics(again.folder) == metrics(straight.folder)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_copies_do_not_change_with_the_tensors_and_shared_tensors_stay_shared(device):
    tensor = torch.arange(4.0, device=device)
    buffers = HostBuffers()
    copies = buffers.copy({"a": tensor, "tied": tensor, "b": tensor[2:]})
    tensor.zero_()
    assert {(copy.device.type, copy.is_pinned()) for copy in copies.values()} == {("cpu", device == "cuda")}
    assert copies["a"] is copies["tied"]
    assert (copies["a"].tolist(), copies["b"].tolist()) == ([0, 1, 2, 3], [2, 3])
    again = buffers.copy({"a": tensor, "tied": tensor, "b": tensor[2:]})
    assert again["a"] is copies["a"] and again["a"].tolist() == [0, 0, 0, 0]


def test_merged_adapters_are_refused(configured):
    with pytest.raises(UserError, match="async_save = true must be false with trainer.lora.merge"):
        configured(ASYNC, "trainer.lora.rank=4", "trainer.lora.merge=true", "trainer.checkpoint_name=a")

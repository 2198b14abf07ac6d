"""Starting again after files of a run were lost, or could not be written or deleted."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from stochastok_cli.config import config_from_dict
from stochastok_cli.errors import Notice, UserError
from stochastok_cli.models.intact_checkpoints import find_local_checkpoint
from stochastok_cli.training import checkpoint_cleanup
from stochastok_cli.training.locate import locate_run
from stochastok_cli.training.run_dir import run_lock
from stochastok_cli.training.runs import read_run
from stochastok_cli.training.train import train
from stochastok_cli.training.write_failures import explain_write_failure
from tests.training.runs import tensors


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "config.yaml is missing"), ("model: [1", "config.yaml is not valid YAML: line 1")]
)
def test_a_run_whose_configuration_is_lost_goes_on_with_that_of_its_checkpoint(configured, content, problem):
    run = train(configured("trainer.training.max_iters=4"), run_name="a")
    file = run.folder / "config.yaml"
    before = file.read_text()
    file.unlink() if content is None else file.write_text(content)
    assert not train(configured("trainer.training.max_iters=4"), run_name="a").created
    with pytest.raises(UserError, match=r"a run of another configuration: general.seed \(there 0, now 1\)"):
        train(configured("general.seed=1"), run_name="a")
    notes = []
    again = train(configured("trainer.training.max_iters=5"), run_name="a", listeners=[notes.append])
    assert any(problem in getattr(note, "text", "") for note in notes)
    assert (again.iteration, file.read_text()) == (5, before.replace("max_iters: 4", "max_iters: 5"))


def test_a_damaged_configuration_without_a_checkpoint_is_refused_with_a_cure(configured, tmp_path):
    (folder := tmp_path / "runs" / "a").mkdir(parents=True)
    (folder / "config.yaml").write_text("model: [1")
    with pytest.raises(UserError, match="config.yaml is not valid YAML: .*; mend it, give another --run-name, or --fo"):
        train(configured(), run_name="a")


@pytest.mark.parametrize("state", ["missing", "empty"])
def test_lost_metrics_are_noted_and_stay_noted(configured, state):
    run = train(configured("trainer.training.max_iters=4"), run_name="a")
    assert read_run(run.folder, run.folder.parent).problems == []
    file = run.folder / "metrics.jsonl"
    file.unlink() if state == "missing" else file.write_bytes(b"")
    lost = f"{file} is {state}: the records up to iteration 4 are lost"
    notes = []
    assert not train(configured("trainer.training.max_iters=4"), run_name="a", listeners=[notes.append]).created
    assert [note.text for note in notes] == [lost]
    notes.clear()
    train(configured("trainer.training.max_iters=5"), run_name="a", listeners=[notes.append])
    assert lost in [getattr(note, "text", "") for note in notes]
    assert lost in (run.folder / "train.log").read_text()
    (problem,) = read_run(run.folder, run.folder.parent).problems
    assert problem.endswith("metrics.jsonl has no records before iteration 5: they have been lost")


def test_a_torn_last_record_of_a_run_that_nobody_trains_is_noted(configured):
    run = train(configured("trainer.training.max_iters=4"), run_name="a")
    file = run.folder / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    lines = len(file.read_bytes().splitlines())
    notes = []
    train(configured("trainer.training.max_iters=4"), run_name="a", listeners=[notes.append])
    assert [note.text for note in notes] == [f"{file}: 1 of {lines} lines are damaged and left out"]
    assert read_run(run.folder, run.folder.parent).problems == [notes[0].text]
    notes.clear()
    train(configured("trainer.training.max_iters=5"), run_name="a", listeners=[notes.append])
    assert f"removed 1 damaged line of {file}" in [getattr(note, "text", "") for note in notes]


def test_damaged_lines_of_starts_are_removed_when_the_run_goes_on(configured):
    run = train(configured("trainer.training.max_iters=1"), run_name="a")
    file = run.folder / "starts.jsonl"
    whole = file.read_text()
    file.write_text('{"time": "2026\n' + whole + '{"time"')
    notes = []
    train(configured("trainer.training.max_iters=2"), run_name="a", listeners=[notes.append])
    assert f"removed 2 damaged lines of {file}" in [getattr(note, "text", "") for note in notes]
    assert file.read_text().startswith(whole) and len(file.read_text().splitlines()) == 2
    assert read_run(run.folder, run.folder.parent).problems == []


def test_a_folder_that_can_not_be_written_is_named_with_the_key(tmp_path):
    (tmp_path / "file").touch()
    named = f"{tmp_path / 'file' / 'runs'} can't be written: Not a directory; make it writable; or, for a new run, "
    with pytest.raises(UserError, match=re.escape(named)), run_lock(tmp_path / "file" / "runs" / "a"):
        pass
    named = "runs can't be written: Read-only file system; make it writable; or, for a new run, set "
    with pytest.raises(UserError, match=named), explain_write_failure(tmp_path / "runs"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def damage(file: Path) -> None:
    """Changes a byte, and no size."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_complete_run_with_damaged_weights_is_refused_and_can_be_trained_again(configured):
    run = train(configured(), run_name="a")
    before = tensors(run.checkpoint)
    damage(run.checkpoint / "optimizer.safetensors")
    assert not train(configured(), run_name="a").created  # nothing reads that any more
    damage(run.checkpoint / "model.safetensors")
    remedy = "step_8/model.safetensors is damaged: .*; remove step_8 and run the same train command again: it goes on"
    with pytest.raises(UserError, match=f"{remedy} from step_4$") as refused:
        train(configured(), run_name="a")
    assert refused.value.exit_code == 1
    for command in (find_local_checkpoint, locate_parent):  # eval and generate; a run that would start from it
        with pytest.raises(UserError, match=f"{remedy} from step_4$"):
            command("a", run.folder.parent)
    shutil.rmtree(run.checkpoint)
    assert tensors(train(configured(), run_name="a").checkpoint) == before


def locate_parent(name: str, runs: Path) -> None:
    config = config_from_dict(
        {"trainer": {"checkpoint_name": name}, "general": {"paths": {"checkpoint_dir": str(runs)}}}, ""
    )
    locate_run(config, "child").require_intact_parent()


def test_a_damaged_checkpoint_that_no_training_makes_again_has_another_remedy(configured, tmp_path):
    run = train(configured(), run_name="a")
    damage(run.folder / "step_4" / "model.safetensors")
    with pytest.raises(UserError, match="name another checkpoint: .*/a has step_8$"):
        find_local_checkpoint("a/step_4", run.folder.parent)
    shutil.rmtree(run.folder / "step_4")
    shutil.copytree(run.checkpoint, tmp_path / "step_8")
    damage(tmp_path / "step_8" / "model.safetensors")
    with pytest.raises(UserError, match="; name another checkpoint$"):
        find_local_checkpoint(str(tmp_path / "step_8"), run.folder.parent)
    damage(run.checkpoint / "model.safetensors")
    with pytest.raises(UserError, match="; bring the file back from a copy, or train anew: .* with --force$"):
        train(configured(), run_name="a")


def test_what_a_start_without_room_leaves_is_no_obstacle(configured, tmp_path, monkeypatch):
    (folder := tmp_path / "runs" / "a").mkdir(parents=True)
    (folder / ".config.yaml.partial").touch()
    fsync = os.fsync

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=f"{folder} can't be written: No space left on device; make room and") as error:
        train(configured("trainer.training.max_iters=1"), run_name="a")
    assert error.value.exit_code == 1
    assert [*folder.iterdir()] == []
    monkeypatch.setattr(os, "fsync", fsync)
    assert train(configured("trainer.training.max_iters=1"), run_name="a").created


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_under_the_metrics_names_the_file(configured, tmp_path):
    (folder := tmp_path / "runs" / "a").mkdir(parents=True)
    (folder / "train.log").symlink_to("/dev/full")
    (folder / "config.yaml").write_text(configured().to_yaml())
    with pytest.raises(UserError, match=r"a/train.log can't be written: No space left on device; make room and run"):
        train(configured(), run_name="a")


def test_a_leftover_of_a_checkpoint_that_was_half_deleted_is_no_obstacle(configured):
    run = train(configured(), run_name="a")
    leftover = run.folder / ".step_4.deleted"

    def leave(event):
        if getattr(event, "folder", None) == run.folder and not leftover.exists():
            (leftover / "inner").mkdir(parents=True)

    longer = ("trainer.training.max_iters=9", "trainer.training.keep_checkpoints=1")
    again = train(configured(*longer), run_name="a", listeners=[leave])
    assert again.iteration == 9 and not (run.folder / "step_4").exists() and not leftover.exists()


def test_a_checkpoint_that_cannot_be_deleted_is_noted(configured, monkeypatch):
    def refuse(folder, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(checkpoint_cleanup, "_delete", refuse)
    options = ("trainer.training.keep_checkpoints=1", "trainer.training.checkpoint_interval=2")
    with pytest.warns(Notice, match=r"old checkpoints can't be deleted \(.*step_2: Permission denied\)"):
        assert train(configured(*options), run_name="a").iteration == 8


def test_where_all_checkpoints_are_kept_their_states_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_cleanup, "checkpoints", lambda folder: pytest.fail("read"))
    assert checkpoint_cleanup.obsolete_checkpoints(tmp_path, None) == []

"""A run that started from a checkpoint goes on from its own, whatever has become of that."""

import json
import shutil

import pytest

from stochastok_cli.errors import UserError
from stochastok_cli.models import checkpoint_reader, intact_checkpoints
from stochastok_cli.training.locate import locate_run
from stochastok_cli.training.loggers.jsonl import read_starts
from stochastok_cli.training.plan import plan
from stochastok_cli.training.train import train
from tests.training.runs import metrics, tensors

FROM_PARENT = "trainer.checkpoint_name=parent"
HALF = "trainer.training.max_iters=4"


@pytest.fixture
def parent(configured):
    return train(configured("trainer.training.max_iters=1"), run_name="parent")


def test_a_run_goes_on_exactly_without_its_parent(configured, parent, monkeypatch):
    options = (FROM_PARENT, "trainer.dataset.expand_prop=0.2", "model.context_window=12")
    straight = train(configured(*options), run_name="straight")
    half = train(configured(*options, HALF))
    assert half.folder.name.endswith("-from-parent")
    shutil.rmtree(parent.folder)
    again = train(configured(*options))
    assert (again.folder, again.created) == (half.folder, True)
    assert tensors(again.checkpoint) == tensors(straight.checkpoint)
    assert metrics(again.folder) == metrics(straight.folder)
    files = [{f.name: f.read_bytes() for f in run.checkpoint.iterdir()} for run in (again, straight)]
    assert files[0].keys() == files[1].keys()
    for name in files[0].keys() - {"training_state.json"}:
        assert files[0][name] == files[1][name], name
    assert not train(configured(*options)).created  # the complete run is left alone
    with pytest.raises(UserError, match="no checkpoint 'parent'"):  # which a new run needs
        train(configured(*options), run_name="new")
    with pytest.raises(UserError, match="no checkpoint 'parent'"):
        train(configured(*options), force=True)


def test_the_parent_of_a_run_that_goes_on_is_not_read(configured, parent, monkeypatch):
    half = train(configured(FROM_PARENT, HALF))
    read = []
    checksum = intact_checkpoints.file_checksum
    monkeypatch.setattr(intact_checkpoints, "file_checksum", lambda file: read.append(file) or checksum(file))
    train(configured(FROM_PARENT))
    assert read and all(half.folder in file.parents for file in read)


def test_another_path_of_the_same_parent_is_the_same_configuration(configured, parent, tmp_path):
    half = train(configured(FROM_PARENT, HALF), run_name="child")
    (start,) = read_starts(half.folder / "starts.jsonl")[0]
    assert start.parent_weights == checkpoint_reader.recorded_weights(parent.checkpoint)
    copied = tmp_path / "copied"
    shutil.copytree(parent.folder.parent, copied)
    shutil.rmtree(parent.folder)
    for name in (f"{copied}/parent", f"{copied}/parent/step_1"):
        again = train(configured(f"trainer.checkpoint_name={name}", HALF), run_name="child")
        assert not again.created
    moved = (f"trainer.checkpoint_name={copied}/parent", f"general.paths.checkpoint_dir={copied}")
    assert train(configured(*moved), run_name="child").created

    other = train(configured("trainer.training.max_iters=1", "general.seed=1"), run_name="other")
    with pytest.raises(UserError, match=r"checkpoint_name \(there 'parent', now 'other'\); name the checkpoint"):
        train(configured("trainer.checkpoint_name=other"), run_name="child")
    with pytest.raises(UserError, match=r"checkpoint_name \(there 'parent', now empty\)"):
        train(configured(), run_name="child")
    (half.folder / "starts.jsonl").unlink()  # as of earlier versions, which did not record the checksum
    with pytest.raises(UserError, match="now '.*copied/parent'"):
        train(configured(f"trainer.checkpoint_name={copied}/parent"), run_name="child")
    shutil.copytree(copied / "parent", parent.folder)
    for name in (f"{copied}/parent", str(parent.folder), f"{parent.folder}/step_1"):
        assert not train(configured(f"trainer.checkpoint_name={name}", HALF), run_name="child").created
    with pytest.raises(UserError, match="now 'other'"):
        train(configured(f"trainer.checkpoint_name={other.folder.name}"), run_name="child")


def test_a_parent_that_has_gone_on_is_the_same_parent(configured, parent):
    train(configured(FROM_PARENT, HALF), run_name="child")
    train(configured("trainer.training.max_iters=2"), run_name="parent")
    assert not train(configured(f"trainer.checkpoint_name={parent.folder}", HALF), run_name="child").created
    assert not train(configured(f"trainer.checkpoint_name={parent.checkpoint}", HALF), run_name="child").created


def test_what_looks_at_a_run_needs_no_parent_either(configured, config_file, command, parent):
    half = train(configured(FROM_PARENT, HALF))
    shutil.rmtree(parent.folder)
    assert plan(configured(FROM_PARENT, HALF)) == half.folder
    shown = command(FROM_PARENT, "--show-config", "--json")
    entries = json.loads(shown.stdout)
    assert (entries["run.action"]["value"], entries["run.action"]["iteration"]) == ("continue", 4)
    assert entries["model.hidden_dim"]["from"] == str(half.checkpoint)


def test_a_parent_in_the_folder_that_is_set_aside_is_refused(configured, parent):
    with pytest.raises(UserError, match="parent/step_1, which training starts from, is in .*parent, which --force"):
        locate_run(configured(FROM_PARENT), "parent", force=True)
    assert locate_run(configured(FROM_PARENT), "child", force=True).parent == parent.checkpoint

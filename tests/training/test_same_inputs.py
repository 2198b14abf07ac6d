"""A complete run is left alone only as long as its dataset and its parent, where they are there, are what they were."""

import dataclasses
import json
import shutil

import pytest

from stochastok_cli.config import load_config_and_sources
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.errors import USAGE, UserError
from stochastok_cli.training.effective_config import effective_config
from stochastok_cli.training.loggers.jsonl import read_starts
from stochastok_cli.training.plan import plan
from stochastok_cli.training.train import train

ONE, TWO = "trainer.training.max_iters=1", "trainer.training.max_iters=2"
FROM_PARENT = "trainer.checkpoint_name=parent"


def texts(notes) -> list[str]:
    return [note.text for note in notes if hasattr(note, "text")]


def refusal(action) -> str:
    with pytest.raises(UserError) as refused:
        action()
    assert refused.value.exit_code == USAGE
    return str(refused.value)


@pytest.mark.parametrize("has_manifest", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_complete_run_whose_dataset_was_made_again_is_refused(
    configured, config_file, data_dir, vocabulary, tmp_path, has_manifest
):
    own = tmp_path / "data"
    dataset = own / "data_as_memmaps" / "sample-tokenized"
    shutil.copytree(data_dir / "data_as_memmaps" / "sample-tokenized", dataset)
    options = (f"general.paths.data_dir={own}", ONE)
    if not has_manifest:  # as the reference implementation writes it
        (dataset / "manifest.json").unlink()
        options += ("model.vocab_size=50257",)
    run = train(configured(*options), run_name="a")
    before = {file: file.read_bytes() for file in run.folder.glob("*.*")}
    assert not train(configured(*options), run_name="a").created

    text = tmp_path / "other.jsonl"
    text.write_text("".join(json.dumps({"text": f"The other text, line {i}."}) + "\n" for i in range(400)))
    if has_manifest:
        tokenize(str(text), tokenizer=vocabulary, data_dir=own, name="sample-tokenized", force=True)
    else:
        (dataset / "val.bin").write_bytes((dataset / "train.bin").read_bytes())
    for action in (
        lambda: train(configured(*options), run_name="a"),
        lambda: plan(configured(*options), run_name="a"),
        lambda: effective_config(*load_config_and_sources(str(config_file), [*options]), "a"),
    ):
        message = refusal(action)
        assert f"{run.checkpoint} was trained on other data: sample-tokenized had the fingerprint" in message
        assert "--run-name, or --force to set the old run aside" in message
    assert {file: file.read_bytes() for file in run.folder.glob("*.*")} == before

    notes = []
    shutil.rmtree(dataset)  # to free the disk
    assert not train(configured(*options), run_name="a", listeners=[notes.append]).created
    gone = f"{dataset} is not there, so that it can't be compared with what {run.checkpoint} was trained on"
    assert texts(notes) == [gone]


def test_a_complete_run_whose_parent_was_replaced_is_refused(configured, config_file, tmp_path):
    parent = train(configured(ONE), run_name="parent").folder
    child = train(configured(FROM_PARENT, ONE), run_name="child")
    shutil.move(parent, kept := parent.with_name("kept"))
    notes = []
    assert not train(configured(FROM_PARENT, ONE), run_name="child", listeners=[notes.append]).created
    assert texts(notes) == [f"{parent / 'step_1'}, which {child.folder} started from, is not there any more"]

    train(configured(ONE, "general.seed=1"), run_name="parent")
    for action in (
        lambda: train(configured(FROM_PARENT, ONE), run_name="child"),
        lambda: plan(configured(FROM_PARENT, ONE), run_name="child"),
        lambda: effective_config(*load_config_and_sources(str(config_file), [FROM_PARENT, ONE]), "child"),
    ):
        message = refusal(action)
        assert f"{child.folder} is complete, and {parent / 'step_1'} has other weights now than those" in message
        assert "--force to set the old run aside" in message
    # Its own weights are another question: the run can be made longer, and named by the parent that it has.
    assert not train(configured(f"trainer.checkpoint_name={kept}", ONE), run_name="child").created
    notes.clear()
    assert train(configured(FROM_PARENT, TWO), run_name="child", listeners=[notes.append]).created
    assert any("has other weights now" in text and text.endswith("from its own checkpoint") for text in texts(notes))


def test_a_parent_trained_anew_with_another_length_is_told_from_one_that_has_gone_on(configured):
    parent = train(configured(ONE), run_name="parent").folder
    child = train(configured(FROM_PARENT, ONE), run_name="child")
    train(configured(TWO), run_name="parent")
    shutil.rmtree(parent / "step_1")  # as keep_checkpoints does
    notes = []
    assert not train(configured(FROM_PARENT, ONE), run_name="child", listeners=[notes.append]).created
    (note,) = texts(notes)
    assert note.endswith(f"started from {parent / 'step_1'}, which can't be compared with {parent / 'step_2'}")

    starts = parent / "starts.jsonl"
    anew = dataclasses.replace(read_starts(starts)[0][0], time="2999-01-01T00:00:00Z")
    starts.write_text(json.dumps(dataclasses.asdict(anew)) + "\n")
    message = refusal(lambda: train(configured(FROM_PARENT, ONE), run_name="child"))
    assert f"{child.folder} is complete, and {parent}, which it started from, has been trained anew since" in message
    assert "those weights are gone" in message and "name the checkpoint" not in message


def test_a_run_that_begins_again_without_a_checkpoint_has_the_parent_of_that_time(configured):
    parent = train(configured(ONE), run_name="parent").folder
    child = train(configured(FROM_PARENT, ONE), run_name="child")
    shutil.rmtree(child.checkpoint)  # as if the process had been killed before it saved
    shutil.rmtree(parent)
    train(configured(ONE, "general.seed=1"), run_name="parent")
    train(configured(FROM_PARENT, ONE), run_name="child")
    assert not train(configured(FROM_PARENT, ONE), run_name="child").created

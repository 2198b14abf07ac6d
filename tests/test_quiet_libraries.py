"""Calls of this package leave the logging and the progress bars of libraries as the user's process has them."""

import logging

import datasets
import huggingface_hub.utils
import pyarrow
import pytest
import transformers.utils.logging
from hub_server import USER

from stochastok_cli import hub
from stochastok_cli.data.arrow_datasets import write_dataset
from stochastok_cli.evaluation.question_files import read_path
from stochastok_cli.quiet_libraries import LEVELS, quiet


def state() -> dict[str, object]:
    return {
        "huggingface_hub": not huggingface_hub.utils.are_progress_bars_disabled(),
        "datasets": not datasets.are_progress_bars_disabled(),
        "transformers": transformers.utils.logging.is_progress_bar_enabled(),
        **{f"level of {name}": logging.getLogger(name).level for name in LEVELS},
    }


@pytest.fixture(params=[True, False], ids=["bars", "no bars"])
def chosen(request, monkeypatch):
    """What a user has chosen, with or without progress bars."""
    before = state()
    show(**dict.fromkeys(LEVELS, request.param))
    for i, name in enumerate(LEVELS):
        logging.getLogger(name).setLevel(logging.DEBUG + i)
    yield state()
    show(**{name: before[name] for name in LEVELS})
    for name in LEVELS:
        logging.getLogger(name).setLevel(before[f"level of {name}"])


def show(**shown: bool) -> None:
    """Turns progress bars on or off; `transformers` first, which switches those of the Hub as well."""
    for library, module, name in (
        ("transformers", transformers.utils.logging, "progress_bar"),
        ("huggingface_hub", huggingface_hub.utils, "progress_bars"),
        ("datasets", datasets, "progress_bars"),
    ):
        getattr(module, f"{'enable' if shown[library] else 'disable'}_{name}")()


def test_libraries_are_quiet_within_and_as_before_after(chosen):
    """Contexts of generators and threads overlap, and do not end in the order in which they began."""
    quiet_state = {**dict.fromkeys(LEVELS, False), **{f"level of {name}": level for name, level in LEVELS.items()}}
    first, second = quiet(*LEVELS), quiet("transformers", "datasets", "huggingface_hub")
    first.__enter__()
    assert state() == quiet_state
    second.__enter__()
    first.__exit__(None, None, None)
    assert state() == quiet_state
    second.__exit__(None, None, None)
    assert state() == chosen
    with quiet("transformers"):
        assert state() == {**chosen, "transformers": False, "level of transformers": logging.ERROR}
    assert state() == chosen


def test_calls_leave_libraries_as_they_were(chosen, hub_server, tmp_path):
    write_dataset(tmp_path / "saved", {"train": pyarrow.table({"a": [1]})})
    assert state() == chosen
    read_path("questions", tmp_path / "saved", "train")
    assert state() == chosen
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "rows" / "README.md").write_text("no card\n")
    read_path("questions", tmp_path / "rows", "train")
    assert state() == chosen
    hub_server.add_dataset(f"{USER}/quiet", {"train.jsonl": b'{"ids": [1, 2]}\n{"ids": [3]}\n'})
    dataset = hub.stream_ids(f"{USER}/quiet")
    assert state() == chosen
    assert [ids.tolist() for ids, _ in dataset.ids("train")] == [[1, 2, 3]]
    assert state() == chosen
    hub.load_rows(f"{USER}/quiet", split="train")
    assert state() == chosen

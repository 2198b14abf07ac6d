"""Names of checkpoints, which checkpoints are complete, and what a resumed run removes."""

import dataclasses
import errno
import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.models.checkpoint_reader import (
    TrainingState,
    checkpoints,
    iteration_of,
    latest_checkpoint,
    locate_checkpoint,
    read_state,
    resolve_checkpoint,
    run_of,
)
from stochastok_cli.models.intact_checkpoints import require_intact
from stochastok_cli.models.llama.model import Llama
from stochastok_cli.models.llama.state_dict import load_weights
from stochastok_cli.training import run_dir
from stochastok_cli.training.checkpoint_cleanup import remove_leftovers
from stochastok_cli.training.checkpoint_writer import amend_state, save_checkpoint
from stochastok_cli.training.data_parallel import Replicated
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.optimizers import make_optimizer, optimizer_tensors
from stochastok_cli.training.run_dir import RunProgress
from stochastok_cli.training.sharded import Sharded

STATE = TrainingState(4, False, 1.5, {"name": "d", "fingerprint": "f"}, {"model": {}})


@pytest.fixture
def trained(configured):
    """A model on one rank, and an optimizer that has made a step."""
    torch.manual_seed(0)
    config = configured()
    parallel = Replicated(DistributedContext(0, 1, torch.device("cpu")))
    model = parallel.prepare(Llama(config.model))
    optimizer = make_optimizer(model, config.trainer.optimizer)
    model(torch.arange(8)[None]).square().sum().backward()
    optimizer.step()
    return parallel, model, optimizer


@pytest.fixture
def in_parts(configured):
    """What `trained` is, with the state of the optimizer saved in parts, by a process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    torch.manual_seed(0)
    config = configured()
    parallel = Sharded(DistributedContext(0, 1, torch.device("cpu")))
    model = parallel.prepare(Llama(config.model))
    optimizer = make_optimizer(model, config.trainer.optimizer)
    model(torch.arange(8)[None]).square().sum().backward()
    optimizer.step()
    yield parallel, model, optimizer
    dist.destroy_process_group()


@pytest.fixture
def saved(trained, tmp_path, vocabulary):
    """A run with checkpoints at 4, 12 and 100."""
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    parallel, _, optimizer = trained
    for iteration in (12, 4, 100):
        state = dataclasses.replace(STATE, iteration=iteration)
        save_checkpoint(run, state, parallel, optimizer, vocabulary, keep=None)
    return run


def load_checkpoint(folder, parallel, model, optimizer):
    load_weights(model, folder)
    parallel.load_optimizer_state(optimizer, folder)


def test_a_checkpoint_restores_weights_and_optimizer(saved, trained, configured):
    parallel, model, optimizer = trained
    other_parallel = Replicated(parallel.world)
    other = other_parallel.prepare(Llama(model.config))
    other_optimizer = make_optimizer(other, configured().trainer.optimizer)
    load_checkpoint(saved / "step_12", other_parallel, other, other_optimizer)
    saved_state, loaded = optimizer_tensors(model, optimizer), optimizer_tensors(other, other_optimizer)
    assert set(saved_state) == set(loaded)
    assert all(torch.equal(saved_state[name], loaded[name]) for name in saved_state)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert read_state(saved / "step_12") == dataclasses.replace(STATE, iteration=12)
    assert {f.suffix for f in (saved / "step_12").iterdir()} == {".json", ".safetensors"}  # nothing pickled


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_in_parts_is_that_of_one_file_and_counts_when_complete(in_parts, trained, tmp_path, vocabulary, dtype):
    parallel, _, optimizer = in_parts
    run = tmp_path / "run"
    run.mkdir()
    step = save_checkpoint(run, STATE, parallel, optimizer, vocabulary, keep=None, dtype=dtype)
    assert not (step / "optimizer.safetensors").exists()
    assert {file.suffix for file in step.rglob("*") if file.is_file()} == {".json", ".safetensors"}  # nothing pickled
    _, other, whole_optimizer = trained
    expected = {name: t.clone() for name, t in optimizer_tensors(other, whole_optimizer, with_weights=True).items()}
    for target_parallel, target, target_optimizer in (trained, in_parts):
        with torch.no_grad():
            for tensor in optimizer_tensors(target, target_optimizer, with_weights=True).values():
                tensor.zero_()
        if target is other:
            load_weights(target, step)
        target_parallel.load_optimizer_state(target_optimizer, step)
        for name, tensor in optimizer_tensors(target, target_optimizer, with_weights=dtype != torch.float32).items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            torch.testing.assert_close(full, expected[name])

    assert list(checkpoints(run)) == [4]
    part = next((step / "optimizer").iterdir())
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    require_intact(step, with_optimizer=False)
    with pytest.raises(UserError, match=r"optimizer/.* is damaged"):
        require_intact(step, with_optimizer=True)
    part.unlink()
    assert list(checkpoints(run)) == []


def test_a_disk_that_is_full_leaves_no_checkpoint(in_parts, tmp_path, vocabulary, monkeypatch):
    parallel, _, optimizer = in_parts

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.HuggingFaceStorageWriter.write_data", full)
    with pytest.raises(UserError, match="step_4 can't be written: No space left on device; make room"):
        save_checkpoint(tmp_path, STATE, parallel, optimizer, vocabulary, keep=None)
    assert not list(tmp_path.glob("*step_*"))


def test_the_latest_is_by_number_and_counts_complete_ones_only(saved):
    assert list(checkpoints(saved)) == [4, 12, 100]
    assert latest_checkpoint(saved) == saved / "step_100"
    (saved / "step_100" / "optimizer.safetensors").unlink()
    assert latest_checkpoint(saved) == saved / "step_12"
    (saved / "step_12" / "training_state.json").write_text("{")
    assert latest_checkpoint(saved) == saved / "step_4"
    (saved / "step_500").mkdir()
    (saved / "step_4").rename(saved / "step_4_backup")
    assert latest_checkpoint(saved) is None


def test_names_that_mean_a_checkpoint(saved, tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    assert resolve_checkpoint("a", runs) == saved / "step_100"
    assert resolve_checkpoint("a/step_4", runs) == saved / "step_4"
    assert resolve_checkpoint(str(saved), tmp_path / "elsewhere") == saved / "step_100"
    assert resolve_checkpoint(str(saved / "step_4"), tmp_path / "elsewhere") == saved / "step_4"
    foreign = tmp_path / "llama"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    assert resolve_checkpoint(str(foreign), runs) == foreign
    assert (run_of(saved / "step_4"), run_of(foreign)) == ("a", "llama")
    assert (iteration_of(saved / "step_4"), iteration_of(foreign)) == (4, None)
    with pytest.raises(
        UserError, match="no checkpoint 'gpt2': .*; the name of a model on the Hub has two parts, as in "
    ):
        resolve_checkpoint("gpt2", saved.parents[1])
    with pytest.raises(UserError, match=r"no checkpoint 'b': .*did you mean 'a'|there are a"):
        resolve_checkpoint("b", runs)
    for name in ("a/step_5", str(saved / "step_5")):
        with pytest.raises(UserError, match=f"no checkpoint '{name}'; {saved} has step_4, step_12, step_100"):
            locate_checkpoint(name, runs)
    (runs / "group" / "c" / "step_4").mkdir(parents=True)
    for name in ("group/d", str(runs / "group" / "d")):
        with pytest.raises(UserError, match=rf"did you mean '{name[:-1]}c'\?; there are a, group/c"):
            locate_checkpoint(name, runs)
    assert locate_checkpoint("owner/model", runs) is None
    monkeypatch.chdir(runs)  # where a run is a path, too
    for name in ("a/step_5", "a/step_5@main"):
        with pytest.raises(UserError, match=f"no checkpoint '{name}'; a has step_4, step_12, step_100"):
            locate_checkpoint(name, Path("checkpoints"))
    (runs / "new").mkdir()
    (runs / "new" / "config.yaml").touch()
    with pytest.raises(UserError, match="no checkpoint 'new/step_5'; new has none yet"):
        locate_checkpoint("new/step_5", Path("checkpoints"))
    (runs / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no complete checkpoint; name a folder with config.json"):
        resolve_checkpoint("empty", runs)
    with pytest.raises(UserError, match="the run .*new has no checkpoint yet; train it until it saves one"):
        resolve_checkpoint("new", runs)
    (runs / "new" / "step_2").mkdir()
    with pytest.raises(UserError, match="new holds no complete checkpoint: step_2 is incomplete; bring its files back"):
        resolve_checkpoint("new", runs)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "model.safetensors", "config.json"])
def test_a_flipped_bit_is_reported(saved, trained, name):
    file = saved / "step_4" / name
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    assert 4 in checkpoints(saved)  # its size is right
    with pytest.raises(UserError, match=f"{name} is damaged: .*; name another checkpoint") as info:
        require_intact(saved / "step_4", with_optimizer=True)
    assert info.value.exit_code == FAILED


def test_the_optimizer_is_not_needed_for_the_weights_alone(saved):
    (saved / "step_4" / "optimizer.safetensors").unlink()
    require_intact(saved / "step_4", with_optimizer=False)
    with pytest.raises(UserError, match="optimizer.safetensors is damaged"):
        require_intact(saved / "step_4", with_optimizer=True)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"files": [1]}'])
def test_an_unreadable_state_is_reported_as_damage(saved, content):
    (saved / "step_4" / "training_state.json").write_text(content)
    with pytest.raises(UserError, match="training_state.json is damaged: .*; name another checkpoint") as info:
        require_intact(saved / "step_4", with_optimizer=True)
    assert info.value.exit_code == FAILED


def test_checkpoints_of_the_first_version_open(saved, trained):
    file = saved / "step_4" / "training_state.json"
    state = json.loads(file.read_text())
    state["files"] = {name: entry["bytes"] for name, entry in state["files"].items()}
    file.write_text(json.dumps(state))
    assert 4 in checkpoints(saved)
    require_intact(saved / "step_4", with_optimizer=True)
    load_checkpoint(saved / "step_4", *trained)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("iteration", 5),  # of step_4
        ("iteration", None),
        ("evaluation_pending", "no"),
        ("validation_loss", "a"),
        ("data", {}),
        ("config", None),
        ("files", {}),
    ],
)
def test_a_checkpoint_with_an_invalid_state_does_not_count(saved, key, value):
    file = saved / "step_4" / "training_state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    assert list(checkpoints(saved)) == [12, 100]


def test_the_state_can_be_amended_and_leftovers_are_removed(saved):
    pending = dataclasses.replace(STATE, evaluation_pending=True, validation_loss=None)
    amend_state(saved / "step_4", pending)
    assert read_state(saved / "step_4") == pending
    assert list(checkpoints(saved)) == [4, 12, 100]
    (saved / ".step_8.partial").mkdir()
    (saved / "step_12").rename(saved / ".step_12.deleted")
    remove_leftovers(saved)
    assert sorted(f.name for f in saved.iterdir()) == ["step_100", "step_4"]


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (None, []),
        (dataclasses.replace(STATE, iteration=4), [(0, "e"), (2, "t"), (4, "t"), (4, "e")]),
        (dataclasses.replace(STATE, iteration=4, evaluation_pending=True), [(0, "e"), (2, "t"), (4, "t")]),
        (dataclasses.replace(STATE, iteration=3), [(0, "e"), (2, "t")]),
    ],
)
def test_metrics_are_cut_back_to_the_checkpoint(tmp_path, configured, state, kept):
    names = {"t": "train/loss", "e": "validation/loss"}
    lines = [{"iteration": i, names[kind]: 1.0} for i, kind in [(0, "e"), (2, "t"), (4, "t"), (4, "e"), (6, "t")]]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"iter')
    run_dir.start_or_resume(tmp_path, configured(), RunProgress(Path("x") if state else None, state))
    read = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert read == [{"iteration": i, names[kind]: 1.0} for i, kind in kept]


def test_run_names(configured, saved):
    config = configured("general.logging.run_name_prefix=tune", "trainer.dataset.name=d")
    assert run_dir.default_run_name(config, None) == "tune-d"
    assert run_dir.default_run_name(config, run_of(saved / "step_4")) == "tune-d-from-a"

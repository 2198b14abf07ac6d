"""Several ranks, as processes that communicate through gloo: the same batches, losses and checkpoints as one."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from torch.distributed import run

from stochastok_cli.errors import STOPPED_WITH_CHECKPOINT, USAGE
from stochastok_cli.training.data import open_data
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.launch import launcher_options
from stochastok_cli.training.train import train
from tests.models.huggingface_families import random_model
from tests.training.runs import metrics, steps

LAUNCH = (
    "import sys; from stochastok_cli.training.launch import launch; sys.exit(launch(sys.argv[2:], int(sys.argv[1])))"
)


def launched(config_file, ranks, *arguments, **options):
    """Starts what `stochastok train` starts on several GPUs, with CPU ranks instead."""
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(ranks), "train", "--config", str(config_file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


FALLING = ("trainer.dataset.expand_prop=0.8", "trainer.dataset.expand_schedule=cosine")


@pytest.mark.parametrize("expansion", [(), FALLING])
@pytest.mark.parametrize("dataset", [["sample-tokenized"], ["langgame", "trainer.dataset.is_instruction=true"]])
def test_the_global_batch_is_the_same_for_any_number_of_ranks(configured, dataset, expansion):
    name, *more = dataset
    config = configured(f"trainer.dataset.name={name}", "model.context_window=128", *more, *expansion)
    data = open_data(config)
    size, micro_steps = config.trainer.training.batch_size, config.trainer.training.gradient_accumulation_steps

    def global_batch(ranks):
        windows = {}
        for rank in range(ranks):
            for step in DistributedContext(rank, ranks, None).indices_of_rank(micro_steps):
                windows[step] = data.train.batch(5, np.arange(step * size, (step + 1) * size)).ids
        return np.concatenate([windows[step] for step in range(micro_steps)])

    one, two, four = global_batch(1), global_batch(2), global_batch(4)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, four)
    assert len({row.tobytes() for row in one}) == len(one)  # ranks, and micro-batches, draw different windows


def test_two_ranks_give_the_losses_of_one_and_a_checkpoint_that_one_can_resume(config_file, configured, data_dir):
    evaluator = "trainer.eval=[{evaluator:mcq,num_samples:5,benchmarks:[langgame-val]}]"
    alone = train(configured(evaluator), run_name="one")
    in_background = "trainer.training.async_save=true"
    process = launched(config_file, 2, "--run-name", "two", "trainer.training.max_iters=4", evaluator, in_background)
    out, error = process.communicate()
    assert process.returncode == 0, error
    assert out == f"{alone.folder.with_name('two')}\n"  # rank 0 alone prints
    resumed = train(configured(evaluator), run_name="two")
    pairs = list(zip(metrics(resumed.folder), metrics(alone.folder), strict=True))
    for ours, expected in pairs:
        assert ours == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert any("mcq/langgame-val/accuracy" in ours for ours, _ in pairs)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "more"), [(None, ()), ("qwen3", ()), ("qwen3", ("trainer.lora.rank=4",))])
def test_sharded_ranks_give_the_losses_of_one_and_resume_on_another_number(
    config_file, configured, tmp_path, vocabulary, family, more
):
    options = [*more, "trainer.eval=[{evaluator:mcq,num_samples:5,benchmarks:[langgame-val]}]"]
    if family is not None:
        random_model(family).save_pretrained(tmp_path / family)
        vocabulary.save_tokenizer(tmp_path / family)
        options += [f"trainer.checkpoint_name={tmp_path / family}", "trainer.dropout_scheduler.dropout=0"]
    alone = train(configured(*options), run_name="one")
    halfway = "trainer.training.max_iters=4"
    sharded = [*options, "trainer.parallel=shard"]
    process = launched(config_file, 2, "--run-name", "two", halfway, *sharded)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    parts = alone.folder.with_name("two") / "step_4" / "optimizer"
    assert len(list(parts.iterdir())) == 2  # one file for each rank
    more = ("trainer.training.max_iters=6", "trainer.training.async_save=true")
    process = launched(config_file, 2, "--run-name", "two", *more, *sharded)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    train(configured(*sharded), run_name="two")  # on one rank
    train(configured(*options, halfway), run_name="one-two")
    process = launched(config_file, 2, "--run-name", "one-two", *sharded)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 0, error
    for name in ("two", "one-two"):
        lines = metrics(alone.folder.with_name(name))
        lines = [line for line in lines if line["iteration"] != 6 or "train/loss" in line]  # a run ended there once
        for ours, expected in zip(lines, metrics(alone.folder), strict=True):
            assert ours == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["replicate", "shard"])
@pytest.mark.parametrize("more", [(), ("trainer.lora.rank=4",)])
def test_weights_in_bfloat16_on_two_ranks(config_file, configured, tmp_path, vocabulary, parallel, more):
    random_model("qwen3").save_pretrained(tmp_path / "qwen3")
    vocabulary.save_tokenizer(tmp_path / "qwen3")
    options = [f"trainer.checkpoint_name={tmp_path / 'qwen3'}", "trainer.dropout_scheduler.dropout=0", *more]
    options += [f"trainer.training.{name}=bfloat16" for name in ("weight_dtype", "checkpoint_dtype")]
    options.append(f"trainer.parallel={parallel}")
    alone = train(configured(*options), run_name="one")
    for count in (4, 8):
        process = launched(config_file, 2, "--run-name", "two", f"trainer.training.max_iters={count}", *options)
        _, error = process.communicate(timeout=100)
        assert process.returncode == 0, error
    for ours, expected in zip(metrics(alone.folder.with_name("two")), metrics(alone.folder), strict=True):
        assert ours == pytest.approx(expected, rel=0.05)


@pytest.mark.slow
def test_torchrun_works(config_file):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [
            *torchrun,
            "-m",
            "stochastok_cli",
            "train",
            "--config",
            str(config_file),
            "trainer.training.max_iters=1",
            "--json",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["iteration"] == 1


@pytest.mark.slow
def test_the_launcher_exits_as_its_ranks_would_and_the_error_is_printed_once(config_file, tmp_path):
    process = launched(config_file, 2, "trainer.training.gradient_accumulation_steps=3")
    out, error = process.communicate()
    assert (process.returncode, out) == (USAGE, "")
    assert len(error.splitlines()) == 1
    assert error.startswith("error: trainer.training.gradient_accumulation_steps = 3 can't be divided over 2 processes")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux ends children with their parent")
def test_ranks_save_and_end_when_their_launcher_is_killed(config_file, tmp_path):
    interval = "trainer.training.checkpoint_interval=1000000"
    options = ("--run-name", "orphans", "trainer.training.max_iters=1000000", interval)
    process = launched(config_file, 2, *options)
    deadline = time.monotonic() + 90
    while not (log_files := list(tmp_path.rglob("metrics.jsonl"))) or not log_files[0].stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before = {folder.name for folder in log_files[0].parent.glob("step_*")}
    process.kill()
    process.communicate(timeout=60)  # until the ranks have closed their outputs
    after = {folder.name for folder in log_files[0].parent.glob("step_*")}
    assert after - before and not any(name.endswith(".partial") for name in after)


def test_the_launcher_is_given_only_options_that_its_version_has():
    parser = run.get_args_parser()
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored where nohup has started the tests
    try:
        parsed = parser.parse_args([*launcher_options(3, parser), "script"])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (parsed.nproc_per_node, parsed.signals_to_handle) == ("3", "SIGINT,SIGTERM,SIGUSR1,SIGHUP")
    old = argparse.ArgumentParser()
    old.add_argument("--nproc-per-node")
    assert launcher_options(3, old) == ["--standalone", "--nproc-per-node", "3"]


@pytest.mark.slow
def test_a_signal_to_the_launcher_stops_all_ranks_with_a_checkpoint(config_file, tmp_path):
    process = launched(config_file, 2, "--run-name", "two", "trainer.training.max_iters=100000")
    folder = tmp_path / "runs" / "two"
    while not (folder / "train.log").exists() or "  loss " not in (folder / "train.log").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    _, error = process.communicate()
    assert process.returncode == STOPPED_WITH_CHECKPOINT, error
    assert error.count("run the same command again") == 1
    assert "death signal" not in error  # what torch's launcher would print
    assert steps(folder)
    assert not _is_alive(process.pid)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["replicate", "shard"])
def test_a_rank_that_dies_takes_the_others_down(config_file, tmp_path, parallel):
    options = "trainer.training.max_iters=100000", f"trainer.parallel={parallel}"
    process = launched(config_file, 2, "--run-name", "two", *options)
    folder = tmp_path / "runs" / "two"
    while not (folder / "train.log").exists() or "  loss " not in (folder / "train.log").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    victim = _children(process.pid)[-1]
    os.kill(victim, signal.SIGKILL)
    _, error = process.communicate()
    assert process.returncode == 1
    assert error.count("error: ") == 1
    assert "another process of this run has died" in error
    assert not _is_alive(victim)


def _children(pid):
    children = []
    for stat in os.popen("ps -eo pid,ppid").read().splitlines()[1:]:
        child, parent = map(int, re.findall(r"\d+", stat))
        if parent == pid:
            children.append(child)
    return children


def _is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

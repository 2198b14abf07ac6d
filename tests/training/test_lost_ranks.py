"""A process ends when another one of its run has died, whatever its main thread waits for."""

import subprocess
import sys
import time

import pytest

SCRIPT = r"""
import os, pathlib, signal, sys, time
import torch
from stochastok_cli.training.distributed import distributed_context
from stochastok_cli.training.lost_ranks import end_by_itself, finish_first

what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
signal.signal(signal.SIGTERM, lambda number, frame: None)  # reaches no thread that waits for a GPU
with distributed_context("cpu") as world:
    world.any(False)
    if what not in ("ends well", "fails") and world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "waits for its GPU":
        time.sleep(300)
    if what == "waits for the store":
        torch.distributed.distributed_c10d._get_default_store().get("what a rank that was killed would have set")
    if what == "fails":
        end_by_itself()
        try:
            raise ValueError("this is an error of every rank")
        finally:
            time.sleep(5 if world.rank == 0 else 0)  # as a logger takes to close
            os.write(1, b"the end of rank %d\n" % world.rank)
    if what == "writes" and world.rank == 0:
        with finish_first():
            time.sleep(4)
            (folder / "written").touch()
        time.sleep(1)
        (folder / "reported").touch()
    if what == "writes":
        time.sleep(300)
    if world.rank == world.world_size - 1:
        time.sleep(3)
        (folder / "last").touch()
assert (folder / "last").exists()  # no rank ends before the others have come to the end
os.write(1, b"the end of rank %d\n" % world.rank)
"""


def _run(what, ranks, tmp_path):
    """The exit code, the lines of the processes themselves, and seconds."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    began = time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    done = subprocess.run([*command, str(script), what, str(tmp_path)], capture_output=True, text=True, timeout=120)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("error:", "the end"))]
    return done.returncode, sorted(lines), time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize(("what", "ranks"), [("waits for its GPU", 3), ("waits for the store", 2)])
def test_ranks_that_wait_for_good_end_with_one_error(what, ranks, tmp_path):
    code, lines, seconds = _run(what, ranks, tmp_path)
    assert code == 1 and seconds < 29  # torchrun kills after 30 seconds
    (line,) = lines
    assert "another process of this run has died" in line
    assert "the same command goes on from the checkpoint" in line


@pytest.mark.slow
def test_what_is_being_written_is_finished_first(tmp_path):
    code, lines, _ = _run("writes", 2, tmp_path)
    assert code == 1 and len(lines) == 1
    assert (tmp_path / "written").exists() and (tmp_path / "reported").exists()


@pytest.mark.slow
def test_a_rank_that_fails_has_time_to_end(tmp_path):
    code, lines, _ = _run("fails", 2, tmp_path)
    assert code == 1 and lines == ["the end of rank 0", "the end of rank 1"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
def test_ranks_that_end_one_after_another_are_not_lost(ranks, tmp_path):
    code, lines, _ = _run("ends well", ranks, tmp_path)
    assert code == 0
    assert lines == [f"the end of rank {rank}" for rank in range(ranks)]

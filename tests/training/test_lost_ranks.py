"""A process ends when another one of its run has died, whatever its main thread waits for."""

import subprocess
import sys
import time

import pytest

SCRIPT = """
import os, pathlib, signal, sys, time
from stochastok_cli.training.distributed import distributed_context
from stochastok_cli.training.lost_ranks import finish_first

what, folder = sys.argv[1], pathlib.Path(sys.argv[2])
signal.signal(signal.SIGTERM, lambda number, frame: None)  # reaches no thread that waits for a GPU
with distributed_context("cpu") as world:
    world.any(False)
    if what != "ends well" and world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "waits for its GPU":
        time.sleep(300)
    if what == "writes" and world.rank == 0:
        with finish_first():
            time.sleep(6)
            (folder / "written").touch()
            time.sleep(0.2)
    if what == "writes":
        time.sleep(300)
    time.sleep(world.rank)  # no rank ends before the others have come to the end
print(f"the end of rank {world.rank}", flush=True)
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
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_wait_for_a_gpu_end_with_one_error(ranks, tmp_path):
    code, lines, seconds = _run("waits for its GPU", ranks, tmp_path)
    assert code == 1 and seconds < 29  # torchrun kills after 30 seconds
    (line,) = lines
    assert "another process of this run has died" in line
    assert "the same command goes on from the checkpoint" in line


@pytest.mark.slow
def test_what_is_being_written_is_finished_first(tmp_path):
    code, lines, _ = _run("writes", 2, tmp_path)
    assert code == 1 and len(lines) == 1
    assert (tmp_path / "written").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
def test_ranks_that_end_one_after_another_are_not_lost(ranks, tmp_path):
    code, lines, _ = _run("ends well", ranks, tmp_path)
    assert code == 0
    assert lines == [f"the end of rank {rank}" for rank in range(ranks)]

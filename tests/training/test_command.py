"""`stochastok train` in a process: stdout, stderr, a terminal."""

import json
import os
import pty
import subprocess

from tests.training.conftest import COMMAND

SHORT = "trainer.training.max_iters=2"


def test_stdout_is_one_line_and_the_second_call_leaves_the_run_alone(command, tmp_path):
    folder = f"{tmp_path / 'runs' / 'pretraining-sample-tokenized'}\n"
    first = command(SHORT)
    assert (first.returncode, first.stdout) == (0, folder), first.stderr
    assert "iteration 2  loss " in first.stderr
    second = command(SHORT)
    assert (second.returncode, second.stdout) == (0, folder)
    assert second.stderr == f"{folder[:-1]} is complete; left alone\n"


def test_json_and_quiet(command, tmp_path):
    done = command(SHORT, "--json", "--quiet", "--run-name", "a", "general.paths.output_dir=x")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["path"] == str(tmp_path / "runs" / "a")
    assert result["checkpoint"] == str(tmp_path / "runs" / "a" / "step_2")
    assert (result["iteration"], result["made"]) == (2, True)
    assert "validation/loss" in result["metrics"]
    again = json.loads(command(SHORT, "--json", "--quiet", "--run-name", "a", "general.paths.output_dir=x").stdout)
    assert again == {**result, "made": False}
    with open(tmp_path / "runs" / "a" / "metrics.jsonl", "a") as metrics:
        metrics.write('[1]\n{"iter')  # torn
    torn = command(SHORT, "--json", "--quiet", "--run-name", "a", "general.paths.output_dir=x")
    assert (torn.returncode, torn.stdout) == (0, json.dumps(again) + "\n"), torn.stderr


def test_a_terminal_has_a_live_line(config_file):
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--config", str(config_file), SHORT],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # nothing writes to the terminal any more
        pass
    process.communicate()
    assert process.returncode == 0, shown
    assert b"2/2  loss " in shown
    assert b"tokens/s" in shown
    assert b"saved " in shown

"""The scripts for Slurm are run with programs that keep their arguments, which the command line then parses."""

import os
import subprocess
from pathlib import Path

import pytest
import typer

from stochastok_cli.cli.app import app, register_subcommands

SCRIPTS = Path(__file__).parent.parent / "examples" / "slurm"
PROGRAM = """\
#!/bin/bash
printf '%s\\n' "{name}" "$@" > "$RECORD/$(date +%s%N)"
case "{name}" in
    stochastok) [[ "$2" != here* ]] && echo '{{"path": "x", "job": "17"}}' || echo '{{"path": "x", "made": false}}' ;;
    scontrol) echo node1; echo node2 ;;
esac
"""


@pytest.fixture
def commands_of(tmp_path, monkeypatch):
    """Runs a script; returns the programs that it calls, each with its arguments."""
    programs, record = tmp_path / "bin", tmp_path / "record"
    programs.mkdir()
    record.mkdir()
    for name in ("stochastok", "sbatch", "srun", "scontrol"):
        (programs / name).write_text(PROGRAM.format(name=name))
        (programs / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "17"}
    environment = {**os.environ, **slurm, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "RECORD": str(record)}

    def run(script: str, **variables: str) -> list[list[str]]:
        done = subprocess.run(
            ["bash", str(SCRIPTS / script)],
            env={**environment, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [file.read_text().splitlines() for file in sorted(record.iterdir())]

    return run


def require_options(command: list[str]) -> None:
    """Raises a usage error for an option that the command line does not have."""
    register_subcommands()
    group = typer.main.get_command(app)
    group.commands[command[0]].make_context(command[0], command[1:])


@pytest.mark.parametrize("script", sorted(SCRIPTS.iterdir()), ids=lambda script: script.name)
def test_scripts_are_bash_and_known_here(script):
    assert script.name in ("data.sh", "train.sbatch", "evaluate.sbatch")
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def test_data(commands_of):
    tokenize, wait, expand, wait_again = commands_of(
        "data.sh", SOURCE="/texts", PARTITION="cpu", SLURM_OPTIONS="--account=nlp --exclusive"
    )
    for command in (tokenize, expand):
        assert command[0] == "stochastok" and {"--executor", "slurm", "--account=nlp --exclusive"} <= {*command}
        require_options(command[1:])
    assert expand[1:3] == ["expand", "corpus-tokenized"]
    assert wait[0] == wait_again[0] == "sbatch" and "afterok:17" in wait


def test_folders_that_are_there_have_no_job(commands_of):
    called = commands_of("data.sh", SOURCE="here", PARTITION="cpu", NAME="here")
    assert [command[:2] for command in called] == [["stochastok", "tokenize"], ["stochastok", "expand"]]


def test_training_and_evaluation(commands_of):
    nodes, train = commands_of("train.sbatch")
    assert nodes == ["scontrol", "show", "hostnames", "node[1-2]"]
    assert train[:3] == ["srun", "--kill-on-bad-exit=1", "torchrun"] and "node1:29500" in train
    require_options(train[train.index("stochastok_cli") + 1 :])
    *_, evaluate = commands_of("evaluate.sbatch")
    assert evaluate[:2] == ["stochastok", "eval"]
    require_options(evaluate[1:])

"""An evaluator registered from outside of the package works like the others: command line, training, Python, tables."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from stochastok_cli.data.tokenize import tokenize
from tests.training.conftest import TINY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    """`stochastok` in a process that has imported the toy evaluator."""
    code = "import tests.extending.toy_evaluator; from stochastok_cli.cli.app import main; main()"
    command = [sys.executable, "-c", code, *map(str, args)]  # the options are made when `eval` is imported
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data directory, and the run of a tiny model that was evaluated by the toy evaluator while it trained."""
    folder = tmp_path_factory.mktemp("toy")
    tokenize("sample", tokenizer="sample2k", data_dir=folder / "data")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    done = run(
        *("train", "--config", folder / "tiny.yaml", "trainer.training.max_iters=2", "--data-dir", folder / "data"),
        f"general.paths.checkpoint_dir={folder / 'runs'}",
        "trainer.eval=[{evaluator:next_token,num_samples:5,prompt_length:4,benchmarks:[sample-tokenized]}]",
    )
    assert done.returncode == 0, done.stderr
    return folder / "data", Path(done.stdout.strip())


def test_in_training(trained):
    last = json.loads((trained[1] / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["next_token/sample-tokenized/accuracy"] <= 1


def test_on_the_command_line(trained):
    data_dir, folder = trained
    command = ("eval", folder, "--evaluator", "next_token", "--data-dir", data_dir, "--benchmarks", "sample-tokenized")
    result = json.loads(run(*command, "--json").stdout)
    assert result["n"] == {"next_token/sample-tokenized": 16}
    assert [*result["metrics"]] == [*result["intervals"]] == ["next_token/sample-tokenized/accuracy"]
    table = run(*command, "--prompt-length", 2).stdout
    assert "Next-token accuracy" in table and "16 questions" in table
    shown = run("eval", "--help").stdout
    assert "next_token: how often the most likely" in " ".join(shown.replace("│", " ").split())
    assert "--prompt-length" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--evaluator", "mcq", "--benchmarks", "arc", "--prompt-length", 3), "--prompt-length can only go with"),
        (("--evaluator", "next_token"), "--evaluator next_token needs --benchmarks"),
        (("--evaluator", "next_tokens", "--benchmarks", "x"), "next_token"),
    ],
)
def test_wrong_use(trained, arguments, message):
    refused = run("eval", trained[1], *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert message in refused.stderr

"""The example scripts chain the subcommands as a user's own would."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_papers_chain_at_its_tiny_scale_and_again(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "cache")
    command = ["bash", str(EXAMPLES / "paper.sh"), "--tiny"]
    first = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert first.returncode == 0, first.stderr
    runs = {f.name for f in (tmp_path / "checkpoints").iterdir() if not f.name.startswith(".")}
    assert runs == {
        "pretrain-sample-tokenized",
        "pretrain-sample-tokenized-stochastok0.1",
        "langgame-from-sample-tokenized",
        "langgame-from-sample-tokenized-stochastok0.1",
        *(f"addition-{form}" for form in ("base", "stochastok", "character", "bpe_dropout")),
    }
    for name in runs:
        lines = (tmp_path / "checkpoints" / name / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["iteration"] == 4
    again = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("left alone") >= len(runs)

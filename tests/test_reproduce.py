"""The scripts that reproduce figures of the papers run at their tiny scale and end in their results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent.parent / "examples" / "reproduce"
KINDS = ("canonical", "stochastok-0.1", "bpe-dropout-0.1", "none")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("reproduce")


def run_script(name: str, out: Path, *options: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"TORCHINDUCTOR_CACHE_DIR": str(out / "cache"), "CUTE": str(cute_questions(out))}
    command = ["bash", str(SCRIPTS / name), "--scale", "tiny", "--seeds", "1", "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


CUTE_ROWS = {
    "spell": "there\tt h e r e",
    "spell_inverse": "t h e r e\tthere",
    "contains_char": "x\triver\tNo",
    "orth": "happy\tglad\tapply\tapply",
    "ins_char": "b\te\tthere\tthebreb",
    "del_char": "e\tthere\tthr",
    "sub_char": "e\ta\tthere\tthara",
    "swap_char": "t\tr\tthere\trhete",
}


def cute_questions(out: Path) -> Path:
    """Files of questions in the form of the published ones."""
    folder = out / "cute-questions"
    folder.mkdir(exist_ok=True)
    for task, row in CUTE_ROWS.items():
        header = "\t".join([*(f"input{i + 1}" for i in range(row.count("\t"))), "label"])
        (folder / f"{task}.tsv").write_text(f"{header}\n{row}\n{row}\n")
    return folder


@pytest.mark.parametrize(
    ("name", "results", "metric"),
    [
        ("fig01.sh", ("fig01-train", "fig01-val"), "mcq/langgame-{split}/normalized_accuracy"),
        ("fig04.sh", ("fig04",), "mcq/cute/normalized_accuracy"),
    ],
)
def test_a_figure_ends_in_a_table_raw_values_and_a_plot_with_the_papers_values(name, results, metric, out):
    finished = run_script(name, out)
    assert finished.returncode == 0, finished.stderr
    for result in results:
        table = (out / "results" / f"{result}.md").read_text()
        assert table in finished.stdout
        assert all(f"| {kind} |" in table for kind in KINDS)
        lines = (out / "results" / f"{result}.jsonl").read_text().splitlines()
        key = metric.format(split=result.rpartition("-")[2])
        for row in map(json.loads, lines):
            metrics = (out / "checkpoints" / row["run"] / "metrics.jsonl").read_text().splitlines()
            assert any(json.loads(line).get(key) == row[key] for line in metrics)
        assert {json.loads(line)["group"] for line in lines} == set(KINDS)
        assert "the paper" in (out / "results" / f"{result}.svg").read_text()
    again = run_script(name, out)
    assert again.returncode == 0, again.stderr
    assert again.stdout == finished.stdout


def test_a_scale_that_does_not_exist_and_a_missing_corpus_are_usage_errors(out):
    for options in (("--scale", "huge"), ("--scale", "small"), ("--seeds", "0"), ("--seeds",)):
        finished = run_script("fig01.sh", out, *options)
        assert finished.returncode == 2
        assert len(finished.stderr.splitlines()) == 1

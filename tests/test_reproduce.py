"""The scripts that reproduce figures of the papers run at their tiny scale and end in their results."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent.parent / "examples" / "reproduce"
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
RESULTS = {
    "fig01-train": ("canonical", "stochastok-0.1", "bpe-dropout-0.1", "no pretraining"),
    "fig01-val": ("canonical", "stochastok-0.1", "bpe-dropout-0.1", "no pretraining"),
    "fig03": ("canonical", "stochastok-0.1", "bpe-dropout-0.1"),
    "fig03-bits-per-byte": ("canonical", "stochastok-0.1", "bpe-dropout-0.1"),
    "fig04": ("canonical", "stochastok-0.1", "bpe-dropout-0.1", "no pretraining"),
    "fig05": ("canonical", "stochastok-0.2"),
    "fig06-long": ("canonical", "stochastok-0.1"),
    "fig06-short": ("canonical", "stochastok-0.1"),
    "fig07": ("canonical", "stochastok-0.1"),
    "fig08": ("base", "stochastok", "character", "bpe_dropout"),
    "fig09": ("canonical", "continued-canonical", "continued-stochastok-0.1"),
    "fig10": ("original", "continued-canonical", "continued-stochastok-0.1"),
    "fig13": ("canonical", "stochastok-0.1", "bpe-dropout-0.1"),
    "robustness": ("canonical", "canonical-tuned-uniform-0.1", "uniform-0.1-tuned-uniform-0.1"),
    "robustness-edit-distance": ("canonical", "canonical-tuned-uniform-0.1", "uniform-0.1-tuned-uniform-0.1"),
    "robustness-likelihood": ("canonical", "stochastok-0.1", "stochastok-uni-0.1", "uniform-0.1"),
    "ablations": ("canonical", "stochastok-0.1", "longer-stochastok-0.1", "copy-bpe-dropout"),
    "ablations-bits-per-byte": ("canonical", "stochastok-0.1", "longer-stochastok-0.1", "copy-bpe-dropout"),
    "speedrun": ("pretraining-canonical", "speedrun-canonical", "speedrun-stochastok-0.1"),
    "speedrun-time": ("pretraining-canonical", "speedrun-canonical", "speedrun-stochastok-0.1"),
}
"""The results, and rows of their tables."""


def run_script(name: str, out: Path, *options: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"TORCHINDUCTOR_CACHE_DIR": str(out / "cache"), "CUTE": str(cute_questions(out))}
    environment |= {"BENCHMARKS": f"blimp={blimp(out)}", "RESULTS": str(out / "kept"), "JOBS_PER_GPU": "2"}
    command = ["bash", str(SCRIPTS / name), "--scale", "tiny", "--seeds", "1", "--out", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def cute_questions(out: Path) -> Path:
    """Files of questions in the form of the published ones."""
    folder = out / "cute-questions"
    folder.mkdir(exist_ok=True)
    for task, row in CUTE_ROWS.items():
        header = "\t".join([*(f"input{i + 1}" for i in range(row.count("\t"))), "label"])
        (folder / f"{task}.tsv").write_text(f"{header}\n{row}\n{row}\n")
    return folder


def blimp(out: Path) -> Path:
    file = out / "blimp.jsonl"
    pairs = [{"sentence_good": f"The old house {w}.", "sentence_bad": f"The house old {w}."} for w in ("stood", "fell")]
    file.write_text("\n".join(map(json.dumps, pairs)))
    return file


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("reproduce")


@pytest.fixture(scope="module")
def finished(out):
    finished = run_script("all.sh", out)
    assert finished.returncode == 0, finished.stderr
    return finished


def records(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("result", RESULTS)
def test_a_figure_ends_in_a_table_raw_values_and_a_plot(result, finished, out):
    table = (out / "results" / f"{result}.md").read_text()
    assert table in finished.stdout
    assert all(f"\n| {group} |" in table for group in RESULTS[result])
    values = records(out / "results" / f"{result}.jsonl")
    assert {row["group"] for row in values} >= set(RESULTS[result])
    assert "</svg>" in (out / "results" / f"{result}.svg").read_text()
    assert (out / "kept" / f"{result}.md").read_text() == table


def test_the_raw_values_are_those_of_the_runs_and_evaluations(finished, out):
    kept = records(out / "kept" / "runs.jsonl")
    for row in records(out / "results" / "fig01-val.jsonl"):
        key = "mcq/langgame-val/normalized_accuracy"
        same = [line[key] for line in kept if (line["run"], line["iteration"]) == (row["run"], row["iteration"])]
        assert same == [row[key]]
    evaluations = {(row["evaluation"], row["run"]): row for row in records(out / "kept" / "evaluations.jsonl")}
    for row in records(out / "results" / "robustness.jsonl"):
        key = "mcq/langgame-val/adversarial/accuracy"
        if key in row:
            assert evaluations["uniform", row["run"]]["metrics"][key] == row[key]
    assert {row["run"] for row in records(out / "kept" / "starts.jsonl")} == {row["run"] for row in kept}


def test_each_kind_of_run_is_trained_as_it_is_named(finished, out):
    """A wrong override would leave all curves alike, and no test of a table would see it."""
    import yaml

    def dataset_and_parent(run: str) -> tuple:
        config = yaml.safe_load((out / "checkpoints" / run / "config.yaml").read_text())
        dataset, parent = config["trainer"]["dataset"], config["trainer"].get("checkpoint_name")
        return dataset["name"], dataset["expand_method"], dataset["expand_prop"], parent and Path(parent).name

    corpus = "corpus-tokenized"
    assert dataset_and_parent("pretrain-canonical-0")[::2] == (corpus, 0)
    assert dataset_and_parent("pretrain-stochastok-uni-0.1-0") == (corpus, "stochastok-uni", 0.1, None)
    assert dataset_and_parent("pretrain-bpe-dropout-0.1-0") == (corpus, "bpe-dropout", 0.1, None)
    tuned = dataset_and_parent("langgame-from-canonical-tuned-uniform-0.1-0")
    assert tuned == ("langgame", "uniform", 0.1, "pretrain-canonical-0")
    assert dataset_and_parent("langgame-from-none-0")[3] is None
    continued = dataset_and_parent("continued-stochastok-0.1-0")
    assert continued == (corpus, "stochastok", 0.1, "pretrain-canonical-0")
    assert dataset_and_parent("copy-uniform-0")[::2] == ("copy-uniform", 0)
    assert dataset_and_parent("hold-long-from-canonical-0")[0] == "hold-long"


def test_the_papers_values_stand_beside(finished, out):
    rows = re.findall(r"^\| (.*?) \|.*\| ([\d.]*) \|$", (out / "results" / "fig01-val.md").read_text(), re.MULTILINE)
    assert dict(rows) == {
        "canonical": "0.65",
        "stochastok-0.1": "1",
        "bpe-dropout-0.1": "0.8",
        "no pretraining": "0.05",
    }
    assert "the paper" in (out / "results" / "fig05.svg").read_text()


def test_the_time_to_a_loss_is_that_of_the_first_evaluation_as_low(finished, out, tmp_path):
    losses = {
        "slow-0": {0: 9.0, 10: 5.0, 20: 4.0},
        "slow-1": {0: 9.0, 10: 5.0, 20: 4.4},
        "fast-0": {0: 9.0, 10: 4.0, 20: 3.0},  # equal counts as reached
        "fast-1": {0: 9.0, 10: 4.5, 20: 3.0},
        "bad-0": {0: 9.0, 20: 4.1},
        "bad-1": {0: 9.0, 20: 4.0},
    }
    config = (out / "checkpoints" / "pretrain-canonical-0" / "config.yaml").read_text()
    tokens = 2 * 128  # an iteration: two windows, so one second
    for run, curve in losses.items():
        (tmp_path / run).mkdir()
        (tmp_path / run / "config.yaml").write_text(config)
        rows = [{"iteration": i, "train/tokens_per_second": tokens} for i in (10, 20)]
        rows += [{"iteration": i, "validation/loss": loss} for i, loss in curve.items()]
        rows.sort(key=lambda row: row["iteration"])
        (tmp_path / run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = [f"{kind}-x:{kind}-0,{kind}-1" for kind in ("slow", "fast", "bad")]
    command = [sys.executable, SCRIPTS / "time_to_loss.py", "--from", tmp_path, "--title", "T", "--out", tmp_path / "t"]
    subprocess.run([*command, "--", *groups], check=True, capture_output=True)
    assert (tmp_path / "t.md").read_text().splitlines()[4:] == [
        "| slow-x | 4.000, 4.400 | 20, 20 | 20, 20 |  |",
        "| fast-x | 3.000, 3.000 | 20, 20 | 10, 20 | 0.750 [-2.427, 3.927] |",
        "| bad-x | 4.100, 4.000 | 20, 20 | not reached, 20 |  |",
    ]
    # A reference of one run is that of all seeds.
    subprocess.run([*command, "--", "slow-x:slow-1", "fast-x:fast-0,fast-1"], check=True, capture_output=True)
    assert (tmp_path / "t.md").read_text().splitlines()[4:] == [
        "| slow-x | 4.400 | 20 | 20 |  |",
        "| fast-x | 3.000, 3.000 | 20, 20 | 10, 20 | 0.750 [-2.427, 3.927] |",
    ]
    assert {"slow-x (1 run)", "fast-x (mean of 2)"} < set(texts_of(tmp_path / "t.svg"))

    # Runs that were evaluated at other seconds have no mean, though all of them begin at second 0.
    metrics = tmp_path / "fast-1" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace(str(tokens), str(3 * tokens)))
    subprocess.run([*command, "--", "slow-x:slow-1", "fast-x:fast-0,fast-1"], check=True, capture_output=True)
    assert {"slow-x (1 run)", "fast-x (2 runs)"} < set(texts_of(tmp_path / "t.svg"))


def texts_of(svg: Path) -> list[str]:
    return re.findall(r"<!-- (.*) -->", svg.read_text())  # matplotlib draws text as paths


def test_completions_of_two_models_stand_side_by_side(finished, out):
    table = (out / "results" / "fig11.md").read_text()
    assert table.count("| prompt | completion |") == 2
    assert table in finished.stdout


def test_a_finished_script_gives_the_same_again_without_training(finished, out):
    runs = {file: file.stat().st_mtime_ns for file in (out / "checkpoints").glob("*/metrics.jsonl")}
    again = run_script("fig01.sh", out)
    assert again.returncode == 0, again.stderr
    assert again.stdout in finished.stdout
    assert {file: file.stat().st_mtime_ns for file in runs} == runs


def test_a_scale_that_does_not_exist_and_a_missing_corpus_are_usage_errors(out):
    for options in (("--scale", "huge"), ("--scale", "small"), ("--seeds", "0"), ("--seeds",)):
        finished = run_script("fig01.sh", out, *options)
        assert finished.returncode == 2
        assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", ["over_seeds work a b\n", "bash inner.sh --scale tiny & wait $!\n"])
def test_a_script_that_is_killed_ends_what_it_started(script, tmp_path):
    start = f"source {SCRIPTS / 'settings.sh'}\nwork() {{ echo started; sleep 300; }}\n"
    (tmp_path / "inner.sh").write_text(f"{start}over_seeds work a b\n")
    (tmp_path / "outer.sh").write_text(f"{start}{script}echo not reached\n")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "JOBS_PER_GPU": "2", "TMPDIR": str(tmp_path)}
    command = ["bash", "outer.sh", "--scale", "tiny"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert [running.stdout.readline() for _ in range(2)] == ["started\n"] * 2
        running.terminate()
        rest, _ = running.communicate(timeout=60)  # returns when the last process that could write has ended
        assert (rest, running.returncode) == ("", 143)
    assert not list(tmp_path.glob("tmp.*"))


def test_a_run_may_take_several_gpus(tmp_path):
    work = "work() { echo $1 $2 $CUDA_VISIBLE_DEVICES; sleep 1; }"
    (tmp_path / "script.sh").write_text(f"source {SCRIPTS / 'settings.sh'}\n{work}\nover_seeds work a b\n")

    def run(**variables):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0,1,3,4,6", **variables}
        command = ["bash", "script.sh", "--scale", "tiny", "--seeds", "2"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    lines = sorted(line.split() for line in run(GPUS_PER_RUN="2").stdout.splitlines())
    assert [line[:2] for line in lines] == [[kind, seed] for kind in "ab" for seed in "01"]
    assert {gpus for *_, gpus in lines} == {"0,1", "3,4"}
    for variables, message in (
        ({"GPUS_PER_RUN": "6"}, "there are too few GPUs for GPUS_PER_RUN=6"),
        ({"GPUS_PER_RUN": "2", "JOBS_PER_GPU": "2"}, "JOBS_PER_GPU=2 and GPUS_PER_RUN=2 exclude each other"),
        ({"GPUS_PER_RUN": "0"}, "GPUS_PER_RUN=0 is no number of GPUs"),
    ):
        failed = run(**variables)
        assert failed.returncode == 2 and message in failed.stderr and len(failed.stderr.splitlines()) == 1


def test_a_step_that_fails_ends_the_script(out, tmp_path):
    finished = run_script("fig03.sh", tmp_path, "--corpus", str(tmp_path / "none.txt"))
    assert finished.returncode != 0
    assert not (tmp_path / "results").exists()

"""Jobs that datatrove's own executor for Slurm submits, to an sbatch that runs them at once."""

import json
import os
import sys
from pathlib import Path

import pytest

from stochastok_cli import expand, tokenize
from stochastok_cli.cli.app import main
from stochastok_cli.errors import FAILED, USAGE

pytest.importorskip("datatrove")
pytestmark = pytest.mark.slow

SBATCH = """\
#!/bin/bash
# Keeps the script that it is given and its options, runs each task of its array one after the other, and prints its id.
set -euo pipefail
[ -z "${SBATCH_FAILS:-}" ] || { echo "sbatch: error: invalid partition specified: gpu" >&2; exit 1; }
id=$((100 + $(find "$SBATCH_RECORD" -name '*.slurm' | wc -l)))
cp "${@: -1}" "$SBATCH_RECORD/$id.slurm"
printf '%s\\n' "${@:1:$#-1}" > "$SBATCH_RECORD/$id.options"
last=$(grep -oP '^#SBATCH --array=0-\\K[0-9]+' "$SBATCH_RECORD/$id.slurm")
if [ -n "${SBATCH_RUNS:-}" ]; then
    for task in $(seq 0 "$last"); do
        SLURM_ARRAY_TASK_ID=$task SLURM_JOB_ID=$id SLURM_NODELIST=node bash "$SBATCH_RECORD/$id.slurm" >&2
    done
fi
echo "Submitted batch job $id"
"""
SRUN = '#!/bin/bash\nwhile [[ "$1" == -* ]]; do [ "$1" = -n ] && shift; shift; done\nexec "$@"\n'
SCONTROL = '#!/bin/bash\necho "${@: -1}"\n'
SQUEUE = """\
#!/bin/bash
# Prints those of the jobs it is asked for that are in the file `queue`; fails where there are none, as Slurm does.
jobs=${@: -1}
grep -xE "$(tr , '|' <<< "${jobs#--jobs=}")" "$SBATCH_RECORD/queue" || { echo "Invalid job id specified" >&2; exit 1; }
"""
SLURM = ("--executor", "slurm", "--partition", "cpu", "--time", "1:00:00", "--slurm-args", "--account=nlp --exclusive")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Puts the commands of Slurm on the PATH. Returns the folder of what sbatch is given."""
    programs, record = tmp_path / "bin", tmp_path / "record"
    programs.mkdir()
    record.mkdir()
    for name, script in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL), ("squeue", SQUEUE)):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("SBATCH_RECORD", str(record))
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2):
        (source / f"{number}.txt").write_text("\n\n".join(f"document {i} of file {number}" for i in range(40)))
    return record


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs the command line; returns its exit code, stdout and stderr."""

    def run_command(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["stochastok", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capfd.readouterr()

    return run_command


def submitted(record: Path) -> dict[str, tuple[str, list[str]]]:
    """The scripts and the options that sbatch was given, by the name of their jobs; without those of statistics."""
    jobs = {}
    for script in sorted(record.glob("*.slurm")):
        text = script.read_text()
        if "merge_stats" not in text:
            name = next(line.split("=")[1] for line in text.splitlines() if "--job-name" in line)
            jobs[name] = text, script.with_suffix(".options").read_text().split()
    return jobs


def test_jobs_that_make_a_corpus(slurm, run, monkeypatch):
    monkeypatch.setenv("SBATCH_RUNS", "1")
    code, out, err = run("tokenize", "source", "--tokenizer", "sample2k", *SLURM, "--tasks", "2", "--json")
    assert code == 0, err
    made = Path("data/data_as_memmaps/source-tokenized")
    jobs = submitted(slurm)
    assert [*jobs] == ["source-tokenized-tokenize", "source-tokenized-finish"]
    script, _ = jobs["source-tokenized-tokenize"]
    for line in ("partition=cpu", "time=1:00:00", "account=nlp", "exclusive", "array=0-1", "cpus-per-task=1"):
        assert f"#SBATCH --{line}\n" in script
    _, options = jobs["source-tokenized-finish"]
    assert "--dependency=afterok:100" in options
    assert json.loads(out.splitlines()[-1]) == {"path": str(made), "made": False, "job": "102"}
    assert "submitted to Slurm: job 102 makes source-tokenized when all tasks are completed" in err
    plain = tokenize("source", tokenizer="sample2k", data_dir="plain")
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["files"] == plain.manifest.to_json()["files"]
    assert manifest["made_by"]["command"].startswith("stochastok tokenize source --tokenizer sample2k --executor slurm")
    left = made.parent / ".source-tokenized.tasks"
    assert sorted(path.name for path in left.iterdir()) == ["jobs.json", "logs"]
    assert [path.name for path in (left / "logs").iterdir()] == ["finish"]
    code, out, err = run("tokenize", "source", "--tokenizer", "sample2k", *SLURM)
    assert (code, out) == (0, f"{made}\n") and "left alone" in err
    assert not left.exists()


def test_jobs_wait_for_each_other_and_are_submitted_again_for_what_is_missing(slurm, run):
    corpus = tokenize("source", tokenizer="sample2k").path
    arguments = ("expand", corpus.name, *SLURM, "--tasks", "3", "--num-proc", "4")
    code, out, err = run(*arguments)
    assert (code, out) == (0, f"{corpus}-stochastok0.1\n"), err
    jobs = submitted(slurm)
    assert [name.rpartition("-")[2] for name in jobs] == ["count", "expand", "finish"]
    options = [[option for option in given if "dependency" in option] for _, given in jobs.values()]
    assert options == [[], ["--dependency=afterok:100"], ["--dependency=afterok:102"]]
    assert all("#SBATCH --kill-on-invalid-dep=yes\n" in script for script, _ in jobs.values())
    assert "#SBATCH --cpus-per-task=4\n" in jobs[f"{corpus.name}-stochastok0.1-expand"][0]
    work = corpus.absolute().with_name(f".{corpus.name}-stochastok0.1.tasks")
    (work / "logs" / "count" / "completions").mkdir()
    for task in ("00000", "00001"):
        (work / "logs" / "count" / "completions" / task).touch()
    (slurm / "queue").write_text("99\n100\n104\n")
    for again in (arguments, (*arguments, "--seed", "3")):
        assert run(*again)[::2] == (
            FAILED,
            f"error: {corpus}-stochastok0.1 is already submitted as jobs 100 104; wait for them, or: scancel 100 104\n",
        )
    assert len(submitted(slurm)) == 3
    (slurm / "queue").write_text("99\n")
    assert run(*arguments)[0] == 0
    assert json.loads((work / "jobs.json").read_text()) == ["106", "108", "110"]
    assert json.loads((work / "logs" / "count" / "ranks_to_run.json").read_text()) == [2]
    assert not expand(corpus, p=0.1).path.with_name(".partial").exists()


def test_errors_are_one_line(slurm, run, monkeypatch):
    command = ("tokenize", "source", "--tokenizer", "sample2k", *SLURM)
    assert run(*command, "--push")[::2] == (
        USAGE,
        "error: --push needs the finished folder, which Slurm makes later; run it again with --push then\n",
    )
    assert run(*command[:-1], "-A nlp")[::2] == (
        USAGE,
        "error: --slurm-args: '-A' is no long option with its value; write --KEY=VALUE, such as --account=nlp\n",
    )
    monkeypatch.setenv("SBATCH_FAILS", "1")
    code, _, err = run(*command)
    assert code == FAILED
    assert err.splitlines()[-2:] == [
        "sbatch: error: invalid partition specified: gpu",
        "error: sbatch ended with exit code 1; see its message above",
    ]
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(*command)[::2] == (
        USAGE,
        "error: sbatch is not installed here; run it on a node from which jobs are submitted\n",
    )

"""`stochastok eval` on real checkpoints: what it prints where, and how it ends."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from preloaded_python import run_python

import stochastok_cli.cli.eval  # noqa: F401 (registers the subcommand)
from stochastok_cli.cli.app import main
from stochastok_cli.data.recipes.addition import make_addition
from stochastok_cli.data.recipes.langgame import make_langgame
from stochastok_cli.errors import FAILED, USAGE
from stochastok_cli.evaluation.registry import EVALUATORS, metric_of_key
from stochastok_cli.models.llama.state_dict import save_model
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.training.checkpoint_writer import TrainingState, save_checkpoint
from stochastok_cli.training.data_parallel import Replicated
from stochastok_cli.training.distributed import DistributedContext
from stochastok_cli.training.run_summary import lower_is_better
from tests.evaluation.test_bits_per_byte import flat_ids, save
from tests.models.small_models import sharp_model, small_config


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A data directory and a checkpoint directory: a run with two checkpoints, and a model with a longer window."""
    place = tmp_path_factory.mktemp("place")
    vocabulary = load_vocabulary("sample2k")
    save(flat_ids(vocabulary), vocabulary, place / "data")
    make_langgame(vocabulary, place / "data", train_size=40, val_size=20)
    make_addition(vocabulary, place / "data", num_digits=1)
    run = place / "checkpoints" / "pretraining-text"
    run.mkdir(parents=True)
    parallel = Replicated(DistributedContext(0, 1, torch.device("cpu")))
    model = parallel.prepare(sharp_model(small_config()))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.tensor([[1, 2]])).sum().backward()
    for iteration in (100, 2000):
        optimizer.step()
        save_checkpoint(
            run,
            TrainingState(iteration, False, None, {"name": "d", "fingerprint": "f"}, {}),
            parallel,
            optimizer,
            vocabulary,
            keep=None,
        )
    other = place / "checkpoints" / "other"
    other.mkdir()
    save_model(sharp_model(small_config(context_window=200)), other, vocabulary)
    (place / "checkpoints" / "of-gpt2").mkdir()
    gpt2 = load_vocabulary("gpt2")
    save_model(sharp_model(small_config(vocab_size=gpt2.size)), place / "checkpoints" / "of-gpt2", gpt2)
    return place


def test_one_benchmark_from_two_files_is_refused(run_eval):
    code, _, err = run_eval("other", "--evaluator", "mcq", "--benchmarks", "arc=a.jsonl,langgame-val,arc=b.jsonl")
    assert (code, err) == (USAGE, "error: --benchmarks names arc twice; one result has room under that name\n")


@pytest.fixture
def run_eval(place, monkeypatch, capsys):
    """Runs the command in `place`; returns its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["stochastok", "eval", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


LANGGAME = ("--evaluator", "mcq", "--benchmarks", "langgame-train,langgame-val", "--num-samples", "7")


def test_json_of_one_checkpoint(run_eval):
    code, out, err = run_eval("pretraining-text", *LANGGAME, "--json", "--quiet")
    assert (code, err) == (0, "")
    [line] = out.splitlines()
    result = json.loads(line)
    assert list(result) == ["schema", "checkpoint", "iteration", "metrics", "n", "intervals"]
    assert result["schema"] == 1
    assert Path(result["checkpoint"]) == Path("checkpoints/pretraining-text/step_2000")
    assert result["iteration"] == 2000
    assert result["n"] == {"mcq/langgame-train": 7, "mcq/langgame-val": 7}
    names = "accuracy path_confidence ground_confidence num_options normalized_accuracy normalized_path_confidence"
    expected = {f"mcq/{benchmark}/{name}" for benchmark in ("langgame-train", "langgame-val") for name in names.split()}
    assert set(result["metrics"]) - {"mcq/langgame-train/truncated", "mcq/langgame-val/truncated"} == expected
    assert all(math.isfinite(value) for value in result["metrics"].values())


@pytest.mark.parametrize(
    ("evaluator", "options"),
    [
        ("mcq", "--benchmarks langgame-val --tokenization uniform:0.5 --adversarial 6 --by-kind"),
        ("mcq", "--benchmarks langgame-val --adversarial 6 --neighbors splits"),
        ("generation", "--benchmarks langgame-val --tokenization uniform:0.5 --max-new-tokens 2"),
        ("math_generation", ""),
        ("bits_per_byte", "--benchmarks text-tokenized --tokenization uniform:0.5"),
        ("alignment", "--tokenization uniform:0.5"),
    ],
)
def test_each_metric_is_declared_with_its_direction(run_eval, evaluator, options):
    more = ["--samples", "2"] if "--tokenization" in options else []
    code, out, _ = run_eval(
        "pretraining-text", "--evaluator", evaluator, *options.split(), *more, "--num-samples", "3", "--json"
    )
    assert code == 0
    found = {key: metric_of_key(key) for key in json.loads(out)["metrics"]}
    assert {key for key, metric in found.items() if metric is None or metric[0] is not EVALUATORS[evaluator]} == set()
    declared = EVALUATORS[evaluator]
    assert {*declared.meanings, *declared.accuracies, *declared.main_metrics} <= {*declared.directions}
    assert {lower_is_better(key) for key in found} <= {True, False, None}
    assert all(lower_is_better(key) is not None for key, metric in found.items() if metric[1] in declared.accuracies)


def test_json_of_several_checkpoints_is_one_object_a_line(run_eval):
    checkpoints = ["pretraining-text/step_100", "checkpoints/pretraining-text", "other"]
    code, out, _ = run_eval(*checkpoints, *LANGGAME, "--json")
    results = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [result["iteration"] for result in results] == [100, 2000, None]
    assert "mcq/langgame-val/truncated" not in results[2]["metrics"]  # tokenized anew for its longer window


def test_a_later_checkpoint_that_is_incomplete_is_named(run_eval, place):
    torn = place / "checkpoints" / "pretraining-text" / "step_3000"
    torn.mkdir()
    try:
        code, out, err = run_eval("pretraining-text", *LANGGAME, "--json")
    finally:
        torn.rmdir()
    assert (code, json.loads(out)["iteration"]) == (0, 2000)
    assert err.count("note: checkpoints/pretraining-text/step_3000 is incomplete and ignored\n") == 1


def test_the_same_command_gives_the_same_numbers(run_eval):
    assert run_eval("other", *LANGGAME, "--json") == run_eval("other", *LANGGAME, "--json")


def test_truncated_questions_are_noted_on_stderr_and_counted(run_eval, place, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"question": "the garden " * 100, "options": ["a", "b"]}) + "\n")
    arguments = ("other", "--evaluator", "mcq", "--benchmarks", f"langgame-val={file}", "--json")
    _, out, err = run_eval(*arguments)
    assert json.loads(out)["metrics"]["mcq/langgame-val/truncated"] == 1
    assert "langgame-val: 1 question did not fit the context window and lost its beginning" in err
    assert run_eval(*arguments, "--quiet")[2] == ""
    _, out, err = run_eval(*arguments[:-1], "--tokenization", "uniform:0.5", "--samples", "2")
    lost = "2 questions did not fit the context window and lost their beginning, each question counted in each sample"
    assert f"langgame-val, uniform:0.5: {lost}\n" in err
    assert "truncated: how many lost the beginning" in out and "each question is counted in each sample" in out
    code, _, err = run_eval(*arguments[:-1], "--tokenization", "canonical")
    assert code == USAGE and "the canonical tokenization has no P, and is always evaluated; drop it" in err


def test_searched_tokenizations_are_explained(run_eval):
    _, out, _ = run_eval(
        "other", "pretraining-text", *LANGGAME, "--num-samples", "2", "--adversarial", "4", "--transfer"
    )
    assert "\nadversarial: each question in the most harmful tokenization" in out
    assert "\ntransfer: each question in the tokenization that the search found for the first checkpoint" in out


def test_addition(run_eval):
    code, out, _ = run_eval("other", "--evaluator", "math_generation", "--num-samples", "5", "--json")
    result = json.loads(out)
    assert code == 0
    assert set(result["n"].values()) == {5}
    assert {
        f"math_generation/{split}/base/{m}" for split in ("train", "val") for m in ("exact_match", "answer_found")
    } <= set(result["metrics"])


def test_bits_per_byte_as_a_table(run_eval):
    arguments = ("--evaluator", "bits_per_byte", "--benchmarks", "text-tokenized")
    code, out, err = run_eval("pretraining-text", "other", *arguments)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert out.startswith("Bits per byte of the validation text (lower is better)")
    assert [line[:-1] for line in lines if len(line) > 1][-2:] == [["pretraining-text", "2,000"], ["other"]]


def test_intervals_stand_beside_the_metrics_and_in_the_tables(run_eval):
    _, out, _ = run_eval("other", *LANGGAME, "--json")
    result = json.loads(out)
    low, high = result["intervals"]["mcq/langgame-val/accuracy"]
    assert low <= result["metrics"]["mcq/langgame-val/accuracy"] <= high
    _, out, _ = run_eval("other", *LANGGAME)
    assert f"[{low:.2f} {high:.2f}]" in out


def test_paired(run_eval):
    checkpoints = ("pretraining-text/step_100", "other", "pretraining-text/step_100")
    code, out, _ = run_eval(*checkpoints, *LANGGAME, "--paired", "--json")
    first, second, _, difference, none = map(json.loads, out.splitlines())
    assert code == 0 and difference["paired"] == [first["checkpoint"], second["checkpoint"]]
    accuracy = difference["differences"]["mcq/langgame-val/accuracy"]
    name = "mcq/langgame-val/accuracy"
    assert accuracy["difference"] == pytest.approx(second["metrics"][name] - first["metrics"][name])
    assert accuracy["interval"][0] <= accuracy["difference"] <= accuracy["interval"][1]
    assert (accuracy["second_better"] - accuracy["first_better"]) / 7 == pytest.approx(accuracy["difference"])
    assert all(one["difference"] == 0 for one in none["differences"].values())
    code, out, _ = run_eval(*checkpoints[:2], *LANGGAME, "--paired")
    assert code == 0 and "Paired: other minus pretraining-text on the same questions" in out


def test_several_seeds_of_a_run(run_eval):
    arguments = ("pretraining-text/step_100", "pretraining-text", *LANGGAME, "--aggregate")
    *single, whole = map(json.loads, run_eval(*arguments, "--json")[1].splitlines())
    name = "mcq/langgame-val/ground_confidence"
    values = [result["metrics"][name] for result in single]
    assert whole["metrics"][name] == pytest.approx(np.mean(values))
    assert whole["deviations"][name] == pytest.approx(np.std(values, ddof=1))
    assert whole["intervals"][name][0] < whole["metrics"][name] < whole["intervals"][name][1]
    assert re.search(r"Over 2 runs: pretraining-text/step_100, pretraining-text/step_\d+\n", run_eval(*arguments)[1])


def test_kinds_of_question_and_contamination(run_eval):
    code, out, _ = run_eval("other", *LANGGAME, "--by-kind", "--contamination")
    assert code == 0
    assert "Multiple choice: langgame-val, parts\n" in out
    assert re.search(r"unseen question +7 +\d", out)
    assert "unseen question: questions whose text is not in the data trained on" in out
    assert "unseen predicate and answer: " in out and "most of a letter:" not in out
    former = run_eval("other", *LANGGAME, "--by-kind", "--leakage")  # the option's name in earlier versions
    assert former[:2] == (0, out)
    _, shown, _ = run_eval("--help")
    assert "--contamination" in shown and "--leakage" not in shown


def test_other_tokenizations(run_eval):
    arguments = ("other", *LANGGAME, "--tokenization", "stochastok:0.5", "--samples", "2", "--adversarial", "20")
    code, out, _ = run_eval(*arguments, "--json")
    result = json.loads(out)
    assert code == 0
    assert {"mcq/langgame-val/stochastok0.5/worst_case", "mcq/langgame-val/adversarial/accuracy"} <= set(
        result["metrics"]
    )
    assert result["curves"]["mcq/langgame-val/stochastok0.5"]
    assert re.search(r"stochastok:0.5 worst case +7 +\d", run_eval(*arguments)[1])


def test_the_worst_tokenizations_of_one_model_asked_of_another(run_eval, place):
    (place / "checkpoints" / "again").symlink_to("other")
    arguments = (*LANGGAME, "--adversarial", "30", "--restarts", "1", "--neighbors", "splits", "--transfer")
    code, out, _ = run_eval("other", "again", *arguments, "--json", "--frozen-suffix", " Answer:")
    first, second = (json.loads(line)["metrics"] for line in out.splitlines())
    assert code == 0
    assert "mcq/langgame-val/adversarial/splits" in first and "mcq/langgame-val/transfer/accuracy" not in first
    assert second["mcq/langgame-val/transfer/accuracy"] == second["mcq/langgame-val/adversarial/accuracy"]
    assert second["mcq/langgame-val/adversarial/accuracy"] == first["mcq/langgame-val/adversarial/accuracy"]


def test_bits_per_byte_over_all_tokenizations(run_eval):
    arguments = ("--evaluator", "bits_per_byte", "--benchmarks", "text-tokenized", "--tokenization", "uniform:0.2")
    code, out, err = run_eval("other", *arguments, "--num-samples", "1", "--json")
    assert code == 0 and "bits_per_byte/text-tokenized/uniform0.2/monte_carlo_error" in json.loads(out)["metrics"]
    draws = json.loads(out)["metrics"]["bits_per_byte/text-tokenized/uniform0.2/effective_sample_size"]
    note = f"uniform:0.2: the share of other tokenizations rests on an effective sample of {draws:.1f} draws, too few"
    assert (note in err) == (draws < 50)
    code, _, err = run_eval("other", *arguments[:-1], "stochastok:0.2")
    assert code == USAGE and "known probability" in err


def test_inside_the_model(run_eval, place):
    arguments = (
        "other",
        "--evaluator",
        "alignment",
        "--num-samples",
        "30",
        "--prompt",
        "The old house",
        "--samples",
        "2",
    )
    _, out, _ = run_eval(*arguments, "--json")
    assert len(json.loads(out.splitlines()[1])["completions"]) == 3  # the canonical one and 2 samples
    arguments = (*arguments, "--tokenization", "uniform:0.5")
    code, out, _ = run_eval(*arguments, "--json")
    result, continued = map(json.loads, out.splitlines())
    assert code == 0 and result["n"] == {"alignment/uniform0.5": 30}
    assert "alignment/uniform0.5/layer_3/relative" in result["intervals"]
    assert [*continued["completions"][0]] == ["tokens", "completion"]
    code, out, _ = run_eval(*arguments, "--report", "inside")
    assert code == 0
    assert re.search(r"layer 1 distance +30 +\d", out) and "The| old| " in out
    assert {file.stem for file in (place / "inside" / "plots").iterdir()} == {
        "alignment-uniform0.5",
        "alignment-pca-uniform0.5-other",
    }


def test_another_model_that_transformers_opens(run_eval, place):
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = place / "checkpoints" / "small-gpt2"
    GPT2LMHeadModel(GPT2Config(vocab_size=2048, n_embd=32, n_layer=2, n_head=4, n_positions=128)).save_pretrained(
        folder
    )
    load_vocabulary("sample2k").save_tokenizer(folder)
    code, out, _ = run_eval("small-gpt2", "other", *LANGGAME, "--json", "--quiet", "--adversarial", "10")
    foreign, ours = map(json.loads, out.splitlines())
    assert code == 0 and foreign["iteration"] is None
    assert set(foreign["metrics"]) >= set(ours["metrics"])
    assert run_eval("small-gpt2", "--evaluator", "math_generation", "--num-samples", "2", "--quiet")[0] == 0
    code, out, _ = run_eval("small-gpt2", "--evaluator", "alignment", "--num-samples", "5", "--json", "--quiet")
    assert code == 0 and "alignment/uniform1.0/layer_2/distance" in json.loads(out)["metrics"]


def test_a_model_on_the_hub_that_is_not_there(run_eval, hub_server):
    code, _, err = run_eval("someone/no-such-model", *LANGGAME)
    assert code == USAGE and err.startswith("error: there is no checkpoint someone/no-such-model. ")
    assert "As a name on the Hub: no repository someone/no-such-model is found on the Hub" in err


def test_a_report(run_eval, place):
    (place / "checkpoints" / "pretraining-text" / "metrics.jsonl").write_text('{"iteration": 0, "train/loss": 8.0}\n')
    code, out, err = run_eval("pretraining-text", "other", *LANGGAME, "--paired", "--report", "report", "--json")
    assert code == 0 and err.endswith("report: report/report.html\n")
    assert json.loads((place / "report" / "results.json").read_text()) == [json.loads(x) for x in out.splitlines()]
    assert (place / "report" / "plots" / "training-train-loss.svg").is_file()
    page = (place / "report" / "report.html").read_text()
    titles = ("Multiple choice", "Paired", "Example questions", "Sampled text", "Models", "Run card", "Curves")
    assert all(f">{title}</h2>" in page for title in titles)


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_report_is_there_also_where_stdout_is_closed(place, more):
    code = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); from stochastok_cli.cli.app import main; main()"
    arguments = ["eval", "other", "--evaluator", "bits_per_byte", "--benchmarks", "text-tokenized", *more]
    done = run_python("-c", code, *arguments, "--report", f"full{len(more)}", cwd=place)
    assert done.returncode == 1 and "stdout can't be written" in done.stderr
    assert (place / f"full{len(more)}" / "report.html").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    "more", [(), ("--json",), pytest.param(("--report", "of-lost-samples"), marks=pytest.mark.slow)]
)
def test_results_are_printed_where_the_samples_can_not_be_written(more, run_eval, place):
    partial = place / f".lost.jsonl.{os.getpid()}.partial"
    partial.symlink_to("/dev/full")
    arguments = ("pretraining-text", "other", *LANGGAME)
    code, out, err = run_eval(*arguments, *more, "--log-samples", "lost.jsonl", "--quiet")
    assert (code, out) == (FAILED, run_eval(*arguments, *more, "--quiet")[1])
    assert err == (
        "error: --log-samples lost.jsonl can't be written: No space left on device; free some space, or name a file "
        "on another disk, and run it again\n"
    )
    assert not (place / "lost.jsonl").exists() and not partial.is_symlink()
    assert "--report" not in more or (place / more[1] / "report.html").is_file()


def test_samples_whose_folder_has_gone(run_eval, place, tmp_path, monkeypatch):
    """The last step, in which the file gets its name, fails, too, after the results."""
    folder = tmp_path / "gone"
    monkeypatch.setattr("os.fsync", lambda _: shutil.rmtree(folder))
    code, out, err = run_eval("other", *LANGGAME, "--json", "--quiet", "--log-samples", str(folder / "lost.jsonl"))
    assert code == FAILED and json.loads(out)["n"]
    assert err == f"error: --log-samples {folder}/lost.jsonl can't be written: No such file or directory\n"


def test_the_results_before_an_error_are_printed(run_eval, place, monkeypatch):
    broken = place / "checkpoints" / "broken"
    broken.mkdir(exist_ok=True)
    model = sharp_model(small_config())
    torch.nn.init.constant_(model.head.weight, math.nan)
    save_model(model, broken, load_vocabulary("sample2k"))
    code, out, err = run_eval("other", "broken", *LANGGAME, "--quiet")
    assert code == FAILED and "the model gave no number" in err
    assert out == run_eval("other", *LANGGAME, "--quiet")[1]
    shutil.rmtree(broken)
    monkeypatch.setattr("stochastok_cli.report.html.write_report", _fail)
    code, out_and_error, err = run_eval("other", *LANGGAME, "--quiet", "--report", "failing")
    assert (code, out_and_error) == (FAILED, out) and "ValueError: a bug" in err


def _fail(*arguments: object, **more: object) -> None:
    raise ValueError("a bug")


def test_as_a_program(place):
    """In a process of its own: the exit code, and nothing but results on stdout."""
    code = "import stochastok_cli.cli.eval; from stochastok_cli.cli.app import main; main()"
    arguments = ["eval", "other", "--evaluator", "bits_per_byte", "--benchmarks", "text-tokenized", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["n"] == {"bits_per_byte/text-tokenized": len(flat_ids(load_vocabulary("sample2k")))}


@pytest.mark.slow
def test_two_processes_print_what_one_prints(run_eval, place):
    arguments = ("pretraining-text", "other", *LANGGAME, "--contamination", "--device", "cpu")
    command = [sys.executable, "-m", "stochastok_cli", "eval", *arguments, "--devices", "2"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == run_eval(*arguments)


@pytest.mark.slow
def test_an_error_of_two_processes_is_told_once(place):
    arguments = ("pretraining-text", "--evaluator", "math_generation", "--addition", "absent", "--device", "cpu")
    command = [sys.executable, "-m", "stochastok_cli", "eval", *arguments, "--devices", "2"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (USAGE, "", 1)
    assert "there is no data/data_as_datasets/absent" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux ends children with their parent")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_launcher(number, place):
    """Also where it is killed; an interrupt is told once."""
    arguments = ["pretraining-text", *LANGGAME, "--tokenization", "uniform:0.5", "--samples", "100000"]
    command = [sys.executable, "-m", "stochastok_cli", "eval", *arguments, "--device", "cpu", "--devices", "2"]
    launcher = subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    workers: list[str] = []
    deadline = time.monotonic() + 90
    while len(workers) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        workers = [one for one in children.read_text().split() if b"RANK" in _read(one, "environ")]
    assert len(workers) == 2
    while not all(b"libtorch_python" in _read(one, "maps") for one in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(12)  # until they score questions; Python may lose an interrupt while it imports modules
    launcher.send_signal(number)
    _, err = launcher.communicate(timeout=60)
    while any(_read(one, "cmdline") for one in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_read(one, "cmdline") for one in workers)
    assert re.findall("error: .*", err) == ([] if number == signal.SIGKILL else ["error: interrupted"])


def _read(process: str, name: str) -> bytes:
    """A file of a process; nothing where it has ended."""
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:
        return b""


def test_more_devices_than_gpus(run_eval, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    code, out, err = run_eval("other", *LANGGAME, "--devices", "3")
    assert (code, out, err) == (USAGE, "", "error: --devices 3: the number of GPUs here is 2; give at most 2\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent", *LANGGAME), "no checkpoint 'absent'"),
        (("other", "--evaluator", "mcq"), "--evaluator mcq needs --benchmarks; there are: hellaswag, arc"),
        (("other", "--evaluator", "bits_per_byte"), "needs --benchmarks; name folders under data_as_memmaps"),
        (("other", "--evaluator", "math_generation", "--benchmarks", "arc"), "drop it"),
        (("other", "--evaluator", "mcq", "--benchmarks", "langame"), "did you mean 'langgame-val'?"),
        (("other", "--evaluator", "mcq", "--benchmarks", "arc=absent.csv"), "benchmark arc: absent.csv does not exist"),
        (("other", "--evaluator", "bits_per_byte", "--benchmarks", "texts"), "there is no dataset 'texts'"),
        (("other", "--evaluator", "guess"), "'guess' is not one of"),
        (("other", "--evaluator", "mq"), "'; did you mean 'mcq'?"),
        (("othr", *LANGGAME), "did you mean 'other'?"),
        (("other", *LANGGAME, "--tokenization", "uniform"), "is not METHOD:P"),
        (("other", *LANGGAME, "--tokenization", "unifrom:0.1"), "unknown method 'unifrom'; did you mean"),
        (("other", *LANGGAME, "--prompt", "The"), "--prompt can only go with --evaluator alignment; drop it"),
        (("other", *LANGGAME, "--samples", "3"), "--samples says nothing without --tokenization; drop it"),
        (("other", "--evaluator", "alignment", "--prompt", ""), "--prompt is empty"),
        (("other", *LANGGAME, "--restarts", "2"), "--restarts says nothing without --adversarial"),
        (("other", *LANGGAME, "--adversarial", "9", "--neighbors", "all"), "--neighbors 'all' is unknown; there are"),
        (("other", *LANGGAME, "--adversarial", "9", "--transfer"), "--transfer needs two checkpoints or more"),
        (("other", "of-gpt2", *LANGGAME, "--adversarial", "9", "--transfer"), "--transfer: the tokenizers differ"),
        (("other", *LANGGAME, "--paired"), "--paired needs two checkpoints or more"),
        (("other", "other", *LANGGAME, "--aggregate"), "--aggregate takes different checkpoints: other is given twice"),
        (("other", *LANGGAME, "--report", "data/data_as_memmaps/text-tokenized/val.bin"), "val.bin is a file"),
        (("other", *LANGGAME, "--report", ""), "--report is empty; give a path"),
        (("other", *LANGGAME, "--report", "."), "is the current folder"),
        (("other", *LANGGAME, "--report", "checkpoints/other"), "would replace"),
        (
            ("other", "--evaluator", "mcq", "--benchmarks", "arc", "--by-kind"),
            "--by-kind: arc have no kinds of question",
        ),
        (
            ("other", "--evaluator", "mcq", "--benchmarks", "blimp=blimp.jsonl", "--adversarial", "9"),
            "--adversarial: the questions of blimp=blimp.jsonl have no prefix",
        ),
        (
            ("other", "--evaluator", "bits_per_byte", "--benchmarks", "text-tokenized", "--tokenization", "uniform:2"),
            "p = 2.0",
        ),
        (
            ("other", "other", "--evaluator", "bits_per_byte", "--benchmarks", "text-tokenized", "--paired"),
            "--paired: this evaluator gives nothing a question to compare; drop --paired",
        ),
        (
            ("other", "of-gpt2", "--evaluator", "alignment", "--num-samples", "3", "--paired"),
            "--paired: alignment asks models with different tokenizers",
        ),
        (
            ("other", "other", "--evaluator", "math_generation", "--contamination"),
            "--contamination can only go with --evaluator mcq or generation; drop it",
        ),
        (("other", *LANGGAME, "--num-samples", "0"), "Invalid value for '--num-samples'"),
        (("--evaluator", "mcq"), "Missing argument"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(run_eval, arguments, message, place):
    """Nothing is scored before: the first checkpoint's results would be printed."""
    (place / "blimp.jsonl").write_text('{"sentence_good": "A cat sleeps.", "sentence_bad": "A cat sleep."}\n')
    code, out, err = run_eval(*arguments, "--json")
    assert (code, out) == (USAGE, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_question_that_does_not_fit_a_later_checkpoint_is_refused_before_the_first_is_scored(run_eval, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"question": "Which?", "options": ["the old house " * 30, "b"]}) + "\n")
    code, out, err = run_eval(
        "other", "pretraining-text", "--evaluator", "mcq", "--benchmarks", f"langgame-val={file}", "--json"
    )
    assert (code, out) == (USAGE, "") and "context window is 48" in err


def test_a_missing_evaluator_lists_the_names(run_eval):
    code, out, err = run_eval("other")
    assert (code, out) == (USAGE, "")
    assert "Missing option '--evaluator'" in err
    assert all(name in err for name in EVALUATORS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_where_there_is_none(run_eval):
    code, _, err = run_eval("other", *LANGGAME, "--device", "cuda")
    assert code == USAGE
    assert "no GPU is available" in err


def test_a_model_that_gives_no_numbers(run_eval, place):
    model = sharp_model(small_config())
    with torch.no_grad():
        model.norm.weight.fill_(np.nan)
    folder = place / "checkpoints" / "overflowed"
    folder.mkdir()
    save_model(model, folder, load_vocabulary("sample2k"))
    code, out, err = run_eval("overflowed", *LANGGAME)
    assert (code, out) == (FAILED, "")
    assert "the model gave no number for" in err

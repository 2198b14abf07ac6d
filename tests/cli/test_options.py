"""Options that can have no effect are refused before any work."""

import inspect
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from stochastok_cli.cli.app import NAMES_OR_PATHS, app, main, register_subcommands
from stochastok_cli.data.memmap import SPLITS
from stochastok_cli.errors import USAGE

register_subcommands()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in an empty folder; returns its exit code, stdout and stderr."""
    (tmp_path / "text.txt").write_text("one\n\ntwo\n")

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["stochastok", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return run


HUGE = "99999999999999999999"
MESSAGES = ("tokenize", "x", "--messages-column", "messages")
PROMPTS = ("tokenize", "x", "--prompt-column", "prompt", "--completion-column", "completion")
TRAIN = ("train", "--config", "quickstart")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("expand", "--text", "a", "--num-proc", "2"), "--num-proc would have no effect beside --text"),
        (("expand", "--text", "a", "--data-dir", "x"), "--data-dir would have no effect beside --text"),
        (("expand", "a", "--report", "--num-proc", "2"), "--num-proc would have no effect beside --report"),
        (("expand", "a", "--pull", "--num-proc", "2"), "--num-proc would have no effect beside --pull"),
        (("tokenize", "a/b", "--pull", "--num-proc", "2"), "--num-proc would have no effect beside --pull"),
        (("tokenize", "text.txt", "--repo", "a/b"), "--repo would have no effect without --pull or --push"),
        (("tokenize", "text.txt", "--hf-username", "a"), "--hf-username would have no effect without --pull or --push"),
        (("tokenize", "text.txt", "--private"), "--private would have no effect without --push"),
        (("tokenize", "a/b", "--pull", "--private"), "--private would have no effect without --push"),
        (("tokenize", "a/b", "--pull", "--seed", "3", "--split", "val"), "--split, --seed would have no effect beside"),
        (("tokenize", "text.txt", "--push", "--repo", "a/b/c"), "--repo 'a/b/c' can't be a repository on the Hub"),
        (("tokenize", "text.txt", "--push", "--hf-username", "a/b"), "--hf-username 'a/b' can't be a user"),
        (("tokenize", "text.txt", "--subset", "en"), "text.txt is no dataset on the Hub, and has no subset"),
        (("tokenize", "text.txt", "--split", "test"), "text.txt is no dataset on the Hub, and has no split 'test'"),
        (("tokenize", "text.txt", "--tasks", "3"), "--tasks would have no effect without --executor"),
        (("expand", "x", "--time", "1:00", "--partition", "p"), "--partition, --time would have no effect without"),
        (("tokenize", "x", "--id-column", "id"), "documents by their index in the source; drop it, or add"),
        (("tokenize", "x", "--executor", "local", "--limit", "3"), "--limit would have no effect beside --executor"),
        ((*MESSAGES, "--executor", "local"), "--messages-column would have no effect beside --executor"),
        ((*PROMPTS, "--executor", "ray"), "--prompt-column, --completion-column would have no effect beside --exec"),
        (("expand", "--executor", "local", "--text", "a"), "--text would have no effect beside --executor"),
        (("expand", "--text", "a", "--push", "--report"), "--report, --push would have no effect beside --text"),
        (("expand", "--text", "a", "--match-growth", "1.5"), "--match-growth would have no effect beside --text"),
        (("expand", "x", "--samples", "3"), "--samples would have no effect without --text"),
        (("expand", "x", "--report", "--out-name", "y"), "--out-name would have no effect beside --report"),
        (
            ("expand", "x", "--report", "--match-growth", "1.5", "-p", "0.2"),
            "--expand-prop would have no effect beside",
        ),
        (("expand", "x", "--pull", "--keep", "[0-9]"), "--keep would have no effect beside --pull"),
        (("expand", "x", "--private"), "--private would have no effect without --push"),
        (("make-langgame", "--pull", "--train-size", "5"), "--train-size would have no effect beside --pull"),
        (("make-cute", "--pull", "--tokenizer", "sample2k"), "--tokenizer would have no effect beside --pull"),
        (("make-addition", "--repo", "a/b"), "--repo would have no effect without --pull or --push"),
        ((*TRAIN, "--plan", "--push"), "--push would have no effect beside --plan"),
        ((*TRAIN, "--repo", "a/b"), "--repo would have no effect without --push"),
        ((*TRAIN, "--private", "--hf-username", "a"), "--private would have no effect without --push"),
        ((*TRAIN, "--push", "--run-name", "my run"), "--run-name 'my run' can't be a repository's name on the Hub"),
        (("generate", "a", "b", "--max-new-tokens", HUGE), f"--max-new-tokens {HUGE} is not possible; give at most"),
        (("generate", "a", "b", "--top-k", f"-{HUGE}"), f"--top-k -{HUGE} is not possible; give at most 10^12"),
        (("make-langgame", "--train-size", HUGE), f"--train-size {HUGE} is not possible"),
        (("eval", "a", "--evaluator", "mcq", "--num-samples", HUGE), f"--num-samples {HUGE} is not possible"),
        (("expand", "--text", "a", "--samples", HUGE), "'--samples': Input should be less than or equal to 100000"),
    ],
)
def test_options_without_effect_are_refused(run, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (USAGE, "")
    assert message in err and err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["text.txt"]


def test_an_executor_without_datatrove(run, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("stochastok_cli.integrations.datatrove")]:
        monkeypatch.delitem(sys.modules, name)
    for name in {"datatrove", *(name for name in sys.modules if name.startswith("datatrove."))}:
        monkeypatch.setitem(sys.modules, name, None)
    code, out, err = run("tokenize", "text.txt", "--executor", "local")
    assert (code, out) == (USAGE, "")
    assert err == "error: --executor needs datatrove; pip install 'stochastok[datatrove]'\n"


NO_PATHS = """
    addition columns completion_column documents end_of_text errors executor fewshot_split format frozen_prefix
    frozen_suffix hf_username holdout id_column import_name keep language long_examples match messages_column
    method metric name neighbors on_bad_document out_name partition pattern prompt prompt_column regexes_to_ignore
    repo retokenize run_name slurm_args split subset tasks text text_column time tokenization until
"""
EXPANDED_LATER = {"benchmarks", "name", "overrides"}  # also in Python, where `trainer.eval` and datasets are named


def test_of_each_text_it_is_known_whether_it_may_be_a_path():
    """A new option is added to `NAMES_OR_PATHS`, in which `~` is the home folder, or here."""
    no_paths = {*NO_PATHS.split()}
    texts = {
        name
        for command in app.registered_commands
        for name, parameter in inspect.signature(command.callback).parameters.items()
        if "str" in str(parameter.annotation.__args__[0])
    }
    assert texts <= NAMES_OR_PATHS | no_paths | EXPANDED_LATER
    assert texts >= NAMES_OR_PATHS and not NAMES_OR_PATHS & no_paths


def test_a_tilde_that_the_shell_has_left_is_the_home_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "text.txt").rename(tmp_path / "home" / "text.txt")
    made = ("--tokenizer", "sample2k", "--data-dir=~/data", "--val-fraction=0.5")
    folder = tmp_path / "home" / "data" / "data_as_memmaps" / "text-tokenized"
    assert run("tokenize", "~/text.txt", *made)[:2] == (0, f"{folder}\n")
    named = ("expand", "~/data/data_as_memmaps/text-tokenized", "-p", "1")
    assert run(*named)[:2] == (0, f"{folder}-stochastok1.0\n")
    shown = run(*TRAIN, "general.paths.checkpoint_dir=~/runs", "--data-dir=~/data", "--show-config", "--json")[1]
    assert f'"{tmp_path}/home/runs/quickstart-' in shown and "~/" not in shown.replace("=~/", "")
    assert run("expand", "--text", "~/a", "--tokenizer", "sample2k", "--samples", "1")[1].splitlines()[0].endswith("a")
    assert run("expand", "~nobody-is-called-so/a")[0] == USAGE
    assert [*tmp_path.glob("~*"), *Path().glob("~*")] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tokenize", "", "--tokenizer", "sample2k"), "the source is empty; give a file, a folder, a dataset id"),
        (("tokenize", "", "--pull", "--repo", "a/b"), "the source is empty; give a file, a folder, a dataset id"),
        (("tokenize", "", *PROMPTS[2:]), "the source is empty; give a file, a folder, a dataset id"),
        (("tokenize", "text.txt", "--data-dir", ""), "--data-dir is empty; give a path, such as . for the current"),
        (("tokenize", "text.txt", "--data-dir="), "--data-dir is empty; give a path, such as . for the current"),
        (("tokenize", "text.txt", "--tokenizer", ""), "the name of the tokenizer is empty"),
        (("expand", ""), "nothing to expand: NAME is empty; name a folder under data_as_memmaps"),
        (("expand", "", "--pull"), "nothing to expand: NAME is empty; name a folder under data_as_memmaps"),
        (("expand", "--text", "a", "--tokenizer", ""), "the name of the tokenizer is empty"),
        (("export", "", "--format", "arrow"), "the name of the dataset is empty; name a folder under data_as_memmaps"),
        (("export", "x", "--format", "arrow", "--out", ""), "--out is empty; give a path"),
        (("make-addition", "--tokenizer", ""), "the name of the tokenizer is empty"),
        (("make-cute", "--data-dir", ""), "--data-dir is empty; give a path"),
        (("make-langgame", "--words", ""), "--words is empty; give a path"),
        (("runs", ""), "FOLDER is empty; give a path"),
        ((*TRAIN, "--data-dir", ""), "--data-dir is empty; give a path"),
        ((*TRAIN, "general.paths.data_dir=''"), "general.paths.data_dir = '' must name a folder"),
        ((*TRAIN, "general.paths.checkpoint_dir=''"), "general.paths.checkpoint_dir = '' must name a folder"),
        ((*TRAIN, "trainer.checkpoint_name=''"), "trainer.checkpoint_name = '' must name a checkpoint; null starts"),
    ],
)
def test_an_empty_name_is_not_the_current_folder(run, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (USAGE, "", 1), err
    assert err.startswith("error: ") and message in err
    assert [file.name for file in tmp_path.iterdir()] == ["text.txt"]


def float_options() -> list[tuple[str, str, list[str]]]:
    """The options with a fraction: the command, the option and the names of the parameters that the command needs."""
    found = []
    for command in app.registered_commands:
        parameters = inspect.signature(command.callback).parameters
        needed = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
        for name, parameter in parameters.items():
            if "float" in str(parameter.annotation.__args__[0]):
                found.append(
                    (
                        (command.name or command.callback.__name__).replace("_", "-"),
                        f"--{name.replace('_', '-')}",
                        needed,
                    )
                )
    return found


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "-1e400"])
@pytest.mark.parametrize(("command", "option", "needed"), float_options())
def test_no_option_takes_a_number_that_is_not_finite(run, command, option, needed, value):
    given = {"evaluator": "--evaluator=mcq", "config": "--config=quickstart", "format": "--format=arrow"}
    code, out, err = run(command, *(given.get(name, "x") for name in needed), f"{option}={value}")
    assert (code, out, err.count("\n")) == (USAGE, "", 1), err
    assert option in err and "bug" not in err


def test_the_options_with_a_fraction_are_known():
    found = {(command, option) for command, option, _ in float_options()}
    assert found >= {("expand", "--match-growth"), ("generate", "--temperature"), ("tokenize", "--val-fraction")}


@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_the_name_of_a_shell_is_not_ignored(run, option):
    code, out, err = run(option, "fish")
    assert (code, out) == (USAGE, "")
    assert err.startswith(f"error: {option} takes no argument, and 'fish' is given")


def test_an_explicit_data_dir_is_where_a_dataset_by_its_path_is_expanded(run, tmp_path):
    assert run("tokenize", "text.txt", "--tokenizer", "sample2k", "--val-fraction", "0.5", "--quiet")[0] == 0
    (tmp_path / "data" / "data_as_memmaps" / "text-tokenized").rename(tmp_path / "loose")
    assert run("expand", "./loose", "-p", "2", "--quiet")[1] == "loose-stochastok2.0\n"
    for folder in ("data", "elsewhere"):  # also where it is the default
        expected = f"{folder}/data_as_memmaps/loose-stochastok2.0\n"
        assert run("expand", "./loose", "-p", "2", "--data-dir", folder, "--quiet")[1] == expected


def test_a_growth_that_is_missed_is_in_the_json_of_the_report(run, tmp_path):
    (tmp_path / "text.txt").write_text("where there is nothing\n\nwhich is something\n")
    assert run("tokenize", "text.txt", "--tokenizer", "sample2k", "--val-fraction", "0.5", "--quiet")[0] == 0
    report = ("expand", "text-tokenized", "--report", "--method", "uniform-k", "--json", "--match-growth")
    code, out, err = run(*report, "1.2")
    row = json.loads(out)[0]
    assert (code, row["target_growth"], row["mean_growth"], row["target_met"]) == (0, 1.2, row["growth"], False)
    assert "match" not in row and f"the nearest, p = {row['p']}, makes them {row['growth']:.3f} times as long" in err


def test_what_the_report_and_the_note_of_an_expansion_count(run, tmp_path):
    (tmp_path / "text.txt").write_text("where there is nothing there\n\nwhich is something\n")
    assert run("tokenize", "text.txt", "--tokenizer", "sample2k", "--val-fraction", "0.5", "--quiet")[0] == 0
    tokens = {split: np.fromfile(f"data/data_as_memmaps/text-tokenized/{split}.bin", "<u2").size for split in SPLITS}
    report = " ".join(run("expand", "text-tokenized", "--report")[1].split())  # whatever the width
    common = re.search(r"segmentations of (\d+) common (words?) ", report)
    assert common and int(common[1]) < 5 and (common[2] == "word") == (common[1] == "1")
    _, out, err = run("expand", "text-tokenized", "-p", "1", "--seed", "1", "--json")
    made = {split: counts["tokens"] for split, counts in json.loads(out)["splits"].items()}
    growth = {split: f"{made[split] / tokens[split]:.3f}" for split in SPLITS}
    both = f"{sum(made.values()) / sum(tokens.values()):.3f}"
    assert f"({both} times the tokens)" in err and both not in growth.values()


def test_the_list_of_methods_says_once_that_a_rule_is_fixed(run):
    out = run("expand", "--method", "help")[1]
    rules = [line for line in out.splitlines() if "fixed rule" in line]
    assert len(rules) >= 4 and all(line.count("a fixed rule") == 1 for line in rules)

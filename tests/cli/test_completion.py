"""Shell completion, as shells ask for it: through the environment, and in real ones."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stochastok_cli.cli import completion
from stochastok_cli.cli.app import SUBCOMMANDS, app, register_subcommands
from stochastok_cli.config import config_reference
from stochastok_cli.tokenization.methods import METHODS

TREE = (
    "data/data_as_memmaps/corpus-tokenized",
    "data/data_as_memmaps/corpus-tokenized-stochastok0.1",
    "data/data_as_memmaps/langgame",
    "data/data_as_memmaps/.langgame.tmp",
    "data/data_as_datasets/short",
    "other/data_as_memmaps/elsewhere",
    "other/data_as_memmaps/talk",
    "checkpoints/first/step_20",
    "checkpoints/first/step_100",
    "checkpoints/group/second/step_1",
    "checkpoints/empty",
    "elsewhere/third/step_3",
)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch) -> Path:
    for folder in TREE:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "configured.yaml").write_text("general: {paths: {data_dir: other}}\n")
    manifest = {"format": 1, "kind": "dataset", "recipe": "langgame"}
    (tmp_path / "data/data_as_datasets/short/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "data/data_as_memmaps/langgame/shapes.json").touch()
    for name, kind in (("other/data_as_memmaps/talk", "instruction"), (TREE[0], "tokenized")):
        (tmp_path / name / "manifest.json").write_text(json.dumps({"format": 1, "kind": kind}))
    records = ({"iteration": i, "train/loss": 2.0, "train/learning_rate": 0.1} for i in range(2000))
    text = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "elsewhere/third/metrics.jsonl").write_text(text + '{"iteration": 3, "mcq/a/accuracy": 1}\n{"iter')
    for name in ("own.json", "own.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def complete(monkeypatch, capfd):
    """What bash or zsh is told for a line that is completed at its end."""

    def run(line: str, shell: str = "bash", later: str = "") -> list[str]:
        monkeypatch.setenv(completion.VARIABLE, f"complete_{shell}")
        if shell == "bash":
            pieces = line.replace("=", "\n=\n").replace(":", "\n:\n").replace(" ", "\n").split("\n")
            pieces = [piece for piece in pieces[:-1] if piece] + ([] if line[-1] in "=:" else [pieces[-1]])
            monkeypatch.setenv("COMP_WORDS", "\n".join([*pieces, *later.replace("=", " = ").split()]))
            monkeypatch.setenv("COMP_CWORD", str(len(pieces) - 1))
        else:
            monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        completion.answer(app, register_subcommands)
        printed = capfd.readouterr()
        assert printed.err == ""
        return printed.out.splitlines()

    return run


DATASETS = ["corpus-tokenized", "corpus-tokenized-stochastok0.1", "langgame"]
OPTIMIZER = [f"{key.path}=" for key in config_reference() if key.path.startswith("trainer.optimizer.")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("exp", ["expand", "export"]),
        ("make-l", ["make-langgame"]),
        ("expand ", DATASETS[:2]),
        ("export ", DATASETS),
        ("expand c", DATASETS[:2]),
        ("expand --data-dir other ", ["elsewhere"]),
        ("expand --data-dir ~/other ", ["elsewhere"]),
        ("expand --data-dir $HOME/other ", ["elsewhere"]),
        ("export l", ["langgame"]),
        ("export langgame --format m", ["mds", "megatron"]),
        ("expand --method st", ["stochastok", "stochastok-uni"]),
        ("expand --method stochastok,unif", ["stochastok,uniform-k", "stochastok,uniform"]),
        ("expand --method uniform,a", []),
        ("expand --method all,", []),
        ("expand --method digits:", ["right3"]),
        ("eval ", ["first", "group/second"]),
        ("eval first", ["first", "first/step_20", "first/step_100"]),
        ("eval first/step_1", ["first/step_100"]),
        ("eval --checkpoint-dir checkpoints/group ", ["second"]),
        ("eval --evaluator mc", ["mcq"]),
        ("eval --evaluator mcq --benchmarks wino", ["winograd"]),
        ("eval --evaluator mcq --benchmarks arc,short", ["arc,short-train", "arc,short-val"]),
        ("eval --evaluator bits_per_byte --benchmarks ", DATASETS[:2]),
        ("eval --evaluator bits_per_byte --benchmarks lang", []),
        ("eval --evaluator generation --benchmarks addi", ["addition-train", "addition-val"]),
        ("eval --evaluator generation --benchmarks cute-sem,short-v", ["cute-sem,short-val"]),
        ("eval --tokenization grampa", ["grampa:", "grampa:0.1"]),
        ("eval --tokenization cano", ["canonical"]),
        ("generate g", ["group/second"]),
        ("generate first --tokenization stochastok:", ["0.1"]),
        ("runs --compare first ", ["first", "group/second"]),
        ("runs elsewhere --compare ", ["third"]),
        ("runs elsewhere --compare third ", ["third"]),
        ("runs elsewhere --metric ", ["mcq/a/accuracy", "train/loss"]),
        ("runs elsewhere/third --metric t", ["train/loss"]),
        ("runs --metric ", []),
        ("train general.paths.checkpoint_dir=elsewhere --run-name ", ["third"]),
        ("tokenize a.txt --tokenizer s", ["sample2k"]),
        ("tokenize a.txt --checkpoint-dir elsewhere --tokenizer t", ["third"]),
        ("tokenize a.txt --tokenizer o", ["o200k_base", "o200k_harmony", "own.json"]),
        ("expand --text a --tokenizer cl", ["cl100k_base"]),
        ("make-langgame --tokenizer ./", []),
        ("make-langgame --holdout ", ["none", "short", "long"]),
        ("tokenize a.txt --documents ", ["paragraph", "file"]),
        ("tokenize a.txt --errors r", ["replace"]),
        ("tokenize a.txt --on-bad-document ", ["error", "skip"]),
        ("expand a --executor s", ["slurm"]),
        ("export langgame --split ", ["train", "val"]),
        ("eval --neighbors s", ["splits"]),
        ("eval --match ", ["exact_match", "prefix_match"]),
        ("train --config instr", ["instruction_tuning"]),
        ("train trainer.opti", OPTIMIZER),
        ("train trainer.optimizer.l", ["trainer.optimizer.lr=", "trainer.optimizer.lr=0.0006"]),
        ("train trainer.dataset.name=", DATASETS),
        ("train trainer.dataset.name=corpus-tokenized-", DATASETS[1:2]),
        ("train general.paths.data_dir=other trainer.dataset.name=", ["elsewhere", "talk"]),
        ("train --config configured.yaml trainer.dataset.name=e", ["elsewhere"]),
        ("train --config nothing trainer.dataset.name=l", ["langgame"]),
        ("train trainer.checkpoint_name=f", ["first"]),
        ("train trainer.dataset.is_instruction=", ["true", "false"]),
        ("train trainer.optimizer.schedule=", ["cosine", "wsd"]),
        ("train trainer.dataset.expand_method=stochastok-", ["stochastok-uni"]),
        ("train --run-name fi", ["first"]),
        ("train nothing.begins.so", []),
    ],
)
def test_what_bash_is_told(complete, line, expected):
    assert complete(f"stochastok {line}") == expected


@pytest.mark.parametrize("later", ["--checkpoint-dir elsewhere", "b --quiet --checkpoint-dir=elsewhere"])
def test_an_option_after_the_word(complete, later):
    assert complete("stochastok generate ", later=later) == ["third"]
    assert complete("stochastok eval first ", later=later) == ["third"]
    assert complete("stochastok eval ", later="--checkpoint-dir") == ["first", "group/second"]


def test_words_with_spaces_between_them(monkeypatch, capfd):
    monkeypatch.setenv(completion.VARIABLE, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "stochastok train trainer.dataset.name = lang")
    monkeypatch.setenv("COMP_CWORD", "4")
    assert completion.answer(app, register_subcommands) == 0
    assert capfd.readouterr().out == "langgame\n"


def test_all_methods_and_subcommands(complete):
    assert complete("stochastok expand --method ") == [m.example or m.name for m in METHODS.values()] + ["all"]
    subcommands = complete("stochastok ")
    assert {name.partition("-")[0] for name in subcommands} == set(SUBCOMMANDS)


def test_names_that_bash_would_cut_are_escaped_and_others_left_out(complete, folders):
    for name in ("my data", "a$b[c]", "bell\a"):
        (folders / "data/data_as_memmaps" / name).mkdir()
    assert complete("stochastok export ") == ["a\\$b\\[c\\]", *DATASETS, "my\\ data"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize("name", ["it's", "it's [a] é", 'it $b "c" `d` \\ &'])
def test_what_stands_in_the_line_then_is_the_name(monkeypatch, capfd, folders, quote, name):
    monkeypatch.setenv(completion.VARIABLE, "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"stochastok\ngenerate\n{quote}it")
    monkeypatch.setenv("COMP_CWORD", "2")
    (folders / "checkpoints" / name / "step_1").mkdir(parents=True)
    completion.answer(app, register_subcommands)
    reply = capfd.readouterr().out.removesuffix("\n")
    line = f"printf %s {quote}{reply}{quote}"  # bash puts it in the place of what follows the mark
    assert subprocess.run(["bash", "-c", line], capture_output=True, text=True).stdout == name


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("export lang", ["langgame"]),
        ("train trainer.dataset.name=l", ["trainer.dataset.name=langgame"]),
        ("train trainer.optimizer.lr", ["trainer.optimizer.lr=", "trainer.optimizer.lr=0.0006"]),
        ("eval --evaluator mcq --benchmarks arc,wino", ["arc,winograd"]),
    ],
)
def test_what_zsh_is_told(complete, line, expected):
    quoted = "\n".join(f'"{candidate}"' for candidate in expected)
    assert "\n".join(complete(f"stochastok {line}", "zsh")) == f"_arguments '*: :(({quoted}))'"


@pytest.mark.parametrize(("line", "code"), [("export lang", 0), ("export nothing", 1)])
def test_fish_asks_whether_there_is_something(complete, monkeypatch, line, code):
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "is-args")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"stochastok {line}")
    monkeypatch.setenv(completion.VARIABLE, "complete_fish")
    assert completion.answer(app, register_subcommands) == code
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert complete(f"stochastok {line}", "fish") == (["langgame"] if code == 0 else [""])


@pytest.mark.parametrize("subcommand", [*SUBCOMMANDS, "make-cute"])
def test_options_have_help_in_zsh(complete, subcommand):
    if subcommand != "make":
        assert any('"--quiet":"Show no notes' in line for line in complete(f"stochastok {subcommand} --", "zsh"))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"COMP_WORDS": "stochastok\nexpand"},
        {"COMP_WORDS": "stochastok", "COMP_CWORD": "7"},
        {"COMP_WORDS": "stochastok\nexpand\n'", "COMP_CWORD": "x"},
        {"COMP_WORDS": "stochastok\ntrain\n=", "COMP_CWORD": "2"},
        {"COMP_WORDS": "=", "COMP_CWORD": "0"},
        {"COMP_WORDS": "stochastok\ntrain\n--config\n\x00\n", "COMP_CWORD": "4"},
    ],
)
def test_a_strange_request_is_no_error(monkeypatch, capfd, environment):
    monkeypatch.setenv(completion.VARIABLE, "complete_bash")
    for name, value in environment.items():
        monkeypatch.setitem(os.environ, name, value.replace("\x00", "\x01"))
    completion.answer(app, register_subcommands)
    assert capfd.readouterr().err == ""


# ------------------------------------------------------------------------------------------------ real shells


@pytest.fixture
def shell_environment(folders) -> dict[str, str]:
    """An environment in which `stochastok` is a command."""
    script = folders / "bin" / "stochastok"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom stochastok_cli.cli.app import main\nmain()\n")
    script.chmod(0o755)
    home = folders / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMP_")}
    environment.pop(completion.VARIABLE, None)
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    root = str(Path(completion.__file__).parents[2])
    return environment | {"PATH": path, "PYTHONPATH": root, "HOME": str(home), "TERM": "dumb", "PS1": "$ "}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_function_that_bash_calls(shell_environment):
    """The script that Typer writes for bash, called as bash does when TAB is pressed."""
    code = f"""
        eval "$({sys.executable} -m stochastok_cli --show-completion)"
        complete -p stochastok >&2
        COMP_WORDS=(stochastok train trainer.dataset.name = corpus-tokenized-) COMP_CWORD=4
        _stochastok_completion stochastok
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", code], env=shell_environment, capture_output=True, text=True)
    assert done.stdout == f"{DATASETS[1]}\n"
    assert done.stderr.strip().endswith("-F _stochastok_completion stochastok") and done.stderr.count("\n") == 1


def typed(shell: list[str], environment: dict[str, str], setup: str, keys: str, until: str) -> str:
    """What a terminal shows when keys are typed into an interactive shell, up to a text."""
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(shell[0], shell, environment)

    def read(until: str) -> str:
        shown, end = "", time.monotonic() + 30
        while until not in shown and time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 65536).decode(errors="replace")
        return shown

    try:
        os.write(terminal, f"{setup}; echo rea''dy\n".encode())
        assert "ready\r\n" in read("ready\r\n")
        os.write(terminal, keys.encode())
        return read(until)
    finally:
        os.close(terminal)  # the shell ends by SIGHUP
        os.waitpid(process, 0)


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_tab_in_an_interactive_shell(shell, shell_environment):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    install = 'eval "$(stochastok --show-completion)"'
    setup = f"autoload -U compinit; compinit -u -D; {install}" if shell == "zsh" else install
    options = ["-f", "-i"] if shell == "zsh" else ["--norc", "-i"]
    shown = typed([shell, *options], shell_environment, setup, "stochastok train trainer.dataset.na\tla\t", "langgame")
    assert "trainer.dataset.name=langgame" in shown.replace("\a", "")

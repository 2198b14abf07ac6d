"""The application as a script sees it: stdout, stderr, exit codes, and what `--help` promises."""

import json
import re
import signal
import subprocess
import sys

import pytest
from preloaded_python import run_python, run_stochastok
from typer.main import get_command

from stochastok_cli import __version__, load_vocabulary
from stochastok_cli.cli import app
from stochastok_cli.tokenization.methods import METHODS, usable_methods

app.register_subcommands()
SUBCOMMANDS = [*get_command(app.app).commands]


def run(*args, **environment):
    return run_stochastok(*args, **{"COLUMNS": "200", **environment})


def test_version_and_help():
    assert run("--version").stdout == f"stochastok {__version__}\n"
    shown = run("--help").stdout
    assert all(name in shown for name in SUBCOMMANDS)
    assert {"tokenize", "expand", "make-langgame", "make-addition", "make-cute", "train", "eval"} <= {*SUBCOMMANDS}
    assert run().returncode == 2


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_option_is_documented(name):
    command = get_command(app.app).commands[name]
    undocumented = [p.name for p in command.params if not (getattr(p, "help", None) or getattr(p, "hidden", False))]
    assert undocumented == []
    assert {"quiet", "debug"} <= {p.name for p in command.params}
    shown = run(name, "--help", COLUMNS="80")
    assert shown.returncode == 0
    assert "--debug" in shown.stdout
    written = " ".join(f"{p.metavar} {p.help}" for p in command.params)  # type: ignore[attr-defined]
    assert [word for word in re.findall(r"\S+…", shown.stdout) if word.lstrip("[") not in written] == []  # cut off


@pytest.mark.parametrize("width", [50, 60, 72, 80, 100, 140])
def test_no_word_of_any_help_is_cut(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    command = get_command(app.app)
    for name in ["", *SUBCOMMANDS]:
        every = (command.commands[name] if name else command).params
        parameters = [p for p in every if not getattr(p, "hidden", False)]
        with pytest.raises(SystemExit):
            command.main([*([name] if name else []), "--help"], prog_name="stochastok")
        shown = capsys.readouterr().out
        written = " ".join(f"{p.metavar} {p.help}" for p in parameters)
        assert [word for word in re.findall(r"\S+…", shown) if word.lstrip("[") not in written] == []
        options = {option for p in parameters for option in p.opts if p.param_type_name == "option"}
        assert options <= {*re.findall(r"(?<![^\s,])--?[a-z][-\w]*", shown)}
        if width <= 60:  # words that are in columns above, and here have lines of their own
            assert {*re.findall(r"[-\w]{12,}", written)} <= {*re.findall(r"[-\w]{12,}", shown)}


def test_paragraphs_of_help_have_no_line_ends():
    """They would be kept, also where the terminal is wider or narrower."""
    helps = {name: command.help for name, command in get_command(app.app).commands.items()}
    assert [name for name, text in helps.items() if re.search(r"[^\n]\n[^\n]", text)] == []
    assert "in reverse order, as in the paper: `$72+87=951`.\n\nPrints that path" in helps["make-addition"]


def test_the_methods_are_listed_in_the_terminal():
    shown = run("expand", "--method", "help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [line for line in shown.stdout.splitlines() if not line.startswith(" ")] == [*METHODS]
    assert "p: probability" in shown.stdout and "a fixed rule without p; for example digits:right3" in shown.stdout
    rows = json.loads(run("expand", "--method", "help", "--json").stdout)
    assert [row["method"] for row in rows] == [*METHODS]


def test_results_on_stdout_everything_else_on_stderr(tmp_path):
    args = ["tokenize", "sample", "--tokenizer", "sample2k", "--data-dir", tmp_path]
    first = run(*args)
    path = tmp_path / "data_as_memmaps" / "sample-tokenized"
    assert (first.returncode, first.stdout) == (0, f"{path}\n")
    assert "made sample-tokenized" in first.stderr
    again = run(*args, "--json")
    shown = json.loads(again.stdout)
    assert (shown["path"], shown["made"]) == (str(path), False)
    assert "left alone" in again.stderr
    assert run(*args, "--quiet").stderr == ""
    other = run(*args[:2], "--data-dir", tmp_path)
    assert (other.returncode, other.stdout) == (2, "")
    assert "--force" in other.stderr
    assert run(*args[:2], "--data-dir", tmp_path, "--force").returncode == 0


@pytest.mark.parametrize(
    ("args", "message", "code"),
    [
        (["tokeniz"], "Did you mean", 2),
        (["expand", "--txt", "x"], "No such option", 2),
        (["expand", "x", "-p", "much"], "valid", 2),
        (["expand", "x", "-p", "-1", "--data-dir", "nowhere"], "no dataset 'x'", 2),
        (["expand"], "nothing to expand", 2),
        (["expand", "x", "--text", "y"], "drop one", 2),
        (["expand", "x", "--method", "all"], "several go with --text and --report", 2),
        (["expand", "x", "--method", "stochastok,uniform"], "several go with --text and --report", 2),
        (["expand", "--text", "y", "--html", "-"], "can't write to stdout", 2),
        (["generate", "-run"], "No such option: -r; put -- before a name", 2),
        (["expand", "--text", "y", "-p", "-1"], "not possible", 2),
        (["expand", "--text", "y", "--method", "uniforn"], "did you mean 'uniform'", 2),
        (["expand", "--text", "y", "--tokenizer", "gpt-2"], "did you mean 'gpt2'", 2),
        (["tokenize", "no/such/file.txt"], "neither a file", 2),
        (["tokenize", "sample", "--errors", "ignore"], "strict or replace", 2),
        (["tokenize", "sample", "--num-proc", "0"], "--num-proc", 2),
        (["tokenize", "sample", "--data-dir", "/proc/nowhere"], "/proc/nowhere", 1),
        (["train", "--config", "pretrainin"], "did you mean 'pretraining'", 2),
        (["train", "--config", "pretraining", "trainer.optimiser.lr=1"], "did you mean 'trainer.optimizer", 2),
        (["eval", "absent", "--evaluator", "bits_per_byte", "--benchmarks", "x"], "absent", 2),
    ],
)
def test_wrong_use_is_one_clear_line(args, message, code, tmp_path):
    done = run_python("-m", "stochastok_cli", *args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback():
    assert "Traceback" in run("expand", "--text", "y", "-p", "-1", "--debug").stderr


def test_flags_are_flags(tmp_path):
    """The reference's boolean options took `False` for true; ours take no value."""
    done = run("tokenize", "sample", "--pull", "False", "--data-dir", tmp_path)
    assert done.returncode == 2
    assert "unexpected extra argument" in done.stderr.lower()


def test_alternative_tokenizations_of_a_text():
    done = run("expand", "--text", "An example sentence", "-p", "0.5", "--samples", "6")
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert lines[0].endswith("An| example| sentence")
    assert all(line.split("tokens  ")[1].replace("|", "") == "An example sentence" for line in lines)
    assert len(set(lines)) > 3
    rows = json.loads(run("expand", "--text", "An example", "--samples", "2", "--json").stdout)
    assert rows[0] == {"label": "canonical", "ids": [2025, 1672], "tokens": ["An", " example"]}
    coloured = run("expand", "--text", "An example", FORCE_COLOR="1", TERM="xterm-256color").stdout
    assert "\x1b[" in coloured


def test_a_method_that_is_named_twice_is_used_once():
    done = run("expand", "--text", "An example", "--method", "uniform,character,uniform", "--samples", "1", "--json")
    assert [row["label"] for row in json.loads(done.stdout)] == ["canonical", "uniform 1", "character"]
    assert done.stderr == "note: given more than once, and used once: --method uniform\n"


def test_interrupted_with_nothing_saved(tmp_path):
    """The signal comes when all files are written and none is at its place: the process waits for it there."""
    code = (
        "import signal; from stochastok_cli import atomic_writes; from stochastok_cli.cli.app import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "atomic_writes._sync = lambda folder: (print('waiting', flush=True), signal.pause())\n"
        "main()"
    )
    arguments = ["tokenize", "sample", "--tokenizer", "sample2k", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "waiting\n"
    folder = tmp_path / "data" / "data_as_memmaps"
    assert (folder / ".sample-tokenized.partial" / "train.bin").exists()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (130, "error: interrupted\n")
    assert [f.name for f in folder.iterdir() if not f.name.endswith(".lock")] == []
    assert run_python("-m", "stochastok_cli", *arguments, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("number", ["SIGINT", "SIGUSR1"])
def test_interrupted_while_it_is_imported(number):
    code = f"""
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.{number})

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.meta_path.insert(0, Interrupt())
from stochastok_cli.__main__ import main

main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "error: interrupted\n")


def test_interrupted_in_code_run_by_exec_and_once_more_while_it_ends():
    """Where an exec() is interrupted, as in an import of PyTorch's, the interpreter would end itself by SIGINT."""
    code = """
import os, signal, sys

def check(arguments=None):
    exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from stochastok_cli.cli import app, interruption

interruption.end_at_once()
app._require_address_space = check
app._interrupted, said = (lambda: os.kill(os.getpid(), signal.SIGINT) if sys.argv[1:] else said()), app._interrupted
app.main()
"""
    for arguments in ([], ["twice"]):
        ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "error: interrupted\n")


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """A file size limit stands in for the disk: writing past it fails in the same call."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "sys.argv = ['stochastok', 'tokenize', 'sample', '--data-dir', sys.argv[1]];"
        "from stochastok_cli.cli.app import main; main()"
    )
    done = run_python("-c", code, tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert [f.name for f in (tmp_path / "data_as_memmaps").iterdir() if not f.name.endswith(".lock")] == []


@pytest.mark.parametrize(
    ("environment", "has_color"),
    [
        ({"FORCE_COLOR": "1", "TERM": "xterm-256color"}, True),
        ({"FORCE_COLOR": "1", "TERM": "xterm"}, False),  # 16 colors, of which the backgrounds would all be one
        ({"FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_tokens_have_bars_between_them_where_they_have_no_color(environment, has_color):
    shown = run("expand", "--text", "unbelievable", "--tokenizer", "sample2k", "--samples", "1", **environment).stdout
    assert ("48;5;" in shown, "un|be|lie|v|able" in shown) == (has_color, not has_color)


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_no_number_of_the_report_is_cut(columns, tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(f"An unbelievable document {i}" for i in range(9)))
    run("tokenize", tmp_path / "a.txt", "--tokenizer", "sample2k", "--data-dir", tmp_path, "--val-fraction", "0.2")
    report = ["expand", "a-tokenized", "--report", "--data-dir", tmp_path, "-p", "0.12345", "--method"]
    shown = run(*report, "stochastok,character", COLUMNS=columns).stdout
    rows = json.loads(run(*report, "stochastok,character", "--json").stdout)
    assert "…" not in shown and all(len(line) <= int(columns) for line in shown.splitlines())
    assert re.search(r"\b0.12345\b", shown) and all(f"{row['renyi_efficiency']:.3f}" in shown for row in rows)
    values = next(line for line in shown.splitlines() if line.startswith("stochastok")).split()[1:]
    assert len(values) == (9 if columns == "200" else 0)


@pytest.mark.slow
def test_the_report_compares_methods_at_equal_growth(tmp_path):
    run("tokenize", "sample", "--data-dir", tmp_path)
    common = ["expand", "sample-tokenized", "--report", "--method", "all", "--data-dir", tmp_path]
    rows = {row["method"]: row for row in json.loads(run(*common, "--match-growth", "1.2", "--json").stdout)}
    assert [*rows] == usable_methods(load_vocabulary("gpt2"))
    for method in ("stochastok", "stochastok-uni", "uniform-k", "grampa", "uniform", "bpe-dropout"):
        assert rows[method]["growth"] == pytest.approx(1.2, abs=0.01), method
    note = "--match-growth does not change them: character, digits:right3, longest-first, reversed-merges"
    assert note in run(*common, "--match-growth", "1.2").stderr
    assert rows["character"]["growth"] > 4 and rows["character"]["p"] is None
    shown = run(*common).stdout
    assert "bpe-dropout" in shown
    assert not (tmp_path / "data_as_memmaps" / "sample-tokenized-stochastok0.1").exists()

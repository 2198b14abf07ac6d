"""Streams that are closed, full, without a reader or of another encoding, and too little memory."""

import io
import os
import resource
import shlex
import subprocess
import sys

import pytest
import torch

import stochastok_cli.cli.expand
import stochastok_cli.cli.generate  # noqa: F401 (a lone subcommand would have no name)
from stochastok_cli.cli import app
from stochastok_cli.cli.streams import printable
from stochastok_cli.errors import FAILED

MESSAGES = "from stochastok_cli.cli import streams; streams.prepare_streams(); import os, sys;"


def run(*command, shell="{}", **environment):
    """Runs Python; `shell` redirects its streams."""
    line = shell.format(shlex.join([sys.executable, *command]))
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture
def without_reader():
    """The end for writing of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


NOISY = f"{MESSAGES} [print(i, file=sys.stderr, flush=True) for i in range(100)]; print('done')"


@pytest.mark.parametrize("shell", ["{} 2>&-", "{} 2>/dev/full"], ids=["closed", "full"])
def test_without_a_stderr_a_command_goes_on(shell):
    done = run("-c", NOISY, shell=shell)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_without_a_reader_of_stderr_a_command_goes_on(without_reader):
    done = subprocess.run([sys.executable, "-c", NOISY], stdout=subprocess.PIPE, stderr=without_reader, text=True)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_an_error_without_a_stderr_is_not_on_stdout():
    done = run("-m", "stochastok_cli", "train", "--config", "absent", shell="{} 2>&-")
    assert (done.returncode, done.stdout) == (2, "")


def test_closed_streams_are_opened_on_the_null_device():
    code = f"{MESSAGES} assert os.open('/dev/zero', os.O_RDONLY) > 2; os.write(2, b'noise'); print('done')"
    done = run("-c", code, shell="{} <&- 2>&-")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


VERSION = ("-m", "stochastok_cli", "--version")


@pytest.mark.parametrize(
    ("shell", "reason"), [("{} >&-", "Bad file descriptor"), ("{} >/dev/full", "No space left on device")]
)
def test_a_result_that_cannot_be_written_is_an_error(shell, reason):
    done = run(*VERSION, shell=shell)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert done.stderr == f"error: stdout can't be written: {reason}\n"


@pytest.mark.parametrize("command", ["--version", "--help", "make-cute --help"])
def test_a_result_without_a_reader_ends_as_other_programs_do(without_reader, command):
    arguments = [sys.executable, "-m", "stochastok_cli", *command.split()]
    done = subprocess.run(arguments, stdout=without_reader, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_completions_without_a_reader_are_no_error(without_reader):
    request = {"_STOCHASTOK_COMPLETE": "complete_bash", "COMP_WORDS": "stochastok\nexp", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "stochastok_cli"]
    environment = {**os.environ, **request}
    done = subprocess.run(command, stdout=without_reader, stderr=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")


def test_characters_that_an_encoding_lacks_are_escaped():
    code = f"{MESSAGES} print('é日'); print('é日', file=sys.stderr)"
    done = run("-c", code, PYTHONIOENCODING="ascii")
    assert (done.stdout, done.stderr) == ("\\u00e9\\u65e5\n", "\\u00e9\\u65e5\n")


def test_a_token_stays_in_its_line(monkeypatch, capsys):
    arguments = ["expand", "--tokenizer", "sample2k", "--samples", "2", "--text", "-"]
    monkeypatch.setattr(sys, "argv", ["", *arguments])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a\x1b[1m\n\t\r\x85\n".encode())))
    with pytest.raises(SystemExit):
        app.main()
    lines = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert len(lines) == 3 and all(line.isprintable() for line in lines)
    assert lines[0].split("tokens")[1].strip().replace("|", "") == r"a\x1b[1m\n\t\r\xc2\x85"


def test_messages_are_bounded_and_cannot_steer_a_terminal():
    assert printable("a\x1b[31mb\n  c\r") == "a\\x1b[31mb\n  c\\r"
    assert printable("é" * 10_000, most=100) == "é" * 99 + "…"
    assert printable("some words, " * 10, most=18) == "some words, some…"


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS"), reason="limits of POSIX")
def test_too_little_address_space_is_named():
    done = run("-m", "stochastok_cli", "expand", "--text", "a", shell="ulimit -v 200000; {}")
    assert done.returncode == FAILED
    assert done.stderr == (
        "error: this process may use 195 MiB of address space, too little for the libraries it needs; "
        "raise the limit (ulimit -v)\n"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "out of memory (MemoryError)"),
        (
            ImportError("libtorch.so: failed to map segment from shared object\n"),
            "out of memory (ImportError: libtorch.so: failed to map segment from shared object)",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried …"),
            "out of memory (OutOfMemoryError: CUDA out of memory. Tried …)",
        ),
        (RuntimeError("can't start new thread"), "out of memory (RuntimeError: can't start new thread)"),
        (KeyError("x"), "KeyError: 'x' (this is a bug; --debug shows where)"),
    ],
)
def test_a_lack_of_memory_is_no_bug(error, said):
    assert app._describe_unexpected(error) == said

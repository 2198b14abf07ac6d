"""Runs Python code or the application in processes of their own that need not import the libraries again.

A server process imports them once and forks for each command. A command has its own arguments, environment, working
directory and streams, and ends with its own exit code, as one that a shell starts. Importing torch and the others takes
some seconds of CPU, several times what most commands take. Tests of imports, signals and start-up start real
interpreters instead.
"""

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PRELOADED = (
    "datasets",
    "huggingface_hub",
    "numba",
    "pydantic",
    "rich.console",
    "rich.progress",
    "tiktoken",
    "tokenizers",
    "torch._dynamo",
    "typer._adapters",
    "stochastok_cli.cli.eval",
    "stochastok_cli.cli.train",
    "stochastok_cli.data.expand",
    "stochastok_cli.data.hub_datasets",
    "stochastok_cli.data.tokenize",
    "stochastok_cli.evaluation.run",
    "stochastok_cli.models.huggingface",
    "stochastok_cli.tokenization.loaders",
    "stochastok_cli.training.plan",
    "stochastok_cli.training.train",
    "stochastok_cli.training.upload",
)
"""What commands import; only a library that runs no threads and reads no setting that tests change."""
READ_LATE = {"COLUMNS", "FORCE_COLOR", "NO_COLOR", "TERM"}
"""Variables that are not read while libraries are imported. With others, a real interpreter is started."""


def run_python(
    *arguments: object, cwd: str | Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=env)` returns.

    Args:
        arguments: `-m MODULE …`, `-c CODE …` or `FILE …`.
        cwd: The working directory; this process's if None.
        env: The environment; this process's if None.
    """
    command = [str(argument) for argument in arguments]
    if env is not None and _changed(env) - READ_LATE:
        return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=cwd, env=env)
    request = {"arguments": command, "cwd": str(cwd or os.getcwd()), "env": dict(env or os.environ)}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error, open(os.devnull, "rb") as empty:
        code = _request(_server_address(), request, [empty.fileno(), out.fileno(), error.fileno()])
        texts = []
        for stream in (out, error):
            stream.seek(0)
            texts.append(stream.read().decode())
    return subprocess.CompletedProcess([sys.executable, *command], code, *texts)


def run_stochastok(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`stochastok ARGUMENTS` with variables added to the environment."""
    return run_python("-m", "stochastok_cli", *arguments, env={**os.environ, **environment})


def _changed(env: dict[str, str]) -> set[str]:
    """The names of the variables that differ from this process's environment."""
    return {name for name, _ in env.items() ^ os.environ.items()}


def _request(address: str, request: dict[str, Any], streams: list[int]) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        content = json.dumps(request).encode()
        socket.send_fds(connection, [len(content).to_bytes(4, "big")], streams)
        connection.sendall(content)
        answer = connection.makefile("rb").read()
    assert answer, "the process that runs commands has died"
    return int(answer)


_server: tuple[str, subprocess.Popen[bytes]] | None = None


def _server_address() -> str:
    """The address of this process's server, which is started at the first call and ends with this process."""
    global _server
    if _server is None or _server[1].poll() is not None:
        folder = tempfile.TemporaryDirectory(prefix="python-")
        address = f"{folder.name}/socket"
        process = subprocess.Popen(
            [sys.executable, __file__, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        atexit.register(folder.cleanup)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        _server = address, process
    return _server[0]


def _serve(address: str) -> None:
    import importlib

    sys.path[0] = str(ROOT)  # in place of the folder of this file
    for name in PRELOADED:
        importlib.import_module(name)
    _load_kernels()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:  # closed: the process that started this has ended
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection)
        connection.close()
        while True:  # those that have ended
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break


def _load_kernels() -> None:
    """Loads the bundled vocabularies, and the compiled kernels of expansion from numba's cache, or compiles them."""
    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.loaders import load_vocabulary
    from stochastok_cli.tokenization.methods.kernels.random import MAX_INTERPRETED

    for name in ("sample2k", "gpt2"):
        vocabulary = load_vocabulary(name)
        for method in ("stochastok", "uniform", "bpe-dropout"):
            # So many ids are not expanded by interpreted kernels.
            StochasTok(vocabulary, p=0.5, method=method)(vocabulary.encode("A short text.") * MAX_INTERPRETED)


def _answer(connection: socket.socket) -> None:
    """Runs a command in a child of this process and sends its exit code."""
    header, streams, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as reader:
        request = json.loads(reader.read(int.from_bytes(header, "big")))
    child = os.fork()
    if child == 0:
        connection.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os._exit(_run(**request))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(code).encode())
    os._exit(0)


def _run(arguments: list[str], cwd: str, env: dict[str, str]) -> int:
    """Runs the code of a command in this process; returns its exit code."""
    import runpy

    atexit._clear()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        number = ("stdin", "stdout", "stderr").index(name)
        errors = "backslashreplace" if name == "stderr" else None
        stream = open(number, mode, errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    option, *rest = arguments
    try:
        if option == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif option == "-c":
            sys.argv = ["-c", *rest[1:]]
            sys.path[0] = ""
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            sys.path[0] = str(Path(option).parent)
            runpy.run_path(option, run_name="__main__")
        code: Any = 0
    except SystemExit as exit:
        code = exit.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


if __name__ == "__main__":
    _serve(sys.argv[1])

"""Messages of panics in libraries written in Rust: held back, and nothing else with them."""

import json
import os
import threading
from collections.abc import Callable

import pytest
from preloaded_python import run_stochastok

from stochastok_cli.panics import HeldBack

PANIC = b"\nthread '<unnamed>' (17) panicked at src/lib.rs:112:34:\nindex out of bounds\nstack backtrace:\n   0: main\n"


class PanicException(BaseException):  # as pyo3 names it
    pass


@pytest.fixture
def stream():
    """A context for calls whose output goes to a descriptor, the descriptor, and what reads its other end."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    held_back = HeldBack(writer)
    held_back.is_on = True

    def read() -> bytes:
        try:
            return os.read(reader, 2**16)
        except BlockingIOError:
            return b""

    yield held_back, writer, read
    os.close(reader)
    os.close(writer)


def panic(held_back: HeldBack, writer: int, message: bytes, before: Callable[[], object] = lambda: None) -> None:
    def call() -> None:
        with held_back():
            before()
            os.write(writer, message)
            raise PanicException

    with pytest.raises(PanicException):
        call()


def test_the_message_of_a_panic_is_dropped_and_others_are_passed_on(stream):
    held_back, writer, read = stream
    for _ in range(2):
        panic(held_back, writer, b"a warning of a library\n" + PANIC)
        assert read() == b"a warning of a library\n"
        with held_back():
            os.write(writer, b"a text about thread 'x' panicked at \n")
            assert read() == b""
        assert read() == b"a text about thread 'x' panicked at \n"


def test_messages_are_shown_unless_held_back(stream):
    held_back, writer, read = stream
    held_back.is_on = False
    panic(held_back, writer, PANIC)
    assert read() == PANIC


def test_calls_in_several_threads(stream):
    """The descriptor is restored after the last of the calls, and one that panics takes nothing from the others."""
    held_back, writer, read = stream
    both_run, first_ended = threading.Barrier(2), threading.Event()

    def other() -> None:
        panic(held_back, writer, PANIC, both_run.wait)
        first_ended.set()

    thread = threading.Thread(target=other)
    thread.start()
    with held_back():
        os.write(writer, b"before\n")
        both_run.wait()
        first_ended.wait()
        assert read() == b""
    thread.join()
    assert read() == b"before\n"
    os.write(writer, b"after\n")
    assert read() == b"after\n"


def test_a_forked_process_has_a_stderr_of_its_own(stream):
    held_back, writer, read = stream
    with held_back():
        child = os.fork()
        if child == 0:
            os.write(writer, b"from the child\n")
            with held_back():
                os.write(writer, b"held\n")
            os._exit(0)
        os.waitpid(child, 0)
        assert read() == b"from the child\nheld\n"
        os.write(writer, b"from the parent\n")
    assert read() == b"from the parent\n"


def tokenizer(normalizer: dict) -> str:
    """A Unigram tokenizer of which tokenizers panics, as it is read or for long texts."""
    token = {"id": 0, "content": "</s>", "special": True, "normalized": False}
    token |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    vocabulary = [["</s>", 0], ["<unk>", 0], ["▁", -1], ["a", -2], ["b", -3]]
    model = {"type": "Unigram", "unk_id": 1, "vocab": vocabulary, "byte_fallback": False}
    parts = {"normalizer": normalizer, "pre_tokenizer": metaspace, "post_processor": None, "decoder": metaspace}
    return json.dumps(
        {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [token], **parts, "model": model}
    )


@pytest.mark.parametrize(
    ("normalizer", "code", "message"),
    [
        (
            {"type": "Precompiled", "precompiled_charsmap": "/////w=="},
            2,
            "is not a tokenizer.json: Precompiled",
        ),
        ({"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}, 1, "cannot encode a text of 20,001 char"),
    ],
    ids=["read", "encode"],
)
def test_a_panic_is_one_line_without_debug(tmp_path, normalizer, code, message):
    (tmp_path / "tokenizer.json").write_text(tokenizer(normalizer))
    (tmp_path / "text.txt").write_text("a b\n\n" * 20 + "a" * 20_000 + "b\n")
    names = {"--tokenizer": "tokenizer.json", "--data-dir": "data"}
    options = [part for name, file in names.items() for part in (name, tmp_path / file)]
    command = ["tokenize", tmp_path / "text.txt", *options]
    failed = run_stochastok(*command)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (code, "", 1)
    assert failed.stderr.startswith("error: ") and message in failed.stderr
    shown = run_stochastok(*command, "--debug")
    assert shown.returncode == code and message in shown.stderr
    assert "panicked at " in shown.stderr and "Traceback" in shown.stderr

"""What tokenizer libraries do wrong ends in one line, and Ctrl-C ends the wait for them."""

import os
import signal
import threading

import pytest
import tiktoken

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.cli import app
from stochastok_cli.errors import FAILED
from stochastok_cli.tokenization.encoders import TiktokenEncoder
from stochastok_cli.tokenization.tokenizers_encoder import interruptible
from tests.tokenization.test_tokenizer_settings import after, split
from tests.tokenization.tiny_tokenizers import byte_level, write

BACKTRACKING = split({"Regex": "(a+)+$"}, "Isolated")
HARD = "a" * 40 + "!"


def test_a_pattern_that_backtracks_without_end(tmp_path):
    vocabulary = load_vocabulary(write(tmp_path / "t", after(BACKTRACKING, byte_level())))
    attempts = (
        lambda: vocabulary.encode(HARD),
        lambda: vocabulary.encode(HARD * 30),
        lambda: vocabulary.encode_batch(["fine", HARD, "fine"]),
        lambda: vocabulary.pretokens(HARD),
        lambda: StochasTok(vocabulary, p=0, method="bpe-dropout")([*HARD.encode()]),
    )
    for attempt in attempts:
        with pytest.raises(UserError, match=r"cannot encode a text of \d.* begins 'aaa.*retry-limit") as error:
            attempt()
        assert error.value.exit_code == FAILED and "\n" not in str(error.value)


def test_a_pattern_that_overflows_tiktoken():
    single_bytes = {bytes([byte]): byte for byte in range(256)}
    pattern = r"(?:(a+)+\1)+c|."  # the back reference leaves it to the engine that backtracks
    encoding = tiktoken.Encoding("t", pat_str=pattern, mergeable_ranks=single_bytes, special_tokens={})
    with pytest.raises(UserError, match="cannot encode a text of 61"):
        TiktokenEncoder(encoding).encode("a" * 60 + "!")


class PanicException(BaseException):  # as pyo3 names it
    pass


def _panic(*_):
    raise PanicException("index out of bounds\nat line 3")


def test_a_panic_when_a_tokenizer_is_read(tmp_path, monkeypatch):
    write(tmp_path, byte_level())
    monkeypatch.setattr("tokenizers.Tokenizer.from_file", _panic)
    with pytest.raises(UserError, match="is not a tokenizer.json: index out of bounds$"):
        load_vocabulary(tmp_path)


def test_a_panic_anywhere_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(app, "_require_address_space", _panic)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as exit_:
        app.main()
    assert exit_.value.code == FAILED
    assert (
        capsys.readouterr().err.splitlines()[-1] == "error: a library failed: index out of bounds (--debug shows where)"
    )


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals go to the main thread")
def test_ctrl_c_ends_the_wait_for_a_call():
    ended, before = threading.Event(), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            interruptible(lambda: (os.kill(os.getpid(), signal.SIGINT), ended.wait(60)))
        assert interruptible(lambda: 3) == 3
        with pytest.raises(ZeroDivisionError):
            interruptible(lambda: 1 // 0)
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)

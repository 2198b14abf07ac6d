"""An interruption that another exception wraps."""

import sys

import pytest

from stochastok_cli.cli import app
from stochastok_cli.cli.interruption import is_cause
from stochastok_cli.errors import FAILED, INTERRUPTED


def wrapped(error: BaseException, by: str) -> Exception:
    """A RuntimeError with `error` as its cause or its context, below another one, as imports raise it."""
    try:
        try:
            try:
                raise error
            except BaseException as inner:
                raise RuntimeError("calling __set_name__") from (inner if by == "cause" else None)
        except RuntimeError as outer:
            raise ImportError("a module") from outer
    except ImportError as chain:
        return chain


@pytest.mark.parametrize("by", ["cause", "context"])
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "error: interrupted\n"),
        (ValueError("a bug"), FAILED, "error: ImportError: a module (this is a bug; --debug shows where)\n"),
    ],
)
def test_an_interruption_that_an_exception_wraps_is_one(monkeypatch, capfd, by, error, code, message):
    chain = wrapped(error, by)

    def fail():
        raise chain

    monkeypatch.setattr(app, "register_subcommands", fail)
    monkeypatch.setattr(sys, "argv", ["stochastok", "runs"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert (ended.value.code, capfd.readouterr().err) == (code, message)


def test_a_chain_that_is_a_circle_has_an_end():
    one, two = ValueError(), ValueError()
    one.__context__, two.__context__ = two, one
    assert not is_cause(one)

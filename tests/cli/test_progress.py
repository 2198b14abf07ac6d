"""Progress bars in a terminal."""

import io
import sys

import pytest

from stochastok_cli.cli import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["[red]", "[/red]", "[bold", "{task.total}", ":smile:"])
def test_the_description_of_a_bar_is_no_markup(name, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress.progress_bar() as report:
        report(name, 1, 2)
        report(name, 2, 2)
    assert name in terminal.getvalue()

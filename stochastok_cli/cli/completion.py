"""Shell completion: how a shell's request is answered.

Typer writes the scripts for bash, zsh, fish and PowerShell (`--install-completion`), which call the program with the
variable `_STOCHASTOK_COMPLETE`, and finds the parameter that is completed. `candidates` has the values.

Bash gives a word with `=` or `:` in pieces, and replaces only the last of them: they are put together before Typer sees
them, and what bash has already is taken off the answer.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from itertools import pairwise

import typer

from stochastok_cli.cli.streams import flush_stdout
from stochastok_cli.errors import UserError, short_repr

PROGRAM = "stochastok"
VARIABLE = "_STOCHASTOK_COMPLETE"
BASH = "complete_bash"
DECISIVE = ("--checkpoint-dir", "--config", "--config-name", "--data-dir", "--evaluator")
"""Options that decide what another word can be completed to, also where they stand after it."""
_BREAK = re.compile(r"[=:]+")
_SPECIAL = re.compile(r"([^\w@%+=:,./~^-])")  # what bash would not take literally
_SPECIAL_IN_QUOTES = re.compile(r"""(["$`\\])""")


def is_requested() -> bool:
    """Whether a shell asks for completions."""
    return os.environ.get(VARIABLE, "").startswith("complete_")


def completed_program() -> str | None:
    """The command that a script of completion is for, where one is asked for: also of `python -m stochastok_cli`.

    Raises UserError for more arguments, such as the name of a shell, which Typer would ignore.
    """
    option, *more = sys.argv[1:] or [""]
    if option not in ("--install-completion", "--show-completion"):
        return None
    if more:
        raise UserError(
            f"{option} takes no argument, and {short_repr(more[0])} is given",
            fix="run it in the shell that it is for, which it finds out",
        )
    return PROGRAM


def answer(app: typer.Typer, register: Callable[[str], None]) -> int:
    """Prints the completions that a shell has asked for; nothing where that fails, since it would be put into the line
    that is edited.

    Args:
        app: The application.
        register: Adds the subcommands to `app` whose names begin with a text.

    Returns:
        The exit code: fish asks by it whether there are completions.
    """
    code = 1
    known = ""
    if os.environ[VARIABLE] == BASH:
        known = _join_pieces()
    printed, errors = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
        contextlib.suppress(Exception, KeyboardInterrupt),
    ):
        register(_beginning_of_subcommand())
        try:
            app(prog_name=PROGRAM, complete_var=VARIABLE, standalone_mode=False)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    answered = printed.getvalue()
    if os.environ[VARIABLE] == BASH:
        lines = [line.removeprefix(known) for line in answered.splitlines()]
        quote = _begun_quotation()
        answered = "".join(f"{_escaped(line, quote)}\n" for line in lines if line and line.isprintable())
    with contextlib.suppress(OSError, UnicodeError):  # nobody reads it any more, or the terminal lacks a character
        sys.stdout.write(answered)
    flush_stdout()
    return code


def _beginning_of_subcommand() -> str:
    """The first word after the program that is no option; the one that is completed may be it."""
    if os.environ[VARIABLE] == BASH:
        words = _bash_words()[: _current_word() + 1]
    else:
        words = os.environ.get("_TYPER_COMPLETE_ARGS", "").split()
    return next((word for word in words[1:] if not word.startswith("-")), "")


def _bash_words() -> list[str]:
    """The words of `COMP_WORDS`, each on its line, or with spaces between them as click's own script gives them."""
    words = os.environ.get("COMP_WORDS", "")
    return words.split("\n" if "\n" in words else " ")


def _current_word() -> int:
    position = os.environ.get("COMP_CWORD", "")
    return int(position) if position.isdecimal() else 0


def _join_pieces() -> str:
    """Puts the pieces of words in `COMP_WORDS` together; returns what bash has of the current word before its last
    piece."""
    pieces = _bash_words()
    current = _current_word()
    if current >= len(pieces):
        return ""
    words, later = _joined(pieces[: current + 1]), _joined(pieces[current + 1 :])
    for option, value in pairwise([*later, ""]):
        name, equals, _ = option.partition("=")
        if name in DECISIVE and (equals or value) and len(words) > 2:  # after the name of the subcommand
            words[2:2] = [option] if equals else [option, value]
    last = "" if _BREAK.fullmatch(pieces[current]) else pieces[current]
    os.environ["COMP_WORDS"] = "\n".join(words)
    os.environ["COMP_CWORD"] = str(len(words) - 1)
    return words[-1].removesuffix(last) if last else words[-1]


def _joined(pieces: list[str]) -> list[str]:
    """Words from their pieces."""
    words: list[str] = []
    joined = False
    for piece in pieces:
        is_break = _BREAK.fullmatch(piece) is not None
        if words and (is_break or joined):
            words[-1] += piece
        else:
            words.append(piece)
        joined = is_break
    return words


def _begun_quotation() -> str:
    """The quotation mark with which the current word begins, or ""."""
    words, current = _bash_words(), _current_word()
    return words[current][:1] if current < len(words) and words[current][:1] in ("'", '"') else ""


def _escaped(word: str, quote: str) -> str:
    """A word as bash takes it literally, after the quotation mark that the user has typed.

    >>> print(_escaped("it's [a]", ""), _escaped("it's [a]", "'"), _escaped('a "$b"', '"'))
    it\\'s\\ \\[a\\] it'\\''s [a] a \\"\\$b\\"
    """
    if quote == "'":
        return word.replace("'", "'\\''")
    return (_SPECIAL_IN_QUOTES if quote else _SPECIAL).sub(r"\\\1", word)

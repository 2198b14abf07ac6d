"""The errors that users see: one line on stderr and a stable exit code.

Exit codes, which stay the same in later versions:
    0    done
    1    failed (a file that can't be read, a full disk, the network)
    2    wrong use (options, configuration, data that don't fit)
    75   stopped by a signal with a checkpoint saved; run the same command again to continue
    130  interrupted with nothing saved
"""

import contextlib
import errno
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import reprlib
    from pathlib import Path

FAILED = 1
USAGE = 2
STOPPED_WITH_CHECKPOINT = 75
INTERRUPTED = 130

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The numbers of errors in writing for which there has to be more room: on a disk, in a quota, in a file."""

EXIT_CODE_FILE = "STOCHASTOK_EXIT_CODE_FILE"
"""The environment variable with the file in which one of several processes leaves its exit code for their launcher."""


def leave_exit_code(code: int) -> None:
    """Passes an exit code to the launching process, if there is one that has not ended."""
    if EXIT_CODE_FILE in os.environ:
        with contextlib.suppress(OSError), open(os.environ[EXIT_CODE_FILE], "w", encoding="utf-8") as file:
            file.write(str(code))


class UserError(Exception):
    """An error that the user can fix. The command line prints it as one line, without a traceback.

    Args:
        what: what went wrong.
        fix: what to do about it; appended to the message.
        exit_code: `USAGE` (2, the default) for wrong use, `FAILED` (1) for a failure outside of the program.
    """

    def __init__(self, what: str, *, fix: str = "", exit_code: int = USAGE):
        super().__init__(what if not fix else f"{what}; {fix}")
        self.exit_code = exit_code


class Notice(UserWarning):
    """Something that users should know although nothing failed. The command line prints it as one line on stderr."""


class StoppedBySignal(Exception):
    """Training was asked to stop, finished its iteration and saved a checkpoint (exit code 75)."""


def short_repr(value: object, most: int = 100) -> str:
    """The `repr` of a value that comes from outside, with at most `most` characters however large the value is."""
    import reprlib

    return _bounded(reprlib.Repr(), value, most)


def short_json(value: object, most: int = 100) -> str:
    """As `short_repr`, of a value that was read from data: with the words of JSON for what Python calls otherwise.

    >>> short_json([None, True, float("nan"), "text"])
    "[null, true, NaN, 'text']"
    """
    import math
    import reprlib

    class Shown(reprlib.Repr):
        def repr_NoneType(self, value: None, level: int) -> str:  # noqa: N802 (the name of the type)
            return "null"

        def repr_bool(self, value: bool, level: int) -> str:
            return str(value).lower()

        def repr_float(self, value: float, level: int) -> str:
            if math.isfinite(value):
                return repr(value)
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    return _bounded(Shown(), value, most)


def _bounded(shown: "reprlib.Repr", value: object, most: int) -> str:
    shown.maxlevel, shown.maxstring, shown.maxother, shown.maxlong = 3, most, most, most
    try:
        text = shown.repr(value)
    except ValueError:  # an integer of thousands of digits, which Python refuses to print
        text = "a number of too many digits"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def is_rust_panic(error: BaseException) -> bool:
    """Whether an exception is a panic in a library written in Rust, which is no `Exception`."""
    return type(error).__name__ == "PanicException"


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, at most 200 characters; the name of its type where it has none."""
    return shorten((str(error).strip().splitlines() or [type(error).__name__])[0])


def cannot_import(what: str, package: str, extra: str, error: ImportError) -> UserError:
    """The error for an optional package that is not installed, or that is and can't be imported.

    Args:
        what: What needs it: "--executor ray".
        package: The package.
        extra: The extra of this program that installs it.
        error: Of the import.
    """
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package:
        return UserError(f"{what} needs {package}, which is not installed", fix=f"pip install 'stochastok[{extra}]'")
    return UserError(
        f"{what} needs {package}, which is installed and can't be imported ({first_line(error)})",
        fix=f"install it again: pip install --force-reinstall {package}",
        exit_code=FAILED,
    )


def shorten(text: str, most: int = 200) -> str:
    """A text of at most `most` characters: a longer one ends in `…` after a whole word.

    >>> shorten("what others wrote", 13)
    'what others…'
    """
    if len(text) <= most:
        return text
    words, space, _ = text[:most].rpartition(" ")
    kept = words if space and len(words) >= most // 2 else text[: most - 1]  # one long word is cut
    return f"{kept.rstrip(' ,;:([')}…"


def one_line(text: str, most: int = 300) -> str:
    """A text from outside as one line of bounded length, for an error."""
    return shorten(" ".join(text[: 10 * most].split()), most)


def count_of(number: int, one: str, several: str = "") -> str:
    """A number with what is counted, and perhaps the verb after it.

    >>> count_of(1, "document"), count_of(2_000, "document"), count_of(0, "token replaces", "tokens replace")
    ('1 document', '2,000 documents', '0 tokens replace')
    """
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def short_name(name: str) -> str:
    """A name that comes from outside, as it is where it is short and printable, or else as a bounded `repr`."""
    return name if len(name) <= 100 and name.isprintable() else short_repr(name)


def similar_path(path: "str | Path", most: int = 2_000) -> str:
    """The suggestion of `did_you_mean` for a path that is not there; empty if no path that is there is similar.

    Each part of it is there, or gives way to the most similar name among the first `most` of its folder.
    """
    import difflib
    import itertools
    from pathlib import Path

    path = Path(path)
    similar = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        if len(part) > 200:
            return ""
        if not (similar / part).exists():
            try:
                with os.scandir(similar) as entries:
                    names = [entry.name for entry in itertools.islice(entries, most)]
            except OSError:
                return ""
            shown = [name for name in names if part.startswith(".") or not name.startswith(".")]
            [part] = difflib.get_close_matches(part, shown, n=1, cutoff=0.6) or [""]
            if not part:
                return ""
        similar /= part
    return "" if similar == path else f"; did you mean {str(similar)!r}?"


def did_you_mean(word: str, candidates: Iterable[str], cutoff: float = 0.5) -> str:
    """The suggestion `"; did you mean 'x'?"` for the candidate most similar to `word`; empty if none is close.

    A `cutoff` nearer to 1 is for many candidates, of which some are a little similar to any word.

    >>> did_you_mean("unifrom", ["stochastok", "uniform"])
    "; did you mean 'uniform'?"
    """
    import difflib

    if len(word) > 200:  # the time grows with the square
        return ""
    match = difflib.get_close_matches(word, list(candidates), n=1, cutoff=cutoff)
    return f"; did you mean {match[0]!r}?" if match else ""

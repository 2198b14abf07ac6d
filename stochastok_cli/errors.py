"""The errors that users see: one line on stderr and a stable exit code.

Exit codes, which stay the same in later versions:
    0    done
    1    failed (a file that can't be read, a full disk, the network)
    2    wrong use (options, configuration, data that don't fit)
    75   stopped by a signal with a checkpoint saved; run the same command again to continue
    130  interrupted with nothing saved
"""

from collections.abc import Iterable

FAILED = 1
USAGE = 2
STOPPED_WITH_CHECKPOINT = 75
INTERRUPTED = 130


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


class StoppedBySignal(Exception):
    """Training was asked to stop, finished its iteration and saved a checkpoint (exit code 75)."""


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """The suggestion `"; did you mean 'x'?"` for the candidate most similar to `word`; empty if none is close.

    >>> did_you_mean("unifrom", ["stochastok", "uniform"])
    "; did you mean 'uniform'?"
    """
    import difflib

    match = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""

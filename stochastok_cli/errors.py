"""What goes wrong, said to people: one line on stderr and a stable exit code.

Exit codes (a promise to scripts):
    0    done
    1    failed (a file that can't be read, a full disk, the network)
    2    wrong use (options, configuration, data that don't fit)
    75   stopped by a signal with a checkpoint saved; run the same command again to go on
    130  interrupted with nothing saved
"""

FAILED = 1
USAGE = 2
STOPPED_WITH_CHECKPOINT = 75
INTERRUPTED = 130


class UserError(Exception):
    """Something that the user can mend: `what` went wrong, and what to do about it (`fix`).

    Raise it for wrong use (exit code 2, the default) or for a failure outside the program (`exit_code=FAILED`).
    The command line prints it as one line, without a traceback.
    """

    def __init__(self, what: str, *, fix: str = "", exit_code: int = USAGE):
        super().__init__(what if not fix else f"{what}; {fix}")
        self.exit_code = exit_code


class StoppedBySignal(Exception):
    """Training was asked to stop, finished its iteration and saved a checkpoint (exit code 75)."""


def did_you_mean(word: str, candidates: "list[str] | tuple[str, ...]") -> str:
    """`"; did you mean 'x'?"` for the candidate most like `word`, or nothing if none is close."""
    import difflib

    match = difflib.get_close_matches(word, candidates, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""

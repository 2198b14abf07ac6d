"""The application `stochastok`: its subcommands, the options common to all of them, and its exit codes.

A subcommand's file is imported when the application starts, so it imports torch, datasets and numba only inside
its function: `stochastok --help` stays fast.
"""

import functools
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from stochastok_cli import __version__
from stochastok_cli.cli import progress
from stochastok_cli.errors import FAILED, INTERRUPTED, STOPPED_WITH_CHECKPOINT, USAGE, StoppedBySignal, UserError

HELP = (
    "Train language models with StochasTok: tokenize, expand, pretrain, finetune and evaluate.\n\n"
    "Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong use, 75 stopped by a "
    "signal with a checkpoint saved (run it again to go on), 130 interrupted with nothing saved."
)

SUBCOMMANDS = ("tokenize", "expand", "make", "train", "eval")
"""The files of the subcommands, in the order of `--help`; `make` has one subcommand for each recipe."""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
show_traceback = False


def subcommand(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a function as a subcommand, with the options common to all of them: `--quiet` and `--debug`."""

    @functools.wraps(function)
    def run(*args: Any, quiet: bool, debug: bool, **kwargs: Any) -> None:
        global show_traceback
        progress.quiet, show_traceback = quiet, debug
        function(*args, **kwargs)

    common = {
        "quiet": Annotated[bool, typer.Option("--quiet", help="Show no notes and no progress bars.")],
        "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
    }
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in common.items()
    ]
    signature = inspect.signature(function)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *flags])  # type: ignore[attr-defined]
    run.__annotations__ = {**function.__annotations__, **common}
    return app.command()(run)


def _print_version(value: bool) -> None:
    if value:
        print(f"stochastok {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def register_subcommands() -> None:
    """Imports the files of the subcommands, which register themselves with `app`, and adds those of recipes."""
    for name in SUBCOMMANDS:
        module = importlib.import_module(f"stochastok_cli.cli.{name}")
        if name == "make":
            module.register_recipes()


def main() -> None:
    """Runs the application and exits with one of the codes of `stochastok_cli.errors`."""
    register_subcommands()
    signal.signal(signal.SIGTERM, _interrupt)  # `train` handles signals itself
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # how the option parser reports a KeyboardInterrupt
            _failed("interrupted", INTERRUPTED)
    except UserError as error:
        code = _failed(str(error), error.exit_code, error)
    except StoppedBySignal as error:
        progress.note(str(error))
        code = STOPPED_WITH_CHECKPOINT
    except (KeyboardInterrupt, typer.Abort):
        code = _failed("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at exit
        code = FAILED
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        code = _failed(f"{name}{error.strerror or error}", FAILED, error)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the option parser; no message where help was shown
            message = error.format_message()
            code = _failed(f"{message} (see --help)", USAGE, error) if message else USAGE
        else:
            code = _failed(f"{type(error).__name__}: {error} (this is a bug; --debug shows where)", FAILED, error)
    _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> NoReturn:
    """Ends the process.

    A rank of several skips the interpreter's shutdown: a thread of its process group that still frees a tensor then
    would abort the process (SIGABRT). All files are closed before.
    """
    if "RANK" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _failed(message: str, code: int, error: BaseException | None = None) -> int:
    if show_traceback and error is not None:
        import traceback

        traceback.print_exception(error)
    print(f"error: {message}", file=sys.stderr)
    return code

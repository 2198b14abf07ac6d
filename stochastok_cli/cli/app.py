"""The application `stochastok`: its subcommands, the options common to all of them, and how errors end.

A subcommand's file is imported when the application starts, so it imports torch, datasets and numba only inside
its function: `stochastok --help` stays fast.
"""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from stochastok_cli import __version__
from stochastok_cli.cli import progress
from stochastok_cli.errors import FAILED, INTERRUPTED, STOPPED_WITH_CHECKPOINT, USAGE, StoppedBySignal, UserError

HELP = """Train language models with StochasTok: tokenize, expand, pretrain, finetune and evaluate.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong use, 75 stopped by a signal
with a checkpoint saved (run it again to go on), 130 interrupted with nothing saved.
"""

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
debug = False


def _set_quiet(context: Any, parameter: Any, value: bool) -> None:
    progress.quiet = progress.quiet or value


def _set_debug(context: Any, parameter: Any, value: bool) -> None:
    global debug
    debug = debug or value


class Command(TyperCommand):
    """A subcommand with the options common to all: `--quiet` and `--debug`."""

    def __init__(self, *args: Any, params: list[Any] | None = None, **kwargs: Any):
        common = [
            _flag("--quiet", _set_quiet, "Show no notes and no progress bars."),
            _flag("--debug", _set_debug, "Show the traceback of an error."),
        ]
        super().__init__(*args, params=[*(params or []), *common], **kwargs)


def _flag(name: str, callback: Any, text: str) -> TyperOption:
    return TyperOption(param_decls=[name], is_flag=True, expose_value=False, callback=callback, help=text)


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


def main() -> None:
    """Runs the application and turns whatever happens into an exit code (see `stochastok_cli.errors`)."""
    try:
        code = app(standalone_mode=False)
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
        if hasattr(error, "format_message"):  # a usage error of the option parser
            code = _failed(f"{error.format_message()} (see --help)", USAGE, error)
        else:
            code = _failed(f"{type(error).__name__}: {error} (this is a bug; --debug shows where)", FAILED, error)
    sys.exit(code if isinstance(code, int) else 0)


def _failed(message: str, code: int, error: BaseException | None = None) -> int:
    if debug and error is not None:
        import traceback

        traceback.print_exception(error)
    print(f"error: {message}", file=sys.stderr)
    return code

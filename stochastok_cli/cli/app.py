"""The application `stochastok`: its subcommands, the options common to all of them, and its exit codes.

A subcommand's file is imported when the application starts, so it imports torch, datasets and numba only inside
its function: `stochastok --help` stays fast.
"""

import atexit
import errno
import functools
import importlib
import inspect
import math
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args

import typer

from stochastok_cli import __version__, panics
from stochastok_cli.cli import candidates, completion, help_layout, interruption, progress, streams
from stochastok_cli.cli.os_errors import describe_os_error
from stochastok_cli.errors import (
    EXIT_CODE_FILE,
    FAILED,
    INTERRUPTED,
    STOPPED_WITH_CHECKPOINT,
    USAGE,
    Notice,
    StoppedBySignal,
    UserError,
    did_you_mean,
    first_line,
    is_rust_panic,
    leave_exit_code,
    one_line,
    short_repr,
)
from stochastok_cli.paths import expand_home, require_path
from stochastok_cli.quiet_libraries import ENVIRONMENT

HELP = (
    "Train language models with StochasTok: tokenize, expand, pretrain, finetune and evaluate.\n\n"
    "Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong use, 75 stopped by a "
    "signal with a checkpoint saved (run it again to go on), 130 interrupted with nothing saved, 141 nobody "
    "reads stdout any more, as after `| head`."
)

SUBCOMMANDS = ("tokenize", "expand", "make", "export", "train", "runs", "eval", "generate", "doctor")
"""The files of the subcommands, in the order of `--help`; `make` has one subcommand for each recipe."""

LARGEST_NUMBER = 10**12
MINIMUM_ADDRESS_SPACE = 512 * 2**20  # bytes
NAMES_OR_PATHS = {
    "checkpoint",
    "checkpoints",
    "compare",
    "config",
    "infixes",
    "prefixes",
    "source",
    "suffixes",
    "tokenizer",
}
"""Options and arguments that are text, and may be paths. Those that name datasets or benchmarks are expanded as in
Python."""
NO_READER = 128 + 13  # what a shell makes of the end by SIGPIPE
OUT_OF_MEMORY = (
    "failed to map segment",
    "Cannot allocate memory",
    "can't allocate memory",
    "can't start new thread",
    "Unable to allocate",
)
"""What the messages of libraries contain that lack memory and raise another error than MemoryError."""

app = typer.Typer(
    cls=help_layout.Group, help=HELP, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False
)
show_traceback = False


class _Command(help_layout.Command):
    """A subcommand that refuses an empty path, as where a shell variable is not set: `Path` makes the working directory
    of it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = [*args]
        rest = super().parse_args(ctx, args)
        if self.callback is None or ctx.resilient_parsing:  # the latter for completion
            return rest
        as_given, *_ = self.make_parser(ctx).parse_args(args=words)
        annotations = inspect.signature(self.callback).parameters
        for parameter in self.params:
            name = parameter.name or ""
            if as_given.get(name) == "" and Path in _types(annotations[name].annotation):
                require_path("", name.upper() if parameter.param_type_name == "argument" else parameter.opts[0])
        return rest


def _types(annotation: Any) -> tuple[Any, ...]:
    """The types of a parameter's values: Path and None of `Annotated[Path | None, …]`."""
    kind = get_args(annotation)[0]
    return (kind, *get_args(kind))


def subcommand(function: Callable[..., None]) -> Callable[..., None]:
    """Registers a function as a subcommand, with the options common to all of them: `--quiet` and `--debug`."""

    @functools.wraps(function)
    def run(*args: Any, quiet: bool, debug: bool, **kwargs: Any) -> None:
        global show_traceback
        progress.quiet, show_traceback = quiet, debug
        panics.panic_messages_held_back.is_on = not debug
        _require_possible_numbers(kwargs)
        function(*args, **{name: _with_home(name, value) for name, value in kwargs.items()})

    common = {
        "quiet": Annotated[bool, typer.Option("--quiet", help="Show no notes and no progress bars.")],
        "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
    }
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in common.items()
    ]
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        candidates.complete_choices(parameter)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *flags])  # type: ignore[attr-defined]
    run.__annotations__ = {**function.__annotations__, **common}
    run.__doc__ = help_layout.joined_lines(function.__doc__)
    return app.command(cls=_Command)(run)


def _with_home(name: str, value: Any) -> Any:
    """The value of an option or argument, with the home folder for `~` where it is a path or may be one."""
    if isinstance(value, Path):
        return Path(expand_home(value))
    if name not in NAMES_OR_PATHS or not value:
        return value
    return expand_home(value) if isinstance(value, str) else type(value)(map(expand_home, value))


def _require_possible_numbers(values: dict[str, Any]) -> None:
    """Raises UserError for a number that no option means: one that is not finite, and one that would overflow an
    integer of a library. A seed can have any size, because it is hashed."""
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):  # also 1e400, which is infinite as a float
            raise UserError(f"--{name.replace('_', '-')} {value} is not possible", fix="give a finite number")
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER and name != "seed":
            raise UserError(
                f"--{name.replace('_', '-')} {short_repr(value, 40)} is not possible", fix="give at most 10^12"
            )


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


def register_subcommands(beginning: str = "") -> None:
    """Imports the files of the subcommands, which register themselves with `app`, and adds those of recipes.

    Args:
        beginning: Only those whose names begin so, for what needs no others.
    """
    for name in SUBCOMMANDS:
        if not name.startswith(beginning) and not (name == "make" and beginning.startswith("make-")):
            continue
        module = importlib.import_module(f"stochastok_cli.cli.{name}")
        if name == "make":
            module.register_recipes()


def main() -> None:
    """Runs the application and exits with one of the codes of `stochastok_cli.errors`."""
    if completion.is_requested():
        sys.exit(completion.answer(app, register_subcommands))
    streams.prepare_streams()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, _interrupt)  # `train` handles signals itself
    warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
    is_program = False
    try:
        is_program = interruption.raise_keyboard_interrupt()
        _require_address_space()
        register_subcommands()
        code = app(prog_name=completion.completed_program(), standalone_mode=False)
        if code == INTERRUPTED:  # how the option parser reports a KeyboardInterrupt
            _interrupted()
    except UserError as error:
        code = _failed(str(error), error.exit_code, error)
    except StoppedBySignal as error:
        progress.note(str(error))
        code = STOPPED_WITH_CHECKPOINT
    except (KeyboardInterrupt, typer.Abort):
        if is_program:
            interruption.end_at_once()  # a further Ctrl-C comes too late to be raised
        code = _interrupted()
    except streams.NoReader:
        code = NO_READER
    except Exception as error:
        code = _interrupted() if interruption.is_cause(error) else _failure(error)
    except SystemExit as error:
        code = error.code
        if isinstance(error.__context__, streams.NoReader):  # how the option parser reports it
            code = NO_READER
        elif isinstance(error.__context__, BrokenPipeError):
            code = _failed(describe_os_error(error.__context__), FAILED, error)
    except BaseException as error:
        if not is_rust_panic(error):
            raise
        code = _failed(f"a library failed: {first_line(error)} (--debug shows where)", FAILED, error)
    if is_program:
        interruption.end_at_once()
    code = code if isinstance(code, int) else 0
    lost = streams.flush_stdout()
    if isinstance(lost, streams.NoReader):
        code = code or NO_READER
    elif lost is not None and code == 0:
        code = _failed(describe_os_error(lost), FAILED, lost)
    _leave(code, is_program)


def _failure(error: Exception) -> int:
    """Says what an exception of no kind of ours is, and returns the exit code for it."""
    if isinstance(error, OSError):
        return _failed(describe_os_error(error), USAGE if error.errno == errno.ENAMETOOLONG else FAILED, error)
    if hasattr(error, "format_message"):  # a usage error of the option parser; no message where help was shown
        message = _usage_message(error.format_message())
        return _failed(f"{message} (see --help)", USAGE, error) if message else USAGE
    return _failed(_describe_unexpected(error), FAILED, error)


def _require_address_space() -> None:
    """Raises UserError where this process may use so little memory that libraries would crash when they are loaded."""
    limit = _address_space()
    if limit is not None and limit < MINIMUM_ADDRESS_SPACE:
        raise UserError(
            f"this process may use {limit / 2**20:,.0f} MiB of address space, too little for the libraries it needs",
            fix="raise the limit (ulimit -v)",
            exit_code=FAILED,
        )


def _address_space() -> int | None:
    """The limit of this process's address space in bytes; None where there is none."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _usage_message(message: str) -> str:
    """A message of the option parser in one line, with the choice that is most like the value which is none.

    >>> _usage_message("Invalid value for '--device': Value error, 'cpuu' is not one of 'auto', 'cpu'.")
    "Invalid value for '--device': 'cpuu' is not one of 'auto', 'cpu'; did you mean 'cpu'?"
    >>> _usage_message("Missing option '--evaluator'. Choose from:\\n\\tmcq,\\n\\tgeneration")
    "Missing option '--evaluator'. Choose from: mcq, generation"
    """
    message = re.sub(r"\s*\n\s*", " ", message.replace(": Value error, ", ": ", 1))
    if re.fullmatch(r"No such option: -[^-\s]*", message):
        return f"{message}; put -- before a name that begins with -"
    match = re.search(r"'([^']*)' is not one of ('.*')\.?$", message)
    if match is None:
        return message
    suggestion = did_you_mean(match[1], re.findall("'([^']*)'", match[2]))
    return message.removesuffix(".") + suggestion if suggestion else message


def _describe_unexpected(error: Exception) -> str:
    """An exception that no code has expected: too little memory, or else a bug."""
    text = one_line(f"{type(error).__name__}: {error}", 500).removesuffix(":")
    is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # of PyTorch, for a GPU
    if is_memory or any(words in text for words in OUT_OF_MEMORY):
        return f"out of memory ({text})"
    limit = _address_space()
    if limit is not None:
        return f"{text} (the address space is limited to {limit / 2**20:,.0f} MiB, perhaps too little: see ulimit -v)"
    return f"{text} (this is a bug; --debug shows where)"


def _show_warning(
    show: Callable[..., None], message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any
) -> None:
    """Replaces `warnings.showwarning`, which is `show`: a `Notice` is one line on stderr."""
    if issubclass(category, Notice):
        progress.note(f"note: {message}")
    else:
        show(message, category, *args, **kwargs)


def _leave(code: int, is_program: bool) -> NoReturn:
    """Ends the process.

    A rank of several skips the interpreter's shutdown: a thread of its process group that still frees a tensor then
    would abort the process (SIGABRT). So does a program that was interrupted: where Ctrl-C has hit code run by exec(),
    as in an import of PyTorch's, the interpreter ends itself by SIGINT, whatever the code is. All files are closed
    before.
    """
    if is_program and code == INTERRUPTED:
        atexit._run_exitfuncs()
        sys.stderr.flush()
        os._exit(code)
    if "RANK" in os.environ:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _interrupted() -> int:
    """Says so, except in one of several processes: their launcher does."""
    if EXIT_CODE_FILE in os.environ and "RANK" in os.environ:
        leave_exit_code(INTERRUPTED)
        return INTERRUPTED
    return _failed("interrupted", INTERRUPTED)


def _failed(message: str, code: int, error: BaseException | None = None) -> int:
    if show_traceback and error is not None:
        import traceback

        traceback.print_exception(error)
    print(f"error: {streams.printable(message)}", file=sys.stderr)
    return code

"""The options `--executor` … of `tokenize` and `expand`: the same folder, made in several tasks by datatrove."""

import json
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochastok_cli.cli import options, progress
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    from stochastok_cli.artifacts import Artifact
    from stochastok_cli.integrations.datatrove import Submitted, Tasks

_PANEL = "In several tasks, by datatrove"

Executor = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="local|slurm|ray",
        help="Make the same folder in tasks on this machine, on Slurm or on Ray (extras `datatrove`, `ray`). Run it "
        "again, and completed tasks are left out. --num-proc: the processors of all tasks (local) or of each one.",
        show_default="in this process",
        rich_help_panel=_PANEL,
    ),
]
NumTasks = Annotated[
    int,
    typer.Option("--tasks", min=1, help="How many tasks there are. Never changes the result.", rich_help_panel=_PANEL),
]
Partition = Annotated[str | None, typer.Option("--partition", help="Partition of Slurm.", rich_help_panel=_PANEL)]
TimeLimit = Annotated[
    str | None,
    typer.Option("--time", metavar="D-HH:MM:SS", help="Time limit of a Slurm job.", rich_help_panel=_PANEL),
]
SlurmArgs = Annotated[
    str | None,
    typer.Option(
        "--slurm-args",
        metavar="'--KEY=VALUE …'",
        help="Further options of sbatch, such as '--account=nlp --mem-per-cpu=8G'.",
        rich_help_panel=_PANEL,
    ),
]

IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        help="Column of ids by which documents are ordered and split, instead of by their place in the source.",
        rich_help_panel=_PANEL,
    ),
]


def tasks_of(
    command: Callable[..., None],
    executor: str | None,
    num_proc: int | None,
    *,
    tasks: int,
    partition: str | None,
    time: str | None,
    slurm_args: str | None,
    push: bool,
    **ineffective: Any,
) -> "Tasks | None":
    """Where the tasks of a command run; None for the command in this process.

    Args:
        command: the command.
        executor: `--executor`.
        num_proc: `--num-proc`.
        tasks: `--tasks`.
        partition: `--partition`.
        time: `--time`.
        slurm_args: `--slurm-args`.
        push: `--push`.
        ineffective: options by the name of their parameter that have no effect beside `--executor`.

    Raises:
        UserError: options have no effect or are impossible, or datatrove is not installed.
    """
    if executor is None:
        of_slurm = {"partition": partition, "time": time, "slurm_args": slurm_args}
        options.require_effect(command, "without --executor", tasks=tasks, **of_slurm)
        return None
    options.require_effect(command, "beside --executor", **ineffective)
    if executor == "slurm" and push:
        raise UserError(
            "--push needs the finished folder, which Slurm makes later", fix="run it again with --push then"
        )
    try:
        from stochastok_cli.integrations.datatrove import Tasks
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("datatrove", "dill"):
            raise
        raise UserError("--executor needs datatrove", fix="pip install 'stochastok[datatrove]'") from None
    return Tasks(executor, tasks, num_proc, partition, time, parse_slurm_args(slurm_args or ""))


def parse_slurm_args(text: str) -> dict[str, str]:
    """The options of sbatch in a text, without their dashes; an option without a value has an empty one.

    Raises:
        UserError: a part of it is no long option with its value.

    >>> parse_slurm_args("--account=nlp --exclusive --comment='two words'")
    {'account': 'nlp', 'exclusive': '', 'comment': 'two words'}
    """
    try:
        parts = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--slurm-args {text!r}: {error}") from None
    for part in parts:
        if not part.startswith("--") or part == "--":
            raise UserError(
                f"--slurm-args: {part!r} is no long option with its value",
                fix="write --KEY=VALUE, such as --account=nlp",
            )
    return {name.removeprefix("--"): value for name, _, value in (part.partition("=") for part in parts)}


def print_submitted(made: "Artifact | Submitted", as_json: bool) -> bool:
    """Prints the folder that Slurm will make, if there is no finished one. Returns whether that is so."""
    job = getattr(made, "job", None)
    if job is None:
        return False
    progress.note(f"submitted to Slurm: job {job} makes {made.path.name} when all tasks are completed")
    if as_json:
        print(json.dumps({"path": str(made.path), "made": False, "job": job}))
    else:
        options.print_line(made.path)
    return True

"""`stochastok train`: train a model as a configuration says, or go on where the same command stopped."""

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochastok_cli.artifacts import command_line
from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    from stochastok_cli.config import Config
    from stochastok_cli.training.events import Event, Logged
    from stochastok_cli.training.train import Trained


@subcommand
def train(
    config: Annotated[
        str,
        typer.Option(
            "--config",
            "--config-name",
            metavar="NAME_OR_PATH",
            help="A YAML file, or its name in ./configs or among those that come with the program.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY.PATH=VALUE]…",
            help="Values that replace the file's, as in `trainer.dataset.name=openwebtext-tokenized`.",
        ),
    ] = None,
    run_name: Annotated[
        str | None,
        typer.Option(
            "--run-name",
            help="Folder of the run under general.paths.checkpoint_dir. "
            r"[dim]\[default: <prefix>-<dataset>, and -from-<parent> if it starts from a checkpoint][/dim]",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder under which all data lie; the same as general.paths.data_dir."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew; an existing run of that name is kept under another.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Measure a few iterations and print what the run will take: time, memory, disk. Writes nothing.",
        ),
    ] = False,
    push: Annotated[
        bool, typer.Option("--push", help="Upload the model to the Hugging Face Hub when the run is complete.")
    ] = False,
    repo: Annotated[
        str | None,
        typer.Option("--repo", help="Model repository on the Hub.", show_default="the run's name at --hf-username"),
    ] = None,
    hf_username: options.HubUser = None,
    private: options.Private = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout instead of the run's folder (or the plan).")
    ] = False,
) -> None:
    """Train a model, or go on where the same command stopped.

    Prints the run's folder, which holds config.yaml, metrics.jsonl, train.log
    and step_<N>/ checkpoints that Hugging Face transformers opens. A run that is
    complete is left alone. Uses every visible GPU, or the CPU.

    SIGINT (Ctrl-C), SIGTERM and SIGUSR1 make it finish the iteration, save and
    exit with code 75: run the same command again to go on.

    --push uploads the last checkpoint without the optimizer's state, and a card
    with configuration and metrics; of a run that is complete already, too.
    """
    # Read when torch is loaded: threads that wait by spinning make a busy CPU many times slower than sleeping ones do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from stochastok_cli.config import load_config
    from stochastok_cli.hub import is_repo_id
    from stochastok_cli.training import launch
    from stochastok_cli.training.distributed import is_main_rank

    if repo is not None and not is_repo_id(repo):
        raise UserError(f"--repo {repo!r} can't be a repository on the Hub", fix="OWNER/NAME")
    configuration = load_config(config, overrides or [])
    if data_dir is not None:
        paths = dataclasses.replace(configuration.general.paths, data_dir=str(data_dir))
        general = dataclasses.replace(configuration.general, paths=paths)
        configuration = dataclasses.replace(configuration, general=general)
    processes = launch.processes_to_start(configuration.general.device)
    if processes > 1:
        raise typer.Exit(launch.launch(sys.argv[1:], processes))

    if plan:
        with launch.exit_code_left():
            _plan(configuration, run_name, force, as_json)
        return

    from stochastok_cli.training.train import train

    progress.quiet = progress.quiet or not is_main_rank()
    with launch.exit_code_left():
        with console() as show:
            trained = train(configuration, run_name=run_name, force=force, listeners=[show])
        if not trained.created:
            progress.note(f"{trained.folder} is complete; left alone")
        if push and is_main_rank():
            command = ["stochastok", "train", "--config", config, *(["--run-name", run_name] if run_name else [])]
            command += overrides or []
            _push(trained, configuration.trainer.dataset.name, shlex.join(command), repo, hf_username, private)
    if is_main_rank():
        print(_as_json(trained) if as_json else trained.folder, flush=True)


def _push(
    trained: "Trained", dataset: str, command: str, repo: str | None, username: str | None, private: bool
) -> None:
    from stochastok_cli.training.upload import push_run

    with progress.progress_bar() as report:
        pushed = push_run(
            trained.folder,
            trained.checkpoint,
            dataset=dataset,
            command=command,
            repo=repo,
            username=username,
            private=private,
            retry_command=command_line(),
            progress=report,
        )
    options.tell_pushed(pushed)


def _plan(config: "Config", run_name: str | None, force: bool, as_json: bool) -> None:
    from stochastok_cli.cli.plan_output import nothing_left_json, plan_json, plan_table
    from stochastok_cli.training.distributed import is_main_rank
    from stochastok_cli.training.plan import plan

    progress.quiet = progress.quiet or not is_main_rank()
    progress.note("measuring a few iterations and a part of an evaluation")
    planned = plan(config, run_name=run_name, force=force)
    if isinstance(planned, Path):
        progress.note(f"{planned} is complete; nothing is left to do")
        result = nothing_left_json(planned) if as_json else str(planned)
    else:
        result = plan_json(planned) if as_json else plan_table(planned)
    if is_main_rank():
        print(result, flush=True)


def _as_json(trained: "Trained") -> str:
    return json.dumps(
        {
            "path": str(trained.folder),
            "checkpoint": str(trained.checkpoint),
            "iteration": trained.iteration,
            "made": trained.created,
            "metrics": trained.metrics,
        }
    )


@contextmanager
def console() -> Iterator[Callable[["Event"], None]]:
    """A listener for people, on stderr: a live line in a terminal, lines now and then elsewhere, nothing if quiet."""
    if progress.quiet:
        yield lambda event: None
    elif not sys.stderr.isatty():
        yield _Lines()
    else:
        from rich.console import Console
        from rich.status import Status

        with Status("starting", console=Console(stderr=True)) as status:
            yield _LiveLine(status)


class _Lines:
    """Every event as a line, but of the logged iterations only one in so many seconds, the first and the last."""

    SECONDS = 10.0

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, event: "Event") -> None:
        import time

        from stochastok_cli.training.events import Logged, Stopped, describe

        if isinstance(event, Logged):
            if time.monotonic() < self._next and event.iteration < event.max_iters:
                return
            self._next = time.monotonic() + self.SECONDS
        if not isinstance(event, Stopped) and (text := describe(event)):  # how it ended is said at the end
            progress.note(text)


class _LiveLine:
    """The figures of the last logged iteration in one line that changes; other events scroll by above it."""

    def __init__(self, status: Any) -> None:
        self._status = status
        self._figures = "training"

    def __call__(self, event: "Event") -> None:
        from stochastok_cli.training.events import Evaluated, Evaluating, Logged, Stopped, describe

        if isinstance(event, Logged):
            self._figures = _figures(event)
        elif not isinstance(event, Stopped) and (text := describe(event)):
            self._status.console.print(text, highlight=False, markup=False)
        if isinstance(event, Evaluating):
            self._status.update(f"{self._figures}  evaluating")
        elif isinstance(event, Logged | Evaluated):
            self._status.update(self._figures)


def _figures(event: "Logged") -> str:
    from stochastok_cli.training.events import duration, speed

    return (
        f"{event.iteration:,}/{event.max_iters:,}  loss {event.loss:.4f}  lr {event.learning_rate:.2e}  "
        f"{speed(event)}  {duration(event.seconds_left)} left"
    )

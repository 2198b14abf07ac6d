"""`stochastok train`: train a model as configured, or resume where the same command stopped."""

import dataclasses
import json
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stochastok_cli.artifacts import command_line
from stochastok_cli.cli import candidates, options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import Notice, UserError
from stochastok_cli.paths import validate_folder_name

if TYPE_CHECKING:
    from stochastok_cli.config import Config, Source
    from stochastok_cli.training.train import TrainResult


@subcommand
def train(
    config: Annotated[
        str,
        typer.Option(
            "--config",
            "--config-name",
            metavar="NAME_OR_PATH",
            help="A YAML file, or its name in ./configs or among those that come with the program.",
            autocompletion=candidates.configurations,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY.PATH=VALUE]…",
            help="Values that replace the file's, as in `trainer.optimizer.lr=1e-3`.",
            autocompletion=candidates.overrides,
        ),
    ] = None,
    run_name: Annotated[
        str | None,
        typer.Option(
            "--run-name",
            help="Folder of the run under general.paths.checkpoint_dir. "
            r"[dim]\[default: <prefix>-<dataset>, and -from-<parent> if it starts from a checkpoint][/dim]",
            autocompletion=candidates.runs,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Folder of all data; the same as general.paths.data_dir."),
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
    show_config: Annotated[
        bool,
        typer.Option(
            "--show-config",
            help="Print the run's folder and every value that it would use, and where each comes from: file, override, "
            "default, checkpoint or dataset. Trains nothing.",
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
        bool,
        typer.Option(
            "--json", help="Print one JSON object on stdout instead of the run's folder (or plan, or values)."
        ),
    ] = False,
) -> None:
    """Train a model, or go on where the same command stopped.

    Prints the run's folder, which holds config.yaml, metrics.jsonl, train.log
    and step_<N>/ checkpoints that Hugging Face transformers opens. A run that is
    complete is left alone. Uses every visible GPU, or the CPU.

    SIGINT (Ctrl-C), SIGTERM, SIGUSR1 and SIGHUP make it finish the iteration, save
    and exit with code 75: run the same command again to go on.

    --push uploads the last checkpoint without the optimizer's state, and a card
    with configuration and metrics; of a run that is complete already, too.
    """
    # Read when torch is loaded: threads that wait by spinning make a busy CPU many times slower than sleeping ones do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from stochastok_cli.config import Source, load_config_and_sources
    from stochastok_cli.evaluation.registry import find_invalid_values

    options.check_hub_options(train, push=push, repo=repo, hf_username=hf_username, private=private)
    if plan:
        options.require_effect(train, "beside --plan", push=push)
    if show_config:
        options.require_effect(train, "beside --show-config", plan=plan, push=push)
    if push and repo is None and run_name is not None:
        from stochastok_cli.hub import is_repo_id

        if not is_repo_id(run_name):
            raise UserError(
                f"--run-name {run_name!r} can't be a repository's name on the Hub", fix="give --repo OWNER/NAME"
            )
    if run_name is not None:
        validate_folder_name(run_name)
    configuration, sources = load_config_and_sources(config, overrides or [], [find_invalid_values])
    if data_dir is not None:
        configuration = _with_data_dir(configuration, data_dir)
        sources["general.paths.data_dir"] = Source("override", f"--data-dir {shlex.quote(str(data_dir))}")
    if show_config:
        options.print_line(_show_config(config, configuration, sources, run_name, force, as_json))
        return

    from stochastok_cli.data.folders import find_dataset, require_dataset_folder
    from stochastok_cli.training.locate import locate_run
    from stochastok_cli.training.process_rank import errors_of_rank_0, is_main_process

    with errors_of_rank_0(), warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # training gives it, on one rank
        located = locate_run(configuration, run_name, force=force)
        is_from_hub = configuration.checkpoint_name is not None and located.parent is None  # or has a mistyped path
        if located.checkpoint is None and not is_from_hub:
            paths = configuration.general.paths
            require_dataset_folder(find_dataset(configuration.trainer.dataset.name, paths.data_dir))
    # These import torch, which takes seconds: what is refused so far is refused before.
    from stochastok_cli.training.launch import launch, processes_to_start, record_exit_code

    processes = processes_to_start(configuration.general.device)
    if processes > 1:
        raise typer.Exit(launch(sys.argv[1:], processes))

    progress.quiet = progress.quiet or not is_main_process()
    if run_name is None:
        _note_other_run(config, located.folder)
    with record_exit_code():
        if plan:
            output = _plan(configuration, run_name, force, as_json)
        else:
            result = _train(configuration, run_name, force)
            if push and is_main_process():
                from stochastok_cli.data.folders import short_dataset_name

                command = ["stochastok", "train", "--config", config, *(["--run-name", run_name] if run_name else [])]
                command += overrides or []
                _push(
                    result,
                    short_dataset_name(configuration.trainer.dataset.name),
                    shlex.join(command),
                    repo,
                    hf_username,
                    private,
                )
            output = _as_json(result) if as_json else result.folder
    if is_main_process():
        options.print_line(output)


def _with_data_dir(config: "Config", data_dir: Path) -> "Config":
    paths = dataclasses.replace(config.general.paths, data_dir=str(data_dir))
    return dataclasses.replace(config, general=dataclasses.replace(config.general, paths=paths))


def _note_other_run(config_name: str, folder: Path) -> None:
    """Notes a configuration file that lies in the folder of another run."""
    from stochastok_cli.config import find_config
    from stochastok_cli.training.locate import other_run_note

    if note := other_run_note(find_config(config_name), folder):
        progress.note(f"note: {note}")


def _show_config(
    config_name: str, config: "Config", sources: "dict[str, Source]", run_name: str | None, force: bool, as_json: bool
) -> str:
    """What is printed on stdout."""
    from stochastok_cli.cli.config_output import config_json, config_table
    from stochastok_cli.config import Source
    from stochastok_cli.training.effective_config import effective_config

    shown = effective_config(config, sources, run_name, force=force)
    if run_name is None:
        _note_other_run(config_name, shown.run_folder)
    for note in shown.notes:
        progress.note(note)
    source = Source("default") if run_name is None else Source("override", f"--run-name {shlex.quote(run_name)}")
    return (config_json if as_json else config_table)(shown, source)


def _train(config: "Config", run_name: str | None, force: bool) -> "TrainResult":
    from stochastok_cli.training.loggers.console import console_logger
    from stochastok_cli.training.train import train

    with console_logger(quiet=progress.quiet) as console:
        result = train(config, run_name=run_name, force=force, listeners=[console])
    if not result.created:
        progress.note(f"{result.folder} is complete; left alone")
    return result


def _push(
    result: "TrainResult", dataset: str, command: str, repo: str | None, username: str | None, private: bool
) -> None:
    from stochastok_cli.training.upload import push_run

    with progress.progress_bar() as report:
        pushed = push_run(
            result.folder,
            result.checkpoint,
            dataset=dataset,
            command=command,
            repo=repo,
            username=username,
            private=private,
            retry_command=command_line(),
            progress=report,
        )
    options.note_pushed(pushed)


def _plan(config: "Config", run_name: str | None, force: bool, as_json: bool) -> str | Path:
    """What is printed on stdout."""
    from stochastok_cli.cli.plan_output import nothing_left_json, plan_json, plan_table
    from stochastok_cli.training.plan import plan

    progress.note("measuring a few iterations and a part of an evaluation")
    planned = plan(config, run_name=run_name, force=force)
    if isinstance(planned, Path):
        progress.note(f"{planned} is complete; nothing is left to do")
        return nothing_left_json(planned) if as_json else planned
    for note in planned.notes:
        progress.note(note)
    return plan_json(planned) if as_json else plan_table(planned)


def _as_json(result: "TrainResult") -> str:
    from stochastok_cli.evaluation.results import finite_or_none

    return json.dumps(
        {
            "path": str(result.folder),
            "checkpoint": str(result.checkpoint),
            "iteration": result.iteration,
            "made": result.created,
            "metrics": {name: finite_or_none(value) for name, value in result.metrics.items()},
        },
        allow_nan=False,
    )

"""`stochastok make-…`: a subcommand for each recipe, with the recipe's options and those that all recipes share."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from stochastok_cli.artifacts import command_line
from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.data.recipes.base import RECIPES, Option, Recipe

_registered: set[str] = set()


def register_recipes() -> None:
    """Adds a subcommand for each recipe that has none yet."""
    for recipe in RECIPES.values():
        if recipe.command not in _registered:
            subcommand(_command(recipe))
            _registered.add(recipe.command)


def _command(recipe: Recipe) -> Callable[..., None]:
    def make(
        *,
        tokenizer: options.Tokenizer = "gpt2",
        data_dir: options.DataDir = Path("data"),
        seed: options.Seed = 0,
        force: options.Force = False,
        pull: options.Pull = False,
        repo: options.Repo = None,
        push: options.Push = False,
        hf_username: options.HubUser = None,
        private: options.Private = False,
        as_json: options.AsJson = False,
        **own: Any,
    ) -> None:
        options.check_hub_options(make, pull=pull, push=push, repo=repo, hf_username=hf_username, private=private)
        name = own.get("name")
        if pull:
            made_with = {option: value for option, value in own.items() if option != "name"}
            options.require_effect(make, "beside --pull", **made_with, tokenizer=tokenizer, seed=seed)
        with progress.progress_bar() as report:
            if pull:
                made = recipe.pull(
                    name=name, repo=repo, username=hf_username, data_dir=data_dir, force=force, progress=report
                )
            else:
                made = recipe.make(tokenizer, data_dir, seed=seed, force=force, progress=report, **own)
        options.note_made(made)
        for line in recipe.notes(made):
            progress.note(line)
        if push:
            with progress.progress_bar() as report:
                pushed = recipe.push(
                    name=name,
                    repo=None if pull else repo,
                    username=hf_username,
                    data_dir=data_dir,
                    private=private,
                    retry_command=command_line(),
                    progress=report,
                )
            options.note_pushed(pushed)
        options.print_result(made, as_json)

    shared = [p for p in inspect.signature(make).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = [*_own_options(recipe), *shared]
    make.__name__ = recipe.command.replace("-", "_")
    make.__doc__ = recipe.help
    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    make.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return make


def _own_options(recipe: Recipe) -> list[inspect.Parameter]:
    """The arguments of a recipe's `make` that are annotated with `Option`, as options of the command."""
    own = []
    for parameter in inspect.signature(recipe.make).parameters.values():
        for option in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(option, Option):
                flag = typer.Option(f"--{parameter.name.replace('_', '-')}", help=option.help, metavar=option.metavar)
                annotation = Annotated[get_args(parameter.annotation)[0], flag]  # type: ignore[valid-type]
                own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation))
    return own

"""Options that several subcommands share, and the one way in which they hand over a finished folder."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochastok_cli.artifacts import Artifact, command_line
from stochastok_cli.cli import progress
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    from stochastok_cli.data.recipes.hub import Shared
    from stochastok_cli.hub import PushResult

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder under which all data lie.")]
Tokenizer = Annotated[
    str,
    typer.Option("--tokenizer", help="gpt2, sample2k, a tiktoken encoding, or the path of a tokenizer.json."),
]
Seed = Annotated[int, typer.Option("--seed", help="Names the random numbers: the same seed gives the same bytes.")]
Force = Annotated[bool, typer.Option("--force", help="Make it again if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of the path.")]
NumProc = Annotated[int, typer.Option("--num-proc", min=1, help="Threads. Never changes the result.")]

Pull = Annotated[bool, typer.Option("--pull", help="Fetch the finished dataset from the Hugging Face Hub instead.")]
Repo = Annotated[
    str | None,
    typer.Option("--repo", metavar="REPO[@REVISION]", help="Dataset repository on the Hub to pull from or push to."),
]
Push = Annotated[bool, typer.Option("--push", help="Upload the result to the Hugging Face Hub.")]
HubUser = Annotated[
    str | None, typer.Option("--hf-username", help="User or organisation on the Hub; the logged-in user where absent.")
]
Private = Annotated[bool, typer.Option("--private", help="Make the repository on the Hub private when it is created.")]


def available_cpus() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pull(
    folder: str,
    source: str | None,
    subset: str | None,
    data_dir: Path,
    repo: str | None,
    username: str | None,
    tokenizer: str | None,
    force: bool,
) -> Artifact:
    """What `--pull` does, for `tokenize` and for `expand`."""
    from stochastok_cli.data.hub_datasets import candidate_places, pull_corpus

    places = candidate_places(source, subset, repo, username, folder)
    with progress.progress_bar() as report:
        return pull_corpus(places, folder, data_dir, tokenizer=tokenizer, force=force, progress=report)


def pull_shared(what: "Shared", data_dir: Path, repo: str | None, username: str | None, force: bool) -> Artifact:
    """What `--pull` does, for `make-langgame` and for `make-addition`."""
    from stochastok_cli.data.recipes.hub import pull_shared

    if repo is None and username is None:
        raise UserError("--pull needs to know where from", fix="give --repo OWNER/NAME or --hf-username")
    with progress.progress_bar() as report:
        return pull_shared(what, repo or f"{username}/{what.name}", data_dir, force=force, progress=report)


def push_shared(what: "Shared", data_dir: Path, repo: str | None, username: str | None, private: bool) -> None:
    """What `--push` does, for `make-langgame` and for `make-addition`."""
    from stochastok_cli.data.recipes import hub

    with progress.progress_bar() as report:
        pushed = hub.push_shared(
            what, data_dir, repo=repo, username=username, private=private, retry_command=command_line(), progress=report
        )
    tell_pushed(pushed)


def push_corpus(folder: Path, repo: str | None, username: str | None, private: bool) -> None:
    """What `--push` does, for `tokenize` and for `expand`."""
    from stochastok_cli.data import hub_datasets

    with progress.progress_bar() as report:
        pushed = hub_datasets.push_corpus(
            folder, repo=repo, username=username, private=private, retry_command=command_line(), progress=report
        )
    tell_pushed(pushed)


def tell_pushed(pushed: "PushResult") -> None:
    progress.note(f"pushed to {pushed.url} (commit {pushed.revision[:12]})")


def print_result(made: Artifact, as_json: bool, **more: Any) -> None:
    """A maker's whole stdout: the path of the finished folder, or one JSON object."""
    if as_json:
        keys = ("kind", "splits", "tokenizer", "options")
        tree = made.manifest.to_json()
        entries = {key: tree[key] for key in keys if key in tree}
        print(json.dumps({"path": str(made.path), "made": made.created, **entries, **more}))
    else:
        print(made.path)


def summary(made: Artifact) -> str:
    """One line for people: what was made, or that it was there already."""
    counts = ", ".join(
        f"{name} {split.documents:,} documents, {split.tokens:,} tokens"
        for name, split in made.manifest.splits.items()
        if split.tokens is not None
    )
    state = "made" if made.created else "already there, made with the same options; left alone:"
    return f"{state} {made.path.name}: {counts}" if counts else f"{state} {made.path}"

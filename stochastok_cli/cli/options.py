"""Options that several subcommands share, and how they print a finished folder."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochastok_cli.artifacts import Artifact, command_line
from stochastok_cli.cli import progress

if TYPE_CHECKING:
    from stochastok_cli.hub import PushResult

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder of all data.")]
Tokenizer = Annotated[
    str,
    typer.Option("--tokenizer", help="gpt2, sample2k, a tiktoken encoding, or the path of a tokenizer.json."),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the random numbers: the same seed gives the same bytes.")]
Force = Annotated[bool, typer.Option("--force", help="Make it again if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of the path.")]
NumProc = Annotated[
    int | None,
    typer.Option("--num-proc", min=1, help="Threads. Never changes the result.", show_default="all processors"),
]

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


def note_pushed(pushed: "PushResult") -> None:
    """Notes where something was pushed to."""
    progress.note(f"pushed to {pushed.url} (commit {pushed.revision[:12]})")


def push_corpus(folder: Path, repo: str | None, username: str | None, private: bool) -> None:
    """What `--push` does, for `tokenize` and for `expand`."""
    from stochastok_cli.data.hub_datasets import push_corpus

    with progress.progress_bar() as report:
        pushed = push_corpus(
            folder, repo=repo, username=username, private=private, retry_command=command_line(), progress=report
        )
    note_pushed(pushed)


def print_result(made: Artifact, as_json: bool, **more: Any) -> None:
    """Prints the path of the finished folder, or one JSON object: the whole stdout of a maker."""
    if as_json:
        tree = made.manifest.to_json()
        entries = {key: tree[key] for key in ("kind", "splits", "tokenizer", "options") if key in tree}
        print(json.dumps({"path": str(made.path), "made": made.created, **entries, **more}))
    else:
        print_line(made.path)


def print_line(line: str | Path) -> None:
    """Prints a result on stdout: a path with the bytes that it has on the disk, whatever the encoding of stdout."""
    buffer = getattr(sys.stdout, "buffer", None)
    if isinstance(line, str) or buffer is None:
        print(line, flush=True)
        return
    sys.stdout.flush()
    buffer.write(os.fsencode(line) + b"\n")
    buffer.flush()


def note_made(made: Artifact) -> None:
    """Notes what was made, or that it was there already, and how much text the tokenizer has lost."""
    progress.note(summary(made))
    if unknown := made.manifest.unknown_tokens:
        progress.note(f"{unknown:,} tokens replace text that the tokenizer can't represent, which is lost")


def summary(made: Artifact) -> str:
    """One line for people: what was made, or that it was there already."""
    counts = ", ".join(
        f"{name} {split.documents:,} documents, {split.tokens:,} tokens"
        for name, split in made.manifest.splits.items()
        if split.tokens is not None
    )
    state = "made" if made.created else "already there, made with the same options; left alone:"
    return f"{state} {made.path.name}: {counts}" if counts else f"{state} {made.path}"

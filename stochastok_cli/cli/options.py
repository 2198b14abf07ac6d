"""Options that several subcommands share, and how they print a finished folder."""

import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochastok_cli.artifacts import Artifact, command_line
from stochastok_cli.cli import candidates, progress
from stochastok_cli.errors import FAILED, Notice, UserError, count_of

if TYPE_CHECKING:
    from stochastok_cli.hub import PushResult

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder of all data.")]
CheckpointDir = Annotated[Path, typer.Option("--checkpoint-dir", help="Folder of all runs.")]
Tokenizer = Annotated[
    str,
    typer.Option(
        "--tokenizer",
        help="gpt2, sample2k, a tiktoken encoding, or the path of a tokenizer.json.",
        autocompletion=candidates.tokenizers,
    ),
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


def require_effect(command: Callable[..., None], where: str, **values: Any) -> None:
    """Raises UserError if options have other values than their defaults where they have no effect.

    Args:
        command: The command, whose parameters have the defaults.
        where: "beside --pull", "without --push".
        values: The options by the name of their parameter.
    """
    parameters = inspect.signature(command).parameters
    given = [f"--{name.replace('_', '-')}" for name, value in values.items() if value != parameters[name].default]
    if given:
        raise UserError(f"{', '.join(given)} would have no effect {where}", fix="drop one or the other")


def check_hub_options(
    command: Callable[..., None],
    *,
    pull: bool = False,
    push: bool,
    repo: str | None,
    hf_username: str | None,
    private: bool,
) -> None:
    """Raises UserError for options of the Hub that have no effect, and for names that a push would fail with."""
    if not push:
        require_effect(command, "without --push", private=private)
    if not push and not pull:
        can_pull = "pull" in inspect.signature(command).parameters
        where = "without --pull or --push" if can_pull else "without --push"
        require_effect(command, where, repo=repo, hf_username=hf_username)
    if push:
        from stochastok_cli.hub import is_repo_id

        if repo is not None and not pull and not is_repo_id(repo):
            raise UserError(f"--repo {repo!r} can't be a repository on the Hub", fix="OWNER/NAME")
        if hf_username is not None and not is_repo_id(f"{hf_username}/name"):
            raise UserError(f"--hf-username {hf_username!r} can't be a user or organization on the Hub")


def resolve_tokenizer(tokenizer: str | None, checkpoint_dir: Path) -> str | None:
    """The folder of the latest checkpoint, if `tokenizer` is a run; any other name or path as it is."""
    from stochastok_cli.tokenization import BUNDLED

    if tokenizer is None or tokenizer in BUNDLED:
        return tokenizer
    if not tokenizer:
        raise UserError("the name of the tokenizer is empty", fix="name a folder, a file, or a run")
    folder = Path(tokenizer) if Path(tokenizer).exists() else checkpoint_dir / tokenizer
    if not folder.is_dir() or (folder / "tokenizer.json").is_file():
        return str(folder) if folder.is_dir() else tokenizer
    from stochastok_cli.models.checkpoint_reader import find_folder, resolve_checkpoint

    run_folder = find_folder(tokenizer, checkpoint_dir)
    if run_folder is None or not any(run_folder.glob("step_*")):
        return tokenizer
    return str(resolve_checkpoint(str(run_folder), checkpoint_dir))


def require_checkpoints(names: Sequence[str], checkpoint_dir: Path) -> None:
    """Raises UserError for a name that is neither a checkpoint nor an id on the Hub, before PyTorch is imported."""
    from stochastok_cli.models.checkpoint_reader import locate_checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # given when the checkpoint is opened
        for name in names:
            locate_checkpoint(name, checkpoint_dir)


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
        shown = (
            "kind",
            "splits",
            "tokenizer",
            "unknown_tokens",
            "val_in_train",
            "truncated",
            "left_out",
            "end_of_text_added",
            "options",
        )
        entries = {key: tree[key] for key in shown if key in tree}
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
        replaced = count_of(unknown, "token replaces", "tokens replace")
        progress.note(f"{replaced} text that the tokenizer can't represent, which is lost")
    left_out, truncated = sum(made.manifest.left_out.values()), made.manifest.truncated or 0
    if not made.created and left_out + truncated:  # there is a Notice, with the reasons, when the folder is made
        rows = count_of(left_out, "row of its source is", "rows of its source are")
        progress.note(f"{rows} left out, {truncated:,} truncated: see its manifest.json")


def summary(made: Artifact) -> str:
    """One line for people: what was made, or that it was there already."""
    counts = ", ".join(
        f"{name} {count_of(split.documents, 'document')}, {count_of(split.tokens, 'token')}"
        for name, split in made.manifest.splits.items()
        if split.tokens is not None
    )
    state = "made" if made.created else "already there, made with the same options; left alone:"
    return f"{state} {made.path.name}: {counts}" if counts else f"{state} {made.path}"


def refuse_stdout(option: str, path: Path) -> None:
    """Raises UserError where a file or a folder to write is `-`, which stands for stdout in other programs."""
    if str(path) == "-":
        raise UserError(f"{option} can't write to stdout", fix="give a path")


def read_stdin(what: str, fix: str) -> str:
    """A text on stdin without one line break at its end.

    Args:
        what: What it is, for messages.
        fix: What to give instead.

    Raises:
        UserError: stdin is closed or not UTF-8.
    """
    if sys.stdin is None:  # closed when this process was started
        raise UserError(f"there is no {what}, and stdin is closed", fix=fix)
    if sys.stdin.isatty():
        progress.note(f"the {what} is read from this terminal; end it with Ctrl-D")
    try:
        text = sys.stdin.buffer.read().decode("utf-8").removeprefix("\ufeff")  # a byte order mark, which is no text
    except UnicodeDecodeError as error:
        raise UserError(f"the {what} on stdin is not UTF-8 (byte {error.start})", exit_code=FAILED) from None
    return text.removesuffix("\n").removesuffix("\r")

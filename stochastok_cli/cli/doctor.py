"""`stochastok doctor`: what this machine has and what is broken, for people and for bug reports."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import FAILED

BUG_REPORT = (
    "A bug report needs the output of `stochastok doctor --json`, the command that failed with --debug, and all that "
    "it printed; for a run also its config.yaml and the last lines of its log."
)


@subcommand
def doctor(
    data_dir: options.DataDir = Path("data"),
    checkpoint_dir: options.CheckpointDir = Path("checkpoints"),
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, max=60, help="Seconds to wait for the Hugging Face Hub.")
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Show versions, GPUs, kernels, the Hub, caches and disks, and what is broken. Tokens are never shown.

    Exits with 1 where something is broken that every command needs, and says what to do.
    """
    from stochastok_cli.cli.diagnosis import diagnose

    diagnosis = diagnose(data_dir, checkpoint_dir, timeout)
    if as_json:
        print(json.dumps(diagnosis.to_json()))
    else:
        for name, entries in diagnosis.sections.items():
            _print_section(name, entries)
        for note in diagnosis.notes:
            print(f"note: {note}")
        nothing = "Nothing is broken that every command needs." if diagnosis.notes else "Nothing is broken."
        print("\n".join(f"broken: {problem}" for problem in diagnosis.problems) or nothing)
    progress.note(BUG_REPORT)
    if diagnosis.problems:
        raise typer.Exit(FAILED)


def _print_section(name: str, entries: dict[str, Any]) -> None:
    print(name)
    width = max(map(len, entries), default=0)
    for key, value in entries.items():
        print(f"  {key:<{width}}  {_text(name, value)}")
    print()


def _text(section: str, value: Any) -> str:
    """A value as people read it.

    >>> _text("packages", None), _text("extras", {"wandb": None, "jinja2": "3.1"}), _text("hub", True)
    ('not installed', 'wandb not installed, jinja2 3.1', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not installed" if section in ("packages", "extras") else "-"
    if section == "extras":
        return ", ".join(f"{package} {version or 'not installed'}" for package, version in value.items())
    if section in ("caches", "folders"):
        free = "" if value["free_bytes"] is None else f", {value['free_bytes'] / 2**30:,.1f} GiB free"
        return f"{value['path']}{free if value['writable'] else ''}{_state(value)}"
    if isinstance(value, list):  # GPUs
        return "; ".join(map(_describe_gpu, value)) or "none"
    return str(value)


def _state(folder: dict[str, Any]) -> str:
    """How a folder is, where it is not there and writable.

    >>> _state({"exists": True, "is_folder": False, "writable": False})
    ', no folder'
    """
    if not folder["exists"]:
        return ", not there yet" if folder["writable"] else ", can't be made"
    return "" if folder["writable"] else ", not writable" if folder["is_folder"] else ", no folder"


def _describe_gpu(gpu: dict[str, Any]) -> str:
    free = "" if gpu["free_bytes"] is None else f", {gpu['free_bytes'] / 2**30:,.1f} free"
    return f"{gpu['name']}, capability {gpu['capability']}, {gpu['memory_bytes'] / 2**30:,.1f} GiB{free}"

"""`stochastok export`: from a dataset of token ids to the format of another trainer."""

from pathlib import Path
from typing import Annotated

import typer

from stochastok_cli.cli import candidates, options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.data.formats import FORMATS


def _formats() -> str:
    """Every format with its description, from the registry."""
    return "; ".join(f"{format.name}: {format.description}" for format in FORMATS.values())


@subcommand
def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A dataset of token ids: a folder under data_as_memmaps, or its path.",
            autocompletion=candidates.datasets,
        ),
    ],
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help=f"{_formats()}.", autocompletion=candidates.formats)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write.", show_default="<data-dir>/data_as_FORMAT/NAME")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="train|val", help="Write one split.", show_default="both")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="Tokenizer of a dataset without a manifest.",
            show_default="gpt2",
            autocompletion=candidates.tokenizers,
        ),
    ] = None,
    data_dir: options.DataDir = Path("data"),
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a dataset of token ids in the format that another trainer reads.

    Documents, their order and their number are kept, and manifest.json has their counts and checksums. Prints the path
    of the finished folder. One that exists already, made with the same options, is left alone.
    """
    if out is not None:
        options.refuse_stdout("--out", out)
    from stochastok_cli.data.export import export as export_dataset

    with progress.progress_bar() as emit:
        made = export_dataset(
            name,
            format=format,
            out=out,
            split=split,
            tokenizer=tokenizer,
            data_dir=data_dir,
            force=force,
            progress=emit,
        )
    options.note_made(made)
    options.print_result(made, as_json)

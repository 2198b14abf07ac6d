"""`stochastok tokenize`: from text to a memmap folder of token ids."""

from pathlib import Path
from typing import Annotated

import typer

from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import UserError


@subcommand
def tokenize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A file or folder (.txt, .jsonl, .parquet; .gz, .bz2, .xz too), a dataset id on the Hub, or `sample`.",
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="Name of the dataset.", show_default="from SOURCE")] = None,
    text_column: Annotated[str, typer.Option("--text-column", help="Column or JSON key that holds the text.")] = "text",
    subset: Annotated[str | None, typer.Option("--subset", help="Configuration of a dataset on the Hub.")] = None,
    split: Annotated[str, typer.Option("--split", help="Split of a dataset on the Hub.")] = "train",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="gpt2, sample2k, a tiktoken encoding, or the path of a tokenizer.json.",
            show_default="gpt2",
        ),
    ] = None,
    val_fraction: Annotated[
        float, typer.Option("--val-fraction", help="Share of the documents that validate, in [0, 1).")
    ] = 0.01,
    errors: Annotated[
        str,
        typer.Option("--errors", help="What to do with bytes or characters that are no Unicode: strict or replace."),
    ] = "strict",
    data_dir: options.DataDir = Path("data"),
    num_proc: options.NumProc = options.available_cpus(),
    seed: options.Seed = 489,
    force: options.Force = False,
    pull: options.Pull = False,
    repo: options.Repo = None,
    push: options.Push = False,
    hf_username: options.HubUser = None,
    private: options.Private = False,
    as_json: options.AsJson = False,
) -> None:
    """Turn text into token ids: <data-dir>/data_as_memmaps/<dataset>-tokenized.

    Prints the path of the finished folder. One that exists already, made with the same options, is left alone.
    """
    from stochastok_cli.data.text_sources import open_source
    from stochastok_cli.data.tokenize import tokenize_corpus, tokenized_name
    from stochastok_cli.tokenization.vocabulary import load_vocabulary

    if errors not in ("strict", "replace"):
        raise UserError(f"--errors {errors!r} is not known", fix="give strict or replace")
    if pull:
        folder = tokenized_name(name or Path(source).name)
        made = options.pull(folder, source, subset, data_dir, repo, hf_username, tokenizer, force)
    else:
        vocabulary = load_vocabulary(tokenizer or "gpt2")
        text = open_source(source, text_column, errors=errors, subset=subset, split=split)
        with progress.progress_bar() as report:
            made = tokenize_corpus(
                text,
                vocabulary,
                data_dir,
                name=name,
                val_fraction=val_fraction,
                seed=seed,
                threads=num_proc,
                force=force,
                progress=report,
            )
    progress.note(options.summary(made))
    if lost := made.manifest.unknown_tokens:
        progress.note(f"{lost:,} tokens stand for text that the tokenizer can't spell, which is lost")
    if push:
        options.push_corpus(made.path, None if pull else repo, hf_username, private)
    options.print_result(made, as_json)

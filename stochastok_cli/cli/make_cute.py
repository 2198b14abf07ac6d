"""`stochastok make-cute`: questions about spelling in the manner of the CUTE benchmark, to train on."""

from pathlib import Path
from typing import Annotated

import typer

from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand


@subcommand
def make_cute(
    train_size: Annotated[int, typer.Option("--train-size", help="Questions to train on.")] = 100_000,
    val_size: Annotated[
        int,
        typer.Option("--val-size", help="Questions to validate on; as many of those to train on are evaluated, too."),
    ] = 1_000,
    words: Annotated[
        Path | None,
        typer.Option("--words", metavar="FILE", help="One word a line; 1,000 common English words where absent."),
    ] = None,
    disjoint: Annotated[
        bool, typer.Option("--disjoint", help="Validate on words that training never asks about.")
    ] = False,
    tokenizer: options.Tokenizer = "gpt2",
    data_dir: options.DataDir = Path("data"),
    seed: options.Seed = 0,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Make questions of CUTE's eight subword tasks: <data-dir>/data_as_memmaps/cute.

    Prints that path; the questions as text are in <data-dir>/data_as_datasets/cute. The benchmark's own test
    questions, `eval --benchmarks cute`, are not used. What exists already, made with the same options, is left alone.
    """
    from stochastok_cli.data.recipes import cute
    from stochastok_cli.data.sft_dataset import SFTDataset
    from stochastok_cli.tokenization.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(tokenizer)
    with progress.progress_bar() as report:
        made = cute.make_cute(
            vocabulary,
            data_dir,
            train_size=train_size,
            val_size=val_size,
            words=words,
            disjoint=disjoint,
            seed=seed,
            force=force,
            progress=report,
        )
    rows = SFTDataset(made.path)
    example, width = rows.rows("train")[0], rows.rows("train").shape[1]
    progress.note(f"{options.summary(made)}, the longest row {width} ids")
    progress.note(f"for example: {vocabulary.decode(example[: rows.offsets('train')[0, 2]].tolist())}")
    options.print_result(made, as_json)

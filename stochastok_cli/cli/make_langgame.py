"""`stochastok make-langgame`: multiple-choice questions about the letters of words, to train and to evaluate on."""

from pathlib import Path
from typing import Annotated

import typer

from stochastok_cli.artifacts import Artifact
from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand


@subcommand
def make_langgame(
    train_size: Annotated[int, typer.Option("--train-size", help="Questions to train on.")] = 1_000_000,
    val_size: Annotated[
        int,
        typer.Option("--val-size", help="Questions to validate on; as many of those to train on are evaluated, too."),
    ] = 1_000,
    num_options: Annotated[
        int, typer.Option("--num-options", help="Options of each question, 2 or more, one of them right.")
    ] = 4,
    words: Annotated[
        Path | None,
        typer.Option("--words", metavar="FILE", help="One word a line; 1,000 common English words where absent."),
    ] = None,
    min_substring: Annotated[
        int, typer.Option("--min-substring", help="Shortest part of a word that is asked about, in letters.")
    ] = 1,
    max_substring: Annotated[
        int,
        typer.Option("--max-substring", help="Longest part, in letters; never more than the whole word."),
    ] = 3,
    holdout: Annotated[
        str,
        typer.Option(
            "--holdout",
            metavar="none|short|long",
            help="Keep such parts of words for validation alone: short, up to half of the word, or long, above.",
        ),
    ] = "none",
    disjoint: Annotated[
        bool, typer.Option("--disjoint", help="Ask nothing in validation that is asked in training of the same word.")
    ] = False,
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
) -> None:
    """Make LangGame, questions about the letters of words: <data-dir>/data_as_memmaps/langgame.

    Prints that path; the questions as text are in <data-dir>/data_as_datasets/langgame. What exists already, made with
    the same options, is left alone.
    """
    from stochastok_cli.data.recipes import langgame
    from stochastok_cli.data.recipes.hub import LANGGAME
    from stochastok_cli.tokenization.vocabulary import load_vocabulary

    if pull:
        made = options.pull_shared(LANGGAME, data_dir, repo, hf_username, force)
    else:
        vocabulary = load_vocabulary(tokenizer)
        with progress.progress_bar() as report:
            made = langgame.make_langgame(
                vocabulary,
                data_dir,
                train_size=train_size,
                val_size=val_size,
                num_options=num_options,
                words=words,
                min_substring=min_substring,
                max_substring=max_substring,
                holdout=holdout,
                disjoint=disjoint,
                seed=seed,
                force=force,
                progress=report,
            )
    _show(made)
    if push:
        options.push_shared(LANGGAME, data_dir, None if pull else repo, hf_username, private)
    options.print_result(made, as_json)


def _show(made: Artifact) -> None:
    from stochastok_cli.data.sft_dataset import SFTDataset

    rows = SFTDataset(made.path)
    example, width = rows.rows("train")[0], rows.rows("train").shape[1]
    progress.note(f"{options.summary(made)}, the longest row {width} ids")
    text = rows.vocabulary.decode(example[: rows.offsets("train")[0, 2]].tolist())
    progress.note(f"for example: {text}")

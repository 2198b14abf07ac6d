"""`stochastok make-addition`: multi-digit addition in several tokenizations, to train and to evaluate on."""

from pathlib import Path
from typing import Annotated

import typer

from stochastok_cli.artifacts import Artifact
from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand


@subcommand
def make_addition(
    num_digits: Annotated[
        int,
        typer.Option(
            "--num-digits", help="Digits of the numbers, 1 to 4; 3 make 900,000 pairs, 4 make 90,000,000 (8 GB)."
        ),
    ] = 3,
    val_fraction: Annotated[
        float, typer.Option("--val-fraction", help="Share of the pairs that validate, between 0 and 1.")
    ] = 0.1,
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
    """Make sums of two numbers, tokenized in several ways: <data-dir>/data_as_datasets/multi_digit_addition.

    All pairs of a number of --num-digits digits and one of at most as many. The digits of an answer are in reverse
    order, as in the paper: `$72+87=951`.

    Prints that path; for training, each tokenization is in <data-dir>/data_as_memmaps/multi_digit_addition_<form>.
    What exists already, made with the same options, is left alone.
    """
    from stochastok_cli.data.recipes import addition
    from stochastok_cli.data.recipes.hub import ADDITION
    from stochastok_cli.tokenization.vocabulary import load_vocabulary

    if pull:
        made = options.pull_shared(ADDITION, data_dir, repo, hf_username, force)
    else:
        vocabulary = load_vocabulary(tokenizer)
        with progress.progress_bar() as report:
            made = addition.make_addition(
                vocabulary,
                data_dir,
                num_digits=num_digits,
                val_fraction=val_fraction,
                seed=seed,
                force=force,
                progress=report,
            )
    _show(made, data_dir)
    if push:
        options.push_shared(ADDITION, data_dir, None if pull else repo, hf_username, private)
    options.print_result(made, as_json)


def _show(made: Artifact, data_dir: Path) -> None:
    from stochastok_cli.data.memmap import Corpus, memmap_dir
    from stochastok_cli.data.recipes import addition

    progress.note(options.summary(made))
    for form in made.manifest.options["forms"]:
        corpus = Corpus(memmap_dir(data_dir) / f"{addition.NAME}_{form}")
        example = corpus.vocabulary.decode(corpus.ids("train")[:30].tolist()).split("$")[1]  # the first pair
        splits = ", ".join(f"{split} {tokens:,} tokens" for split, tokens in corpus.num_tokens.items())
        progress.note(f"{corpus.name}: {splits}, for example ${example}")

"""`stochastok expand`: from a tokenized corpus to an expanded one, or a look at what expansion does to a text."""

from pathlib import Path
from typing import Annotated

import typer

from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import UserError


@subcommand
def expand(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A tokenized dataset: a folder under data_as_memmaps.")
    ] = None,
    expand_prop: Annotated[
        float, typer.Option("--expand-prop", "-p", help="Expansion proportion p: attempted splits per token.")
    ] = 0.1,
    method: Annotated[str, typer.Option("--method", help="How tokens are split.")] = "stochastok",
    text: Annotated[
        str | None,
        typer.Option("--text", help="Show alternative tokenizations of this text instead of making a dataset."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="With --text: how many to show.")] = 6,
    max_splits: Annotated[
        int | None,
        typer.Option("--max-splits", min=0, help="Most splits in one document.", show_default="no limit"),
    ] = None,
    out_name: Annotated[
        str | None, typer.Option("--out-name", help="Name of the result.", show_default="NAME-<method><p>")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer", help="Tokenizer of --text or of a dataset without a manifest.", show_default="gpt2"
        ),
    ] = None,
    data_dir: options.DataDir = Path("data"),
    num_proc: options.NumProc = options.available_cpus(),
    seed: options.Seed = 0,
    force: options.Force = False,
    pull: options.Pull = False,
    repo: options.Repo = None,
    push: options.Push = False,
    hf_username: options.HubUser = None,
    private: options.Private = False,
    as_json: options.AsJson = False,
) -> None:
    """Split tokens at random into equivalent smaller ones: <data-dir>/data_as_memmaps/NAME-<method><p>.

    Prints the path of the finished folder. One that exists already, made with the same options, is left alone.
    """
    if text is not None:
        if name is not None:
            raise UserError("both NAME and --text are given", fix="drop one of them")
        _show(text, tokenizer or "gpt2", expand_prop, method, samples, seed, max_splits, as_json)
        return
    if name is None:
        raise UserError("nothing to expand", fix='name a folder under data_as_memmaps, or give --text "…"')
    from stochastok_cli.data.expanded import expanded_name, make_expanded
    from stochastok_cli.data.memmap import Corpus, memmap_root

    if pull:
        folder = out_name or expanded_name(name, method, expand_prop)
        made = options.pull(folder, None, data_dir, repo, hf_username, tokenizer, force)
        progress.note(options.summary(made))
    else:
        corpus = Corpus(memmap_root(data_dir) / name, tokenizer)
        with progress.progress_bar() as report:
            made = make_expanded(
                corpus,
                p=expand_prop,
                method=method,
                seed=seed,
                out_name=out_name,
                max_splits=max_splits,
                threads=num_proc,
                force=force,
                progress=report,
            )
        growth = made.manifest["splits"]["train"]["tokens"] / max(corpus.num_tokens["train"], 1)
        progress.note(f"{options.summary(made)} ({growth:.3f} times the tokens)")
    if push:
        options.push_corpus(made.path, None if pull else repo, hf_username, private)
    options.print_result(made, as_json)


def _show(
    text: str, tokenizer: str, p: float, method: str, samples: int, seed: int, max_splits: int | None, as_json: bool
) -> None:
    """Alternative tokenizations of one text, each token on a ground of its own (the paper's Figure 2)."""
    import json

    from rich.console import Console
    from rich.text import Text

    from stochastok_cli.tokens.expansion import StochasTok
    from stochastok_cli.tokens.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(tokenizer)
    stochastok = StochasTok(vocabulary, p=p, method=method, seed=seed, max_splits=max_splits)
    canonical = vocabulary.encode(text)
    rows = [("canonical", canonical)]
    rows += [(f"sample {i + 1}", stochastok(canonical, i).tolist()) for i in range(samples)]
    if as_json:
        pieces = [[vocabulary.decode([i]) for i in ids] for _, ids in rows]
        print(json.dumps([{"ids": ids, "tokens": row} for (_, ids), row in zip(rows, pieces, strict=True)]))
        return
    console = Console(highlight=False, soft_wrap=True)
    grounds = ("on #c8e6c9", "on #bbdefb", "on #ffe0b2", "on #e1bee7", "on #fff9c4")
    for label, ids in rows:
        line = Text(f"{label:<10} {len(ids):>3} tokens  ", style="dim")
        for i, token in enumerate(ids):
            separator = "" if console.is_terminal or i == 0 else "|"
            line.append(separator + vocabulary.decode([token]), style=f"black {grounds[i % len(grounds)]}")
        console.print(line)

"""`stochastok expand`: from a tokenized corpus to an expanded one, or a look at what expansion does."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stochastok_cli.cli import options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import UserError

if TYPE_CHECKING:
    from stochastok_cli.data.memmap import Corpus

_SAMPLE_TOKENS = 1_000_000


@subcommand
def expand(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A tokenized dataset: a folder under data_as_memmaps.")
    ] = None,
    expand_prop: Annotated[
        float,
        typer.Option("--expand-prop", "-p", help="Expansion proportion p: attempted splits per token (see --method)."),
    ] = 0.1,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="stochastok, stochastok-uni, uniform-k (p is splits per token), uniform or bpe-dropout (p is a "
            "probability). With --text and --report also several, separated by commas, or all.",
        ),
    ] = "stochastok",
    text: Annotated[
        str | None,
        typer.Option("--text", help="Show alternative tokenizations of this text instead of making a dataset."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="With --text: how many to show.")] = 6,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help=f"Tell what happens to the first {_SAMPLE_TOKENS:,} tokens of NAME instead of making a dataset.",
        ),
    ] = False,
    match_growth: Annotated[
        float | None,
        typer.Option("--match-growth", help="With --report: find the p that makes documents so many times as long."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="REGEX", help="Leave tokens alone whose text this matches, such as '[0-9]'."),
    ] = None,
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
    num_proc: options.NumProc = None,
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
    how: dict[str, Any] = {"seed": seed, "max_splits": max_splits, "keep": keep}
    if text is not None:
        if name is not None:
            raise UserError("both NAME and --text are given", fix="drop one of them")
        _show(text, tokenizer or "gpt2", expand_prop, method, samples, how, as_json)
        return
    if match_growth is not None and not report:
        raise UserError("--match-growth goes with --report", fix="add it, then expand with the p that it finds")
    if name is None:
        raise UserError("nothing to expand", fix='name a folder under data_as_memmaps, or give --text "…"')
    from stochastok_cli.data.memmap import Corpus, memmap_dir

    if report:
        _report(Corpus(memmap_dir(data_dir) / name, tokenizer), expand_prop, method, match_growth, how, as_json)
        return
    if pull:
        from stochastok_cli.data.expand import expanded_name
        from stochastok_cli.data.hub_datasets import pull_corpus

        folder = out_name or expanded_name(name, method, expand_prop)
        with progress.progress_bar() as emit:
            made = pull_corpus(
                folder,
                repo=repo,
                username=hf_username,
                data_dir=data_dir,
                tokenizer=tokenizer,
                force=force,
                progress=emit,
            )
        progress.note(options.summary(made))
    else:
        from stochastok_cli.data.expand import expand

        corpus = Corpus(memmap_dir(data_dir) / name, tokenizer)
        with progress.progress_bar() as emit:
            made = expand(
                corpus,
                p=expand_prop,
                method=method,
                out_name=out_name,
                num_proc=num_proc,
                force=force,
                progress=emit,
                **how,
            )
        growth = (made.manifest.splits["train"].tokens or 0) / max(corpus.num_tokens["train"], 1)
        progress.note(f"{options.summary(made)} ({growth:.3f} times the tokens)")
    if push:
        options.push_corpus(made.path, None if pull else repo, hf_username, private)
    options.print_result(made, as_json)


def _methods(named: str) -> list[str]:
    from stochastok_cli.tokenization.expansion import METHODS

    return [*METHODS] if named == "all" else [part.strip() for part in named.split(",")]


def _show(text: str, tokenizer: str, p: float, method: str, samples: int, how: dict[str, Any], as_json: bool) -> None:
    """Alternative tokenizations of one text, each token on a ground of its own (the paper's Figure 2)."""
    import json

    from rich.console import Console
    from rich.text import Text

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.loaders import load_vocabulary

    vocabulary = load_vocabulary(tokenizer)
    expansions = [StochasTok(vocabulary, p=p, method=name, **how) for name in _methods(method)]
    canonical = vocabulary.encode(text)
    rows = [("canonical", canonical)]
    for expansion in expansions:
        label = expansion.method if len(expansions) > 1 else "sample"
        rows += [(f"{label} {i + 1}", expansion(canonical, i).tolist()) for i in range(samples)]
    if as_json:
        pieces = [[vocabulary.decode([i]) for i in ids] for _, ids in rows]
        shown = [{"label": label, "ids": ids, "tokens": row} for (label, ids), row in zip(rows, pieces, strict=True)]
        print(json.dumps(shown))
        return
    console = Console(highlight=False, soft_wrap=True)
    grounds = ("on #c8e6c9", "on #bbdefb", "on #ffe0b2", "on #e1bee7", "on #fff9c4")
    width = max(len(label) for label, _ in rows)
    for label, ids in rows:
        line = Text(f"{label:<{width}} {len(ids):>3} tokens  ", style="dim")
        for i, token in enumerate(ids):
            separator = "" if console.is_terminal or i == 0 else "|"
            line.append(separator + vocabulary.decode([token]), style=f"black {grounds[i % len(grounds)]}")
        console.print(line)


def _report(corpus: "Corpus", p: float, method: str, growth: float | None, how: dict[str, Any], as_json: bool) -> None:
    """A table of what each method does to the beginning of a corpus."""
    import json

    from stochastok_cli.data.memmap import document_batches
    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.statistics import COMMON_WORDS, diversity, match_growth

    _, stop, lengths = next(document_batches(corpus.ids("train"), corpus.end_of_text, _SAMPLE_TOKENS), (0, 0, None))
    if lengths is None:
        raise UserError(f"{corpus.name} has no tokens to look at")
    ids, vocabulary = corpus.ids("train")[:stop], corpus.vocabulary
    found = []
    some, their_lengths = ids[: sum(lengths[:200])], lengths[:200]
    for name in _methods(method):
        at = p if growth is None else match_growth(vocabulary, name, growth, some, their_lengths, **how)
        found.append(diversity(StochasTok(vocabulary, p=at, method=name, **how), ids, lengths))
    if as_json:
        print(json.dumps([asdict(row) for row in found]))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    title = (
        f"{len(ids):,} tokens of {corpus.name}; the last three columns: segmentations of {COMMON_WORDS} common words"
    )
    table = Table(title=title, box=box.SIMPLE, title_justify="left")
    for heading in ("method", "p", "growth", "touched", "seen", "possible", "bits each"):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for row in found:
        figures = (f"{row.growth:.3f}", f"{row.touched:.1%}", f"{row.segmentations:.1f}", f"{row.possible:.1f}")
        table.add_row(row.method, f"{row.p:g}", *figures, f"{row.entropy:.2f}")
    Console().print(table)

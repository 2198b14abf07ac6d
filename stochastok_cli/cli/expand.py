"""`stochastok expand`: from a tokenized dataset to an expanded one, or a look at what expansion does."""

import functools
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from stochastok_cli.cli import candidates, executor_options, options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.cli.expand_methods import choose_methods, list_methods, with_affixes
from stochastok_cli.cli.expand_output import print_page, print_report, print_tokenizations
from stochastok_cli.data.folders import DATA_DIR
from stochastok_cli.errors import Notice, UserError
from stochastok_cli.tokenization.methods import METHODS, p_among, require_method, split_methods

_SAMPLE_TOKENS = 1_000_000
_P_HELP = (
    f"Expansion proportion p: {METHODS['stochastok'].p_meaning} of stochastok. What it is for the other methods, "
    "`--method help` says."
)
_METHOD_HELP = (
    f"One of {', '.join(METHODS)}; `--method help` describes them, and docs/methods.md in full. With --text and "
    "--report also several, separated by commas, or all."
)


@subcommand
def expand(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A tokenized dataset: a folder under data_as_memmaps or its path, a folder that `export` made, or "
            "with --tokenizer the ids of another program: PREFIX.idx of Megatron-LM, NAME.ds of datatrove, a folder of "
            "mds, of litdata or of a saved dataset with input_ids.",
            autocompletion=candidates.corpora,
        ),
    ] = None,
    expand_prop: Annotated[
        float | None,
        typer.Option("--expand-prop", "-p", help=_P_HELP, show_default="0.1"),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help=_METHOD_HELP, autocompletion=candidates.methods)
    ] = "stochastok",
    text: Annotated[
        str | None,
        typer.Option(
            "--text",
            help="Show alternative tokenizations of this text (- reads it from stdin) and make no dataset.",
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", metavar="N", min=1, max=100_000, help="With --text: how many to show, of a fixed rule one."
        ),
    ] = 6,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="With --text: write a page to play with, in one file: the lattice of the text, samples of every "
            "method with a slider for p, their distribution and growth.",
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help=f"Show what happens to the first {_SAMPLE_TOKENS:,} tokens of NAME instead of making a dataset.",
        ),
    ] = False,
    match_growth: Annotated[
        float | None,
        typer.Option("--match-growth", help="With --report: find the p that makes documents so many times as long."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option("--keep", metavar="REGEX", help="Leave tokens alone whose text matches, such as '[0-9]'."),
    ] = None,
    prefixes: Annotated[
        str | None,
        typer.Option(
            "--prefixes",
            metavar="LIST",
            help="Prefixes that patok knows: a file with one a line, or a list with commas. In names, manifests and "
            "configurations the argument patok:prefixes=AFFIX+AFFIX.",
        ),
    ] = None,
    suffixes: Annotated[
        str | None, typer.Option("--suffixes", metavar="LIST", help="Suffixes that patok knows.")
    ] = None,
    infixes: Annotated[str | None, typer.Option("--infixes", metavar="LIST", help="Infixes that patok knows.")] = None,
    max_splits: Annotated[
        int | None,
        typer.Option(
            "--max-splits",
            min=0,
            help="Most splits in one document (stochastok, stochastok-uni, uniform-k, patok).",
            show_default="no limit",
        ),
    ] = None,
    out_name: Annotated[
        str | None, typer.Option("--out-name", help="Name of the result.", show_default="NAME-<method><p>")
    ] = None,
    import_name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Name of what ids of another program become.", show_default="that of the file or folder"
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="Tokenizer of --text or of a dataset without a manifest.",
            show_default="gpt2",
            autocompletion=candidates.tokenizers,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="Folder of all data: NAME is looked for in it, and the result is written into it. Without it, a "
            "dataset by its path is expanded into the folder beside it.",
            show_default="data",
        ),
    ] = None,
    num_proc: options.NumProc = None,
    seed: options.Seed = 0,
    force: options.Force = False,
    pull: options.Pull = False,
    repo: options.Repo = None,
    push: options.Push = False,
    hf_username: options.HubUser = None,
    private: options.Private = False,
    as_json: options.AsJson = False,
    executor: executor_options.Executor = None,
    tasks: executor_options.NumTasks = 1,
    partition: executor_options.Partition = None,
    time: executor_options.TimeLimit = None,
    slurm_args: executor_options.SlurmArgs = None,
) -> None:
    """Split tokens at random into equivalent smaller ones: <data-dir>/data_as_memmaps/NAME-<method><p>.

    A dataset that is given by its path, without --data-dir, is expanded into a folder beside it.

    Prints the path of the finished folder. One that exists already, made with the same options, is left alone.
    """
    if method == "help":
        list_methods(as_json)
        return
    expansion: dict[str, Any] = {"seed": seed, "max_splits": max_splits, "keep": keep}
    making: dict[str, Any] = {"pull": pull, "push": push, "out_name": out_name, "force": force}
    if html is not None:
        making.pop("force")
        if text is None:
            raise UserError("--html goes with --text", fix='give --text "…", the text that the page shows')
        options.refuse_stdout("--html", html)
    if text is not None:
        unused = {"report": report, "match_growth": match_growth, "num_proc": num_proc, "data_dir": data_dir}
        options.require_effect(expand, "beside --text", **unused, **making)
    else:
        options.require_effect(expand, "without --text", samples=samples)
    if report:
        options.require_effect(expand, "beside --report", num_proc=num_proc, **making)
    if match_growth is not None:
        options.require_effect(expand, "beside --match-growth", expand_prop=expand_prop)
    if pull:
        options.require_effect(expand, "beside --pull", num_proc=num_proc, **expansion)
    affixes = {"prefixes": prefixes, "suffixes": suffixes, "infixes": infixes}
    method = with_affixes(method, {name: value for name, value in affixes.items() if value is not None})
    options.check_hub_options(expand, pull=pull, push=push, repo=repo, hf_username=hf_username, private=private)
    in_tasks = executor_options.tasks_of(
        expand,
        executor,
        num_proc,
        tasks=tasks,
        partition=partition,
        time=time,
        slurm_args=slurm_args,
        push=push,
        pull=pull,
        text=text,
        report=report,
    )
    if import_name is not None and (text is not None or pull):
        where = "--pull" if pull else "--text"
        raise UserError(f"--name would have no effect beside {where}", fix="drop one or the other")
    if text is not None:
        if name is not None:
            raise UserError("both NAME and --text are given", fix="drop one of them")
        if text == "-":
            text = options.read_stdin("text", 'give --text "…"')
        if not text.strip():
            raise UserError(
                f"--text {'has only white space' if text else 'is empty'}", fix='give a text, as in --text "A sentence"'
            )
        from stochastok_cli.tokenization.expansion import StochasTok
        from stochastok_cli.tokenization.loaders import load_vocabulary
        from stochastok_cli.tokenization.samples import sample_tokenizations

        vocabulary = load_vocabulary("gpt2" if tokenizer is None else tokenizer)
        chosen_methods = choose_methods(method, vocabulary)
        if html is not None:
            from stochastok_cli.report.segmentation_page import segmentation_page, write_page

            page = segmentation_page(text, chosen_methods, vocabulary, p=expand_prop, samples=samples, **expansion)
            print_page(html, write_page(html, page, force=force), as_json)
            return
        expansions = [
            StochasTok(vocabulary, p_among(chosen, chosen_methods, expand_prop), chosen, **expansion)
            for chosen in chosen_methods
        ]
        print_tokenizations(sample_tokenizations(text, expansions, samples), as_json)
        return
    if match_growth is not None and not report:
        raise UserError("--match-growth goes with --report", fix="add it, then expand with the p that it finds")
    if not name:
        what = "nothing to expand" if name is None else "nothing to expand: NAME is empty"
        raise UserError(what, fix='name a folder under data_as_memmaps, or give --text "…"')
    from stochastok_cli.data import expand as data_expand
    from stochastok_cli.data.memmap import document_batches

    if report:
        from stochastok_cli.tokenization.statistics import compare_methods

        with progress.progress_bar() as emit:
            corpus = data_expand.open_corpus(
                name, tokenizer, name=import_name, data_dir=data_dir or DATA_DIR, progress=emit
            )
        corpus.require_end_of_text("train", trusted=corpus.tokenizer_is_named)
        batches = document_batches(corpus.ids("train"), corpus.end_of_text, _SAMPLE_TOKENS)
        _, stop, lengths = next(batches, (0, 0, None))
        if lengths is None:
            raise UserError(f"{corpus.name} has no tokens to look at")
        ids, chosen_methods = corpus.ids("train")[:stop], choose_methods(method, corpus.vocabulary)
        fixed = [chosen for chosen in chosen_methods if not require_method(chosen).takes_p]
        if match_growth is not None and fixed:
            text = f"fixed rules have no p, so --match-growth does not change them: {', '.join(fixed)}"
            warnings.warn(text, Notice, stacklevel=2)
        rows = compare_methods(
            corpus.vocabulary, chosen_methods, ids, lengths, p=expand_prop, growth=match_growth, **expansion
        )
        print_report(rows, f"{len(ids):,} tokens of {corpus.name}", as_json)
        return
    if method == "all" or len(split_methods(method)) > 1:
        raise UserError(
            f"--method {method}: a dataset is expanded by one method",
            fix="several go with --text and --report; name one, or make a mix of them (mix:stochastok=0.5,uniform=0.5)",
        )
    if pull:
        from stochastok_cli.data.hub_datasets import pull_corpus
        from stochastok_cli.data.import_corpus import find_stored

        # A name alone is that of a dataset on the Hub, whatever lies in the working directory.
        is_path = len(Path(name).parts) > 1 or Path(name).suffix in (".idx", ".ds")
        if is_path and find_stored(name) is not None:
            raise UserError(f"--pull would have no effect for {name}, which is on this disk", fix="drop --pull")
        folder = data_expand.expanded_name(name, method, expand_prop) if out_name is None else out_name
        with progress.progress_bar() as emit:
            made = pull_corpus(
                folder,
                repo=repo,
                username=hf_username,
                data_dir=data_dir or DATA_DIR,
                tokenizer=tokenizer,
                force=force,
                progress=emit,
            )
        progress.note(options.summary(made))
    else:
        with progress.progress_bar() as emit:
            corpus = data_expand.open_corpus(
                name, tokenizer, name=import_name, data_dir=data_dir or DATA_DIR, force=force, progress=emit
            )
            make: Any
            if in_tasks is None:
                make = functools.partial(data_expand.expand, num_proc=num_proc)
            else:
                from stochastok_cli.integrations import datatrove

                make = functools.partial(datatrove.expand, tasks=in_tasks)
            made = make(
                corpus,
                p=expand_prop,
                method=method,
                out_name=out_name,
                data_dir=data_dir,
                force=force,
                progress=emit,
                **expansion,
            )
        if executor_options.print_submitted(made, as_json):
            return
        tokens = sum(split.tokens or 0 for split in made.manifest.splits.values())
        growth = tokens / max(sum(corpus.num_tokens.values()), 1)
        progress.note(f"{options.summary(made)} ({growth:.3f} times the tokens)")
    if push:
        options.push_corpus(made.path, None if pull else repo, hf_username, private)
    options.print_result(made, as_json)

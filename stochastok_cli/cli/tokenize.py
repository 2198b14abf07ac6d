"""`stochastok tokenize`: from text, conversations or completions to a memmap folder of token ids."""

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from stochastok_cli.cli import candidates, executor_options, options, progress
from stochastok_cli.cli.app import subcommand
from stochastok_cli.errors import UserError
from stochastok_cli.paths import path_with_name


@subcommand
def tokenize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A file or folder (.txt, .jsonl, .csv, .parquet, .arrow, a saved dataset; .gz, .bz2, .xz, .zst too), "
            "a dataset id on the Hub, or `sample`.",
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="Name of the dataset.", show_default="from SOURCE")] = None,
    text_column: Annotated[
        str,
        typer.Option(
            "--text-column", help="Column or JSON key that holds the text; `meta.text` for one inside of `meta`."
        ),
    ] = "text",
    messages_column: Annotated[
        str | None,
        typer.Option(
            "--messages-column",
            help="Column of conversations, lists of messages with role and content. The tokenizer's chat template "
            "renders them (extra `hf`), and the loss is on the assistant's turns.",
        ),
    ] = None,
    prompt_column: Annotated[
        str | None, typer.Option("--prompt-column", help="Column of prompts, with --completion-column.")
    ] = None,
    completion_column: Annotated[
        str | None, typer.Option("--completion-column", help="Column of completions, which have the loss.")
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            "--max-length",
            min=2,
            help="Most tokens of a conversation or completion with its prompt.",
            show_default="no limit",
        ),
    ] = None,
    long_examples: Annotated[
        str,
        typer.Option(
            "--long-examples",
            metavar="truncate|drop",
            help="What becomes of longer ones. Their number is printed.",
        ),
    ] = "truncate",
    documents: Annotated[
        str,
        typer.Option(
            "--documents",
            metavar="paragraph|file",
            help="What a document of a text file is: a paragraph (blank lines separate them), or the file as a whole. "
            "With `file`, a folder's text files of all types are read, such as .md and .py.",
        ),
    ] = "paragraph",
    subset: Annotated[str | None, typer.Option("--subset", help="Configuration of a dataset on the Hub.")] = None,
    split: Annotated[str, typer.Option("--split", help="Split of a dataset on the Hub or of a saved one.")] = "train",
    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="gpt2, sample2k, a tiktoken encoding, the path of a tokenizer (tokenizer.json, tekken.json, "
            "SentencePiece, .tiktoken) or its folder, a run, or OWNER/NAME[@REVISION] on the Hub.",
            show_default="gpt2",
            autocompletion=candidates.tokenizers,
        ),
    ] = None,
    end_of_text: Annotated[
        str | None,
        typer.Option(
            "--end-of-text", metavar="TOKEN", help="Token that ends a document.", show_default="the tokenizer's"
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            "--pattern",
            help="For a file of tiktoken ranks: the encoding whose pattern divides text (gpt2, cl100k, o200k, qwen, "
            "qwen35, llama3), or a regular expression.",
            show_default="by the file's name",
        ),
    ] = None,
    checkpoint_dir: options.CheckpointDir = Path("checkpoints"),
    val_fraction: Annotated[
        float, typer.Option("--val-fraction", help="Share of the documents that validate, in [0, 1).")
    ] = 0.01,
    errors: Annotated[
        str,
        typer.Option(
            "--errors",
            metavar="strict|replace",
            help="What to do with bytes or characters that are not Unicode: fail, or replace them by U+FFFD.",
        ),
    ] = "strict",
    on_bad_document: Annotated[
        str,
        typer.Option(
            "--on-bad-document",
            metavar="error|skip",
            help="What to do with a document that is null, no text or unreadable: fail, or leave it out and count it.",
        ),
    ] = "error",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Read only so many documents, the first.", show_default="all")
    ] = None,
    data_dir: options.DataDir = Path("data"),
    num_proc: options.NumProc = None,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Seed of the order of the documents; 489 gives the files of the paper's code."),
    ] = 489,
    force: options.Force = False,
    pull: options.Pull = False,
    repo: options.Repo = None,
    push: options.Push = False,
    hf_username: options.HubUser = None,
    private: options.Private = False,
    as_json: options.AsJson = False,
    executor: executor_options.Executor = None,
    tasks: executor_options.NumTasks = 1,
    id_column: executor_options.IdColumn = None,
    partition: executor_options.Partition = None,
    time: executor_options.TimeLimit = None,
    slurm_args: executor_options.SlurmArgs = None,
) -> None:
    """Turn text into token ids: <data-dir>/data_as_memmaps/<dataset>-tokenized.

    Conversations, and prompts with completions, go to <data-dir>/data_as_memmaps/<dataset>, for instruction tuning.
    Prints the path of the finished folder. One that exists already, made with the same options, is left alone.
    """
    options.check_hub_options(tokenize, pull=pull, push=push, repo=repo, hf_username=hf_username, private=private)
    of_text = {"text_column": text_column, "documents": documents}
    columns = {"messages_column": messages_column, "prompt_column": prompt_column}
    columns["completion_column"] = completion_column
    of_examples = {"max_length": max_length, "long_examples": long_examples}
    if pull:
        made_with: dict[str, object] = {
            **of_text,
            **columns,
            **of_examples,
            "split": split,
            "val_fraction": val_fraction,
        }
        made_with |= {"errors": errors, "on_bad_document": on_bad_document, "limit": limit, "seed": seed}
        made_with["num_proc"] = num_proc
        options.require_effect(tokenize, "beside --pull", **made_with)
    has_examples = any(column is not None for column in columns.values())
    if has_examples:
        options.require_effect(tokenize, "for conversations and completions", **of_text, push=push)
    else:
        options.require_effect(tokenize, "without --messages-column or --prompt-column", **of_examples)
    if max_length is None:
        options.require_effect(tokenize, "without --max-length", long_examples=long_examples)
    if executor is None and id_column is not None:
        raise UserError(
            "--id-column would have no effect without --executor: one process orders and splits documents by their "
            "index in the source",
            fix="drop it, or add --executor local",
        )
    in_tasks = executor_options.tasks_of(
        tokenize,
        executor,
        num_proc,
        tasks=tasks,
        partition=partition,
        time=time,
        slurm_args=slurm_args,
        push=push,
        pull=pull,
        limit=limit,
        **columns,
    )
    from stochastok_cli.data import tokenize as data_tokenize
    from stochastok_cli.data.hub_datasets import pull_corpus
    from stochastok_cli.data.text_sources import require_source
    from stochastok_cli.tokenization.loaders import with_options

    require_source(source)
    resolved = options.resolve_tokenizer(tokenizer, checkpoint_dir)
    if end_of_text is not None or pattern is not None:
        resolved = with_options(resolved or "gpt2", end_of_text=end_of_text, pattern=pattern)
    with progress.progress_bar() as report:
        if pull:
            made = pull_corpus(
                data_tokenize.tokenized_name(path_with_name(Path(source)).name if name is None else name),
                repo=repo,
                source=source,
                subset=subset,
                username=hf_username,
                data_dir=data_dir,
                tokenizer=resolved,
                force=force,
                progress=report,
            )
        elif has_examples:
            from stochastok_cli.data.tokenize_instructions import tokenize_instructions

            made = tokenize_instructions(
                source,
                messages_column=messages_column,
                prompt_column=prompt_column,
                completion_column=completion_column,
                tokenizer=resolved or "gpt2",
                name=name,
                data_dir=data_dir,
                max_length=max_length,
                long_examples=long_examples,  # type: ignore[arg-type]
                subset=subset,
                split=split,
                val_fraction=val_fraction,
                seed=seed,
                errors=errors,
                on_bad_document=on_bad_document,
                limit=limit,
                num_proc=num_proc,
                force=force,
                progress=report,
            )
        else:
            make: Any
            if in_tasks is None:
                make = functools.partial(data_tokenize.tokenize, num_proc=num_proc, limit=limit)
            else:
                from stochastok_cli.integrations import datatrove

                make = functools.partial(datatrove.tokenize, tasks=in_tasks, id_column=id_column)
            made = make(
                source,
                tokenizer=resolved or "gpt2",
                name=name,
                data_dir=data_dir,
                text_column=text_column,
                documents=documents,
                subset=subset,
                split=split,
                val_fraction=val_fraction,
                seed=seed,
                errors=errors,
                on_bad_document=on_bad_document,
                force=force,
                progress=report,
            )
    if executor_options.print_submitted(made, as_json):
        return
    options.note_made(made)
    if push:
        options.push_corpus(made.path, None if pull else repo, hf_username, private)
    options.print_result(made, as_json)

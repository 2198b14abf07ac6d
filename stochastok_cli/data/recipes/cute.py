"""The recipe of training questions like those of CUTE (Edman et al. 2024), in eight subword tasks.

The benchmark's own test questions are not used.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from stochastok_cli.argument_checks import optional, path_like, string, whole_number, yes_or_no
from stochastok_cli.artifacts import Artifact
from stochastok_cli.data.recipes.base import SFT_LAYOUT, Option, Recipe, RecipeBenchmark, describe_questions
from stochastok_cli.manifest import SourceInfo
from stochastok_cli.paths import require_path
from stochastok_cli.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from stochastok_cli.tokenization.vocabulary import Vocabulary

NAME = "cute"
COLUMNS = ("question", "options", "task")


def make_cute(
    tokenizer: "str | Path | Vocabulary" = "gpt2",
    data_dir: str | Path = "data",
    *,
    name: Annotated[
        str, Option("Name of the dataset, under which `train` and `eval --benchmarks NAME-val` find it.")
    ] = NAME,
    train_size: Annotated[int, Option("Questions to train on.")] = 100_000,
    val_size: Annotated[
        int, Option("Questions to validate on; as many of those to train on are evaluated, too.")
    ] = 1_000,
    words: Annotated[
        Path | None,
        Option(
            "One word a line, each letter one character (NFC); 1,000 common English words where absent.",
            metavar="FILE",
        ),
    ] = None,
    disjoint: Annotated[bool, Option("Validate on words that training never asks about.")] = False,
    seed: int = 0,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Makes `data_as_datasets/<name>` to evaluate on and `data_as_memmaps/<name>` to train on.

    Args:
        tokenizer: name or path of a tokenizer, or its vocabulary.
        data_dir: the data directory.
        name: the name of both folders.
        train_size: questions to train on.
        val_size: questions to validate on; as many of those to train on are written as texts, too.
        words: a file with one word a line, each letter of which is one character; None for the bundled list.
        disjoint: whether the validation questions are about words that occur in no training question.
        seed: the same seed gives the same bytes.
        force: make the folders again if they are there already.
        progress: called with the numbers of questions generated and written.

    Returns:
        The folder of ids. Folders that are there already, made with the same options, are left alone.

    Raises:
        UserError: no question can be made with these settings and words; nothing is written then.
    """
    from stochastok_cli.data.memmap import resolve_vocabulary
    from stochastok_cli.data.recipes.cute_generator import Cute, split_words
    from stochastok_cli.data.recipes.multiple_choice import write_questions
    from stochastok_cli.data.word_list import read_words

    root = require_path(data_dir, "data_dir")
    optional(path_like)("words", words)
    string("name", name)
    yes_or_no("force", force)
    train_size = whole_number("--train-size", train_size, minimum=1)
    val_size = whole_number("--val-size", val_size, minimum=1)
    disjoint, seed = yes_or_no("disjoint", disjoint), whole_number("seed", seed)
    word_list = read_words(words)
    options = {
        "train_size": train_size,
        "val_size": val_size,
        "words": word_list.fingerprint,
        "disjoint": disjoint,
        "seed": seed,
    }
    return write_questions(
        name,
        Cute(split_words(word_list.words, disjoint_seed=seed if disjoint else None), seed),
        {"train": train_size, "val": val_size},
        options,
        recipe=NAME,
        vocabulary=resolve_vocabulary(tokenizer),
        made_from=SourceInfo(word_list.name, word_list.fingerprint),
        data_dir=root,
        force=force,
        progress=progress,
    )


def _task(row: Mapping[str, Any]) -> str:
    return row["task"]


CUTE = Recipe(
    name=NAME,
    command="make-cute",
    make=make_cute,
    help="""Make questions of CUTE's eight subword tasks: <data-dir>/data_as_memmaps/NAME.

    Prints that path; the questions as text are in <data-dir>/data_as_datasets/NAME. The benchmark's own test
    questions, `eval --benchmarks cute`, are not used. Without --disjoint many validation questions are in training,
    too; how many is printed. What exists already, made with the same options, is left alone.
    """,
    about="Multiple-choice questions about the letters of words, generated like those of the CUTE benchmark "
    "([Edman et al. 2024](https://arxiv.org/abs/2409.15452)) in the wording of *StochasTok: Improving Fine-Grained "
    "Subword Understanding in LLMs* ([arXiv 2506.01687](https://arxiv.org/abs/2506.01687)). The test questions of the "
    "benchmark are not among them. A row has a `question`, `options`, the right one first, and a `task`.",
    layout=SFT_LAYOUT,
    notes=functools.partial(describe_questions, remedy="--disjoint keeps their words apart"),
    benchmarks=(RecipeBenchmark("train", COLUMNS, _task), RecipeBenchmark("val", COLUMNS, _task)),
)

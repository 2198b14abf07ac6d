"""The recipe of LangGame (paper, Section 4.2): multiple-choice questions about the letters of words."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from stochastok_cli.argument_checks import optional, path_like, require_each, string, whole_number, yes_or_no
from stochastok_cli.artifacts import Artifact
from stochastok_cli.data.recipes.base import SFT_LAYOUT, Option, Recipe, RecipeBenchmark, describe_questions
from stochastok_cli.errors import UserError
from stochastok_cli.manifest import SourceInfo
from stochastok_cli.paths import require_path
from stochastok_cli.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from stochastok_cli.tokenization.vocabulary import Vocabulary

NAME = "langgame"
HOLDOUTS = {"none": (None, None), "short": ("long", "short"), "long": ("short", "long")}
"""The substrings in the questions of train and of val, by the value of `--holdout` (see `substring_lengths`)."""


def make_langgame(
    tokenizer: "str | Path | Vocabulary" = "gpt2",
    data_dir: str | Path = "data",
    *,
    name: Annotated[
        str, Option("Name of the dataset, under which `train` and `eval --benchmarks NAME-val` find it.")
    ] = NAME,
    train_size: Annotated[int, Option("Questions to train on.")] = 1_000_000,
    val_size: Annotated[
        int, Option("Questions to validate on; as many of those to train on are evaluated, too.")
    ] = 1_000,
    num_options: Annotated[int, Option("Options of each question, 2 or more, one of them right.")] = 4,
    words: Annotated[
        Path | None,
        Option(
            "One word a line, each letter one character (NFC); 1,000 common English words where absent.",
            metavar="FILE",
        ),
    ] = None,
    min_substring: Annotated[int, Option("Shortest part of a word that is asked about, in letters.")] = 1,
    max_substring: Annotated[int, Option("Longest part, in letters; never more than the whole word.")] = 3,
    holdout: Annotated[
        str,
        Option(
            "Keep such parts of words for validation alone: short, up to half of the word, or long, above.",
            metavar="none|short|long",
        ),
    ] = "none",
    disjoint: Annotated[bool, Option("Ask nothing in validation that is asked in training of the same word.")] = False,
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
        num_options: options of each question, one of them right.
        words: a file with one word a line, each letter of which is one character; None for the bundled list.
        min_substring: shortest substring that is asked about, in letters.
        max_substring: longest substring that is asked about, in letters.
        holdout: the substrings that only validation questions contain: a key of HOLDOUTS.
        disjoint: whether no validation question has both the predicate and the right answer of a training question.
        seed: the same seed gives the same bytes.
        force: make the folders again if they are there already.
        progress: called with the numbers of questions generated and written.

    Returns:
        The folder of ids. Folders that are there already, made with the same options, are left alone.

    Raises:
        UserError: no question can be made with these settings and words; nothing is written then.
    """
    from stochastok_cli.data.memmap import resolve_vocabulary
    from stochastok_cli.data.recipes.langgame_generator import LangGame, case_tables
    from stochastok_cli.data.recipes.multiple_choice import write_questions
    from stochastok_cli.data.word_list import read_words

    root = require_path(data_dir, "data_dir")
    optional(path_like)("words", words)
    require_each(string, name=name, holdout=holdout)
    yes_or_no("force", force)
    train_size = whole_number("--train-size", train_size, minimum=1)
    val_size = whole_number("--val-size", val_size, minimum=1)
    num_options = whole_number("--num-options", num_options, minimum=2)
    min_substring = whole_number("--min-substring", min_substring, minimum=1)
    max_substring = whole_number("--max-substring", max_substring)
    disjoint, seed = yes_or_no("disjoint", disjoint), whole_number("seed", seed)
    if max_substring < min_substring:
        raise UserError(f"--max-substring {max_substring} is less than --min-substring {min_substring}")
    if holdout not in HOLDOUTS:
        raise UserError(f"--holdout {holdout!r} is not possible", fix=f"give {', '.join(HOLDOUTS)}")
    word_list = read_words(words)
    options = {
        "train_size": train_size,
        "val_size": val_size,
        "num_options": num_options,
        "words": word_list.fingerprint,
        "min_substring": min_substring,
        "max_substring": max_substring,
        "holdout": holdout,
        "seed": seed,
        **({"disjoint": True} if disjoint else {}),  # absent from folders made before there was a choice
    }
    tables = case_tables(
        word_list.words,
        num_options,
        (min_substring, max_substring),
        sides=HOLDOUTS[holdout],
        disjoint_seed=seed if disjoint else None,
    )
    return write_questions(
        name,
        LangGame(tables, seed),
        {"train": train_size, "val": val_size},
        options,
        recipe=NAME,
        vocabulary=resolve_vocabulary(tokenizer),
        made_from=SourceInfo(word_list.name, word_list.fingerprint),
        data_dir=root,
        force=force,
        progress=progress,
    )


def _kind(row: Mapping[str, Any]) -> str:
    from stochastok_cli.data.recipes.langgame_questions import kind_of

    return kind_of(row["question"])


LANGGAME = Recipe(
    name=NAME,
    command="make-langgame",
    make=make_langgame,
    help="""Make LangGame, questions about the letters of words: <data-dir>/data_as_memmaps/NAME.

    Prints that path; the questions as text are in <data-dir>/data_as_datasets/NAME. What exists already, made with
    the same options, is left alone.
    """,
    about="LangGame: multiple-choice questions about the letters of words, from *StochasTok: Improving Fine-Grained "
    "Subword Understanding in LLMs* ([arXiv 2506.01687](https://arxiv.org/abs/2506.01687)). A row has a `question` "
    "and `options`, the right one first.",
    layout=SFT_LAYOUT,
    notes=functools.partial(
        describe_questions, remedy="--disjoint asks nothing in validation that is asked in training of the same word"
    ),
    benchmarks=(RecipeBenchmark("train", kind=_kind), RecipeBenchmark("val", kind=_kind)),
)

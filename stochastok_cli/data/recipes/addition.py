"""The recipe of multi-digit addition (paper, Section 4.4): every sum of two numbers, in several tokenizations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stochastok_cli.argument_checks import fraction, string, whole_number, yes_or_no
from stochastok_cli.artifacts import Artifact
from stochastok_cli.data.recipes.base import Option, Recipe
from stochastok_cli.errors import UserError
from stochastok_cli.manifest import Manifest
from stochastok_cli.paths import require_path
from stochastok_cli.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from stochastok_cli.tokenization.vocabulary import Vocabulary

NAME = "multi_digit_addition"
MAX_DIGITS = 4  # 90,000,000 pairs; one digit more is a hundred times that


def make_addition(
    tokenizer: "str | Path | Vocabulary" = "gpt2",
    data_dir: str | Path = "data",
    *,
    name: Annotated[
        str, Option("Name of the dataset: `train` finds NAME_FORM, and `eval --addition NAME` the questions.")
    ] = NAME,
    num_digits: Annotated[
        int, Option("Digits of the numbers, 1 to 4; 3 make 900,000 pairs, 4 make 90,000,000 (8 GB).")
    ] = 3,
    val_fraction: Annotated[
        float, Option("Share of the pairs that validate, between 0 and 1; training has the others.")
    ] = 0.1,
    seed: int = 0,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> Artifact:
    """Makes `data_as_memmaps/<name>_<form>` for each form and `data_as_datasets/<name>`.

    Args:
        tokenizer: name or path of a tokenizer, or its vocabulary.
        data_dir: the data directory.
        name: the name of the folder of texts, and the beginning of the others.
        num_digits: digits of the numbers, 1 to 4.
        val_fraction: the fraction of the pairs in the validation split, between 0 and 1.
        seed: the same seed gives the same bytes.
        force: make the folders again if they are there already.
        progress: called with the numbers of pairs and ids that are done.

    Returns:
        The folder of texts. Folders that are there already, made with the same options, are left alone.

    Raises:
        UserError: impossible settings, or a vocabulary without digits; nothing is written then.
    """
    from stochastok_cli.data.memmap import resolve_vocabulary
    from stochastok_cli.data.recipes.addition_data import pair_codes, write_addition

    root = require_path(data_dir, "data_dir")
    string("name", name)
    yes_or_no("force", force)
    seed, num_digits = whole_number("seed", seed), whole_number("--num-digits", num_digits)
    if not 1 <= num_digits <= MAX_DIGITS:
        pairs = f": that would be {9 * 10 ** (2 * num_digits - 1):,} pairs" if num_digits > MAX_DIGITS else ""
        raise UserError(f"--num-digits is {num_digits}{pairs}", fix=f"it must be from 1 to {MAX_DIGITS}")
    val_fraction = fraction("--val-fraction", val_fraction, may_be_zero=False)
    codes = pair_codes(num_digits, val_fraction, seed)
    if not len(codes["train"]):
        raise UserError(f"--val-fraction {val_fraction} leaves no pair to train on", fix="give a smaller one")
    vocabulary = resolve_vocabulary(tokenizer)
    options = {
        "num_digits": num_digits,
        "val_fraction": val_fraction,
        "seed": seed,
        "tokenizer": vocabulary.fingerprint,
    }
    return write_addition(name, codes, options, vocabulary, root, recipe=NAME, force=force, progress=progress)


def _memmaps(manifest: Manifest) -> list[str]:
    return [f"{NAME}_{form}" for form in manifest.options.get("forms", [])]


def _notes(made: Artifact) -> list[str]:
    from stochastok_cli.data.memmap import Corpus, memmap_dir

    notes = []
    for name in _memmaps(made.manifest):
        corpus = Corpus(memmap_dir(made.path.parent.parent) / name.replace(NAME, made.path.name, 1))
        example = corpus.vocabulary.decode(corpus.ids("train")[:30].tolist()).split("$")[1]  # the first pair
        splits = ", ".join(f"{split} {tokens:,} tokens" for split, tokens in corpus.num_tokens.items())
        notes.append(f"{corpus.name}: {splits}, for example ${example}")
    return notes


ADDITION = Recipe(
    name=NAME,
    command="make-addition",
    make=make_addition,
    help="""Make sums of two numbers, tokenized in several ways: <data-dir>/data_as_datasets/multi_digit_addition.

    All pairs of a number of --num-digits digits and one of at most as many. The digits of an answer are in reverse
    order, as in the paper: `$72+87=951`.

    Prints that path; for training, each tokenization is in <data-dir>/data_as_memmaps/multi_digit_addition_<form>.
    --name NAME calls them NAME and NAME_<form>.
    What exists already, made with the same options, is left alone.
    """,
    about="All sums of two numbers, in several tokenizations, from *StochasTok: Improving Fine-Grained Subword "
    "Understanding in LLMs* ([arXiv 2506.01687](https://arxiv.org/abs/2506.01687)). A row has a `question` and an "
    "`answer`, whose digits are reversed, and the token ids of both in each tokenization X: `t_question_X` and "
    "`t_answer_X`.",
    layout="`{train,val}.bin` holds the ids of all questions and answers end to end; the next `$` ends an answer.",
    result="dataset",
    memmaps=_memmaps,
    notes=_notes,
)

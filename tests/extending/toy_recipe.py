"""A recipe in one file: which word is written backwards."""

from pathlib import Path
from typing import Annotated

from stochastok_cli.artifacts import Artifact
from stochastok_cli.data.recipes.base import (
    SFT_LAYOUT,
    Option,
    Recipe,
    RecipeBenchmark,
    describe_questions,
    register_recipe,
)
from stochastok_cli.manifest import SourceInfo
from stochastok_cli.progress import no_progress


def make_backwards(
    tokenizer="gpt2",
    data_dir="data",
    *,
    train_size: Annotated[int, Option("Questions to train on.")] = 1_000,
    val_size: Annotated[int, Option("Questions to validate on.")] = 100,
    seed: int = 0,
    force: bool = False,
    progress=no_progress,
) -> Artifact:
    """Makes `data_as_datasets/backwards` and `data_as_memmaps/backwards`."""
    from stochastok_cli.data.memmap import resolve_vocabulary
    from stochastok_cli.data.recipes.multiple_choice import MultipleChoiceQuestion, QuestionGenerator, write_questions
    from stochastok_cli.data.word_list import read_words
    from stochastok_cli.random_streams import stream

    words = read_words()

    class Backwards(QuestionGenerator):
        kind_column = "length"

        def questions(self, split, count):
            random = stream(seed, f"backwards/{split}")
            for _ in range(count):
                options = [words.words[i] for i in random.choice(len(words.words), 4, replace=False)]
                kind = "short" if len(options[0]) < 5 else "long"
                text = f"Which word is {options[0][::-1]} written backwards? Answer:"
                yield MultipleChoiceQuestion(text, options, kind)

    return write_questions(
        "backwards",
        Backwards(),
        {"train": train_size, "val": val_size},
        {"train_size": train_size, "val_size": val_size, "seed": seed},
        vocabulary=resolve_vocabulary(tokenizer),
        made_from=SourceInfo(words.name, words.fingerprint),
        data_dir=Path(data_dir),
        force=force,
        progress=progress,
    )


BACKWARDS = register_recipe(
    Recipe(
        name="backwards",
        command="make-backwards",
        make=make_backwards,
        help="Make questions about words that are written backwards.",
        about="Questions about words that are written backwards.",
        layout=SFT_LAYOUT,
        notes=describe_questions,
        benchmarks=(RecipeBenchmark("val", ("question", "options", "length"), lambda row: row["length"]),),
    )
)

"""A format in one file: a line of numbers for each document."""

from stochastok_cli.data.formats.base import Format, register_format


def write(folder, splits, tokenizer):
    import numpy as np

    for split in splits:
        with open(folder / f"{split.name}.txt", "w") as out:
            for batch in split:
                for document in np.split(batch.ids, np.cumsum(batch.lengths)[:-1]):
                    print(*document.tolist(), file=out)


NUMBERS = register_format(
    Format(name="numbers", description="lines of numbers", dtype=lambda vocabulary_size: "int32", write=write)
)

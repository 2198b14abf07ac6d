"""A format in one file: a line of numbers for each document."""

from stochastok_cli.data.formats.base import Format, StoredBatch, StoredDocuments, register_format


def write(folder, splits, tokenizer):
    import numpy as np

    for split in splits:
        with open(folder / f"{split.name}.numbers", "w") as out:
            for batch in split:
                for document in np.split(batch.ids, np.cumsum(batch.lengths)[:-1]):
                    print(*document.tolist(), file=out)


def find(path):
    return path if path.suffix == ".numbers" else None


def read(file):
    import numpy as np

    documents = [np.array(line.split(), np.int32) for line in file.read_text().splitlines()]

    def batches():
        for ids in documents:
            yield StoredBatch(ids, np.array([len(ids)]))

    return StoredDocuments([file], len(documents), file.stat().st_size, batches)


NUMBERS = register_format(
    Format(
        name="numbers",
        description="lines of numbers",
        dtype=lambda vocabulary_size: "int32",
        write=write,
        find=find,
        read=read,
    )
)

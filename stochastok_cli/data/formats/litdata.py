"""Chunks of tokens of `litdata`, which litgpt and Lightning read with `TokensLoader`: one folder for each split.

The documents of a chunk lie end to end. `TokensLoader` cuts each chunk into blocks of one length and drops the rest.
"""

import warnings
from pathlib import Path

from stochastok_cli.data.formats.base import Format, SplitDocuments, register_format, uint16_or_int32

CHUNK_BYTES = 2**26
"""The most bytes of a chunk, unless one document is longer."""


def _write(folder: Path, splits: list[SplitDocuments], tokenizer: str) -> None:
    import torch
    from litdata.streaming.item_loader import TokensLoader
    from litdata.streaming.writer import BinaryWriter

    with warnings.catch_warnings():
        # A chunk of short documents exceeds its size by their offsets, and one of a long document by the document.
        warnings.filterwarnings("ignore", "An item was larger than the target chunk size")
        for split in splits:
            writer = BinaryWriter(str(folder / split.name), chunk_bytes=CHUNK_BYTES, item_loader=TokensLoader())
            written = 0
            for batch in split:
                ids = torch.from_numpy(batch.ids.copy())
                for document in ids.split(batch.lengths.tolist()):
                    writer[written] = document
                    written += 1
            writer.done()
            writer.merge(1)


register_format(
    Format(
        name="litdata",
        description="chunks of litgpt and Lightning, for litdata's TokensLoader",
        dtype=uint16_or_int32,
        write=_write,
        package="litdata",
        extra="litdata",
    )
)

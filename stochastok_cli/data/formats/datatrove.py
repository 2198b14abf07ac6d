"""Tokenized files of datatrove, which nanotron reads: one folder for each split.

`<name>.ds` holds the ids, `<name>.ds.index` the end of each document, `<name>.ds.metadata` the tokenizer, and
`<name>.ds.loss`, for questions and conversations, a byte for each id: 1 where it has a loss.
"""

from pathlib import Path

from stochastok_cli.data.formats.base import Format, SplitDocuments, register_format


def _write(folder: Path, splits: list[SplitDocuments], tokenizer: str) -> None:
    import numpy as np
    from datatrove.pipeline.tokens.tokenizer import TokenizedFile, get_output_filename

    for split in splits:
        file = TokenizedFile(
            str(folder / split.name),
            get_output_filename("", 0, split.name),
            save_loss_metadata=split.has_loss_mask,
            tokenizer_name_or_path=tokenizer,
            save_final_metadata=True,
            token_size=split.dtype.itemsize,
        )
        for batch in split:
            file.write_bytes(batch.ids.tobytes(), np.cumsum(batch.lengths).tolist())
            if batch.loss_mask is not None:
                file.write_loss_bytes(batch.loss_mask.tobytes())
        file.close()


register_format(
    Format(
        name="datatrove",
        description="tokenized files of datatrove and nanotron",
        dtype=lambda vocabulary_size: "uint16" if vocabulary_size <= 2**16 else "uint32",
        write=_write,
        has_loss_mask=True,
        package="datatrove",
        extra="datatrove",
    )
)

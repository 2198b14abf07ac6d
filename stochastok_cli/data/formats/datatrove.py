"""Tokenized files of datatrove, which nanotron reads: one folder for each split.

`<name>.ds` holds the ids, `<name>.ds.index` the end of each document, `<name>.ds.metadata` the tokenizer, and
`<name>.ds.loss`, for questions and conversations, a byte for each id: 1 where it has a loss.
"""

import re
from pathlib import Path

from stochastok_cli.data.formats.base import (
    Format,
    SplitDocuments,
    StoredBatch,
    StoredDocuments,
    damaged,
    register_format,
)
from stochastok_cli.errors import FAILED, UserError


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


def _find(path: Path) -> Path | None:
    """A `.ds` file, or a folder of them, which its tasks have written."""
    return path if path.suffix == ".ds" or (path.is_dir() and any(path.glob("*.ds"))) else None


def _read(path: Path) -> StoredDocuments:
    """Opens a file, or all files of a folder in the order of their names, as `DatatroveFolderDataset` does."""
    files = sorted(path.glob("*.ds")) if path.is_dir() else [path]
    for index in path.glob("*.ds.index"):
        tokens = index.with_suffix("")
        if not tokens.is_file():
            raise UserError(f"there is no file {tokens}, to which {index.name} belongs", exit_code=FAILED)
    batches = [_read_file(file) for file in files]
    parts = [part for file in files for part in (file, file.with_name(f"{file.name}.index"))]
    num_bytes = sum(batch.ids.nbytes for batch in batches)
    return StoredDocuments(parts, sum(len(batch.lengths) for batch in batches), num_bytes, lambda: iter(batches))


def _read_file(file: Path) -> StoredBatch:
    import numpy as np

    index, loss = file.with_name(f"{file.name}.index"), file.with_name(f"{file.name}.loss")
    for part in (file, index):
        if not part.is_file():
            raise UserError(
                f"there is no file {part}", fix="a tokenized file of datatrove is NAME.ds and NAME.ds.index"
            )
    if loss.is_file():
        raise UserError(
            f"{loss} says which ids have a loss, and a corpus can't hold that",
            fix="move it away if all have one",
        )
    size, index_size = file.stat().st_size, index.stat().st_size
    ends = np.fromfile(index, "<u8").astype(np.int64)
    total = int(ends[-1]) if len(ends) else 0
    widths: dict[int, np.dtype] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}
    width = size // total if total else 2
    if index_size % 8 or (np.diff(ends, prepend=0) < 0).any() or width not in widths or size != total * width:
        raise damaged(file, f"it has {size:,} bytes, and its index {total:,} ids of two or four bytes each")
    if (recorded := _recorded_tokens(file)) not in (None, total):
        raise damaged(file, f"it holds {total:,} ids, and {file.name}.metadata counts {recorded:,}")
    ids = np.memmap(file, widths[width], "r") if total else np.empty(0, widths[2])
    return StoredBatch(ids, np.diff(ends, prepend=0))


def _recorded_tokens(file: Path) -> int | None:
    """How many ids the second line of `NAME.ds.metadata` counts; None where the file is missing or says nothing."""
    metadata = file.with_name(f"{file.name}.metadata")
    lines = metadata.read_bytes().split(b"\n") if metadata.is_file() else []
    return int(lines[1]) if len(lines) > 1 and re.fullmatch(rb"[0-9]{1,18}\r?", lines[1]) else None


register_format(
    Format(
        name="datatrove",
        description="tokenized files of datatrove and nanotron",
        dtype=lambda vocabulary_size: "uint16" if vocabulary_size <= 2**16 else "uint32",
        write=_write,
        find=_find,
        read=_read,
        has_loss_mask=True,
        package="datatrove",
        extra="datatrove",
    )
)

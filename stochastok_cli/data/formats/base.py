"""The class `Format`, which describes a format that another trainer reads, and the registry of all formats.

To add a format, put a file into this folder that calls `register_format`. The choices and help texts of `export`, and
what `expand` reads, derive from the registry. Code outside of the package registers its formats in the same way.

The command line imports every format when it starts, so these files import numpy and other libraries only inside
functions.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from stochastok_cli.errors import FAILED, UserError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

IGNORED = -100
"""The label of an id without a loss, as in PyTorch's cross entropy."""


class DocumentBatch(NamedTuple):
    """Whole documents, one after another.

    Args:
        ids: ids in the type of the format `[tokens]`.
        lengths: int64 `[documents]`.
        loss_mask: bool `[tokens]`, True where an id has a loss; None where all of them have.
    """

    ids: "np.ndarray"
    lengths: "np.ndarray"
    loss_mask: "np.ndarray | None"

    def labels(self) -> "np.ndarray":
        """The ids that have a loss, and IGNORED elsewhere, int32 `[tokens]`."""
        import numpy as np

        assert self.loss_mask is not None
        return np.where(self.loss_mask, self.ids, np.int32(IGNORED)).astype(np.int32, copy=False)


class SplitDocuments(Protocol):
    """The documents of one split, as a format writes them. It is iterated once."""

    name: str
    dtype: "np.dtype"
    has_loss_mask: bool

    def __iter__(self) -> Iterator[DocumentBatch]: ...


class StoredBatch(NamedTuple):
    """Whole documents of a stored dataset, one after another.

    Args:
        ids: ids in the type on disk `[tokens]`.
        lengths: int64 `[documents]`.
    """

    ids: "np.ndarray"
    lengths: "np.ndarray"


class StoredDocuments(NamedTuple):
    """The documents of one stored dataset, which a format reads.

    Args:
        files: the files that hold them.
        num_documents: their number, as the index of the format says.
        num_bytes: the bytes of the files of ids; 0 if there are none.
        batches: reads the documents in their order. Raises UserError where a file is damaged, and where a document has
            what a corpus can't hold, such as ids without a loss.
    """

    files: list[Path]
    num_documents: int
    num_bytes: int
    batches: Callable[[], Iterator[StoredBatch]]


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format of token ids.

    Args:
        name: as `--format` takes it.
        description: the files and the programs that read them, one line for help texts and tables.
        dtype: the name of the numpy type of the ids, for a vocabulary of so many entries. Raises UserError for a
            vocabulary that is too large for the format.
        write: writes all splits into a folder. Called with the folder, the splits and the name of the tokenizer. It
            must keep the documents and their order, and read every split to its end.
        has_loss_mask: whether the format can hold which ids have a loss, as conversations and questions need.
        find: the file or folder of the one stored dataset that a path means; None if it means none of this format.
        read: opens what `find` has found. Raises UserError if a file is missing or damaged, or if it holds something
            that a corpus can't hold. Called only with a result of `find`.
        package: the module of a library that `write` imports and that is no dependency of this package.
        extra: the extra of this package that installs it.
    """

    name: str
    description: str
    dtype: Callable[[int], str]
    write: Callable[[Path, list[SplitDocuments], str], None]
    has_loss_mask: bool = False
    find: Callable[[Path], Path | None] = lambda path: None
    read: Callable[[Path], StoredDocuments] | None = None
    package: str | None = None
    extra: str | None = None

    def require_package(self) -> None:
        """Raises UserError if the library that writes the format is not installed."""
        import importlib.util

        if self.package is not None and importlib.util.find_spec(self.package) is None:
            raise UserError(
                f"the format {self.name} needs the package {self.package}",
                fix=f"pip install 'stochastok[{self.extra}]'",
            )


FORMATS: dict[str, Format] = {}
"""Every registered format by its name, in alphabetical order."""


def register_format(new: Format) -> Format:
    """Adds a format to the registry.

    Raises:
        ValueError: if another format has that name.
    """
    if FORMATS.get(new.name, new) != new:
        raise ValueError(f"there is already a format {new.name!r}")
    in_order = sorted([*FORMATS.values(), new], key=lambda known: known.name)
    FORMATS.clear()
    FORMATS.update({known.name: known for known in in_order})
    return new


def holds_ids(path: Path) -> bool:
    """Whether a path is of a format, or a folder with a stored dataset for each split."""
    paths = [path, *path.iterdir()] if path.is_dir() else [path]
    return any(known.find(candidate) is not None for known in FORMATS.values() for candidate in paths)


def require_format(name: str) -> Format:
    """The format of that name. Raises UserError, with the nearest name, if there is none."""
    if name not in FORMATS:
        raise UserError(f"unknown format {name!r}{did_you_mean(name, FORMATS)}", fix=f"give {', '.join(FORMATS)}")
    return FORMATS[name]


def damaged(file: Path, what: str) -> UserError:
    """The error for a file of a stored dataset that can't be right."""
    return UserError(f"{file} is damaged: {what}", exit_code=FAILED)


def has_index(folder: Path, key: str, pattern: str) -> bool:
    """Whether a folder has an `index.json` of a format, or files of the format whose index is damaged or missing.

    Args:
        folder: the folder.
        key: a key of the index that other formats don't have.
        pattern: what matches the names of the files that the index names.
    """
    index = folder / "index.json"
    return (index.is_file() and f'"{key}"'.encode() in index.read_bytes()) or any(folder.glob(pattern))


def read_index(folder: Path, kind: type[T]) -> T:
    """The content of the `index.json` of a folder. Raises UserError if it is missing or damaged."""
    from stochastok_cli.json_files import read_json

    index = folder / "index.json"
    if not index.is_file():
        raise UserError(f"there is no file {index}, which lists the files of ids beside it", exit_code=FAILED)
    return read_json(index, kind)


def require_named_files(index: Path, files: Iterable[Path]) -> None:
    """Raises UserError if one of the files that an index names is missing."""
    for file in files:
        if not file.is_file():
            raise UserError(f"there is no file {file}, which {index} names")


def uint16_or_int32(vocabulary_size: int) -> str:
    """uint16 for a vocabulary whose ids fit, or else int32."""
    return "uint16" if vocabulary_size <= 2**16 else "int32"

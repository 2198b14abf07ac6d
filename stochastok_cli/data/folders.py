"""The folders of a data directory. This module imports no NumPy, for commands that only look."""

import os
from pathlib import Path

from stochastok_cli.errors import UserError, did_you_mean, short_name
from stochastok_cli.manifest import MANIFEST, read_manifest
from stochastok_cli.paths import expand_home, path_with_name, require_path

DATA_DIR = "data"
"""The data directory where none is given."""

SHAPES = "shapes.json"
"""The file that every folder of questions with answers has, and no other."""

INSTRUCTION = "instruction"
"""The kind of the manifest of conversations, and of prompts with completions."""

_KINDS = {
    "tokenized": "a tokenized dataset",
    "expanded": "an expanded dataset",
    "addition": "additions",
    INSTRUCTION: "conversations or completions",
    "exported": "an export",
}


def memmap_dir(data_dir: str | Path) -> Path:
    """The folder of a data directory that holds the folders of `.bin` files. Raises UserError for an empty name."""
    return require_path(data_dir, "data_dir") / "data_as_memmaps"


def dataset_dir(data_dir: str | Path) -> Path:
    """The folder of a data directory that holds the saved `datasets.DatasetDict`s. Raises UserError for an empty
    name."""
    return require_path(data_dir, "data_dir") / "data_as_datasets"


def find_dataset(dataset: str | Path, data_dir: str | Path) -> Path:
    """The folder of a dataset of ids: of its name in the data directory, else at its path.

    Args:
        dataset: the name of a folder under `data_as_memmaps`, or a path, absolute or relative to the working directory.
            A `Path` is always the latter.
        data_dir: the data directory.

    Returns:
        The folder. Where there is no such dataset, the one that is missing: whoever opens it says so.

    Raises:
        UserError: the name or the data directory is empty.
    """
    path = _path_of(dataset)
    if isinstance(dataset, Path):
        return path
    named = memmap_dir(data_dir) / path
    if holds_ids(named):
        return named
    is_name = len(path.parts) < 2 and not path.is_absolute()
    return path if holds_ids(path) or not (is_name or named.is_dir()) else named


def folder_of_result(corpus: Path, data_dir: str | Path | None) -> Path:
    """Where the result is written: in the data directory that is given, or beside a corpus that is in it already (also
    further down), or, where none is given, beside the corpus."""
    beside = corpus.parent
    if data_dir is None:
        return beside
    folder = memmap_dir(data_dir)
    return beside if Path(os.path.abspath(beside)).is_relative_to(os.path.abspath(folder)) else folder


def require_kind(final: Path, kind: str, name_option: str = "--name") -> None:
    """Raises UserError if another kind of dataset is there: it is no earlier result of the same command, so nobody is
    told to make it again.

    Args:
        final: the folder that a command makes.
        kind: the kind of the manifest that it will have.
        name_option: the option by which users choose another name.
    """
    manifest = read_manifest(final) if final.is_dir() else None
    if manifest is None or manifest.kind in (None, kind):
        return
    there, here = (_KINDS.get(str(name), f"questions of {short_name(str(name))}") for name in (manifest.kind, kind))
    raise UserError(f"{final} exists and holds {there}, not {here}", fix=f"give another name ({name_option})")


def short_dataset_name(dataset: str) -> str:
    """What a dataset is called that was named by its name or by its path: the name of its folder.

    >>> short_dataset_name("data/data_as_memmaps/sample-tokenized/"), short_dataset_name("sample-tokenized")
    ('sample-tokenized', 'sample-tokenized')
    """
    return _path_of(dataset).name


def _path_of(dataset: str | Path) -> Path:
    if dataset == "":
        raise UserError("the name of the dataset is empty", fix="name a folder under data_as_memmaps, or give a path")
    return path_with_name(Path(expand_home(dataset)))


def holds_ids(folder: Path) -> bool:
    """Whether a folder is a dataset of ids, with a manifest or without."""
    return folder.is_dir() and ((folder / MANIFEST).is_file() or next(folder.glob("*.bin"), None) is not None)


def holds_documents(folder: Path) -> bool:
    """Whether a folder of ids holds documents: no questions, conversations or completions, which training and `export`
    take. True where no manifest can be read."""
    if (folder / SHAPES).is_file():
        return False
    try:
        manifest = read_manifest(folder)
    except UserError:  # whoever opens the folder says what is wrong with it
        return True
    return manifest is None or manifest.kind != INSTRUCTION


def similar_dataset(folder: Path) -> str:
    """For a dataset that is not there: the suggestion of the one beside it with the most similar name, if any is."""
    siblings = [other.name for other in folder.parent.glob("*") if other.is_dir() and not other.name.startswith(".")]
    return did_you_mean(folder.name, siblings)


def require_dataset_folder(folder: Path) -> None:
    """Raises UserError if there is no folder for a dataset."""
    if not folder.is_dir():
        raise UserError(
            f"there is no dataset {folder.name!r} in {folder.parent}{similar_dataset(folder)}",
            fix="make it first (stochastok tokenize, expand, make-langgame or make-addition), or give --data-dir",
        )

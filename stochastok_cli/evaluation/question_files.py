"""Rows of questions from a file, from a folder or from the Hub, all as a `datasets.Dataset`."""

import contextlib
import re
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli import hub
from stochastok_cli.data.source_files import count_types, special_type, unread_note, visible_files
from stochastok_cli.errors import FAILED, Notice, UserError, did_you_mean, similar_path
from stochastok_cli.evaluation.file_problems import UnreadableFile, invalid_line, is_empty, lost_data
from stochastok_cli.evaluation.mixed_columns import read_all_columns
from stochastok_cli.literal_paths import LiteralPath, literal_path
from stochastok_cli.paths import expand_home
from stochastok_cli.quiet_libraries import quiet

if TYPE_CHECKING:
    import datasets

_SEPARATED_VALUES = {"keep_default_na": False}  # the text of an option may be "None" or "NA"
READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", _SEPARATED_VALUES),
    ".tsv": ("csv", {**_SEPARATED_VALUES, "sep": "\t"}),
    ".parquet": ("parquet", {}),
}
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""The id of a dataset on the Hub: `owner/name`."""


def read_hub(
    description: str, repo: str, config: str | None, split: str, *, is_typed: bool = False
) -> "datasets.Dataset":
    """A split of a dataset on the Hub, or of its copy in the cache. Raises UserError that names the remedy.

    `is_typed` says that a user has written `repo`, which may be a mistyped path.
    """
    try:
        with quiet("datasets"), hub.no_path(repo) if is_typed else contextlib.nullcontext():
            return hub.load_rows(repo, subset=config, split=split)
    except UserError as error:
        raise UserError(
            f"{description} can't be loaded: {error}",
            fix=f"a local copy can stand in for it: {description.split()[-1]}=PATH",
            exit_code=error.exit_code,
        ) from None


def read_source(description: str, source: str, split: str) -> "datasets.Dataset":
    """The rows of questions of one's own, for `NAME=SOURCE`.

    Args:
        description: What the rows are, for errors.
        source: A file, or a folder or the id of a dataset on the Hub; the latter two perhaps with `:SPLIT`, and the
            Hub's also with `:SUBSET:SPLIT`.
        split: The split of a folder or a dataset where `source` names none.
    """
    path = Path(expand_home(source))
    repo, *parts = source.split(":")
    if not path.exists():
        folder, _, named = source.rpartition(":")
        if folder and Path(expand_home(folder)).is_dir():
            return read_path(description, Path(expand_home(folder)), named)
        if _is_on_hub(source):
            config = parts[0] if len(parts) == 2 else None
            return read_hub(description, repo, config, parts[-1] if parts else split, is_typed=True)
    return read_path(description, path, split, is_default=True)


def absent_source(source: str) -> Path | None:
    """The path of a source as in `read_source`, where there is nothing, and where it can't be on the Hub."""
    path = Path(expand_home(source))
    folder, _, _ = source.rpartition(":")
    is_there = path.exists() or (bool(folder) and Path(expand_home(folder)).is_dir())
    return None if is_there or _is_on_hub(source) else path


def _is_on_hub(source: str) -> bool:
    """Whether a source that is no path is the id of a dataset."""
    repo, *parts = source.split(":")
    is_file = Path(source).suffix.lower() in READERS
    return HUB_ID.fullmatch(repo) is not None and not is_file and len(parts) <= 2


def with_split(description: str, source: str, split: str) -> str:
    """A source as in `read_source`, of another split. Raises UserError for a file, which has none."""
    path = Path(expand_home(source))
    if path.is_dir():
        return f"{source}:{split}"
    repo, *parts = source.split(":")
    folder, _, _ = source.rpartition(":")
    if path.exists() or path.suffix.lower() in READERS:
        raise UserError(f"{description}: the file {path} has no split {split!r}", fix="give a folder of splits")
    if folder and Path(expand_home(folder)).is_dir():
        return f"{folder}:{split}"
    return ":".join([repo, *parts[: len(parts) - 1], split])


def read_path(description: str, path: Path, split: str, *, is_default: bool = False) -> "datasets.Dataset":
    """All rows of a file, or one split of a folder: one that `datasets` saved, or one with files of rows.

    Args:
        description: What is read, for errors.
        path: The file or the folder.
        split: The name of the split. `datasets` calls files that name none `train`.
        is_default: The user named no split: the only one of a folder is used, whatever its name.

    Raises:
        UserError: There is nothing that can be read, or no such split.
    """
    import datasets

    if not path.exists():
        raise UserError(f"{description}: {path} does not exist{similar_path(path)}")
    if not path.is_dir() and (special := special_type(path)):
        raise UserError(f"{description}: {path} is a {special}", fix="give a file that can be read more than once")
    if path.is_file() and path.suffix.lower() not in READERS:
        raise UserError(
            f"{description}: {path} is of an unknown kind", fix=f"give {', '.join(READERS)} or a folder of them"
        )
    with literal_path(path) as literal:
        try:
            with quiet("datasets"):
                loaded = _read(literal, str(path))
        except Exception as error:  # the readers that `datasets` calls raise exceptions of many kinds
            cause = error.__cause__ or error
            reason = (str(cause).splitlines() or ["it has no rows"])[0].replace(str(literal.path), str(path))
            if isinstance(cause, _NoRows):
                raise UserError(f"{description}: {path} has no rows", exit_code=FAILED) from error
            raise UserError(f"{description}: {path} can't be read: {reason}", exit_code=FAILED) from error
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if split in loaded:
        return loaded[split]
    if not is_default or len(loaded) > 1:
        raise UserError(f"{description}: {path} has no split {split!r} (there are: {', '.join(loaded)})")
    [(only, rows)] = loaded.items()
    if any(only in file.name for file in visible_files(path)) or (path / only).is_dir():
        warnings.warn(f"{description}: {path} has only the split {only!r}, which is asked", Notice, stacklevel=2)
    return rows


class _NoRows(ValueError):
    """All files are empty."""


def _require_readable(files: Collection[Path]) -> None:
    """Raises _NoRows for empty files, and UnreadableFile for one that would lose something."""
    if files and all(map(is_empty, files)):
        raise _NoRows
    for file in files:
        if problem := lost_data(file):
            raise UnreadableFile(problem if len(files) == 1 else f"{file.name}: {problem}")


def _read(literal: LiteralPath, name: str) -> "datasets.Dataset | datasets.DatasetDict":
    """The rows of a path, which warnings call by `name`."""
    import datasets

    path = literal.path
    if path.is_file():
        _require_readable([path])
        reader, options = READERS[path.suffix.lower()]
        builder = datasets.load_dataset_builder(reader, data_files=str(path), cache_dir=literal.cache_dir, **options)
        return _rows(builder, [path], literal)["train"]
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return datasets.load_from_disk(str(path), keep_in_memory=literal.is_temporary)
    return _read_folder(literal, name)


def _read_folder(literal: LiteralPath, name: str) -> "datasets.DatasetDict":
    """The splits of a folder, of whose files `datasets` reads those of one format. Says how many are not read."""
    import datasets

    with quiet("huggingface_hub"):  # it logs that a README.md is no card
        arguments = {"path": str(literal.path), "cache_dir": literal.cache_dir}
        builder = datasets.load_dataset_builder(**arguments)
        if hasattr(builder.config, "keep_default_na"):
            builder = datasets.load_dataset_builder(**arguments, **_SEPARATED_VALUES)
    read = {Path(str(file)).resolve() for files in (builder.config.data_files or {}).values() for file in files}
    _require_readable(sorted(file for file in read if file.is_file()))
    unread = count_types(file for file in visible_files(literal.path) if file.resolve() not in read)
    if unread:
        warnings.warn(unread_note(name, unread), Notice, stacklevel=2)
    return _rows(builder, sorted(read), literal)


def _rows(builder: Any, files: Collection[Path], literal: LiteralPath) -> "datasets.DatasetDict":
    """The rows of a `datasets.DatasetBuilder`, also where not all have the same columns.

    Raises UnreadableFile that names the line of `files`, where reading fails because of one.
    """
    declared = builder.info.features
    try:
        builder.download_and_prepare()
    except Exception:
        for file in files:
            if file.is_file() and (problem := invalid_line(file)):
                raise UnreadableFile(problem if len(files) == 1 else f"{file.name}: {problem}") from None
        if declared is not None:
            raise
        return read_all_columns(builder)
    return builder.as_dataset(in_memory=literal.is_temporary)


def require_columns(description: str, dataset: "datasets.Dataset", columns: Sequence[str]) -> None:
    """Raises UserError naming the first column that is missing."""
    for column in columns:
        if column not in dataset.column_names:
            raise UserError(
                f"{description}: there is no column {column!r}{did_you_mean(column, dataset.column_names)}",
                fix=f"there are {', '.join(dataset.column_names)}; needed are {', '.join(columns)}",
            )

"""Folders that are either complete or absent, and the manifest that describes what is in them.

A folder is built under a temporary name beside its final one, checksummed, synced to disk and renamed. A killed
command leaves only a temporary folder, which the next run of the same command removes. A lock lets one process at a
time make a folder.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from stochastok_cli import __version__
from stochastok_cli.errors import FAILED, UserError, short_name, short_repr
from stochastok_cli.json_files import checked, parse_json

if TYPE_CHECKING:
    import filelock

MANIFEST = "manifest.json"
MOST_NAME_BYTES = 240
"""The longest name of a folder: file systems have room for 255 bytes, also for `.NAME.partial` and `NAME-old-12`."""


@dataclass(frozen=True)
class _Record:
    """A JSON object with typed fields. A field that has its default is not written; unknown keys are kept in `extra`.

    The metadata entry `key` of a field is its name in JSON where the two differ.
    """

    extra: dict[str, Any] = field(default_factory=dict, kw_only=True)

    @classmethod
    def from_json(cls, entry: Any, source: object = MANIFEST, where: str = "") -> Self:
        """Reads a JSON object, which is at `where` in the file `source`.

        Raises UserError (exit code 1) naming the field that is missing or has a wrong type.
        """
        entry = checked(entry, dict[str, Any], source, where=where)
        names = {field.metadata.get("key", field.name): field.name for field in _own_fields(cls)}
        known = {names[key]: value for key, value in entry.items() if key in names}
        extra = {key: value for key, value in entry.items() if key not in names}
        return checked({**known, "extra": extra}, cls, source, where=where)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, with its keys in the order of the fields."""
        values = {f.metadata.get("key", f.name): (getattr(self, f.name), f.default) for f in _own_fields(type(self))}
        return {key: value for key, (value, default) in values.items() if value != default} | self.extra


def _own_fields(cls: type[_Record]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.name != "extra"]


@dataclass(frozen=True)
class TokenizerInfo(_Record):
    """The tokenizer that made the ids: its name (as `--tokenizer` takes it), its `Vocabulary.fingerprint`, its size."""

    name: str
    fingerprint: str
    size: int

    def __post_init__(self) -> None:
        _require_counts(size=self.size)


def same_tokenizer(recorded: object, fingerprint: object) -> bool:
    """Whether two fingerprints of a vocabulary are those of one tokenizer.

    A fingerprint has the hash of the entries and, after a `-`, one of how text is cut into them. Manifests of earlier
    versions record the first alone: it matches every way of cutting.

    >>> same_tokenizer("e145", "e145-07f3"), same_tokenizer("e145-93aa", "e145-07f3"), same_tokenizer("cd99", "e145")
    (True, False, False)
    """
    if not isinstance(recorded, str) or not isinstance(fingerprint, str):
        return recorded == fingerprint
    return all(a == b for a, b in zip(recorded.split("-"), fingerprint.split("-"), strict=False))


@dataclass(frozen=True)
class SplitInfo(_Record):
    """The size of a split. Text datasets have no count of tokens."""

    documents: int
    tokens: int | None = None

    def __post_init__(self) -> None:
        _require_counts(documents=self.documents, tokens=self.tokens)


@dataclass(frozen=True)
class FileInfo(_Record):
    """The size of a file in bytes and its SHA-256 (absent from the first version of checkpoints)."""

    bytes: int
    sha256: str | None = None

    def __post_init__(self) -> None:
        _require_counts(bytes=self.bytes)


def _require_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None and not 0 <= count < 2**63:
            raise ValueError(f"{name} can't be {short_repr(count)}")


@dataclass(frozen=True)
class SourceInfo(_Record):
    """What a folder was made from.

    Args:
        name: the path, the dataset on the Hub or the folder that it was made from.
        fingerprint: a hash of the content; the commit of a dataset on the Hub.
        license: an identifier of the Hub (`cc0-1.0`), None where the source states none, and "" where nobody looked.
        listing: a hash of the name, size and modification time of each file; None where no files were read.
        unread: how many files of each type in a folder were not read.
    """

    name: str
    fingerprint: str | None = None
    license: str | None = field(default="", metadata={"key": "licence"})
    listing: str | None = None
    unread: dict[str, int] | None = None


@dataclass(frozen=True)
class LeftOutPlaces(_Record):
    """Where the documents were that are left out: how many there are, and the first of them, each with its reason."""

    total: int
    first: list[dict[str, Any]]


@dataclass(frozen=True)
class CommandInfo(_Record):
    """The program and the command line that made a folder."""

    version: str
    command: str


@dataclass(frozen=True)
class HubSource(_Record):
    """The repository that a folder was pulled from: the revision that was requested and the commit that it was."""

    repo: str
    requested: str | None = field(metadata={"key": "asked"})
    revision: str


@dataclass(frozen=True)
class Manifest:
    """The content of a folder's `manifest.json`.

    The function that makes a folder describes its content; `create_artifact` adds `options`, `made_by` and `files`.

    Args:
        kind: "tokenized", "expanded", "exported", "addition", "dataset" (texts), or the name of a recipe.
        recipe: the name of the recipe whose texts these are, where the folder has another name.
        tokenizer: the tokenizer of the ids; None for folders of texts.
        dtype: the type of the ids on disk ("uint16", "uint32"; exports also "int32"); None for folders of texts.
        end_of_text: the id that ends a document; None for folders of texts.
        splits: the size of each split.
        made_from: the source; None where there is none (a generated dataset without a word list).
        unknown_tokens: how many ids replace text that the tokenizer can't represent.
        truncated: how many examples were longer than `--max-length` and lost their ends.
        left_out: how many documents or rows of the source are not in the folder, by the reason.
        left_out_places: where they are.
        pulled_from: the repository on the Hub, for a folder that was pulled as it is there.
        options: everything that decides the content.
        made_by: the command; None for a manifest that describes a folder made by other code.
        files: size and checksum of each file, by path relative to the folder.
        extra: entries that this version does not define, such as those of a later version.
    """

    kind: str | None = None
    recipe: str | None = None
    tokenizer: TokenizerInfo | None = None
    dtype: str | None = None
    end_of_text: int | None = None
    splits: dict[str, SplitInfo] = field(default_factory=dict)
    made_from: SourceInfo | None = None
    unknown_tokens: int | None = None
    truncated: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    left_out_places: LeftOutPlaces | None = None
    pulled_from: HubSource | None = None
    options: dict[str, Any] = field(default_factory=dict)
    made_by: CommandInfo | None = None
    files: dict[str, FileInfo] = field(default_factory=dict)
    format: int = 1
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in (None, "uint16", "int32", "uint32"):
            raise ValueError(f"dtype can't be {short_repr(self.dtype)}")
        _require_counts(end_of_text=self.end_of_text, unknown_tokens=self.unknown_tokens, truncated=self.truncated)

    @classmethod
    def from_json(cls, tree: Any, source: object = MANIFEST) -> Self:
        """Reads the JSON object of the file `source`; missing entries have their defaults.

        Raises UserError (exit code 1) naming the entry that has another type than it must have.
        """
        tree = checked(tree, dict[str, Any], source)
        known = {field.name for field in dataclasses.fields(cls)} - {"extra"}
        values = {key: value for key, value in tree.items() if key in known and value is not None}
        for key, record in _RECORDS.items():
            if key in values:
                values[key] = record.from_json(values[key], source, key)
        for key, record in _TABLES.items():
            if key in values:
                entries = checked(values[key], dict[str, Any], source, where=key)
                places = {name: f"{key}.{short_name(name)}" for name in entries}
                values[key] = {name: record.from_json(entries[name], source, places[name]) for name in entries}
        extra = {key: value for key, value in tree.items() if key not in known}
        return checked({**values, "extra": extra}, cls, source)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, with its keys in the order in which they are written."""
        tree: dict[str, Any] = {
            "format": self.format,
            "kind": self.kind,
            "recipe": self.recipe,
            "tokenizer": self.tokenizer and self.tokenizer.to_json(),
            "dtype": self.dtype,
            "end_of_text": self.end_of_text,
            "splits": {name: split.to_json() for name, split in self.splits.items()},
        }
        tree = {key: value for key, value in tree.items() if value is not None}
        tree["made_from"] = self.made_from and self.made_from.to_json()
        if self.unknown_tokens:
            tree["unknown_tokens"] = self.unknown_tokens
        if self.truncated:
            tree["truncated"] = self.truncated
        if self.left_out:
            tree["left_out"] = self.left_out
        if self.left_out_places:
            tree["left_out_places"] = self.left_out_places.to_json()
        tree |= self.extra
        if self.pulled_from:
            tree["pulled_from"] = self.pulled_from.to_json()
        if self.options or self.made_by:
            tree["options"] = self.options
        if self.made_by:
            tree["made_by"] = self.made_by.to_json()
        if self.files or self.made_by:
            tree["files"] = {name: file.to_json() for name, file in self.files.items()}
        return tree

    @property
    def license(self) -> str | None:
        """The license of the text that the folder was made from, where it is known."""
        return (self.made_from.license or None) if self.made_from else None

    @property
    def fingerprint(self) -> str:
        """Identifies the content of the folder: a hash of the checksums of its files, not of how it was made."""
        sums = sorted((name, file.sha256) for name, file in self.files.items())
        return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:32]


_RECORDS: dict[str, type[_Record]] = {
    "tokenizer": TokenizerInfo,
    "made_from": SourceInfo,
    "pulled_from": HubSource,
    "made_by": CommandInfo,
    "left_out_places": LeftOutPlaces,
}
_TABLES: dict[str, type[_Record]] = {"splits": SplitInfo, "files": FileInfo}


class Artifact(NamedTuple):
    """A finished folder and its manifest; `created` is False if it was there already, made with the same options."""

    path: Path
    manifest: Manifest
    created: bool


def create_artifact(
    final: Path,
    options: dict[str, Any],
    build: Callable[[Path], Manifest],
    *,
    force: bool = False,
    kept: Path | None = None,
) -> Artifact:
    """Makes the folder `final` by calling `build(temporary folder)`, unless it is there already.

    A folder made with the same options, all its files in full length, is left alone; one made with other options is
    an error unless `force`.

    Args:
        final: the folder, or a link to it.
        options: everything that decides the content; it goes into the manifest.
        build: writes the files into the folder that it is given, and returns the manifest's entries on their content.
        force: make the folder again even if it is there.
        kept: a folder beside the final one in which `build` keeps the progress of interrupted runs. It is removed when
            the final folder is complete.

    Raises:
        UserError: the folder is there, made with other options (exit code 2); the disk is full, or another process
            makes the same folder (exit code 1).
    """
    _without_link(final)
    options = json.loads(json.dumps(options))
    existing = None if force else read_manifest(final)
    if final.exists() and not force:
        _require_same_options(final, existing, options)
        if existing and not find_damage(final, existing.files):
            remove_leftovers(final, kept)
            return Artifact(final, existing, created=False)
    final.parent.mkdir(parents=True, exist_ok=True)
    import filelock

    lock = _lock(final)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(f"another process is making {final}", fix="wait for it to end", exit_code=FAILED) from None
    temporary = _temporary(final)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        manifest = build(temporary)
        files = {name: file_checksum(temporary / name) for name in _files_below(temporary)}
        made_by = CommandInfo(__version__, command_line())
        manifest = dataclasses.replace(manifest, options=options, made_by=made_by, files=files)
        write_json(temporary / MANIFEST, manifest.to_json())
        _sync(temporary)
        _replace(temporary, final)
        if kept is not None:
            shutil.rmtree(kept, ignore_errors=True)
        return Artifact(final, manifest, created=True)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise UserError(f"{final} can't be written: {error.strerror}", exit_code=FAILED) from None
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space is left on the disk for {final}", fix="free some and run it again", exit_code=FAILED
            ) from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.release()


def remove_leftovers(final: Path, kept: Path | None = None) -> None:
    """Removes what a killed command has left beside a complete folder, unless another process is making it again.

    `kept` is as in `create_artifact`. A folder that this process can't write to is left as it is.
    """
    leftovers = [path for path in (_temporary(final), _replaced(final), kept) if path is not None and path.exists()]
    if leftovers:
        import filelock

        with contextlib.suppress(filelock.Timeout, OSError), _lock(final).acquire(timeout=0):
            for path in leftovers:
                shutil.rmtree(path, ignore_errors=True)


def find_damage(folder: Path, files: Mapping[str, FileInfo]) -> str | None:
    """Describes the first of `files` that is missing from the folder or of another size; None if all are there."""
    for name, file in files.items():
        path = path_inside(folder, name)
        size = os.path.getsize(path) if os.path.isfile(path) else -1
        if size != file.bytes:
            state = "is missing" if size < 0 else f"has {size:,} bytes, not {file.bytes:,}"
            return f"{path} {state}"
    return None


def path_inside(folder: Path, name: str) -> Path:
    """The path of a file below a folder, for a name that comes from outside: a manifest, a listing, an index.

    Raises:
        UserError: the name is absolute or has an empty part, `.` or `..`, or a link leads its folder elsewhere.
    """
    leads_out = "/" in name and not (folder / name).parent.resolve().is_relative_to(folder.resolve())
    if leads_out or not _can_be_a_file(name):
        raise UserError(f"the file name {short_repr(name)} is not possible or leads out of {folder}", exit_code=FAILED)
    return folder / name


def _can_be_a_file(name: str) -> bool:
    """Whether a name is relative, has no part that leads elsewhere, and can be shown and written to a disk."""
    try:
        parts = [os.fsencode(part) for part in name.split("/")]
    except UnicodeEncodeError:
        return False
    printable = not any(character < " " or character in "\x7f\\" for character in name)
    return printable and len(name) < 2000 and all(part not in (b"", b".", b"..") and len(part) < 256 for part in parts)


def nearest_existing_path(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    return next(candidate for candidate in (path, *path.absolute().parents) if candidate.exists())


def validate_folder_name(name: str) -> str:
    """Returns the name of a folder to make.

    Raises UserError for a name that is a path or hidden, and for one that can't be shown or written in every file:
    control characters, line ends, bytes that are not UTF-8. Nor may it be too long for a file system, with what is
    added to it for hidden files and folders beside the folder.
    """
    if not name or "/" in name or "\\" in name or name.startswith(".") or not name.isprintable():
        raise UserError(
            f"{name[:200]!r} can't be the name of a folder",
            fix="give one of printable characters, without slashes or a leading dot",
        )
    if (length := len(name.encode())) > MOST_NAME_BYTES:
        raise UserError(
            f"{name[:50]!r}… can't be the name of a folder: it has {length:,} bytes",
            fix=f"give one of at most {MOST_NAME_BYTES}",
        )
    return name


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None where it has none. Raises UserError (exit code 1) if it is damaged."""
    file = folder / MANIFEST
    try:
        return Manifest.from_json(parse_json(file.read_bytes(), file), file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UserError as error:
        raise UserError(str(error), fix="make the folder again with --force", exit_code=FAILED) from None


def file_checksum(file: Path) -> FileInfo:
    """The size and the SHA-256 of a file."""
    with open(file, "rb") as stream:
        return FileInfo(file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())


def json_bytes(content: Any) -> bytes:
    """Indented JSON in UTF-8 with a newline at the end. Bytes of paths that are not UTF-8 are escaped (`\\udcff`)."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def write_json(file: Path, content: Any) -> None:
    """Writes a file of `json_bytes`."""
    file.write_bytes(json_bytes(content))


def write_atomically(file: Path, content: bytes) -> None:
    """Writes one small file so that after a crash it has either its old content or the new one."""
    temporary = file.with_name(f".{file.name}.partial")
    with open(temporary, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, file)
    _sync_directory(file.parent)


def require_creatable(final: Path) -> None:
    """Makes a folder beside `final`, and removes it again, before work whose result `create_artifact` writes there.

    Raises:
        UserError: a file is in the way, a link leads nowhere, or the folder can't be made (exit code 1).
    """
    final = _without_link(final).absolute()
    existing = nearest_existing_path(final)
    if not existing.is_dir():
        raise UserError(f"{final} can't be made: {existing} is a file", fix="name another folder")
    made: list[Path] = []
    try:
        missing = [folder for folder in final.parents if not folder.exists()]
        for folder in (*reversed(missing), _beside(final, "probing")):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                made.append(folder)
    except OSError as error:
        raise UserError(
            f"{final} can't be made: {error.strerror}", fix="name another folder", exit_code=FAILED
        ) from None
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def rename_into_place(temporary: Path, final: Path) -> None:
    """Syncs a temporary folder and gives it its final name, replacing a folder of that name."""
    _sync(temporary)
    _replace(temporary, final)


def _require_same_options(final: Path, manifest: Manifest | None, options: dict[str, Any]) -> None:
    if manifest is None:
        raise UserError(
            f"{final} exists and has no manifest, so what it was made with is unknown",
            fix="give another name, remove it, or make it again with --force",
        )
    before = manifest.options
    differing = [key for key in sorted({*before, *options}) if before.get(key) != options.get(key)]
    if "tokenizer" in differing and same_tokenizer(before.get("tokenizer"), options.get("tokenizer")):
        differing.remove("tokenizer")
    if differing:
        listed = ", ".join(
            f"{short_name(key)} (there {short_repr(before.get(key))}, now {short_repr(options.get(key))})"
            for key in differing[:20]
        )
        raise UserError(f"{final} exists, made with other options: {listed}", fix="--force makes it again")


def _beside(final: Path, role: str) -> Path:
    """A hidden path beside a folder, or beside the folder that a link leads to."""
    folder = _without_link(final)
    return folder.parent / f".{folder.name}.{role}"


def _without_link(final: Path) -> Path:
    """The folder that a link leads to, or the path itself if it is none.

    Raises UserError if nothing is there that it leads to.
    """
    if not final.is_symlink():
        return final
    if not final.exists():
        raise UserError(
            f"{final} is a link to {os.readlink(final)}, which is not there", fix="make it, or the link anew"
        )
    return final.resolve()


def _lock(final: Path) -> "filelock.BaseFileLock":
    import filelock

    return filelock.FileLock(_beside(final, "lock"))


def _temporary(final: Path) -> Path:
    """Where a folder is made."""
    return _beside(final, "partial")


def tasks_folder(final: Path) -> Path:
    """Where the tasks of a pipeline that makes a folder keep their progress."""
    return _beside(final, "tasks")


def _replaced(final: Path) -> Path:
    """Where an older folder is for the moment in which another takes its place."""
    return _beside(final, "old")


def _replace(temporary: Path, final: Path) -> None:
    """Renames a folder; a link of the final name stays, and the folder that it leads to is replaced."""
    old, final = _replaced(final), _without_link(final)
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.rename(final, old)
    os.rename(temporary, final)
    _sync_directory(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def _sync(folder: Path) -> None:
    for name in _files_below(folder):
        descriptor = os.open(folder / name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    for directory in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        _sync_directory(directory)


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def command_line() -> str:
    """The command line of this process, as it is typed in a shell."""
    import shlex

    program = Path(sys.argv[0]).name
    typed = ["python", "-m", "stochastok_cli"] if program == "__main__.py" else ["python"]
    return shlex.join([*(["stochastok"] if program.startswith("stochastok") else typed), *sys.argv[1:]])

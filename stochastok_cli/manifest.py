"""The manifest of a folder: what is in it, what it was made from, and how, as a typed JSON file."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from stochastok_cli.errors import FAILED, UserError, short_name, short_repr
from stochastok_cli.json_files import checked, parse_json

MANIFEST = "manifest.json"
FORMAT = 1
"""The format of manifests that this version writes, and the highest one that it reads."""


class NewerFormatError(UserError):
    """A manifest was written by a later version, in a format that this one does not know."""

    def __init__(self, source: object, format: int):
        super().__init__(
            f"{source} has the format {short_repr(format)}, and this version reads formats up to {FORMAT}",
            fix="upgrade stochastok",
            exit_code=FAILED,
        )


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
        val_in_train: how many validation questions are also in training, with the same answer; None if not counted.
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
    val_in_train: int | None = None
    truncated: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    left_out_places: LeftOutPlaces | None = None
    pulled_from: HubSource | None = None
    options: dict[str, Any] = field(default_factory=dict)
    made_by: CommandInfo | None = None
    files: dict[str, FileInfo] = field(default_factory=dict)
    format: int = FORMAT
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in (None, "uint16", "int32", "uint32"):
            raise ValueError(f"dtype can't be {short_repr(self.dtype)}")
        _require_counts(
            end_of_text=self.end_of_text,
            unknown_tokens=self.unknown_tokens,
            val_in_train=self.val_in_train,
            truncated=self.truncated,
        )

    @classmethod
    def from_json(cls, tree: Any, source: object = MANIFEST) -> Self:
        """Reads the JSON object of the file `source`; missing entries have their defaults.

        Raises UserError (exit code 1) naming the entry that has another type than it must have; a `NewerFormatError` if
        the entries may mean something else than in this version.
        """
        tree = checked(tree, dict[str, Any], source)
        if type(tree.get("format")) is int and tree["format"] > FORMAT:
            raise NewerFormatError(source, tree["format"])
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

    @property
    def expansion(self) -> tuple[str | None, float | None]:
        """The method by which the ids were expanded, None for canonical ones, and its p, None for a fixed rule."""
        method, p = self.options.get("method"), self.options.get("p")
        return (method, p if isinstance(p, int | float) else None) if isinstance(method, str) else (None, None)

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
        if self.val_in_train is not None:
            tree["val_in_train"] = self.val_in_train
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


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None where it has none.

    Raises UserError (exit code 1) if it is damaged or of a later version.
    """
    file = folder / MANIFEST
    try:
        return Manifest.from_json(parse_json(file.read_bytes(), file), file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except NewerFormatError:
        raise
    except UserError as error:
        raise UserError(str(error), fix="make the folder again with --force", exit_code=FAILED) from None


def file_checksum(file: Path) -> FileInfo:
    """The size and the SHA-256 of a file."""
    with open(file, "rb") as stream:
        return FileInfo(file.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest())

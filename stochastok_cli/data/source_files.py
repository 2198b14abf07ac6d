"""The files of a source of text: which of a folder are read, and how many of each type are not."""

import codecs
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from stochastok_cli.data.arrow_datasets import SAVED_METADATA, saved_files
from stochastok_cli.data.compressed_files import COMPRESSIONS, DAMAGE, decompressed
from stochastok_cli.data.formats import holds_ids
from stochastok_cli.errors import UserError, count_of, short_name
from stochastok_cli.manifest import file_checksum

DOCUMENTS = ("paragraph", "file")
"""What a document of a text file is: a paragraph (blank lines separate them), or the file as a whole."""

READ_TWICE = "give a file that can be read more than once, or a folder"
"""What to do about a source that is a pipe."""

TEXT_SUFFIXES = (".txt", ".text", ".md")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
CSV_SUFFIXES = (".csv", ".tsv")
ARROW_SUFFIXES = (".arrow", ".feather")
TABLES = (*JSON_SUFFIXES, *CSV_SUFFIXES, ".parquet", *ARROW_SUFFIXES)
"""The formats of files that have rows and columns."""
WARC_SUFFIXES = (".wet", ".warc")
SUFFIXES = (*TEXT_SUFFIXES, *TABLES, *WARC_SUFFIXES)
# Not README.md and dataset_infos.json, nor .warc, which seldom holds text.
IN_FOLDERS = (".txt", *(suffix for suffix in TABLES if suffix != ".json"), ".wet")

_HEAD = 2**16  # bytes of a file of an unknown type that tell whether it holds text
_WHOLE_FILES = "--documents file reads text files of any type, each as one document"


class SourceFiles(NamedTuple):
    """The files of a source in the order in which they are read.

    Args:
        path: the source, a file or a folder.
        files: the files that are read.
        unread: how many files of each type in the folder are not read, the most frequent type first.
        note: a line for people on the files that are not read; empty if all are.
    """

    path: Path
    files: list[Path]
    unread: dict[str, int]
    note: str

    def listing(self) -> str:
        """A hash of the relative name, the size and the modification time of each file."""
        states = [file.stat() for file in self.files]
        return _hash(json.dumps([*zip(self._names(), [[s.st_size, s.st_mtime_ns] for s in states], strict=True)]))

    def fingerprint(self) -> str:
        """A hash of the content of the files, and of their names in a folder, where names decide order and format."""
        sums = [str(file_checksum(file).sha256) for file in self.files]
        return _hash(sums[0] if self.files == [self.path] else json.dumps([*zip(self._names(), sums, strict=True)]))

    def _names(self) -> list[str]:
        return [os.path.relpath(file, self.path) for file in self.files]


def find_files(path: Path, documents: str = "paragraph", errors: str = "strict") -> SourceFiles:
    """Lists the files of a source. Hidden files and folders in a folder are ignored.

    Args:
        path: an existing file or folder.
        documents: one of DOCUMENTS. With "file", files of unknown types are read too if they hold text.
        errors: what to do with bytes that are not UTF-8: "strict" or "replace".

    Raises:
        UserError: there is nothing to read, or the file is of an unknown type.
    """
    if not path.is_dir():
        if special := special_type(path):
            raise UserError(f"{path} is a {special}", fix=READ_TWICE)
        if not _is_read(path, SUFFIXES, documents, errors):
            known = f"{', '.join(SUFFIXES)}, or one compressed as {', '.join(COMPRESSIONS)}"
            if documents == "file":
                raise UserError(f"{path} holds no UTF-8 text", fix=f"give {known}")
            if path.suffix in (".idx", ".ds"):
                raise UserError(f"{path} holds ids, no text", fix="give it to stochastok expand")
            raise UserError(f"{path}: files of this type are not known", fix=f"give {known}; {_WHOLE_FILES}")
        return SourceFiles(path, [path], {}, "")
    files: list[Path] = []
    broken: list[Path] = []
    unread: Counter[str] = Counter()
    for file, is_part in _walk(path):
        special = special_type(file)
        if special is None and is_part and _is_read(file, IN_FOLDERS, documents, errors):
            files.append(file)
        else:
            unread[special or file_type(file)] += 1
            broken += [file] if special == _BROKEN_LINK else []
    hint = "" if documents == "file" or unread.keys() <= {_BROKEN_LINK} else f"; {_WHOLE_FILES}"
    empty = [file for file in files if not file.stat().st_size]
    note = unread_note(str(path), unread, hint, _named(path, broken), _named(path, empty))
    if not files and holds_ids(path):
        raise UserError(f"{path} holds ids, no text", fix="give it to stochastok expand")
    if not files and (path / SAVED_METADATA[0]).is_file():
        raise UserError(f"the saved dataset {path} has no rows")
    if not files:
        raise UserError(f"the folder {path} holds no {', '.join(IN_FOLDERS)} file{note and f' ({note})'}")
    return SourceFiles(path, sorted(files), _by_frequency(unread), note)


_BROKEN_LINK = "broken link"
_PLURALS = {  # of what `special_type` says
    _BROKEN_LINK: "broken links",
    "link to a folder": "links to folders",
    "pipe": "pipes",
    "socket": "sockets",
    "device": "devices",
}


def special_type(file: Path) -> str | None:
    """What a path is, if it is no regular file that can be read."""
    if not file.exists():
        return _BROKEN_LINK
    mode = file.stat().st_mode
    for is_type, name in (
        (stat.S_ISDIR, "link to a folder"),
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISCHR, "device"),
        (stat.S_ISBLK, "device"),
    ):
        if is_type(mode):
            return name
    return None


_ZEROS: dict[tuple[bool, ...], str] = {  # of the first four bytes: two ASCII characters of UTF-16, or one of UTF-32
    (False, True, False, True): "UTF-16LE",
    (True, False, True, False): "UTF-16BE",
    (False, True, True, True): "UTF-32LE",
    (True, True, True, False): "UTF-32BE",
}


def encoding_of(head: bytes) -> str:
    """The encoding other than UTF-8 in which a file is, by its first bytes; "" for none that is recognized.

    That is UTF-16 or UTF-32 with a byte order mark, or without one where the zeros between ASCII characters show it.

    >>> encoding_of("\ufeffab".encode("utf-16-be")), encoding_of("abc".encode("utf-16-le")), encoding_of(b"abc")
    ('UTF-16', 'UTF-16LE', '')
    """
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # the first begins as UTF-16 does
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    are_zeros = tuple(byte == 0 for byte in head[:4])
    return _ZEROS.get(are_zeros, "")


def converted_by(encoding: str) -> str:
    """The command that converts text, for people.

    >>> converted_by("UTF-16")
    'iconv -f UTF-16 -t UTF-8'
    """
    return f"iconv -f {encoding} -t UTF-8"


def file_format(file: Path) -> str:
    """The lower-case suffix of a file, without that of its compression; empty where it has none."""
    return Path(file.stem).suffix.lower() if file.suffix.lower() in COMPRESSIONS else file.suffix.lower()


def has_columns(file: Path, documents: str) -> bool:
    """Whether a file is read as rows. Separated values are text where a document is a whole file."""
    kind = file_format(file)
    return kind in TABLES and not (documents == "file" and kind in CSV_SUFFIXES)


def dataset_name(path: Path) -> str:
    """The name of a dataset made from a file or folder: its own name, or that of the link, without known suffixes."""
    name = os.path.basename(os.path.abspath(path))
    for suffix in path.suffixes[::-1]:
        if suffix.lower() not in SUFFIXES and suffix.lower() not in COMPRESSIONS:
            break
        name = name.removesuffix(suffix)
    return name


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """The files below a folder and the links to folders, which are not followed; hidden ones are left out.

    Each comes with whether it may be read: beside the files of a saved dataset, `datasets` keeps others with its rows.
    """

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        visible = [name for name in (*files, *links) if not name.startswith(".")]
        parts = saved_files(Path(root)) if {"state.json", "dataset_info.json"} <= {*files} else None
        if "dataset_dict.json" in files:
            raise UserError(f"{root} is a saved dataset with splits", fix="name it itself, and a split with --split")
        for name in visible if parts is None else [name for name in visible if name not in SAVED_METADATA]:
            yield Path(root, name), parts is None or name in parts


def _is_read(file: Path, suffixes: tuple[str, ...], documents: str, errors: str) -> bool:
    kind = file_format(file)
    if kind in suffixes:
        return True
    if documents != "file" or kind in JSON_SUFFIXES:
        return False
    return kind in TEXT_SUFFIXES or _holds_text(file, errors)


def _holds_text(file: Path, errors: str) -> bool:
    """Whether a file begins with UTF-8 text. True for a damaged one, so that reading it says what is wrong."""
    try:
        with open(file, "rb") as raw:
            head = decompressed(raw, file).read(_HEAD)
        return "\0" not in codecs.getincrementaldecoder("utf-8")(errors).decode(head, final=len(head) < _HEAD)
    except UnicodeDecodeError:
        return False
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return True


def visible_files(folder: Path) -> Iterator[Path]:
    """The files below a folder that are not hidden, but for a card (README.md) at its top."""
    return (file for file, _ in _walk(folder) if file != folder / "README.md")


def count_types(files: Iterable[PurePath]) -> dict[str, int]:
    """How many of some files there are of each type, the most frequent first. Broken links on this disk are a type."""

    def kind(file: PurePath) -> str:
        return _BROKEN_LINK if isinstance(file, Path) and not file.exists() else short_name(file_type(file))

    return _by_frequency(Counter(map(kind, files)))


def unread_note(where: str, unread: Mapping[str, int], hint: str = "", broken: str = "", empty: str = "") -> str:
    """A line for people on files that are not read, by their types, and on those without content.

    What may be data that were lost comes first, by name: the target of a broken link may be on a disk that is not
    mounted, or not be fetched yet.

    Args:
        where: the folder or repository.
        unread: how many files of each type are not read.
        hint: what to do about them.
        broken: the names of the broken links among them.
        empty: the names of files that are read and are empty.

    Returns:
        The line; empty if there is nothing to say.
    """
    lines = [f"not read in {where}: {_counts(unread, broken)}"] if unread else []
    lines += [f"{'' if unread else f'in {where}, '}empty: {empty}"] if empty else []
    return "; ".join(lines) + (hint if unread else "")


def _named(folder: Path, files: Sequence[Path], shown: int = 3) -> str:
    """The names of the first files of a folder: `a.txt, b/c.txt and 7 more`; "" for none."""
    names = ", ".join(short_name(os.path.relpath(file, folder)) for file in sorted(files)[:shown])
    return names + (f" and {len(files) - shown:,} more" if len(files) > shown else "")


def file_type(file: PurePath) -> str:
    """The type of a file for a count: its suffix, with the one before if that is of a known format."""
    known = [suffix for suffix in file.suffixes[-2:-1] if suffix.lower() in SUFFIXES]
    return "".join([*known, file.suffix]) or "without a suffix"


def _by_frequency(unread: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(unread.items(), key=lambda item: (-item[1], item[0])))


def _counts(unread: Mapping[str, int], broken: str, shown: int = 6) -> str:
    """`4 files: 1 broken link (lost.txt), 2 .py, 1 .md`"""
    kinds = sorted(_by_frequency(unread).items(), key=lambda item: item[0] != _BROKEN_LINK)
    parts = [_count_of_type(count, name) for name, count in kinds[:shown]]
    if _BROKEN_LINK in unread and broken:
        parts[0] += f" ({broken})"
    if rest := sum(count for _, count in kinds[shown:]):
        parts.append(f"{rest:,} of other types")
    total = sum(unread.values())
    return f"{count_of(total, 'file')}: {', '.join(parts)}"


def _count_of_type(count: int, name: str) -> str:
    return count_of(count, name, _PLURALS[name]) if name in _PLURALS else f"{count:,} {name}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]

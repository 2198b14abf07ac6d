"""How documents are read from a source: in batches, the first ones, with or without those that can't be read."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from stochastok_cli.argument_checks import one_of
from stochastok_cli.data.bad_documents import ON_BAD_DOCUMENT, BadDocument, LeftOut
from stochastok_cli.data.table_rows import Row
from stochastok_cli.data.text_files import OnBad
from stochastok_cli.manifest import SourceInfo

_BATCH_CHARACTERS = 4_000_000

T = TypeVar("T")


class TextSource(NamedTuple, Generic[T]):
    """Documents to tokenize: strings, or rows with several values.

    Args:
        name: the name of the dataset.
        batches: starts the iteration over `(documents, done)`, where `done` counts towards `total`.
        left_out: the documents that the iteration has left out so far because they can't be read.
        total: bytes of the files, or rows of a dataset on the Hub; 0 where it is unknown.
        options: what decides the documents, for the manifest.
        made_from: computes the manifest's entry on the source, with a fingerprint of the content.
        listing: computes a hash that differs when a file was changed or renamed; None for datasets on the Hub, whose
            options name the commit.
        files: the local files in the order in which they are read; None for datasets on the Hub.
        read_file: the batches of one of the files, each with the number of its bytes read so far; it takes what is
            called with documents that can't be read.
        has_paragraphs: whether blank lines separate documents of the source.
    """

    name: str
    batches: Callable[[], Iterator[tuple[list[T], int]]]
    left_out: LeftOut
    total: int
    options: dict[str, Any]
    made_from: Callable[[], SourceInfo]
    listing: Callable[[], str | None] = lambda: None
    files: list[Path] | None = None
    read_file: Callable[[Path, OnBad], Iterator[tuple[list[T], int]]] | None = None
    has_paragraphs: bool = False


class Reading(NamedTuple):
    """How documents are read."""

    errors: str
    on_bad_document: str
    limit: int | None

    def check(self) -> None:
        """Raises UserError for a value that is not possible."""
        one_of("--errors", self.errors, ("strict", "replace"))
        one_of("--on-bad-document", self.on_bad_document, ON_BAD_DOCUMENT)

    def options(self) -> dict[str, Any]:
        """What decides the documents besides `errors`; nothing for the defaults, which older folders were made with."""
        skip = {"on_bad_document": self.on_bad_document} if self.on_bad_document != ON_BAD_DOCUMENT[0] else {}
        return skip | ({"limit": self.limit} if self.limit is not None else {})

    def source(
        self,
        name: str,
        stream: Callable[[OnBad], Iterator[tuple[T, int]]],
        total: int,
        options: dict[str, Any],
        made_from: Callable[[], SourceInfo],
        listing: Callable[[], str | None] = lambda: None,
    ) -> TextSource[T]:
        """A source of the first documents of a stream.

        Args:
            name: the name of the dataset.
            stream: starts the iteration over documents, each with the bytes or rows read so far. It calls a function
                with documents that can't be read.
            total: as in `TextSource`, like the others.
            options: without those of this object.
            made_from: computes the manifest's entry on the source.
            listing: computes a hash of the state of the files.
        """
        left_out = LeftOut(self.on_bad_document)

        def batches() -> Iterator[tuple[list[T], int]]:
            left_out.clear()
            return batched(itertools.islice(stream(left_out.bad), self.limit))

        return TextSource(name, batches, left_out, total, options | self.options(), made_from, listing)


def parsed(rows: Iterator[tuple[Row, int]], parse: Callable[[Row], Any], on_bad: OnBad) -> Iterator[tuple[Row, int]]:
    """Rows with what `parse` makes of them in the place of their values."""
    for row, position in rows:
        try:
            result = row._replace(values=parse(row))
        except BadDocument as error:
            on_bad(error)
            continue
        yield result, position


def batched(documents: Iterator[tuple[T, int]]) -> Iterator[tuple[list[T], int]]:
    """Batches of about equally many characters."""
    batch: list[T] = []
    size, position = 0, 0
    for document, position in documents:
        batch.append(document)
        size += _size(document) + 100
        if size >= _BATCH_CHARACTERS:
            yield batch, position
            batch, size = [], 0
    if batch:
        yield batch, position


def _size(value: Any) -> int:
    """The number of characters of all texts in a value; a mark or a number counts as one."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 1

"""Documents and rows that can't be read: an error, or left out and counted (`--on-bad-document`)."""

from collections import Counter
from typing import Any, NamedTuple

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.manifest import LeftOutPlaces

ON_BAD_DOCUMENT = ("error", "skip")

_MOST_REASONS = 20  # the messages of a chat template may differ in each row
_MOST_PLACES = 100


class Location(NamedTuple):
    """Where a document or row is: the name of its file, and its number from 1 on.

    >>> str(Location("a.jsonl", 3, "line")), str(Location("OWNER/NAME", 3, part=" of train"))
    ('a.jsonl, line 3', 'OWNER/NAME, row 3 of train')
    """

    file: str
    number: int
    unit: str = "row"
    part: str = ""

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}{self.part}"


class BadDocument(UserError):
    """A document or row that can't be read.

    Args:
        place: where it is.
        what: what is wrong with it.
        reason: the same as a noun that follows "with", equal for equal faults, which are counted together.
        fix: what to do about it besides leaving it out.
        exit_code: `FAILED` or `USAGE`.
    """

    def __init__(self, place: Location, what: str, reason: str, *, fix: str = "", exit_code: int = FAILED):
        skip = "--on-bad-document skip leaves such documents out"
        super().__init__(f"{place}: {what}", fix=f"{fix}; {skip}" if fix else skip, exit_code=exit_code)
        self.place, self.reason = place, reason


class LeftOut:
    """Counts documents and rows that are left out by the reason, and keeps the first places.

    Args:
        on_bad_document: "skip" to leave out those that can't be read; "error" to raise the error.
    """

    def __init__(self, on_bad_document: str = "error"):
        self._skip = on_bad_document == "skip"
        self.clear()

    def clear(self) -> None:
        """Begins anew."""
        self.reasons: Counter[str] = Counter()
        self.places: list[dict[str, Any]] = []
        self._first: dict[str, Location] = {}

    def bad(self, error: BadDocument) -> None:
        """Leaves out a document that can't be read, or raises the error."""
        if not self._skip:
            raise error
        self.add(error.place, error.reason)

    def add(self, place: Location, reason: str) -> None:
        """Counts one."""
        if reason not in self.reasons and len(self.reasons) >= _MOST_REASONS:
            reason = "other reasons"
        self.reasons[reason] += 1
        self._first.setdefault(reason, place)
        if len(self.places) < _MOST_PLACES:
            self.places.append({"file": place.file, place.unit: place.number, "reason": reason})

    def __add__(self, other: "LeftOut") -> "LeftOut":
        both = LeftOut()
        both.reasons = self.reasons + other.reasons
        both.places = [*self.places, *other.places][:_MOST_PLACES]
        both._first = {**other._first, **self._first}
        return both

    def merge(self, other: "LeftOut") -> None:
        """Counts those of another source, which comes after this one."""
        both = self + other
        self.reasons, self.places, self._first = both.reasons, both.places, both._first

    def total(self) -> int:
        """How many are left out."""
        return self.reasons.total()

    def describe(self) -> str:
        """How many are left out for which reason, the most frequent first."""
        return "; ".join(f"{n:,} with {reason} (first {self._first[reason]})" for reason, n in self.most_common())

    def most_common(self) -> list[tuple[str, int]]:
        """The reasons with their counts, the most frequent first."""
        return self.reasons.most_common()

    def manifest_entries(self) -> dict[str, Any]:
        """The fields of a `Manifest`."""
        places = LeftOutPlaces(self.total(), self.places) if self.places else None
        return {"left_out": dict(self.most_common()), "left_out_places": places}


def encodable(text: str) -> bool:
    """Whether a string holds no lone surrogate (half a character)."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False

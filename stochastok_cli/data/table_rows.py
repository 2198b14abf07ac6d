"""A row of a table, and the columns that it must have."""

import functools
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

from stochastok_cli.data.bad_documents import Location
from stochastok_cli.errors import UserError, did_you_mean

MOST_COLUMNS = 20
"""So many names of columns are given to `no_column`, to find one that was meant."""
_MOST_NAMES = 10  # shown in an error


class Row(NamedTuple):
    """A row of a table: where it is, for errors, and the values of its columns or what was made of them."""

    where: Location
    values: Any


class LongInteger(NamedTuple):
    """The place of an integer that has more digits than Python converts; its value is not kept."""

    digits: int

    def __repr__(self) -> str:
        return f"an integer of {self.digits:,} digits"


@functools.lru_cache(maxsize=64)
def no_column(option: str, column: str, present: tuple[str, ...]) -> tuple[str, str]:
    """What an error says about a missing column, and what to do."""
    names = [str(name)[:100] for name in present]
    what = f"there is no column {column!r}{did_you_mean(column, names)}"
    if not names:
        return what, "there are none"
    there = f"there {'is only' if len(names) == 1 else 'are'} {', '.join(names[:_MOST_NAMES])}"
    more = " and others" if len(names) > _MOST_NAMES else ""
    ids = "; ids of another program are for stochastok expand" if "input_ids" in names else ""
    return what, f"{there}{more}; name {'it' if len(names) == 1 else 'one'} with {option}{ids}"


def require_column(option: str, column: str, names: Iterable[str], is_present: bool, file: str) -> None:
    """Raises UserError for a column that is not there.

    Args:
        option: The option that names it: "--text-column".
        column: Its name.
        names: The columns that are there.
        is_present: Whether it is among them.
        file: The name of the file, for the error.
    """
    if not is_present:
        what, fix = no_column(option, column, tuple(itertools.islice(names, MOST_COLUMNS)))
        raise UserError(f"{file}: {what}", fix=fix)

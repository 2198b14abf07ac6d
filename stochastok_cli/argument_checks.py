"""Checks of the arguments of public functions, for the values that the command line would not let through.

Each check takes the name of the argument, for the error, and its value, and returns the value as a type of Python: a
NumPy scalar becomes an `int`, `float` or `bool`, so that a manifest can hold it. A wrong type is a `UserError`, as is a
value out of range, and is found before anything is written.
"""

import operator
import os
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from stochastok_cli.errors import UserError, short_repr

T = TypeVar("T")
Text = TypeVar("Text", bound=str)
Bounds = ParamSpec("Bounds")


def whole_number(name: str, value: Any, *, minimum: int | None = None, maximum: int | None = None) -> int:
    """A whole number of Python, NumPy or another library. True and 1.0 are none, and "1" is a text.

    Raises:
        UserError: it is something else, less than `minimum` or more than `maximum`.

    >>> whole_number("limit", 5, minimum=1)
    5
    """
    bounds = "" if minimum is None else f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum:,}"
    try:
        number = int(operator.index(value))
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise _refused(name, value, f"a whole number, {bounds}" if bounds else "a whole number")
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise _refused(name, number, bounds)
    return number


def real_number(name: str, value: Any) -> int | float:
    """A number of Python or NumPy: a whole one as an `int`, any other as a `float`, which may be infinite or NaN.

    Raises:
        UserError: it is something else.
    """
    chosen = _as_number(value)
    if chosen is None:
        raise _refused(name, value, "a number")
    return chosen


def fraction(name: str, value: Any, *, may_be_zero: bool = True) -> int | float:
    """A number from 0 up to 1, which is excluded.

    Raises:
        UserError: it is something else, or 0 where that is not possible.
    """
    bounds = "in [0, 1)" if may_be_zero else "between 0 and 1"
    chosen = _as_number(value)
    if chosen is None:
        raise _refused(name, value, f"a number {bounds}")
    if not (0 <= chosen < 1) or (chosen == 0 and not may_be_zero):
        raise _refused(name, chosen, bounds)
    return chosen


def string(name: str, value: Any) -> str:
    """A string. Raises UserError for anything else."""
    if not isinstance(value, str):
        raise _refused(name, value, "a string")
    return str(value)


def path_like(name: str, value: Any) -> str | Path:
    """A path as a string or as a `Path`, also of another library. Raises UserError for anything else."""
    if isinstance(value, str | Path):
        return value
    if not isinstance(value, os.PathLike):
        raise _refused(name, value, "a path")
    return Path(os.fsdecode(value))


def yes_or_no(name: str, value: Any) -> bool:
    """True or False, also of NumPy. Raises UserError for anything else, such as "no", which is true in Python."""
    if not isinstance(value, bool):
        import numpy as np

        if not isinstance(value, np.bool_):
            raise _refused(name, value, "True or False")
    return bool(value)


def one_of(name: str, value: Any, known: tuple[Text, ...]) -> Text:
    """One of a few known strings. Raises UserError for any other."""
    for chosen in known:
        if isinstance(value, str) and value == chosen:
            return chosen
    raise UserError(f"{name} {short_repr(value)} is not known", fix=f"give {' or '.join(known)}")


def optional(check: Callable[Concatenate[str, Any, Bounds], T]) -> Callable[Concatenate[str, Any, Bounds], T | None]:
    """The check that lets None through besides.

    >>> optional(whole_number)("limit", None, minimum=1) is None
    True
    """

    def check_or_none(name: str, value: Any, /, *args: Bounds.args, **bounds: Bounds.kwargs) -> T | None:
        if value is None:
            return None
        try:
            return check(name, value, *args, **bounds)
        except UserError as error:
            raise UserError(f"{error}, or None") from None

    return check_or_none


def require_each(check: Callable[[str, Any], object], **values: Any) -> None:
    """Raises UserError for the first value that does not pass a check."""
    for name, value in values.items():
        check(name, value)


def _as_number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def _refused(name: str, value: object, expected: str) -> UserError:
    return UserError(f"{name} is {short_repr(value)}", fix=f"it must be {expected}")

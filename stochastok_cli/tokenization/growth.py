"""The p at which an expansion makes documents a certain number of times as long, so that methods can be compared."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.tokenization.vocabulary import Vocabulary

_GAINED_IDS = 40_000  # counted for a growth, for an error below 1 %
_MAX_REPEATS = 100
_TOLERANCE = 0.002  # of growth - 1
_NOTED = 0.01  # of growth - 1
_NOTED_OF_ONE_DRAW = 0.05  # of growth - 1
_FEW_IDS = 5  # one token has several parts, by which a growth that is counted in ids changes at once
_MOST_DIGITS = 17


class GrowthMatch(NamedTuple):
    """The p of a method whose growth is the nearest to a target.

    Args:
        p: the p, with four digits, or more where another growth begins at a p with the same four digits.
        growth: ids after expansion with it over ids before, the mean of several expansions.
        target: the growth that was asked for.
        is_met: whether the mean growth is the target, but for 1 % of what documents should gain, or a few ids of all
            that were counted.
    """

    p: float
    growth: float
    target: float
    is_met: bool

    def note(self, method: str, growth: float) -> str | None:
        """What users should know where the target is not met; None where there is nothing.

        Args:
            method: the method.
            growth: that of the expansion which is shown, one of several.

        >>> GrowthMatch(0.0067, 1.00094, 1.001, False).note("uniform-k", 1.00094).partition("the nearest, ")[2]
        'p = 0.0067, makes them 1.00094 times as long'
        """
        differs = abs(growth - self.growth) > _NOTED_OF_ONE_DRAW * abs(self.target - 1) + 1e-9
        # Of a growth near 1, as many decimals as show what documents gain with three digits.
        decimals = 3 if self.target == 1 else max(3, 2 - math.floor(math.log10(abs(self.target - 1)) + 1e-9))
        of_draw = f" on average, and {growth:.{decimals}f} times with this seed" if differs else ""
        if not self.is_met:
            return (
                f"no p of {method} makes these documents {self.target:g} times as long: the nearest, p = {self.p!r}, "
                f"makes them {self.growth:.{decimals}f} times as long{of_draw}"
            )
        if differs:
            return f"{method} with p = {self.p!r} makes these documents {self.target:g} times as long{of_draw}"
        return None


def match_growth(
    vocabulary: Vocabulary, method: str, growth: float, ids: np.ndarray, lengths: np.ndarray, **options: Any
) -> GrowthMatch:
    """The p at which a method makes documents `growth` times as long, or as nearly so as it can.

    The documents are expanded so many times that the ids which they gain, of which the growth is counted, are many
    also for a growth near 1. Where a method makes a whole number of splits in a document of n tokens (floor(n p)),
    growth has steps, and in few or short documents not every growth is reached.

    Args:
        vocabulary: the vocabulary of the ids.
        method: a registered method that has a p.
        growth: ids after expansion over ids before.
        ids: integers `[tokens]`, the documents one after another.
        lengths: integers `[documents]`, the number of tokens of each.
        options: further arguments of `StochasTok`.

    Raises:
        UserError: a growth that is none, or that is below or above all that the method reaches.
    """
    definition = require_method(method)
    if not definition.takes_p:
        raise UserError(f"{definition.name} is a fixed rule, which has no p to find", fix="drop --match-growth")
    if not 0 < growth < math.inf:
        raise UserError(f"documents can't grow {growth} times", fix="give a number above 0, such as 1.1")
    expand = StochasTok(vocabulary, 0.0, method, **options)
    gained = abs(growth - 1) * len(ids)
    repeats = min(max(math.ceil(_GAINED_IDS / max(gained, 1)), 1), _MAX_REPEATS)

    def excess(p: float, repeats: int = repeats) -> float:
        at_p = expand.with_p(p)
        tokens = sum(len(at_p.documents(ids, lengths, i * len(lengths))[0]) for i in range(repeats))
        return tokens / max(repeats * len(ids), 1) - growth

    highest = min(definition.max_p, 8.0)
    least, most = excess(0.0, 1), excess(highest, 1)  # methods that merge tokens may shorten documents at p = 0
    if not least <= 0 <= most:
        least, most = least + growth, most + growth
        shown = "1" if least == 1 else f"{math.ceil(least * 1000) / 1000:.3f}"
        raise UserError(f"no p makes {method} grow documents {growth} times", fix=f"give {shown} to {most:.2f}")
    tolerance = _TOLERANCE * abs(growth - 1)
    p, difference = _root(excess, (0.0, least), (highest, most), tolerance)
    for candidate in _shorter(p):
        at_candidate = excess(candidate) if candidate <= highest else math.inf
        if abs(at_candidate) <= max(abs(difference), 2 * tolerance):
            p, difference = candidate, at_candidate
            break
    few = _FEW_IDS / max(repeats * len(ids), 1)
    return GrowthMatch(p, growth + difference, growth, abs(difference) <= max(_NOTED * abs(growth - 1), few))


def _shorter(p: float) -> Iterator[float]:
    """Values near p with four digits, then with more: the nearest, the one below and the one above.

    >>> [f"{value:g}" for value, _ in zip(_shorter(0.0526316), range(3))]
    ['0.05263', '0.05263', '0.05264']
    """
    if p == 0:
        return
    from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context

    for digits in range(4, _MOST_DIGITS):
        for rounding in (ROUND_HALF_EVEN, ROUND_FLOOR, ROUND_CEILING):
            yield float(Context(prec=digits, rounding=rounding).create_decimal_from_float(p))


def _root(
    function: Callable[[float], float], below: tuple[float, float], above: tuple[float, float], tolerance: float
) -> tuple[float, float]:
    """Where an increasing function is 0, to a value of `tolerance` or four digits; it may have steps.

    The secant is followed, and every third time the interval is halved, which bounds the number of calls.

    Args:
        function: the function.
        below: an argument and its value, which is not above 0.
        above: an argument and its value, which is not below 0.
        tolerance: a value so near to 0 ends the search.

    Returns:
        The argument, and the value there.
    """
    calls = 0
    while min(-below[1], above[1]) > tolerance and above[0] - below[0] > 1e-4 * above[0]:
        calls += 1
        fraction = -below[1] / (above[1] - below[1]) if calls % 3 else 0.5
        middle = below[0] + fraction * (above[0] - below[0])
        value = function(middle)
        below, above = ((middle, value), above) if value < 0 else (below, (middle, value))
    return min(below, above, key=lambda point: abs(point[1]))

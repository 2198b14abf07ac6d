"""The class `Method`, which describes an expansion method, and the registry of all methods.

To add a method, put a file into this folder that calls `register_method`. The choices and help texts of the command
line, `--method all`, the check of `trainer.dataset.expand_method`, `StochasTok` and `--report` derive from the
registry. Code outside of the package registers its methods in the same way.

The command line imports every method when it starts, so these files import numpy and numba only inside functions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary

    ExpandFunction = Callable[[StochasTok, np.ndarray, np.ndarray, np.uint64], tuple[np.ndarray, np.ndarray]]

MAX_P = 1000  # long before this, every token is split into single bytes


@dataclass(frozen=True, kw_only=True)
class Method:
    """One expansion method.

    Args:
        name: as `--method` takes it.
        description: one line for help texts and tables.
        p_meaning: what `p` is: "attempted splits per token", "probability" …
        source: the paper that introduced it.
        expand: expands documents. Called with the `StochasTok` (vocabulary, `p`, options, key of the random stream,
            tables), ids (the vocabulary's dtype, `[tokens]`: the documents one after another), lengths (int64,
            `[documents]`) and the index of the first document (uint64). Returns the expanded ids and lengths, with
            the same dtypes. It must be a pure function of these arguments and must not change `ids`.
        p_is_probability: whether `p` is limited to 1 (otherwise to `MAX_P`).
        options: which of `max_splits` and `keep` the method takes.
        keeps_token_boundaries: whether each token is replaced by parts of its own. Masks and labels can then follow
            the parts of their token.
        identity_at_zero: whether p = 0 returns the ids as they are, without a call of `expand`.
        require: raises UserError with the reason for a vocabulary that the method can't expand.
    """

    name: str
    description: str
    p_meaning: str
    source: str
    expand: "ExpandFunction"
    p_is_probability: bool = False
    options: tuple[str, ...] = ("max_splits", "keep")
    keeps_token_boundaries: bool = True
    identity_at_zero: bool = True
    require: "Callable[[Vocabulary], Any] | None" = None

    @property
    def max_p(self) -> float:
        """The largest `p` that the method takes."""
        return 1 if self.p_is_probability else MAX_P

    def check_p(self, p: float) -> None:
        """Raises UserError for a `p` that is no number or out of range."""
        import numpy as np

        if not (isinstance(p, int | float | np.number) and math.isfinite(p) and p >= 0):
            raise UserError(f"p = {p} is not possible", fix="give a number that is not negative, such as 0.1")
        if p > MAX_P:
            raise UserError(f"p = {p} is not possible", fix=f"give at most {MAX_P:,}; long before, all is single bytes")
        if p > self.max_p:
            raise UserError(f"p = {p} is not possible: for {self.name} it is a probability")

    def check_options(self, max_splits: int | None, keep: str | None) -> None:
        """Raises UserError for an option that the method does not take, and for an impossible `max_splits`."""
        if max_splits is not None and "max_splits" not in self.options:
            raise UserError(f"{self.name} makes no counted splits to limit", fix="drop --max-splits")
        if max_splits is not None and not (isinstance(max_splits, int) and max_splits >= 0):
            raise UserError(f"max_splits = {max_splits} is not possible", fix="give a whole number from 0 on, or None")
        if keep is not None and "keep" not in self.options:
            raise UserError(f"{self.name} can't leave single tokens alone", fix="drop --keep")

    def check_vocabulary(self, vocabulary: "Vocabulary") -> None:
        """Raises UserError for a vocabulary that the method can't expand."""
        if self.require is not None:
            self.require(vocabulary)


METHODS: dict[str, Method] = {}
"""Every registered method by its name, in the order of help texts and tables."""


def register_method(method: Method) -> Method:
    """Adds a method to the registry.

    Methods that keep token boundaries come first, those with a probability after the others, then by name.

    Raises:
        ValueError: if another method has that name.
    """
    if METHODS.get(method.name, method) != method:
        raise ValueError(f"there is already a method {method.name!r}")
    METHODS[method.name] = method
    in_order = sorted(METHODS.values(), key=lambda m: (not m.keeps_token_boundaries, m.p_is_probability, m.name))
    METHODS.clear()
    METHODS.update({m.name: m for m in in_order})
    return method


def method_names() -> list[str]:
    """The names of all registered methods."""
    return [*METHODS]


def require_method(name: str) -> Method:
    """The method of that name. Raises UserError, with the nearest name, if there is none."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}{did_you_mean(name, METHODS)}", fix=f"give {', '.join(METHODS)}")
    return METHODS[name]


def max_tokens(
    vocabulary: "Vocabulary", ids: "np.ndarray", lengths: "np.ndarray", budget: "np.ndarray"
) -> "np.ndarray":
    """The most tokens that each document can have after `budget` attempted splits.

    Args:
        vocabulary: the vocabulary of the ids.
        ids: `[tokens]`, the documents one after another.
        lengths, budget: int64 `[documents]`.

    Returns:
        int64 `[documents]`. No document gets longer than its number of bytes.
    """
    import numpy as np

    by_attempts = lengths + budget
    if by_attempts.sum() <= 5 * len(ids):  # counting bytes costs more than the memory that it saves
        return by_attempts
    bytes_before = np.concatenate([[0], np.cumsum(vocabulary.widths[ids])])
    return np.minimum(by_attempts, np.diff(bytes_before[np.cumsum(lengths)], prepend=0))

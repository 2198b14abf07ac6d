"""Labels that repeat the ids of their row, and how they follow the parts of split tokens.

Two conventions are in use. *Aligned*: `labels[i]` is `ids[i]`, and the model or its loss shifts them, as in
`transformers`. *Shifted*: `labels[i]` is `ids[i + 1]`, because the data were shifted beforehand, as in nanoGPT,
Megatron and torchtitan. In both, -100 marks an entry without a loss. Some rows fit both, such as one of equal ids; they
take the convention of other rows.
"""

from dataclasses import dataclass

import numpy as np

from stochastok_cli.errors import UserError

NO_LABEL = -100
"""The label that losses ignore."""


@dataclass(frozen=True)
class Row:
    """An expanded row beside the one that it was made of.

    Attributes:
        ids: The ids before, `[N]`.
        content: The part of them that is not padding.
        new_ids: The ids after expansion and truncation, `[M]`.
        origin: The position in `ids` that each of them comes from, int64 `[M]`.
        ends_with_token: Whether the last of `new_ids` is the last part of its token, which truncation may have cut.
        num_cut: How many ids of the expanded content truncation has removed.
    """

    ids: np.ndarray
    content: slice
    new_ids: np.ndarray
    origin: np.ndarray
    ends_with_token: bool = True
    num_cut: int = 0


@dataclass(frozen=True)
class Fit:
    """Which conventions the labels of a row fit.

    Attributes:
        aligned: Whether each label is the id of its position, or -100.
        shifted: Whether each label but the last is the id of the next position, or -100.
        informative: Whether any label but the last is not -100; without one, nothing speaks for `shifted`.
    """

    aligned: bool
    shifted: bool
    informative: bool

    @property
    def evidence(self) -> bool | None:
        """True for labels that can only be shifted, False for those that can only be aligned, None for all others."""
        if self.aligned == self.shifted or not self.informative:
            return None
        return self.shifted


def fit_labels(ids: np.ndarray, labels: np.ndarray) -> Fit:
    """Compares labels `[N]` with ids `[N]`."""
    with_loss = labels != NO_LABEL
    return Fit(
        aligned=not (with_loss & (labels != ids)).any(),
        shifted=not (with_loss[:-1] & (labels[:-1] != ids[1:])).any(),
        informative=bool(with_loss[:-1].any()),
    )


def are_shifted(column: str, ids: np.ndarray, labels: np.ndarray, known: bool | None) -> bool | None:
    """The convention of the labels of a row.

    Args:
        column: The name of their column.
        ids: The ids of the row, `[N]`.
        labels: Its labels, `[N]`.
        known: What other rows of the column, or the user, say; None if nothing is known.

    Returns:
        True for shifted ones, False for aligned ones, None for labels that do not repeat the ids.

    Raises:
        UserError: The labels fit both conventions, the two give different results, and nothing is known.
    """
    fit = fit_labels(ids, labels)
    if known and fit.shifted:
        return True
    if fit.aligned and (known is False or not fit.shifted or not fit.informative):
        return False
    if fit.aligned and fit.shifted:
        raise UserError(
            f"column {column!r} of a row of equal ids may be shifted by one position or not",
            fix="say which by shifted_labels=True or shifted_labels=False",
        )
    return True if fit.shifted and fit.informative else None


def shifted_source(row: Row) -> np.ndarray:
    """The position in the old row whose entry each entry of a shifted column follows, int64 `[M]`.

    Entry i is about the id at i + 1, so it follows the entry before the token of that id. The later parts of the first
    token, which no entry was about, follow the first entry.
    """
    following = row.origin[1:]
    repeated = following == row.origin[:-1]
    first = (following == row.content.start) & repeated
    return np.append(np.where(first, following, np.maximum(following - 1, 0)), row.origin[-1:])


def follow_aligned(row: Row, labels: np.ndarray) -> list[int]:
    """The labels of the expanded row: its ids, or -100 for the parts of tokens that had it."""
    followed: list[int] = np.where(labels[row.origin] == NO_LABEL, NO_LABEL, row.new_ids).tolist()
    return followed


def follow_shifted(row: Row, labels: np.ndarray) -> list[int]:
    """The labels of the expanded row where they are the ids of the next position.

    The last label stays, as it is an id that comes after the row; where truncation cuts a token, it becomes -100.
    """
    if not len(row.new_ids):
        return []
    after = labels[row.origin[-1]] if row.ends_with_token else NO_LABEL
    following = np.append(row.new_ids[1:], after)
    followed: list[int] = np.where(labels[shifted_source(row)] == NO_LABEL, NO_LABEL, following).tolist()
    return followed

"""The columns of an example that follow when its ids are expanded.

Padding, which is where `attention_mask` is 0 at either end, is no part of the text: it is neither expanded nor counted
for p, and it gives way first where a row is truncated.
"""

import warnings
from collections.abc import Collection, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from stochastok_cli.errors import Notice, UserError
from stochastok_cli.integrations.labels import (
    NO_LABEL,
    Row,
    are_shifted,
    fit_labels,
    follow_aligned,
    follow_shifted,
    shifted_source,
)
from stochastok_cli.tokenization.expansion import StochasTok, as_ids, origins

IDS = ("input_ids", "ids")
PER_TOKEN = (
    "attention_mask",
    "token_type_ids",
    "special_tokens_mask",
    "prompt_mask",
    "completion_mask",
    "assistant_masks",
    "global_attention_mask",
    "word_ids",
    "sequence_ids",
    "segment_ids",
    "seq_idx",
)
"""Columns with one value per token: each part of a token gets the value of its token."""
OF_LOSS = ("loss_mask", "loss_weights")
"""Columns with one value per label: each part of a token gets the value of its token, undivided.

The losses of the parts of a token add up to the loss of the token in these parts, so a weighted sum keeps its meaning.
A loss that averages divides by the weights of the expanded row, as an unweighted one divides by its number of ids, and
weights of 0 and 1 mean what `loss_mask` means. Weights that are to have a certain sum are made of the expanded row.
"""
MASKS_OF_LOSS = (*OF_LOSS, "completion_mask", "assistant_masks")
"""Columns that are 0 where a token has no loss."""
SPANS = "offset_mapping"
"""The column of the tokenizer's spans of text, two numbers per token: each part gets the span of its token."""
LENGTHS = ("len", "length", "num_tokens", "n_tokens", "token_count", "input_length", "seq_len")
"""Columns that hold the number of ids; one with another number is something else, and left alone."""
POSITIONS = "position_ids"
DOCUMENT_LENGTHS = "seq_lengths"
UNABLE = (
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "cu_seqlens",
    "max_length_q",
    "max_length_k",
    "max_seqlen",
    "prompt_length",
    "prompt_len",
    "num_prompt_tokens",
    "start_positions",
    "end_positions",
)
"""Columns that count or place tokens in ways that are not followed."""
SHIFTED_LABELS = "shift_labels"
"""The column of labels that are shifted by its name."""
ROWS_TO_JUDGE = 8
"""After so many rows in which a column has as many values as there are ids, it is taken to be about the ids."""


def find_ids(example: Mapping[str, Any]) -> np.ndarray:
    """The ids of an example, `[N]`. Raises UserError if it has none."""
    return as_ids(example[ids_column(example)])


def ids_column(example: Mapping[str, Any]) -> str:
    """The name of the column with the ids of an example; `ids` beside `input_ids` is a column of something else.

    Raises UserError if it has none.
    """
    name = next((name for name in IDS if name in example), None)
    if name is None:
        raise UserError(f"an example has neither input_ids nor ids, only {', '.join(example)}")
    return name


def find_content(example: Mapping[str, Any], ids: np.ndarray) -> slice:
    """The part of the ids between the zeros at both ends of `attention_mask`; all of them without such a column."""
    mask = example.get("attention_mask")
    if mask is None:
        return slice(0, len(ids))
    _require_shape("attention_mask", mask, ids.shape)
    attended = np.flatnonzero(np.asarray(mask))
    return slice(int(attended[0]), int(attended[-1]) + 1) if len(attended) else slice(0, 0)


def expand_row(expand: StochasTok, example: Mapping[str, Any], index: int, max_length: int | None = None) -> Row:
    """Expands the content of a row.

    Args:
        expand: The expansion, by a method that keeps token boundaries.
        example: The columns of the example.
        index: Selects the random numbers.
        max_length: The most ids of the result. Padding is dropped first, then the end of the content, of which a
            special token at the end stays the last one.

    Raises:
        UserError: The method merges across tokens, or there are no ids.
    """
    if not expand.definition.keeps_token_boundaries:
        raise UserError(
            f"{expand.method} merges across tokens, so masks and labels can't follow", fix="take another method"
        )
    ids = find_ids(example)
    content = find_content(example, ids)
    expanded = expand(ids[content], index).astype(np.int64)
    origin = content.start + origins(expand.vocabulary, ids[content], expanded)
    left, right = np.arange(content.start), np.arange(content.stop, len(ids))
    ends_with_token, num_cut = True, 0
    if max_length is not None:
        num_cut = max(len(expanded) - max_length, 0)
        if len(expanded) > max_length:
            kept = np.arange(max_length)
            ends_with_token = bool(origin[max_length] != origin[max_length - 1])
            if expand.vocabulary.is_special(int(expanded[-1])):
                kept[-1], ends_with_token = len(expanded) - 1, True
            expanded, origin = expanded[kept], origin[kept]
        free = max_length - len(expanded)
        left = left[max(len(left) - free, 0) :]
        right = right[: free - len(left)]
    new_ids = np.concatenate([ids[left], expanded, ids[right]]).astype(np.int64)
    new_origin = np.concatenate([left, origin, right]).astype(np.int64)
    return Row(ids, content, new_ids, new_origin, ends_with_token, num_cut)


class ColumnRules:
    """How the columns of a dataset follow, as far as names, the user and the rows so far tell.

    Args:
        per_token: Names of further columns with one value per token.
        unrelated: Names of columns that are not about the ids, even if they have as many values.
        shifted_labels: Whether `labels[i]` is the id at i + 1; None if the rows are to tell.
    """

    def __init__(
        self, per_token: Collection[str] = (), unrelated: Collection[str] = (), shifted_labels: bool | None = None
    ):
        if both := set(per_token) & set(unrelated):
            raise UserError(f"column {min(both)!r} is both in per_token and in unrelated", fix="leave it out of one")
        self.per_token, self.unrelated, self.shifted_labels = tuple(per_token), tuple(unrelated), shifted_labels
        self._forget()

    def _forget(self) -> None:
        self._label_evidence: set[bool] = set()
        self._rows_with_a_value_per_id: dict[str, int | None] = {}  # None for a column that has rows without
        self._noted: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """The rules alone: what was seen in rows must not change the fingerprint by which `datasets` caches a map."""
        return {"per_token": self.per_token, "unrelated": self.unrelated, "shifted_labels": self.shifted_labels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def learn(self, examples: Sequence[Mapping[str, Any]]) -> None:
        """Learns from the rows of a batch whether labels are shifted, for rows of it that could be either."""
        for example in examples if self.shifted_labels is None else ():
            if len(self._label_evidence) == 1:
                return
            labels = example.get("labels")
            if labels is not None and _shape(labels) == (ids := find_ids(example)).shape:
                self._note_labels(fit_labels(ids, np.asarray(labels)).evidence)

    def changed(self, row: Row, example: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of an example that change, as lists or numbers.

        Args:
            row: From `expand_row`.
            example: The columns before.

        Raises:
            UserError: A column can't follow; its name is in the message.
        """
        changed: dict[str, Any] = {}
        shifted = self._follow_labels(row, example, changed)
        ids = ids_column(example)
        for column, value in example.items():
            if value is None or column in changed or column in self.unrelated:
                continue
            if column == ids:
                changed[column] = row.new_ids.tolist()
            elif column in self.per_token:
                changed[column] = _per_token(row, column, value, row.ids.shape + _shape(value)[1:])
            elif column in OF_LOSS and shifted:
                _require_shape(column, value, row.ids.shape)
                changed[column] = np.asarray(value)[shifted_source(row)].tolist()
            elif column in PER_TOKEN or column in OF_LOSS:
                changed[column] = _per_token(row, column, value, row.ids.shape)
            elif column == SPANS:
                changed[column] = _per_token(row, column, value, (len(row.ids), 2) if len(row.ids) else (0,))
            elif column in LENGTHS and isinstance(value, Integral):
                changed[column] = _length(row, int(value))
            elif column == POSITIONS:
                changed[column] = _positions(row, value)
            elif column == DOCUMENT_LENGTHS:
                changed[column] = _document_lengths(row, value)
            elif column in UNABLE:
                raise UserError(
                    f"column {column!r} counts or places the tokens of a row, and can't follow their parts",
                    fix="drop it, and have it made of the expanded rows",
                )
            else:
                self._suspect(row, column, value)
        if "assistant_masks" in changed and not any(example["assistant_masks"]):
            self._note(
                "the assistant_masks of a row are 0 everywhere, so that nothing of it is trained on; a chat template "
                "without {% generation %} makes such masks of every row",
            )
        if row.num_cut:
            self._note("rows that are longer than max_length after expansion are cut at their end")
            if any(_loses_all(column, example[column], new) for column, new in changed.items()):
                self._note("max_length leaves a row without any label, so that nothing of it is trained on")
        return changed

    def _follow_labels(self, row: Row, example: Mapping[str, Any], changed: dict[str, Any]) -> bool:
        """Adds the labels that repeat the ids to `changed`. Returns whether they and the loss are shifted."""
        shifted = bool(self.shifted_labels)
        for column in ("labels", SHIFTED_LABELS):
            value = example.get(column)
            if value is None or column in self.per_token or column in self.unrelated:
                continue
            labels = np.asarray(value) if min(_shape(value), default=0) >= 0 else np.zeros(0)
            known = self.shifted_labels
            if column == SHIFTED_LABELS:
                known = True
            elif known is None and len(self._label_evidence) == 1:
                [known] = self._label_evidence
            if labels.shape == row.ids.shape:
                convention = are_shifted(column, row.ids, labels, known)
                if column == "labels" and self.shifted_labels not in (None, convention):
                    what = "the next id" if self.shifted_labels else "their own id"
                    raise UserError(
                        f"column {column!r} is not {what} or -100, as shifted_labels={self.shifted_labels} says"
                    )
                if convention is not None:
                    changed[column] = (follow_shifted if convention else follow_aligned)(row, labels)
                    shifted = shifted or convention
                    if column == "labels":
                        self._note_labels(fit_labels(row.ids, labels).evidence)
            if column == SHIFTED_LABELS and not (column in changed and shifted):
                raise UserError(f"column {column!r} is not that of the next ids", fix="drop it, or make it so")
            if labels.shape == (len(row.ids) - 1,) and len(labels) > 1 and _repeats(row.ids[1:], labels):
                raise UserError(
                    f"column {column!r} repeats the ids without their first, and can't follow",
                    fix="give one label for each id, with -100 for the last",
                )
        return shifted

    def _note(self, what: str) -> None:
        if what not in self._noted:
            self._noted.add(what)
            warnings.warn(what, Notice, stacklevel=3)

    def _note_labels(self, evidence: bool | None) -> None:
        if evidence is not None:
            self._label_evidence.add(evidence)

    def _suspect(self, row: Row, column: str, value: Any) -> None:
        """Refuses a column of an unknown name that has a value for each id in every row so far."""
        rows = self._rows_with_a_value_per_id.get(column, 0)
        if rows is None or len(row.ids) < 2:
            return
        per_id = not isinstance(value, str) and hasattr(value, "__len__") and len(value) == len(row.ids)
        self._rows_with_a_value_per_id[column] = rows = rows + 1 if per_id else None
        if rows is not None and rows >= ROWS_TO_JUDGE:
            raise UserError(
                f"column {column!r} has one value for each id of its row, and would not follow",
                fix="name it in per_token to give each part of a token the value of its token, or in unrelated if it "
                "is not about the ids, or drop it",
            )


def _loses_all(column: str, before: Any, after: Any) -> bool:
    """Whether a column of labels, or of where there is a loss, had entries with a loss and has none any more."""
    if column in ("labels", SHIFTED_LABELS):
        return bool((np.asarray(before) != NO_LABEL).any() and (np.asarray(after) == NO_LABEL).all())
    return column in MASKS_OF_LOSS and bool(np.any(before) and not np.any(after))


def _repeats(ids: np.ndarray, labels: np.ndarray) -> bool:
    return bool(((labels == ids) | (labels == NO_LABEL)).all() and (labels == ids).any())


def _shape(value: Any) -> tuple[int, ...]:
    try:
        return np.shape(value)
    except ValueError:  # lists of different lengths
        return (-1,)


def _require_shape(column: str, value: Any, shape: tuple[int, ...]) -> None:
    if _shape(value) != shape:
        raise UserError(f"column {column!r} has not one value for each of {shape[0]} ids")


def _per_token(row: Row, column: str, value: Any, shape: tuple[int, ...]) -> list[Any]:
    _require_shape(column, value, shape)
    followed: list[Any] = np.asarray(value)[row.origin].tolist()
    return followed


def _length(row: Row, value: int) -> int:
    """The new number of ids, of all or of those that are no padding; `value` itself if it is neither number."""
    if value == len(row.ids):
        return len(row.new_ids)
    if value == row.content.stop - row.content.start:
        return int(((row.origin >= row.content.start) & (row.origin < row.content.stop)).sum())
    return value


def _positions(row: Row, value: Any) -> list[int]:
    """Positions that count on from where each document of a row begins."""
    _require_shape(POSITIONS, value, row.ids.shape)
    positions = np.asarray(value)
    steps = np.diff(positions)
    if (steps > 1).any():
        raise UserError(
            f"column {POSITIONS!r} leaves positions out, and the parts of a token can't be placed between them",
            fix="drop it, or have it made of the expanded rows",
        )
    begins = np.concatenate([[True], steps != 1])[: len(positions)]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(positions)), 0))[row.origin]  # of each document
    counts = np.arange(len(first))
    new_begins = np.concatenate([[True], np.diff(first) != 0])[: len(first)]
    rank = counts - np.maximum.accumulate(np.where(new_begins, counts, 0))
    followed: list[int] = (positions[first] + rank).tolist()
    return followed


def _document_lengths(row: Row, value: Any) -> list[int]:
    """The numbers of ids of the documents that are packed into a row; those that truncation removes are left out."""
    lengths = np.asarray(value, dtype=np.int64) if len(_shape(value)) == 1 and min(_shape(value)) >= 0 else None
    content = row.content.stop - row.content.start
    if lengths is None or (lengths < 0).any() or lengths.sum() not in (len(row.ids), content):
        raise UserError(
            f"column {DOCUMENT_LENGTHS!r} does not add up to the {len(row.ids)} ids of its row",
            fix="drop it, or have it made of the expanded rows",
        )
    start = 0 if lengths.sum() == len(row.ids) else row.content.start
    document = np.searchsorted(start + np.cumsum(lengths), row.origin, side="right")
    inside = (row.origin >= start) & (document < len(lengths))
    followed: list[int] = [n for n in np.bincount(document[inside], minlength=len(lengths)).tolist() if n]
    return followed

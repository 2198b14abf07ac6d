"""The columns of an example that follow when its ids are expanded.

Padding, which is where `attention_mask` is 0 at either end, is no part of the text: it is neither expanded nor counted
for p, and it gives way first where a row is truncated.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.tokenization.expansion import StochasTok, as_ids, origins

IDS = ("input_ids", "ids")
PER_TOKEN = (
    "attention_mask",
    "token_type_ids",
    "special_tokens_mask",
    "loss_mask",
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
    "shift_labels",
    "start_positions",
    "end_positions",
)
"""Columns that count or place tokens in ways that are not followed."""
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
    """

    ids: np.ndarray
    content: slice
    new_ids: np.ndarray
    origin: np.ndarray


def find_ids(example: Mapping[str, Any]) -> np.ndarray:
    """The ids of an example, `[N]`. Raises UserError if it has none."""
    name = next((name for name in IDS if name in example), None)
    if name is None:
        raise UserError(f"an example has neither input_ids nor ids, only {', '.join(example)}")
    return as_ids(example[name])


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
    if max_length is not None:
        if len(expanded) > max_length:
            kept = np.arange(max_length)
            if expand.vocabulary.is_special(int(expanded[-1])):
                kept[-1] = len(expanded) - 1
            expanded, origin = expanded[kept], origin[kept]
        free = max_length - len(expanded)
        left = left[max(len(left) - free, 0) :]
        right = right[: free - len(left)]
    new_ids = np.concatenate([ids[left], expanded, ids[right]]).astype(np.int64)
    return Row(ids, content, new_ids, np.concatenate([left, origin, right]).astype(np.int64))


def changed_columns(row: Row, example: Mapping[str, Any], per_token: Collection[str]) -> dict[str, Any]:
    """The columns of an example that change, as lists or numbers.

    Args:
        row: From `expand_row`.
        example: The columns before.
        per_token: Names of further columns with one value per token.

    Raises:
        UserError: A column can't follow; its name is in the message.
    """
    changed: dict[str, Any] = {}
    for column, value in example.items():
        if value is None:
            continue
        if column in IDS:
            changed[column] = row.new_ids.tolist()
        elif column in per_token:
            changed[column] = _per_token(row, column, value, row.ids.shape + _shape(value)[1:])
        elif column in PER_TOKEN:
            changed[column] = _per_token(row, column, value, row.ids.shape)
        elif column == SPANS:
            changed[column] = _per_token(row, column, value, (len(row.ids), 2) if len(row.ids) else (0,))
        elif column in LENGTHS and isinstance(value, Integral):
            changed[column] = _length(row, int(value))
        elif column == "labels" and _shape(value) == row.ids.shape:
            labels = np.asarray(value)
            if ((labels == row.ids) | (labels == NO_LABEL)).all():
                changed[column] = np.where(labels[row.origin] == NO_LABEL, NO_LABEL, row.new_ids).tolist()
        elif column == POSITIONS:
            changed[column] = _positions(row, value)
        elif column == DOCUMENT_LENGTHS:
            changed[column] = _document_lengths(row, value)
        elif column in UNABLE:
            raise UserError(
                f"column {column!r} counts or places the tokens of a row, and can't follow their parts",
                fix="drop it, and have it made of the expanded rows",
            )
    return changed


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

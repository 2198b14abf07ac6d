"""Expansion inside other people's pipelines: as the function of `datasets.map`, and in a collator.

An example is a dictionary with `input_ids` (or `ids`) and, perhaps, columns with one value a token: those follow the
parts of a split token. They are known by their names (`PER_TOKEN`), and further ones can be named. `labels` that are
the ids again, or -100, become the new ids; other labels (a translation, a class) are left alone unless they are named,
and then each is repeated for the parts of its token.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.random_streams import derive_key
from stochastok_cli.tokenization.expansion import StochasTok, as_ids, origins

PER_TOKEN = (
    "attention_mask",
    "token_type_ids",
    "special_tokens_mask",
    "loss_mask",
    "prompt_mask",
    "completion_mask",
    "assistant_masks",
)
_IDS = ("input_ids", "ids")
_LENGTHS = ("len", "length")
_NO_LABEL = -100  # what losses pass over


def expand_example(
    expand: StochasTok, example: Mapping[str, Any], index: int, per_token: Collection[str] = ()
) -> dict[str, Any]:
    """One example expanded; `index` picks its random numbers, `per_token` names further columns that follow.

    Raises UserError for a method whose parts can't be told apart, and for a column that has not one value a token.
    """
    return {**example, **_changed(expand, example, index, per_token)}


def _changed(expand: StochasTok, example: Mapping[str, Any], index: int, per_token: Collection[str]) -> dict[str, Any]:
    """The columns that expansion changes."""
    if expand.method == "bpe-dropout":
        raise UserError("bpe-dropout merges across tokens, so masks and labels can't follow", fix="take another method")
    ids = _ids_of(example)
    expanded = expand(ids, index).astype(np.int64)
    origin = origins(expand.vocabulary, ids, expanded)
    changed: dict[str, Any] = {}
    for column, value in example.items():
        if column in _IDS:
            changed[column] = expanded.tolist()
        elif column in _LENGTHS and isinstance(value, int) and value == len(ids):
            changed[column] = len(expanded)
        elif column == "labels" and column not in per_token:
            labels = np.asarray(value) if _has_shape(value, ids) else None
            if labels is not None and ((labels == ids) | (labels == _NO_LABEL)).all():
                changed[column] = np.where(labels[origin] == _NO_LABEL, _NO_LABEL, expanded).tolist()
        elif column in per_token or column in PER_TOKEN:
            if not _has_shape(value, ids):
                raise UserError(f"column {column!r} has not one value for each of {len(ids)} ids")
            changed[column] = np.asarray(value)[origin].tolist()
    return changed


def _ids_of(example: Mapping[str, Any]) -> np.ndarray:
    name = next((name for name in _IDS if name in example), None)
    if name is None:
        raise UserError(f"an example has neither input_ids nor ids, only {', '.join(example)}")
    return as_ids(example[name])


def _has_shape(value: Any, ids: np.ndarray) -> bool:
    try:
        return np.shape(value) == ids.shape
    except ValueError:  # lists of several lengths
        return False


class MapExamples:
    """The function of `dataset.map(MapExamples(expand), batched=True, with_indices=True)`, batched or not.

    It returns the columns that it changes. `per_token` names further columns with one value a token.
    """

    def __init__(self, expand: StochasTok, per_token: Collection[str] = ()):
        self.expand, self.per_token = expand, tuple(per_token)

    def __call__(self, batch: Mapping[str, Any], indices: Any) -> dict[str, Any]:
        if isinstance(indices, int):
            return _changed(self.expand, batch, indices, self.per_token)
        rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
        done = [_changed(self.expand, row, index, self.per_token) for row, index in zip(rows, indices, strict=True)]
        columns = dict.fromkeys(column for row in done for column in row)
        return {c: [new.get(c, row[c]) for row, new in zip(rows, done, strict=True)] for c in columns}


class ExpandingCollator:
    """A collator that expands each example anew in every epoch, then hands them to `then`.

    Args:
        expand: does it; with p = 0 nothing is changed.
        then: any collator, such as `transformers.DataCollatorWithPadding(tokenizer)`.
        max_length: ids and what follows them are cut to it after expansion; a special token at the end stays there.
        per_token: further columns with one value a token.

    An example's random numbers depend on the seed, the epoch and its ids, not on workers or the order. Add
    `collator.callback()` to a `transformers.Trainer`: the Trainer's training data are expanded, each epoch anew, and
    nothing else is. In a loop of your own set `epoch`, which workers see that live on too, and leave expansion out of
    an evaluation by `with collator.off():` (which such workers don't see) or by another collator.
    """

    def __init__(
        self,
        expand: StochasTok,
        then: Callable[[list[Any]], Any],
        max_length: int | None = None,
        per_token: Collection[str] = (),
    ):
        import torch

        if max_length is not None and max_length < 1:
            raise UserError(f"max_length is {max_length}", fix="give at least 1, or None")
        self.expand, self.then, self.max_length, self.per_token = expand, then, max_length, tuple(per_token)
        self.enabled = True
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # the workers of a loader see it change

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        if not self.enabled or self.expand.p == 0:
            return self.then([dict(example) for example in examples])
        return self.then([self._expanded(example) for example in examples])

    def _expanded(self, example: Mapping[str, Any]) -> dict[str, Any]:
        ids = _ids_of(example)
        key = derive_key(self.epoch, f"example/{ids.astype('<i8').tobytes().hex()}")
        changed = _changed(self.expand, example, key, self.per_token)
        if self.max_length is not None:
            ends = len(ids) > 0 and self.expand.vocabulary.is_special(int(ids[-1]))
            changed = {c: _cut(v, self.max_length, ends) for c, v in changed.items()}
        return {**example, **changed}

    @contextmanager
    def off(self) -> Iterator[None]:
        """Examples pass through unchanged."""
        before, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = before

    def callback(self) -> Any:
        """A `transformers.TrainerCallback` that has the Trainer's training data expanded, each epoch anew."""
        from transformers import TrainerCallback

        collator = self

        class ExpandTraining(TrainerCallback):
            epochs = 0  # begun; `state.epoch` is no whole number where a dataset has no length

            def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                collator.enabled = False

            def on_train_begin(
                self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any
            ) -> None:
                loader = getattr(train_dataloader, "base_dataloader", train_dataloader)  # accelerate's is around it
                loader.collate_fn = _expanding(loader.collate_fn)
                self.epochs = int(state.epoch or 0)

            def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                collator.epoch = self.epochs
                self.epochs += 1

        return ExpandTraining()


def _cut(value: Any, length: int, ends: bool) -> Any:
    """What a column has up to a length; with `ends` its last entry stays the last."""
    if not isinstance(value, list):
        return min(value, length)
    return value[: length - 1] + value[-1:] if ends and len(value) > length else value[:length]


def _expanding(collate: Any) -> Any:
    """A copy, which expands, of what a Trainer collates with: the collator, or one that drops columns before it."""
    expanding = copy.copy(collate)
    if isinstance(collate, ExpandingCollator):
        expanding.enabled = True
    elif hasattr(collate, "data_collator"):
        expanding.data_collator = _expanding(collate.data_collator)
    else:
        raise UserError("the Trainer does not collate with an ExpandingCollator", fix="give it as data_collator")
    return expanding

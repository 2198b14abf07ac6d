"""Expansion for `transformers` and `datasets`: a data collator, and a function for `datasets.map`.

An example is a dictionary with `input_ids` (or `ids`). Columns with one value per token follow the parts of a split
token: each part gets the value of its token. These columns are recognized by their names (`PER_TOKEN`), and further
ones can be given. `labels` that repeat the ids or are -100 become the new ids or -100. Other labels (a translation, a
class) are left alone, unless `per_token` names them.

>>> from stochastok_cli import StochasTok, load_vocabulary
>>> gpt2 = load_vocabulary("gpt2")
>>> example = {"input_ids": [1672, 50256], "attention_mask": [1, 0]}  # " example<|endoftext|>"
>>> expanded = expand_example(StochasTok(gpt2, p=1.0), example, index=0)
>>> [gpt2.decode([token]) for token in expanded["input_ids"]], expanded["attention_mask"]
([' exam', 'ple', '<|endoftext|>'], [1, 1, 0])
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
_NO_LABEL = -100  # the label that losses ignore


def expand_example(
    expand: StochasTok, example: Mapping[str, Any], index: int, per_token: Collection[str] = ()
) -> dict[str, Any]:
    """Expands one example.

    Args:
        expand: the expansion, by a method that keeps token boundaries.
        example: the columns of the example; it is not changed.
        index: selects the random numbers, such as the index of the example in its dataset.
        per_token: further columns with one value per token.

    Returns:
        All columns. Those that changed are lists.

    Raises:
        UserError: for a method that merges across tokens, for an example without ids, and for a column per token that
            has another number of values.
    """
    return {**example, **_changed_columns(expand, example, index, per_token)}


def _changed_columns(
    expand: StochasTok, example: Mapping[str, Any], index: int, per_token: Collection[str]
) -> dict[str, Any]:
    if not expand.definition.keeps_token_boundaries:
        raise UserError(
            f"{expand.method} merges across tokens, so masks and labels can't follow", fix="take another method"
        )
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
    except ValueError:  # lists of different lengths
        return False


class MapExamples:
    """Expands examples in `dataset.map(MapExamples(expand), batched=True, with_indices=True)`, batched or not.

    The index of an example selects its random numbers, so neither batches nor processes change the result.

    Args:
        expand: the expansion, by a method that keeps token boundaries.
        per_token: further columns with one value per token.
    """

    def __init__(self, expand: StochasTok, per_token: Collection[str] = ()):
        self.expand, self.per_token = expand, tuple(per_token)

    def __call__(self, batch: Mapping[str, Any], indices: Any) -> dict[str, Any]:
        """Returns the columns that change, of one example (an index) or of a batch (a list of indices)."""
        if isinstance(indices, int):
            return _changed_columns(self.expand, batch, indices, self.per_token)
        examples = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        changed = [
            _changed_columns(self.expand, example, index, self.per_token)
            for example, index in zip(examples, indices, strict=True)
        ]
        columns = dict.fromkeys(column for example in changed for column in example)
        return {c: [new.get(c, old[c]) for old, new in zip(examples, changed, strict=True)] for c in columns}


class ExpandingCollator:
    """A data collator that expands each example, differently in every epoch, and then calls another collator.

    The random numbers of an example depend on the seed, the epoch and its ids, not on workers or the order.

    With a `transformers.Trainer`, add `collator.callback()` to its callbacks: the training data are expanded, and
    evaluations are not. In your own loop, set `epoch`; persistent workers see the change. For an evaluation, use
    another collator, or `with collator.off():`, which persistent workers don't see.

    Args:
        expand: the expansion, by a method that keeps token boundaries; p = 0 changes nothing.
        then: any collator, such as `transformers.DataCollatorWithPadding(tokenizer)`.
        max_length: ids and the columns that follow them are truncated to it after expansion. A special token at the
            end stays the last one.
        per_token: further columns with one value per token.

    Raises:
        UserError: for a `max_length` below 1.
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
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared with the workers of a data loader

    @property
    def epoch(self) -> int:
        """The epoch, which selects the random numbers."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """The batch that `then` makes of the expanded examples."""
        if not self.enabled or self.expand.p == 0:
            return self.then([dict(example) for example in examples])
        return self.then([self._expanded(example) for example in examples])

    def _expanded(self, example: Mapping[str, Any]) -> dict[str, Any]:
        ids = _ids_of(example)
        key = derive_key(self.epoch, f"example/{ids.astype('<i8').tobytes().hex()}")
        changed = _changed_columns(self.expand, example, key, self.per_token)
        if self.max_length is not None:
            ends = len(ids) > 0 and self.expand.vocabulary.is_special(int(ids[-1]))
            changed = {c: _truncated(v, self.max_length, ends) for c, v in changed.items()}
        return {**example, **changed}

    @contextmanager
    def off(self) -> Iterator[None]:
        """A context in which examples are not expanded."""
        before, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = before

    def callback(self) -> Any:
        """A `transformers.TrainerCallback` that expands the training data of a Trainer, differently in every epoch."""
        from transformers import TrainerCallback

        collator = self

        class ExpandTraining(TrainerCallback):
            epochs = 0  # started; `state.epoch` is not an integer for a dataset without a length

            def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                collator.enabled = False

            def on_train_begin(
                self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any
            ) -> None:
                loader = getattr(train_dataloader, "base_dataloader", train_dataloader)  # accelerate wraps the loader
                loader.collate_fn = _with_expansion(loader.collate_fn)
                self.epochs = int(state.epoch or 0)

            def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                collator.epoch = self.epochs
                self.epochs += 1

        return ExpandTraining()


def _truncated(value: Any, length: int, ends: bool) -> Any:
    """The first `length` entries of a column; with `ends`, its last entry stays the last. A number is limited."""
    if not isinstance(value, list):
        return min(value, length)
    return value[: length - 1] + value[-1:] if ends and len(value) > length else value[:length]


def _with_expansion(collate: Any) -> Any:
    """A copy of a Trainer's collator that expands. Trainer may have wrapped it in one that drops columns."""
    result = copy.copy(collate)
    if isinstance(collate, ExpandingCollator):
        result.enabled = True
    elif hasattr(collate, "data_collator"):
        result.data_collator = _with_expansion(collate.data_collator)
    else:
        raise UserError("the Trainer does not collate with an ExpandingCollator", fix="give it as data_collator")
    return result

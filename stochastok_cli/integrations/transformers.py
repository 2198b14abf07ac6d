"""Expansion for `transformers` and `datasets`: a data collator, and a function for `datasets.map`.

An example is a dictionary with `input_ids` (or `ids`). Its other columns follow by their names (see `columns`):

- Columns with one value per token (`attention_mask`, `loss_mask` …) give each part of a token the value of its token.
- `labels` that repeat the ids or are -100 become the new ids or -100, also where they were shifted beforehand (see
  `labels`). Other labels (a translation, a class) are left alone, unless `per_token` names them.
- `position_ids` and `seq_lengths` of packed rows, and lengths, are those of the expanded row. Columns that are known to
  depend on the number of ids and can't follow are refused by name, and so are columns of other names that have one
  value for each id in all of the first rows.

>>> from stochastok_cli import StochasTok, load_vocabulary
>>> gpt2 = load_vocabulary("gpt2")
>>> example = {"input_ids": [1672, 50256], "attention_mask": [1, 0]}  # " example<|endoftext|>", the latter as padding
>>> expanded = expand_example(StochasTok(gpt2, p=1.0), example, index=1)
>>> [gpt2.decode([token]) for token in expanded["input_ids"]], expanded["attention_mask"]
([' exam', 'ple', '<|endoftext|>'], [1, 1, 0])
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Self

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.integrations.columns import IDS, ColumnRules, expand_row, find_content, find_ids
from stochastok_cli.integrations.occurrences import Occurrences
from stochastok_cli.random_streams import derive_key
from stochastok_cli.tokenization.expansion import StochasTok


def expand_example(
    expand: StochasTok,
    example: Mapping[str, Any],
    index: int,
    per_token: Collection[str] = (),
    *,
    shifted_labels: bool | None = None,
) -> dict[str, Any]:
    """Expands one example.

    Args:
        expand: the expansion, by a method that keeps token boundaries.
        example: the columns of the example; it is not changed.
        index: selects the random numbers, such as the index of the example in its dataset.
        per_token: further columns with one value per token.
        shifted_labels: whether `labels[i]` is the id at i + 1; None if the row tells.

    Returns:
        All columns. Those that changed are lists.

    Raises:
        UserError: for a method that merges across tokens, for an example without ids, for a column per token that has
            another number of values, and for a column that can't follow.
    """
    rules = ColumnRules(per_token, shifted_labels=shifted_labels)
    return {**example, **rules.changed(expand_row(expand, example, index), example)}


class _Epochs:
    """Has an epoch, which selects random numbers; the workers of a data loader see a change of it."""

    def __init__(self, epoch: int = 0) -> None:
        import torch

        self._epoch = torch.tensor(epoch, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch, which selects the random numbers."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)


class MapExamples(_Epochs):
    """Expands the examples of a dataset.

    - `dataset.map(MapExamples(expand), batched=True, with_indices=True)`, batched or not: once, beforehand. The index
      of an example selects its random numbers, so neither batches nor processes change the result.
    - `dataset.with_transform(MapExamples(expand))`: anew at each access.
    - `iterable_dataset.map(MapExamples(expand))`, batched or not, without indices, which start anew in each worker of a
      data loader: the n-th example of the same ids gets the n-th random numbers, whichever workers they are in.

    The last two count how often an example was seen. Set `epoch`, or give `callback()` to a Trainer, to begin the count
    anew, with other random numbers: then the examples of an epoch are the same after a resume.

    Args:
        expand: the expansion, by a method that keeps token boundaries.
        per_token: further columns with one value per token.
        unrelated: columns that are not about the ids, even if they have as many values.
        shifted_labels: whether `labels[i]` is the id at i + 1; None if the rows are to tell.
        id_column: a column whose value, instead of the ids or the index, selects the random numbers of an example.
        max_length: see `ExpandingCollator`.
    """

    def __init__(
        self,
        expand: StochasTok,
        per_token: Collection[str] = (),
        *,
        unrelated: Collection[str] = (),
        shifted_labels: bool | None = None,
        id_column: str | None = None,
        max_length: int | None = None,
    ):
        super().__init__()
        self.expand, self.id_column, self.max_length = expand, id_column, _checked_length(max_length)
        self.rules = ColumnRules(per_token, unrelated, shifted_labels)
        self.occurrences: Occurrences | None = Occurrences()

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # copies of a dataset have the same epoch and the same counts

    def __getstate__(self) -> dict[str, Any]:
        """What decides the result, by which `datasets` caches a map; for the start of a worker, also what is shared."""
        from multiprocessing.context import get_spawning_popen

        if get_spawning_popen() is not None:
            return self.__dict__
        decisive = ("expand", "rules", "id_column", "max_length", "epoch")
        return {name: getattr(self, name) for name in decisive}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_epoch" in state:
            self.__dict__.update(state)
        else:
            super().__init__(state.pop("epoch"))
            self.__dict__.update(state, occurrences=None)

    @property
    def epoch(self) -> int:
        """The epoch, which selects the random numbers."""
        return super().epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)
        if self.occurrences is not None:
            self.occurrences.clear()

    def __call__(self, batch: Mapping[str, Any], indices: Any = None) -> dict[str, Any]:
        """Expands one example or a batch.

        Args:
            batch: the columns of an example, or of a batch (lists of values).
            indices: its index, or a list of them; None to go by the ids or `id_column`.

        Returns:
            The columns that change. Without indices, all columns of a batch, as `with_transform` needs them.

        Raises:
            UserError: see `expand_example`; for indices that start anew in each worker; for an example without
                `id_column`; and in a copy in another process, which can't count examples together with the others.
        """
        if _is_one_example(batch) if indices is None else isinstance(indices, Integral):
            [changed] = self._changed([batch], None if indices is None else [int(indices)])
            return changed
        examples = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        changed_rows = self._changed(examples, indices)
        columns = batch if indices is None else dict.fromkeys(column for row in changed_rows for column in row)
        return {c: [new.get(c, old[c]) for old, new in zip(examples, changed_rows, strict=True)] for c in columns}

    def _changed(self, examples: Sequence[Mapping[str, Any]], indices: Sequence[int] | None) -> list[dict[str, Any]]:
        self.rules.learn(examples)
        keys = self._keys(examples, indices)
        rows = [expand_row(self.expand, row, key, self.max_length) for row, key in zip(examples, keys, strict=True)]
        return [self.rules.changed(row, example) for row, example in zip(rows, examples, strict=True)]

    def _keys(self, examples: Sequence[Mapping[str, Any]], indices: Sequence[int] | None) -> Sequence[int]:
        """A number for each example that selects its random numbers."""
        epoch = self.epoch
        if indices is not None and self.id_column is None:
            if _loader_workers() > 1:
                raise UserError(
                    "the indices of an IterableDataset start anew in each worker of a data loader",
                    fix="leave with_indices out",
                )
            return indices if epoch == 0 else [derive_key(epoch, "index", index) for index in indices]
        if self.occurrences is None:
            raise UserError(
                "examples of the same ids can't be counted over the processes of dataset.map",
                fix="give with_indices=True, without id_column",
            )
        keys = [self._content_key(epoch, example) for example in examples]
        counts = self.occurrences.count(keys)
        return [derive_key(key, "occurrence", n) if n else key for key, n in zip(keys, counts, strict=True)]

    def _content_key(self, epoch: int, example: Mapping[str, Any]) -> int:
        if self.id_column is None:
            return example_key(epoch, example)
        if example.get(self.id_column) is None:
            raise UserError(f"an example has no {self.id_column!r}, which is its id_column")
        return derive_key(epoch, f"id/{example[self.id_column]}")

    def callback(self) -> Any:
        """A `transformers.TrainerCallback` that sets the epoch, so that it selects the random numbers."""
        return _trainer_callback(self)


def example_key(epoch: int, example: Mapping[str, Any]) -> int:
    """A key of an epoch and the ids of an example without its padding, to select random numbers where indices change.

    Args:
        epoch: which pass over the data it is.
        example: columns with `input_ids` or `ids`.

    Returns:
        64 bits, for `StochasTok(...)(ids, key)` or `expand_example`.
    """
    ids = find_ids(example)
    return derive_key(epoch, f"example/{ids[find_content(example, ids)].astype('<i8').tobytes().hex()}")


def _checked_length(max_length: int | None) -> int | None:
    if max_length is not None and max_length < 1:
        raise UserError(f"max_length is {max_length}", fix="give at least 1, or None")
    return max_length


def _is_one_example(batch: Mapping[str, Any]) -> bool:
    """Whether the columns are those of one example, and not lists of values."""
    ids: Any = next((batch[name] for name in IDS if name in batch), [])
    return len(ids) == 0 or isinstance(ids[0], Integral) or np.ndim(ids[0]) == 0


def _loader_workers() -> int:
    """The number of workers of the data loader that this process is a worker of; 0 elsewhere."""
    import sys

    worker = sys.modules["torch"].utils.data.get_worker_info() if "torch" in sys.modules else None
    return 0 if worker is None else worker.num_workers


class ExpandingCollator(_Epochs):
    """A data collator that expands each example, differently in every epoch, and then calls another collator.

    The random numbers of an example depend on the seed, the epoch and its ids, not on workers or the order.

    With a `transformers.Trainer`, add `collator.callback()` to its callbacks, or call `install` with the Trainer: the
    training data are expanded, and evaluations are not. In your own loop, set `epoch`; persistent workers see the
    change. For an evaluation, use another collator, or `with collator.off():`, which persistent workers don't see.

    Args:
        expand: the expansion, by a method that keeps token boundaries; p = 0 splits no token.
        then: any collator, such as `transformers.DataCollatorWithPadding(tokenizer)`.
        max_length: ids and the columns that follow them are truncated to it after expansion. Padding goes first, and a
            special token at the end of the text stays its last one.
        per_token: further columns with one value per token.
        unrelated: columns that are not about the ids, even if they have as many values.
        shifted_labels: whether `labels[i]` is the id at i + 1; None if the rows are to tell.

    Raises:
        UserError: for a `max_length` below 1.
    """

    def __init__(
        self,
        expand: StochasTok,
        then: Callable[[list[Any]], Any],
        max_length: int | None = None,
        per_token: Collection[str] = (),
        *,
        unrelated: Collection[str] = (),
        shifted_labels: bool | None = None,
    ):
        super().__init__()
        self.expand, self.then, self.max_length = expand, then, _checked_length(max_length)
        self.rules = ColumnRules(per_token, unrelated, shifted_labels)
        self.enabled = True

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """The batch that `then` makes of the expanded examples."""
        if not self.enabled or (self.expand.p == 0 and self.max_length is None):
            return self.then([dict(example) for example in examples])
        self.rules.learn(examples)
        return self.then([self._expanded(example) for example in examples])

    def _expanded(self, example: Mapping[str, Any]) -> dict[str, Any]:
        row = expand_row(self.expand, example, example_key(self.epoch, example), self.max_length)
        return {**example, **self.rules.changed(row, example)}

    @classmethod
    def install(cls, trainer: Any, expand: StochasTok, max_length: int | None = None, **options: Any) -> Self:
        """Has a Trainer, of `transformers` or made from it, expand its training data before its own collator.

        Args:
            trainer: the Trainer, whose collator may be one that it made itself.
            expand: see the class.
            max_length: see the class.
            options: further arguments of the class.

        Returns:
            The collator, which the Trainer has now.
        """
        collator = cls(expand, trainer.data_collator, max_length, **options)
        collator.enabled = False  # until training begins
        trainer.data_collator = collator
        trainer.add_callback(collator.callback())
        return collator

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
        return _trainer_callback(self, self)


def _trainer_callback(target: _Epochs, collator: ExpandingCollator | None = None) -> Any:
    """A `transformers.TrainerCallback` that sets the epoch of `target`, and has a collator expand the training data."""
    from transformers import TrainerCallback

    class ExpandTraining(TrainerCallback):
        epochs = 0  # started; `state.epoch` is not an integer for a dataset without a length

        def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if collator is not None:
                collator.enabled = False

        def on_train_begin(
            self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any
        ) -> None:
            if collator is not None:
                loader = getattr(train_dataloader, "base_dataloader", train_dataloader)  # accelerate wraps the loader
                loader.collate_fn = _with_expansion(loader.collate_fn)
            self.epochs = int(state.epoch or 0)

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            target.epoch = self.epochs
            self.epochs += 1

    return ExpandTraining()


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

"""Expansion for `transformers` and `datasets`: a data collator, and a function for `datasets.map`.

An example is a dictionary with `input_ids` (or `ids`). Its other columns follow by their names (see `columns`):

- Columns with one value per token (`attention_mask`, `loss_mask` …) give each part of a token the value of its token.
- `labels` that repeat the ids or are -100 become the new ids or -100. Other labels (a translation, a class) are left
  alone, unless `per_token` names them.
- `position_ids` and `seq_lengths` of packed rows, and lengths, are those of the expanded row. Columns that are known to
  depend on the number of ids and can't follow are refused by name.

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
from typing import Any

from stochastok_cli.errors import UserError
from stochastok_cli.integrations.columns import changed_columns, expand_row, find_content, find_ids
from stochastok_cli.random_streams import derive_key
from stochastok_cli.tokenization.expansion import StochasTok


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
        UserError: for a method that merges across tokens, for an example without ids, for a column per token that has
            another number of values, and for a column that can't follow.
    """
    return {**example, **changed_columns(expand_row(expand, example, index), example, per_token)}


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
            return self._changed(batch, indices)
        examples = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        changed = [self._changed(example, index) for example, index in zip(examples, indices, strict=True)]
        columns = dict.fromkeys(column for example in changed for column in example)
        return {c: [new.get(c, old[c]) for old, new in zip(examples, changed, strict=True)] for c in columns}

    def _changed(self, example: Mapping[str, Any], index: int) -> dict[str, Any]:
        return changed_columns(expand_row(self.expand, example, index), example, self.per_token)


class ExpandingCollator:
    """A data collator that expands each example, differently in every epoch, and then calls another collator.

    The random numbers of an example depend on the seed, the epoch and its ids, not on workers or the order.

    With a `transformers.Trainer`, add `collator.callback()` to its callbacks: the training data are expanded, and
    evaluations are not. In your own loop, set `epoch`; persistent workers see the change. For an evaluation, use
    another collator, or `with collator.off():`, which persistent workers don't see.

    Args:
        expand: the expansion, by a method that keeps token boundaries; p = 0 changes nothing.
        then: any collator, such as `transformers.DataCollatorWithPadding(tokenizer)`.
        max_length: ids and the columns that follow them are truncated to it after expansion. Padding goes first, and a
            special token at the end of the text stays its last one.
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
        ids = find_ids(example)
        content = ids[find_content(example, ids)]
        key = derive_key(self.epoch, f"example/{content.astype('<i8').tobytes().hex()}")
        row = expand_row(self.expand, example, key, self.max_length)
        return {**example, **changed_columns(row, example, self.per_token)}

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

"""Expansion inside other people's pipelines: as the function of `datasets.map`, and in a collator.

An example is a dictionary with `input_ids` (or `ids`) and, perhaps, columns with one value a token: those follow the
parts of a split token. Labels that copy the ids (language modelling) become the new ids; others are repeated.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.randomness import key64
from stochastok_cli.tokens.expansion import StochasTok, origins

_IDS = ("input_ids", "ids")


def expand_example(expand: StochasTok, example: Mapping[str, Any], index: int) -> dict[str, Any]:
    """One example expanded; `index` picks its random numbers. Columns of another length than the ids stay."""
    if expand.method == "bpe-dropout":
        raise UserError("bpe-dropout merges across tokens, so masks and labels can't follow", fix="take another method")
    name = next((name for name in _IDS if name in example), None)
    if name is None:
        raise UserError(f"an example has neither input_ids nor ids, only {', '.join(example)}")
    ids = np.asarray(example[name], dtype=np.int64)
    expanded = expand(ids, index)
    origin = origins(expand.vocabulary, ids, expanded)
    result: dict[str, Any] = {}
    for column, value in example.items():
        if column == name:
            result[column] = expanded.tolist()
        elif column == "len":
            result[column] = len(expanded)
        elif _is_per_token(value, len(ids)):
            follows = np.asarray(value)[origin]
            if column == "labels":
                follows = np.where(follows == ids[origin], expanded, follows)
            result[column] = follows.tolist()
        else:
            result[column] = value
    return result


def _is_per_token(value: Any, num_ids: int) -> bool:
    try:
        return np.shape(value) == (num_ids,)
    except ValueError:  # lists of several lengths
        return False


class MapExamples:
    """The function of `dataset.map(MapExamples(expand), batched=True, with_indices=True)`."""

    def __init__(self, expand: StochasTok):
        self.expand = expand

    def __call__(self, batch: Mapping[str, Sequence[Any]], indices: Sequence[int]) -> dict[str, list[Any]]:
        rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
        done = [expand_example(self.expand, row, index) for row, index in zip(rows, indices, strict=True)]
        return {column: [row[column] for row in done] for column in batch}


class ExpandingCollator:
    """A collator that expands each example anew in every epoch, then hands them to `then`.

    Args:
        expand: does it; with p = 0 nothing is changed.
        then: any collator, such as `transformers.DataCollatorWithPadding(tokenizer)`.
        max_length: columns with a value a token are cut to it after expansion.

    An example's random numbers depend on the seed, the epoch and its ids, not on workers or the order. Add
    `collator.callback()` to a `transformers.Trainer`: it passes the epoch on, and leaves expansion on only while the
    Trainer trains. Elsewhere `with collator.off():` does it by hand.
    """

    def __init__(self, expand: StochasTok, then: Callable[[list[Any]], Any], max_length: int | None = None):
        self.expand, self.then, self.max_length = expand, then, max_length
        self.epoch = 0
        self.enabled = True

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        if not self.enabled or self.expand.p == 0:
            return self.then([dict(example) for example in examples])
        return self.then([self._expanded(example) for example in examples])

    def _expanded(self, example: Mapping[str, Any]) -> dict[str, Any]:
        ids = next((np.asarray(example[name], dtype="<i8") for name in _IDS if name in example), np.empty(0))
        key = key64(self.epoch, f"example/{ids.tobytes().hex()}")
        expanded = expand_example(self.expand, example, key)
        if self.max_length is None:
            return expanded
        return {c: v[: self.max_length] if _is_per_token(example[c], len(ids)) else v for c, v in expanded.items()}

    @contextmanager
    def off(self) -> Iterator[None]:
        """Examples pass through unchanged."""
        before, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = before

    def callback(self) -> Any:
        """A `transformers.TrainerCallback` that tells this collator of epochs and evaluations."""
        from transformers import TrainerCallback

        collator = self

        class Follow(TrainerCallback):
            training = False

            def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                collator.enabled = False

            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                self.training = True
                collator.enabled = not args.eval_on_start

            def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                collator.epoch = int(state.epoch or 0)

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                collator.enabled = not control.should_evaluate

            on_epoch_end = on_step_end

            def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                collator.enabled = self.training

            def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                self.training = collator.enabled = False

        return Follow()

"""Training windows of examples: whole examples packed end to end, the loss on answers or assistant turns only.

A window is a pure function of `(seed, iteration, index)`, like those of `WindowSampler`.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from stochastok_cli.data.samplers import Batch, expansion_at, require_ids_below, window_key
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.random_streams import derive_key, uniform_integers
from stochastok_cli.tokenization.expansion import StochasTok, origins

ExpandWhere = Literal["all", "prompt", "completion"]
"""The tokens of an example that may be expanded: all, those without a loss, or those with a loss."""


class Examples(Protocol):
    """The examples of a split on disk.

    Attributes:
        noun: What an example is called in an error.
        how_to_shorten: What to do, besides a longer context window, about examples that are too long.
    """

    noun: str
    how_to_shorten: str

    def __len__(self) -> int:
        """The number of examples."""
        ...

    def lengths(self, example: np.ndarray) -> np.ndarray:
        """The number of ids of each example, int64 of the shape of `example`."""
        ...

    def read(self, example: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the examples `[M]` one after another, and whether each of these ids has a loss (bool)."""
        ...

    def length_range(self) -> tuple[int, int]:
        """The lengths of the shortest and of the longest example."""
        ...


class PackedSampler:
    """Windows of examples that are drawn uniformly with replacement and packed until there are T + 1 ids.

    The last example is cut. Attention is confined to the example that a token belongs to, and a window's loss is the
    mean over its tokens that have one; a window without such tokens has no weight.

    Args:
        examples: The examples of a split.
        context_window: T.
        seed: Together with `purpose` it names the random stream.
        purpose: "train" or "val", which draw independently.
        expand: Expands each example as it is drawn; the parts of a token have a loss if the token has one.
        expand_where: Which tokens of an example are expanded; p is a proportion of these.
        p_schedule: p of `expand` by iteration; None keeps its own.
        vocab_size: Ids from here on are refused when they are drawn. None: they are not checked.

    Raises:
        UserError: An example does not fit the window, or has no ids.
    """

    def __init__(
        self,
        examples: Examples,
        context_window: int,
        *,
        seed: int,
        purpose: str,
        expand: StochasTok | None = None,
        expand_where: ExpandWhere = "all",
        p_schedule: Callable[[int], float] | None = None,
        vocab_size: int | None = None,
    ):
        self.length = context_window + 1
        noun = examples.noun
        if not len(examples):
            raise UserError(f"the {purpose} split has no {noun}s", fix="make the dataset again, larger")
        shortest, longest = examples.length_range()
        if longest > context_window:
            raise UserError(
                f"the longest {noun} of the {purpose} split has {longest:,} ids, and the context window only "
                f"{context_window:,}",
                fix=f"set model.context_window to {longest} or more{examples.how_to_shorten}",
            )
        if shortest < 1:
            raise UserError(
                f"a {noun} of the {purpose} split has no ids", fix="make the dataset again", exit_code=FAILED
            )
        self.examples = examples
        self.draws = -(-self.length // shortest)  # examples drawn for each window: enough to fill any
        self.seed, self.purpose = seed, purpose
        self.expand, self.expand_where, self.p_schedule = expand, expand_where, p_schedule
        self.vocab_size = vocab_size

    def batch(self, iteration: int, index: np.ndarray) -> Batch[np.ndarray]:
        """The windows of an iteration with these indices, int64 `[B]`."""
        counters = index[:, None] * self.draws + np.arange(self.draws)
        example = uniform_integers(
            self.seed, f"{self.purpose}/examples", iteration, counters=counters, bound=len(self.examples)
        )  # [B, K]: the examples in the order in which they are packed
        lengths = self.examples.lengths(example)
        needed = (np.cumsum(lengths, axis=1) < self.length).sum(axis=1) + 1  # [B] as many as fill the window
        if self.expand is None:
            used = np.arange(self.draws) < needed[:, None]
            batch = _packed(*self.examples.read(example[used]), lengths[used], needed, self.length)
        else:
            expand = expansion_at(self.expand, self.p_schedule, iteration)
            windows = [
                self._expanded(example[b], lengths[b], int(needed[b]), window_key(iteration, int(index[b])), expand)
                for b in range(len(index))
            ]
            ids, has_loss, used_lengths = (np.concatenate(parts) for parts in zip(*windows, strict=True))
            needed = np.array([len(window_lengths) for _, _, window_lengths in windows])
            batch = _packed(ids, has_loss, used_lengths, needed, self.length)
        require_ids_below(self.vocab_size, batch.ids, self.purpose)
        return batch

    def _expanded(
        self, example: np.ndarray, lengths: np.ndarray, needed: int, key: int, expand: StochasTok
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The expanded examples of a window: ids, whether each has a loss, and the length of each example.

        Args:
            example: int64 `[K]`, the examples that are drawn.
            lengths: int64 `[K]`, the length of each.
            needed: How many of them fill the window as they are.
            key: The number of the window.
            expand: Expands the examples.
        """
        expand_examples = self._whole if expand.definition.keeps_token_boundaries else self._in_parts
        first_index = key * 2 * self.draws % 2**64
        for count in (needed, self.draws):  # a method that merges tokens may shorten: then more examples are needed
            ids, has_loss = self.examples.read(example[:count])
            expanded = expand_examples(ids, has_loss, lengths[:count], first_index, expand)
            if len(expanded[0]) >= self.length:
                return expanded
        windows = [expanded]  # all of them are too few: they come again, expanded in other ways
        while sum(len(window[0]) for window in windows) < self.length:
            index = derive_key(first_index, "examples that come again", len(windows))
            windows.append(expand_examples(ids, has_loss, lengths, index, expand))
        ids, has_loss, lengths = (np.concatenate(parts) for parts in zip(*windows, strict=True))
        return ids, has_loss, lengths

    def _may_expand(self, has_loss: np.ndarray) -> np.ndarray:
        """Whether each token may be expanded, by whether it has a loss."""
        if self.expand_where == "all":
            return np.ones_like(has_loss)
        return has_loss if self.expand_where == "completion" else ~has_loss

    def _whole(
        self, ids: np.ndarray, has_loss: np.ndarray, lengths: np.ndarray, first_index: int, expand: StochasTok
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expands each example as one document, of the tokens that may be expanded; the others stay in their places.

        Args:
            ids: The ids of K examples, one after another.
            has_loss: bool, of the shape of `ids`.
            lengths: int64 `[K]`, the length of each example.
            first_index: The index of the first example among all documents that are expanded.
            expand: Expands the documents.

        Returns:
            The expanded ids, whether each has a loss, and the length of each expanded example.
        """
        example = np.repeat(np.arange(len(lengths)), lengths)
        may_expand = self._may_expand(has_loss)
        chosen, others = np.flatnonzero(may_expand), np.flatnonzero(~may_expand)
        document_lengths = np.bincount(example[chosen], minlength=len(lengths))
        expanded, _ = expand.documents(ids[chosen], document_lengths, first_index)
        origin = np.concatenate([chosen[origins(expand.vocabulary, ids[chosen], expanded)], others])
        in_order = np.argsort(origin, kind="stable")  # the parts of a token stay in their order
        origin = origin[in_order]
        expanded_lengths = np.bincount(example[origin], minlength=len(lengths))
        return np.concatenate([expanded, ids[others]])[in_order], has_loss[origin], expanded_lengths

    def _in_parts(
        self, ids: np.ndarray, has_loss: np.ndarray, lengths: np.ndarray, first_index: int, expand: StochasTok
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `_whole`, for a method that may merge across tokens: a part is expanded apart from those next to it.

        The parts of an example are without and with a loss in turn. The first is without; it may be empty.
        """
        ends = np.cumsum(lengths)
        example = np.repeat(np.arange(len(lengths)), lengths)
        before = np.concatenate([[False], has_loss[:-1]])
        before[ends - lengths] = False
        changes = np.cumsum(has_loss != before)
        part = changes - (changes - (has_loss != before))[ends - lengths][example]  # of each token
        early = part < 2
        pairs = np.bincount(2 * example[early] + part[early], minlength=2 * len(lengths))
        expanded, expanded_lengths = expand.documents(ids[early], pairs, first_index)
        documents = np.split(expanded, np.cumsum(expanded_lengths)[:-1])
        parts: list[np.ndarray] = []
        parts_of = []  # how many parts each example has
        for k, (start, end) in enumerate(zip(ends - lengths, ends, strict=True)):
            of_example = documents[2 * k : 2 * k + 2]
            late = slice(start + pairs[2 * k : 2 * k + 2].sum(), end)
            if late.start < end:
                index = derive_key(first_index, "parts after the second", k)
                expanded, expanded_lengths = expand.documents(ids[late], np.bincount(part[late])[2:], index)
                of_example += np.split(expanded, np.cumsum(expanded_lengths)[:-1])
            if self.expand_where != "all":
                unchanged = np.split(ids[start:end], np.cumsum(np.bincount(part[start:end], minlength=2))[:-1])
                first = int(self.expand_where == "prompt")
                of_example[first::2] = unchanged[first::2]
            parts += of_example
            parts_of.append(len(of_example))
        sizes = np.array([len(document) for document in parts])
        begins = np.cumsum(parts_of) - np.array(parts_of)
        number = np.arange(len(parts)) - np.repeat(begins, parts_of)  # of each part in its example
        return np.concatenate(parts), np.repeat(number % 2 == 1, sizes), np.add.reduceat(sizes, begins)


def _packed(
    ids: np.ndarray, has_loss: np.ndarray, lengths: np.ndarray, counts: np.ndarray, length: int
) -> Batch[np.ndarray]:
    """Packs the examples of each window end to end and cuts after `length` ids.

    Args:
        ids: The ids of the examples of all windows, one after another.
        has_loss: bool, of the shape of `ids`.
        lengths: int64, the length of each example. Those of a window have at least `length` ids together.
        counts: int64 `[B]`, how many examples each window has.
        length: Ids of a window, T + 1.
    """
    starts = np.cumsum(lengths) - lengths
    window_starts = starts[np.cumsum(counts) - counts][:, None]
    positions = window_starts + np.arange(length)  # [B, length] of the ids of each window
    example_starts = np.repeat(starts, lengths)[positions]
    # The first id of an example that begins with a loss would be predicted from the example before.
    in_loss = (has_loss[positions] & (positions > example_starts))[:, 1:]
    weights = in_loss / np.maximum(in_loss.sum(axis=1, keepdims=True), 1)
    segment_start = (example_starts - window_starts)[:, :-1].astype(np.int32)
    return Batch(ids[positions].astype(np.int64), segment_start, weights.astype(np.float32), int(in_loss.sum()))

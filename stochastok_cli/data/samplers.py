"""Training windows of a flat corpus: where each begins is a pure function of `(seed, iteration, index)`.

There is no loader state. A batch is the same on any rank and in any order of drawing, and a resumed run does not have
to skip the batches that were drawn before.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.random_streams import uniform_integers
from stochastok_cli.tokenization.expansion import StochasTok

Array = TypeVar("Array")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Batch(Generic[Array]):
    """B windows of T + 1 ids: the model reads the first T of each and predicts the last T.

    Samplers give numpy arrays, `training.prefetch` makes them tensors.

    Attributes:
        ids: int64 `[B, T + 1]`.
        segment_start: int32 `[B, T]`, the first position that each position may attend to; None for plain causal
            attention.
        token_weights: float32 `[B, T]`, the weight of each predicted token in its window's loss. The weights of a
            window sum to 1, or to 0 where no token counts.
        num_loss_tokens: The number of weights that are not 0.
    """

    ids: Array
    segment_start: Array | None
    token_weights: Array
    num_loss_tokens: int

    def map(self, function: Callable[[Array], Other]) -> "Batch[Other]":
        """The batch with `function` applied to each of its arrays."""
        return Batch(
            ids=function(self.ids),
            segment_start=None if self.segment_start is None else function(self.segment_start),
            token_weights=function(self.token_weights),
            num_loss_tokens=self.num_loss_tokens,
        )

    def weighted_bytes(self, text_widths: Any) -> Any:
        """The mean number of bytes of the predicted tokens of a window, summed over the windows.

        Its weights are those of the loss, so that the loss over it is a loss per byte of the text that has a loss.

        Args:
            text_widths: The bytes of the text of each id, 0 for special tokens: float64 `[V]`, an array or a tensor as
                `ids` is.

        Returns:
            A scalar, float64.
        """
        ids, weights = cast(Any, self.ids), cast(Any, self.token_weights)
        return (weights * text_widths[ids[:, 1:]]).sum()


class Sampler(Protocol):
    """Draws the windows of training or validation."""

    def batch(self, iteration: int, index: np.ndarray) -> Batch[np.ndarray]:
        """The windows of an iteration with these indices, int64 `[B]`, in their order."""
        ...


class WindowSampler:
    """Windows that begin at uniform positions of a corpus, regardless of the ends of documents.

    Args:
        ids: The corpus, one-dimensional.
        context_window: T.
        seed: Together with `purpose` it names the random stream.
        purpose: "train" or "val", which draw independently.
        expand: Expands each window as it is drawn; the result is cut to T + 1 ids.
        p_schedule: p of `expand` by iteration; None keeps its own.
        vocab_size: Ids from here on are refused when they are drawn. None: they are not checked.

    Raises:
        UserError: The corpus is shorter than one window.
    """

    def __init__(
        self,
        ids: np.ndarray,
        context_window: int,
        *,
        seed: int,
        purpose: str,
        expand: StochasTok | None = None,
        p_schedule: Callable[[int], float] | None = None,
        vocab_size: int | None = None,
    ):
        self.length = context_window + 1
        if len(ids) < self.length:
            raise UserError(
                f"the {purpose} split has {len(ids):,} tokens, and one window takes {self.length:,}",
                fix="lower model.context_window or make a larger dataset",
            )
        self.ids = ids
        self.seed, self.purpose = seed, purpose
        self.expand, self.p_schedule = expand, p_schedule
        self.vocab_size = vocab_size

    def batch(self, iteration: int, index: np.ndarray) -> Batch[np.ndarray]:
        """The windows of an iteration with these indices, int64 `[B]`."""
        num_starts = len(self.ids) - self.length + 1
        start = uniform_integers(self.seed, f"{self.purpose}/start", iteration, counters=index, bound=num_starts)
        ids = self.ids[start[:, None] + np.arange(self.length)]
        require_ids_below(self.vocab_size, ids, self.purpose)
        if self.expand is not None:
            expand = expansion_at(self.expand, self.p_schedule, iteration)
            ids = self._expanded(ids, start, iteration, index, expand)
        weights = np.full((len(index), self.length - 1), 1 / (self.length - 1), dtype=np.float32)
        return Batch(ids.astype(np.int64, copy=False), None, weights, weights.size)

    def _expanded(
        self, ids: np.ndarray, start: np.ndarray, iteration: int, index: np.ndarray, expand: StochasTok
    ) -> np.ndarray:
        """The windows `ids` `[B, T + 1]`, which begin at `start` `[B]`, expanded and cut to the same length."""
        expanded = np.empty(ids.shape, np.int64)
        for run in _consecutive(index):
            windows = ids[run]
            first_key = window_key(iteration, int(index[run.start]))
            flat, lengths = expand.documents(windows.ravel(), np.full(len(windows), self.length), first_key)
            offsets = np.cumsum(lengths) - lengths
            expanded[run] = flat.take(offsets[:, None] + np.arange(self.length), mode="clip")
            for row in np.flatnonzero(lengths < self.length):  # only a method that merges tokens may shorten
                first = int(start[run.start + row])
                expanded[run.start + row] = self._longer_window(first, first_key + int(row), expand)
        return expanded

    def _longer_window(self, start: int, key: int, expand: StochasTok) -> np.ndarray:
        """T + 1 expanded ids of the text from `start` on, or from earlier where the corpus ends too soon."""
        length = self.length
        while length < len(self.ids):
            length = min(2 * length, len(self.ids))
            first = min(start, len(self.ids) - length)
            expanded = expand(self.ids[first : first + length], key)
            if len(expanded) >= self.length:
                return expanded[: self.length]
        raise UserError(
            f"the {self.purpose} split, tokenized anew, is shorter than one window of {self.length:,} tokens",
            fix="lower model.context_window or make a larger dataset",
        )


def require_ids_below(vocab_size: int | None, ids: np.ndarray, purpose: str) -> None:
    """Raises UserError if an id is not below `vocab_size`, where that is known."""
    if vocab_size is not None and ids.max() >= vocab_size:
        raise UserError(
            f"the {purpose} split holds the id {ids.max()}, and the vocabulary ends at {vocab_size - 1}",
            fix="the data are damaged or of another tokenizer: make them again",
        )


def expansion_at(expand: StochasTok, p_schedule: Callable[[int], float] | None, iteration: int) -> StochasTok:
    """The expansion of an iteration's windows: `expand` with the schedule's p, where there is a schedule."""
    return expand if p_schedule is None else expand.with_p(p_schedule(iteration))


def window_key(iteration: int, index: int) -> int:
    """The number of a window among all windows of a run, below 2^64: it selects the random numbers of its expansion."""
    return (iteration << 32) + index


def _consecutive(index: np.ndarray) -> Iterator[slice]:
    """Slices of `index` in which each number is the one before plus 1, as the keys of one expansion must be.

    >>> list(_consecutive(np.array([4, 5, 6, 10, 11])))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    ends = [*np.flatnonzero(np.diff(index) != 1) + 1, len(index)]
    first = 0
    for end in map(int, ends):
        yield slice(first, end)
        first = end

"""Training windows of a flat corpus: where each begins is a pure function of `(seed, iteration, index)`.

Nothing here has a state, so a batch is the same whichever rank draws it, and in whatever order; a resumed run needs
no data loader to be wound forward.
"""

from typing import NamedTuple, Protocol

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.random_streams import uniform_integers
from stochastok_cli.tokenization.expansion import StochasTok


class Batch(NamedTuple):
    """B windows of T + 1 ids: the model reads the first T of each and predicts the last T.

    ids: int64 `[B, T + 1]`.
    segment_start: int32 `[B, T]`, the first position that each position may attend to, or None for all before it.
    token_weights: float32 `[B, T]`; those of a window sum to 1, or to 0 where none of its tokens counts.
    counted: the number of weights that are not 0.
    """

    ids: np.ndarray
    segment_start: np.ndarray | None
    token_weights: np.ndarray
    num_loss_tokens: int


class Sampler(Protocol):
    """Whatever draws windows for training or validation."""

    def batch(self, iteration: int, first_index: int, rows: int) -> Batch:
        """The windows `first_index` to `first_index + rows - 1` of an iteration's batch."""
        ...


class WindowSampler:
    """Windows that begin at uniform positions of a corpus, blind to the documents' ends.

    Args:
        ids: the corpus, one-dimensional.
        context_window: T.
        seed, purpose: name the random stream ("train" and "validation" draw independently).
        expand: expands each window as it is drawn, with its own random numbers; it is cut to T + 1 ids afterwards.
        vocab_size: the ids must be below it, which is looked at as they are drawn.

    Raises UserError if the corpus is shorter than one window.
    """

    def __init__(
        self,
        ids: np.ndarray,
        context_window: int,
        *,
        seed: int,
        purpose: str,
        expand: StochasTok | None = None,
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
        self.expand = expand
        self.vocab_size = vocab_size

    def batch(self, iteration: int, first_index: int, rows: int) -> Batch:
        index = np.arange(first_index, first_index + rows)
        places = len(self.ids) - self.length + 1
        start = uniform_integers(self.seed, f"{self.purpose}/start", iteration, counters=index, bound=places)
        ids = self.ids[start[:, None] + np.arange(self.length)]
        require_ids_below(self.vocab_size, ids, self.purpose)
        if self.expand is not None:
            ids = self._expanded(ids, start, window_key(iteration, first_index))
        weights = np.full((rows, self.length - 1), 1 / (self.length - 1), dtype=np.float32)
        return Batch(ids.astype(np.int64), None, weights, weights.size)

    def _expanded(self, ids: np.ndarray, starts: np.ndarray, first_key: int) -> np.ndarray:
        """Windows `ids` `[B, T + 1]`, which begin at `starts` of the corpus, expanded and cut to the same length."""
        assert self.expand is not None
        flat, lengths = self.expand.documents(ids.ravel(), np.full(len(ids), self.length), first_key)
        offsets = np.cumsum(lengths) - lengths
        expanded = flat.take(offsets[:, None] + np.arange(self.length), mode="clip")
        for row in np.flatnonzero(lengths < self.length):  # only merging anew (BPE-dropout) may shorten
            expanded[row] = self._of_a_longer_stretch(int(starts[row]), first_key + int(row))
        return expanded

    def _of_a_longer_stretch(self, start: int, key: int) -> np.ndarray:
        """T + 1 ids of what begins at `start`, or as much earlier as the corpus's end demands."""
        assert self.expand is not None
        stretch = self.length
        while stretch < len(self.ids):
            stretch = min(2 * stretch, len(self.ids))
            first = min(start, len(self.ids) - stretch)
            expanded = self.expand(self.ids[first : first + stretch], key)
            if len(expanded) >= self.length:
                return expanded[: self.length]
        raise UserError(
            f"the {self.purpose} split, tokenized anew, is shorter than one window of {self.length:,} tokens",
            fix="lower model.context_window or make a larger dataset",
        )


def require_ids_below(vocab_size: int | None, ids: np.ndarray, purpose: str) -> None:
    """Raises UserError if ids are beyond the vocabulary, where its size is known."""
    if vocab_size is not None and ids.max() >= vocab_size:
        raise UserError(
            f"the {purpose} split holds the id {ids.max()}, and the vocabulary ends at {vocab_size - 1}",
            fix="the data are damaged or of another tokenizer: make them again",
        )


def window_key(iteration: int, index: int) -> int:
    """One number below 2^64 for each window of a run: its place in the stream of random expansions."""
    return (iteration << 32) + index

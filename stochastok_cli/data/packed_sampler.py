"""Training windows of questions with answers: whole examples packed end to end, the loss on the answers only.

A window is a pure function of `(seed, iteration, index)`, like those of `WindowSampler`.
"""

import numpy as np

from stochastok_cli.data.samplers import Batch, require_ids_below, window_key
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.random_streams import uniform_integers
from stochastok_cli.tokenization.expansion import StochasTok, origins


class PackedSampler:
    """Windows of examples that are drawn uniformly with replacement and packed until there are T + 1 ids.

    The last example is cut. Attention is confined to the example that a token belongs to, and a window's loss is the
    mean over its answer tokens; a window without answer tokens has no weight.

    Args:
        rows: Ids `[n, width]`, padded after the answer.
        offsets: `[n, 3]`: 0, end of the question, end of the answer.
        context_window: T.
        seed: Together with `purpose` it names the random stream.
        purpose: "train" or "val", which draw independently.
        expand: Expands the question and the answer of each example as it is drawn, separately, so that the boundary
            between them stays known.
        vocab_size: Ids from here on are refused when they are drawn. None: they are not checked.

    Raises:
        UserError: A row does not fit the window, or has no ids.
    """

    def __init__(
        self,
        rows: np.ndarray,
        offsets: np.ndarray,
        context_window: int,
        *,
        seed: int,
        purpose: str,
        expand: StochasTok | None = None,
        vocab_size: int | None = None,
    ):
        self.length = context_window + 1
        if not len(rows):
            raise UserError(f"the {purpose} split has no rows", fix="make the dataset again, larger")
        longest, shortest = int(offsets[:, 2].max()), int(offsets[:, 2].min())
        if longest > context_window:
            raise UserError(
                f"the longest row of the {purpose} split has {longest:,} ids, and the context window only "
                f"{context_window:,}",
                fix=f"set model.context_window to {longest} or more",
            )
        if shortest < 1:
            raise UserError(f"a row of the {purpose} split has no ids", fix="make the dataset again", exit_code=FAILED)
        self.rows, self.offsets = rows, offsets
        self.draws = -(-self.length // shortest)  # examples drawn for each window: enough to fill any
        self.seed, self.purpose = seed, purpose
        self.expand = expand
        self.vocab_size = vocab_size

    def batch(self, iteration: int, index: np.ndarray) -> Batch[np.ndarray]:
        """The windows of an iteration with these indices, int64 `[B]`."""
        counters = index[:, None] * self.draws + np.arange(self.draws)
        example = uniform_integers(
            self.seed, f"{self.purpose}/examples", iteration, counters=counters, bound=len(self.rows)
        )  # [B, K]: the examples in the order in which they are packed
        question_ends, ends = self.offsets[example, 1].astype(np.int64), self.offsets[example, 2].astype(np.int64)
        ids, first_id = self.rows.reshape(-1), example * self.rows.shape[1]
        if self.expand is not None:
            ids, first_id, question_ends, ends = self._expanded(example, question_ends, ends, iteration, index)
        batch = _packed(ids, first_id, question_ends, ends, self.length)
        require_ids_below(self.vocab_size, batch.ids, self.purpose)
        return batch

    def _expanded(
        self, example: np.ndarray, question_ends: np.ndarray, ends: np.ndarray, iteration: int, index: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The expanded examples: flat ids, and `[B, K]` where each example begins in them, and its two ends."""
        assert self.expand is not None
        expand_examples = self._whole if self.expand.definition.keeps_token_boundaries else self._in_two_parts
        column = np.arange(self.rows.shape[1])
        parts, lengths = [], []
        for b, drawn in enumerate(example):
            canonical = self.rows[drawn][column < ends[b][:, None]]
            key = window_key(iteration, int(index[b])) * 2 * self.draws
            expanded, expanded_lengths = expand_examples(canonical, question_ends[b], ends[b], key % 2**64)
            parts.append(expanded)
            lengths.append(expanded_lengths)
        questions, answers = np.moveaxis(np.stack(lengths), 2, 0)
        total = (questions + answers).ravel()
        first_id = (np.cumsum(total) - total).reshape(example.shape)
        return np.concatenate(parts), first_id, questions, questions + answers

    def _whole(
        self, canonical: np.ndarray, question_ends: np.ndarray, ends: np.ndarray, key: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Expands each example as one document, and finds the end of its question by the tokens that parts come from.

        Args:
            canonical: The ids of K examples, one after another.
            question_ends: int64 `[K]`, the end of each question, counted from its example's beginning.
            ends: int64 `[K]`, the length of each example.
            key: The index of the first example among all documents that are expanded.

        Returns:
            The expanded ids, and int64 `[K, 2]` the lengths of each expanded question and answer.
        """
        assert self.expand is not None
        expanded, lengths = self.expand.documents(canonical, ends, key)
        origin = origins(self.expand.vocabulary, canonical, expanded)
        questions = np.searchsorted(origin, np.cumsum(ends) - ends + question_ends) - (np.cumsum(lengths) - lengths)
        return expanded, np.stack([questions, lengths - questions], axis=1)

    def _in_two_parts(
        self, canonical: np.ndarray, question_ends: np.ndarray, ends: np.ndarray, key: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_whole`, for a method that may merge across tokens: question and answer are expanded apart."""
        assert self.expand is not None
        lengths = np.stack([question_ends, ends - question_ends], axis=1)
        expanded, expanded_lengths = self.expand.documents(canonical, lengths.ravel(), key)
        if len(expanded) < self.length:  # BPE-dropout may shorten, and hardly ever by so much
            return canonical, lengths
        return expanded, expanded_lengths.reshape(-1, 2)


def _packed(
    ids: np.ndarray, first_id: np.ndarray, question_ends: np.ndarray, ends: np.ndarray, length: int
) -> Batch[np.ndarray]:
    """Packs the K examples of each window end to end and cuts after `length` ids.

    Args:
        ids: The ids of all examples, flat.
        first_id: int64 `[B, K]`, where each example begins in `ids`.
        question_ends: int64 `[B, K]`, the end of each question, counted from the example's beginning.
        ends: int64 `[B, K]`, the end of each answer. The examples of a window have at least `length` ids together.
        length: Ids of a window, T + 1.
    """
    after = np.cumsum(ends, axis=1)  # [B, K] position in the window that follows each example
    begins = np.zeros((len(ends), length), dtype=np.int64)  # [B, length] 1 where an example other than the first begins
    window, k = np.nonzero(after < length)
    begins[window, after[window, k]] = 1
    slot = np.cumsum(begins, axis=1)  # [B, length] which example each position belongs to
    begin = np.take_along_axis(after - ends, slot, axis=1)
    offset = np.arange(length) - begin  # [B, length] position within the example
    packed = ids[np.take_along_axis(first_id, slot, axis=1) + offset]
    is_answer = offset >= np.take_along_axis(question_ends, slot, axis=1)
    # The first id of an example without a question would be predicted from the example before.
    counts = (is_answer & (offset > 0))[:, 1:]
    weights = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return Batch(packed.astype(np.int64), begin[:, :-1].astype(np.int32), weights.astype(np.float32), int(counts.sum()))

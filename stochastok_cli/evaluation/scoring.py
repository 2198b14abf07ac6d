"""`LM`: a language model with its vocabulary, as the evaluators see it: log-likelihoods and greedy continuations.

The interface follows lm-evaluation-harness (`loglikelihood`, `generate_until`). Batches are spread over the ranks of a
distributed run inside these methods: each rank scores every `world_size`-th batch, and every rank gets all results.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.evaluation import generation, shared_prefix
from stochastok_cli.evaluation.base import BATCH_TOKENS
from stochastok_cli.evaluation.likelihood import Pair, batches_by_length, empty_pass, explain_batch_tokens, score_pairs
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.vocabulary import Vocabulary

if TYPE_CHECKING:
    from stochastok_cli.evaluation.encoding import EncodedBenchmark
    from stochastok_cli.models.model_sources import ModelSource

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Ranks(Protocol):
    """The processes of a distributed run, as seen from one of them."""

    @property
    def rank(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    def all_gather_object(self, item: Any) -> list[Any]:
        """Every rank's item, in the order of the ranks, on every rank."""


class SingleProcess:
    """The `Ranks` of a run of one process."""

    rank = 0
    world_size = 1

    def all_gather_object(self, item: Any) -> list[Any]:
        return [item]


SINGLE_PROCESS = SingleProcess()


@dataclass(frozen=True)
class LM:
    """A model that evaluators score.

    All ranks must call the same methods with the same arguments. Every rank then makes the same number of forward
    passes, as a sharded model needs: a rank with fewer batches adds passes on a single token. Dropout is off during
    these calls, and afterwards the model is in the mode in which it was.

    Attributes:
        model: The network.
        vocabulary: Its vocabulary.
        batch_tokens: Tokens, padding included, that go through the model at once.
        progress: Called after each batch.
        ranks: The processes that share the work.
        source: Where the model's files are; None where it is only in memory, as in training.
        from_first_model: What evaluators have found with the first of the models that are evaluated together, for the
            others.
    """

    model: CausalLM
    vocabulary: Vocabulary
    batch_tokens: int = BATCH_TOKENS
    progress: ProgressCallback = no_progress
    ranks: Ranks = SINGLE_PROCESS
    source: "ModelSource | None" = None
    from_first_model: dict[Any, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context_window(self) -> int:
        return self.model.context_window

    def without_progress(self) -> "LM":
        """This model with its progress not shown."""
        return replace(self, progress=no_progress)

    def log_likelihoods(self, pairs: Sequence[Pair], *, description: str = "scoring") -> np.ndarray:
        """log P(continuation | context) of each pair, in nats, float64 `[pairs]`.

        A pair must fit the window: `len(context) + len(continuation) - 1 <= context_window`. Pairs are sorted by
        length and padded on the right, where causal attention never looks, so that the batch that a pair falls into
        does not change its score. Only the continuation's positions go through the head.

        Raises:
            UserError: The model gives values that are not finite.
        """
        sizes = np.array([len(context) + len(continuation) - 1 for context, continuation in pairs], dtype=np.int64)
        batches = list(batches_by_length(sizes, self.batch_tokens))
        parts = self.run_batches(
            batches, lambda batch: score_pairs(self.model, [pairs[i] for i in batch]), len, description=description
        )
        scores = np.empty(len(pairs), dtype=np.float64)
        for batch, part in zip(batches, parts, strict=True):
            scores[batch] = part
        require_finite(scores, description)
        return scores

    def question_log_likelihoods(
        self, pairs: Sequence[Pair], num_options: Sequence[int] | np.ndarray, *, description: str = "scoring"
    ) -> np.ndarray:
        """The result of `log_likelihoods` for the options of questions, float64 `[pairs]`, with less work.

        The part that the options of a question have in common is read once (see `shared_prefix`).

        Args:
            pairs: Context and option, the options of a question one after the other, all with the same context.
            num_options: How many consecutive pairs belong to each question.
            description: What is scored, for progress and errors.

        Raises:
            UserError: The model gives values that are not finite.
        """
        ends = np.cumsum(num_options)
        starts = ends - np.asarray(num_options)
        questions = [
            shared_prefix.find_shared_prefix(pairs[start:end])
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]
        batches = shared_prefix.plan(questions, self.context_window, self.batch_tokens, self.device.type)
        parts = self.run_batches(
            batches,
            lambda batch: shared_prefix.score(
                self.model, [questions[i] for i in batch.questions], batch.suffix_batches
            ),
            lambda batch: sum(len(questions[i].suffixes) for i in batch.questions),
            num_passes=[batch.num_passes for batch in batches],
            description=description,
        )
        scores = np.zeros(len(pairs), dtype=np.float64)
        for batch, part in zip(batches, parts, strict=True):
            scores[np.concatenate([np.arange(starts[i], ends[i]) for i in batch.questions])] = part
        require_finite(scores, description)
        return scores

    def question_scores(self, benchmark: "EncodedBenchmark", *, description: str = "scoring") -> list[np.ndarray]:
        """log P(option | context) of the options of each question, in nats, a float64 array `[options]` for each."""
        num_options = benchmark.num_options
        scores = self.question_log_likelihoods(benchmark.pairs, num_options, description=description)
        return np.split(scores, np.cumsum(num_options)[:-1])

    def generate_greedy(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        stop: Callable[[list[int]], bool],
    ) -> list[list[int]]:
        """The likeliest next ids after each prompt, one at a time, in the order of the prompts.

        Ids that the model has and its tokenizer lacks are never taken.

        A sequence ends when `stop(its new ids)` is true (the id that made it true is included), after
        `max_new_tokens`, or when the context window is full. A prompt longer than the window is cut to its last
        `context_window - max_new_tokens` ids (at least one). Prompts are sorted by length and padded on the left;
        `batch_tokens` counts all tokens whose keys and values are kept.

        Args:
            prompts: Ids, none of them empty.
            max_new_tokens: The most ids to generate.
            stop: Whether a sequence ends with its last new id.
        """

        def likeliest(logits: torch.Tensor, places: list[int]) -> list[int]:
            return generation.likeliest(logits[:, : self.vocabulary.size], places)

        window = self.context_window
        kept = [p if len(p) <= window else p[-max(window - max_new_tokens, 1) :] for p in prompts]
        with evaluation_mode(self.model):
            return generation.decode(self.model, kept, max_new_tokens, stop, self.batch_tokens, self.ranks, likeliest)

    def run_batches(
        self,
        batches: Sequence[Batch],
        run: Callable[[Batch], Result],
        size: Callable[[Batch], int],
        *,
        num_passes: Sequence[int] | None = None,
        description: str,
    ) -> list[Result]:
        """`run(batch)` of each batch, in their order, spread over the ranks.

        Args:
            batches: The same ones on every rank.
            run: Scores one batch; what it returns must be picklable where there are several ranks.
            size: How many sequences a batch has, for progress.
            num_passes: How many forward passes `run` makes for each batch; one where None.
            description: What is scored, for progress.
        """
        passes = np.ones(len(batches), dtype=np.int64) if num_passes is None else np.asarray(num_passes)
        rank, world_size = self.ranks.rank, self.ranks.world_size
        done = np.cumsum([size(batch) for batch in batches]).tolist()
        results: dict[int, Result] = {}
        with evaluation_mode(self.model), explain_batch_tokens(self.batch_tokens):
            for i in range(rank, len(batches), world_size):
                results[i] = run(batches[i])
                self.progress(description, done[i], done[-1])
            max_passes = max(int(passes[r::world_size].sum()) for r in range(world_size))
            for _ in range(max_passes - int(passes[rank::world_size].sum())):
                empty_pass(self.model)
        for part in self.ranks.all_gather_object(results):
            results |= part
        return [results[i] for i in range(len(batches))]


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Turns dropout off; afterwards the model is in the mode in which it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def require_finite(scores: np.ndarray, description: str) -> None:
    """Raises UserError if some scores are infinite or NaN."""
    bad = len(scores) - int(np.isfinite(scores).sum())
    if bad:
        raise UserError(
            f"the model gave no number for {bad} of {len(scores)} sequences ({description})",
            fix="its weights or its activations have overflowed; use an earlier checkpoint",
            exit_code=FAILED,
        )

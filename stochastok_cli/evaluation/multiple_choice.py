"""Multiple choice: each option is scored by log P(option | prefix), and the likeliest one is the model's answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.benchmarks import Benchmark
from stochastok_cli.evaluation.findings import EvalResult
from stochastok_cli.evaluation.metrics import chance, multiple_choice_metrics, normalized
from stochastok_cli.evaluation.scoring import BATCH_TOKENS, Pair
from stochastok_cli.evaluation.shared_prefix import question_log_likelihoods
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.vocabulary import Vocabulary


@dataclass(frozen=True)
class EncodedBenchmark:
    """A benchmark as ids that fit a context window.

    pairs: a prefix and an option, the options of a question one after the other; num_options: int64 `[questions]`;
    truncated: how many questions lost the beginning of their prefix; groups: by name, which questions belong to it
    (bool `[questions]`): those of a kind, those that were not trained on.
    """

    name: str
    pairs: list[Pair]
    num_options: np.ndarray
    truncated: int
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)


def boundary(prefix: str, option: str) -> tuple[str, str]:
    """The two texts as they are tokenized: the space at the boundary belongs to the option.

    The prefix's trailing whitespace moves to the option, which gets one space if it then has none. An option without
    a prefix begins a document, where training has seen no space, and gets none.

    >>> boundary("Answer:", "sing"), boundary("Answer: ", "sing"), boundary("Answer:", " sing"), boundary("", "Cats.")
    (('Answer:', ' sing'), ('Answer:', ' sing'), ('Answer:', ' sing'), ('', 'Cats.'))
    """
    kept = prefix.rstrip()
    option = prefix[len(kept) :] + option
    return kept, option if not kept or option[0].isspace() else f" {option}"


def encode(benchmark: Benchmark, vocabulary: Vocabulary, context_window: int) -> EncodedBenchmark:
    """Tokenizes prefix and options, each on its own.

    An empty prefix becomes the end-of-text id. A prefix that doesn't fit the window with the longest of its options
    loses ids from the left, the same for all its options, so that they stay comparable. Raises UserError naming the
    row of an option that is longer than the window.
    """
    pairs: list[Pair] = []
    truncated = 0
    for question in benchmark.questions:
        texts = [boundary(question.prefix, option) for option in question.options]
        prefix = vocabulary.encode(texts[0][0]) or [vocabulary.end_of_text]
        options = [vocabulary.encode_continuation(option) for _, option in texts]
        longest = max(map(len, options))
        if longest > context_window:
            raise UserError(
                f"benchmark {benchmark.name}, row {question.row}: an option has {longest} tokens, and the model's "
                f"context window is {context_window}",
                fix="leave the row out, or use a model with a longer window",
            )
        room = context_window + 1 - longest  # the last id of an option is predicted, never read
        truncated += len(prefix) > room
        pairs += [(prefix[-room:], option) for option in options]
    num_options = np.array([len(question.options) for question in benchmark.questions], dtype=np.int64)
    return EncodedBenchmark(benchmark.name, pairs, num_options, truncated)


def by_kind(benchmark: Benchmark) -> dict[str, np.ndarray]:
    """Which questions are of each kind, for `EncodedBenchmark.groups`; empty where there are no kinds."""
    kinds = np.array([question.kind for question in benchmark.questions])
    return {str(kind): kinds == kind for kind in sorted(set(kinds.tolist()) - {""})}


def score(
    model: CausalLM,
    encoded: EncodedBenchmark,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback = no_progress,
) -> EvalResult:
    """All metrics of `metrics.multiple_choice_metrics` as `mcq/<benchmark>/<metric>`.

    `mcq/<benchmark>/truncated` is added where prefixes were too long: the number of questions concerned.
    """
    scores = question_log_likelihoods(
        model, encoded.pairs, encoded.num_options, batch_tokens, what=encoded.name, progress=progress
    )
    by_question = np.split(scores, np.cumsum(encoded.num_options)[:-1])
    name = f"mcq/{encoded.name}"
    right = np.array([bool(np.all(s[0] > s[1:])) for s in by_question])
    metrics = multiple_choice_metrics(by_question)
    found = EvalResult({f"{name}/{metric}": value for metric, value in metrics.items()})
    found.outcomes[f"{name}/accuracy"] = right.astype(np.float64)
    found.outcomes[f"{name}/normalized_accuracy"] = normalized(right.astype(np.float64), chance(by_question))
    if encoded.truncated:
        found.metrics[f"{name}/truncated"] = encoded.truncated
    for group, members in encoded.groups.items():
        if members.any():
            found.add(f"{name}/{group}/accuracy", right[members])
    return found

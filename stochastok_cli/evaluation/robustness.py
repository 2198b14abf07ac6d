"""Robustness to tokenization: the same questions with their ids cut in other ways (arXiv 2604.16037).

What is cut anew is the prefix, the same for all options of a question; where there is no prefix, every option. The
options of a question with a prefix stay canonical, since an answer is what the model would say itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.findings import EvalResult
from stochastok_cli.evaluation.multiple_choice import EncodedBenchmark
from stochastok_cli.evaluation.scoring import BATCH_TOKENS, Pair
from stochastok_cli.evaluation.shared_prefix import question_log_likelihoods
from stochastok_cli.evaluation.statistics import bootstrap_share
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.vocabulary import Vocabulary

BINS = 10  # of the normalized edit distance, from 0 to 1


@dataclass(frozen=True)
class Tokenization:
    """How to cut: a method of expansion with its p, and how many ways."""

    method: str
    p: float
    samples: int

    @property
    def name(self) -> str:
        """As in the names of metrics and of expanded folders: `stochastok0.1`."""
        return f"{self.method}{self.p}"


def parse_tokenization(text: str, samples: int) -> Tokenization:
    """`METHOD:P`. Raises UserError for anything else; the method and p are judged by `StochasTok`.

    >>> parse_tokenization("uniform:0.5", 8)
    Tokenization(method='uniform', p=0.5, samples=8)
    """
    method, _, p = text.partition(":")
    try:
        return Tokenization(method, float(p), samples)
    except ValueError:
        raise UserError(f"--tokenization {text!r} is not METHOD:P", fix="for example stochastok:0.1") from None


@dataclass(frozen=True)
class Retokenized:
    """A benchmark cut in another way: its pairs, and by question the distance from the canonical tokenization: the
    splits made over the most that there can be, float64 `[questions]`."""

    pairs: list[Pair]
    distance: np.ndarray
    truncated: int


def retokenize(encoded: EncodedBenchmark, expand: StochasTok, end_of_text: int, context_window: int) -> Retokenized:
    """Cuts the questions of a benchmark anew, the same for the same `expand`.

    A prefix that no longer fits the window loses ids from the left; the number of such questions is reported.
    """
    pairs: list[Pair] = []
    distances, truncated, index = [], 0, 0
    most = expand.lattice.max_splits
    ends = np.cumsum(encoded.num_options)
    for end, n in zip(ends.tolist(), encoded.num_options.tolist(), strict=True):
        question = encoded.pairs[end - n : end]
        context = np.asarray(question[0][0])
        if _has_prefix(context, end_of_text):
            new = expand(context, index)
            room = context_window + 1 - max(len(option) for _, option in question)
            truncated += len(new) > room
            pairs += [(new[-room:], option) for _, option in question]
            distances.append((len(new) - len(context)) / max(int(most[context].sum()), 1))
            index += 1
        else:
            splits = possible = 0
            for _, option in question:
                new = expand(np.asarray(option), index)
                if len(new) > context_window:  # an option can't be cut short
                    new = np.asarray(option)
                    truncated += 1
                splits += len(new) - len(option)
                possible += int(most[np.asarray(option)].sum())
                pairs.append((context, new))
                index += 1
            distances.append(splits / max(possible, 1))
    return Retokenized(pairs, np.array(distances), truncated)


def _has_prefix(context: np.ndarray, end_of_text: int) -> bool:
    return len(context) != 1 or context[0] != end_of_text


def evaluate_retokenized(
    model: CausalLM,
    vocabulary: Vocabulary,
    encoded: EncodedBenchmark,
    tokenization: Tokenization,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback = no_progress,
) -> EvalResult:
    """A benchmark in `samples` other tokenizations, as `mcq/<benchmark>/<method><p>/<metric>`.

    accuracy: over all samples, a question giving its share of right answers; worst_case: right in every sample;
    any_case: right in at least one; worst_sample: the accuracy of the sample on which the model is worst;
    edit_distance: mean splits over the most that there can be; truncated where some questions did not fit. The curve
    `mcq/<benchmark>/<method><p>` is the accuracy against the distance, in BINS of it.
    """
    name = f"mcq/{encoded.name}/{tokenization.name}"
    right, distances, truncated = [], [], 0
    for sample in range(tokenization.samples):
        expand = StochasTok(vocabulary, tokenization.p, tokenization.method, seed=sample)
        cut = retokenize(encoded, expand, vocabulary.end_of_text, model.context_window)
        what = f"{encoded.name}, {tokenization.name}, sample {sample + 1} of {tokenization.samples}"
        scores = question_log_likelihoods(
            model, cut.pairs, encoded.num_options, batch_tokens, what=what, progress=progress
        )
        right.append(margins(scores, encoded.num_options) > 0)
        distances.append(cut.distance)
        truncated += cut.truncated
    answers, distance = np.array(right, dtype=np.float64), np.array(distances)
    found = EvalResult()
    found.add(f"{name}/accuracy", answers.mean(axis=0))
    found.add(f"{name}/worst_case", answers.min(axis=0))
    found.add(f"{name}/any_case", answers.max(axis=0))
    found.metrics[f"{name}/worst_sample"] = float(answers.mean(axis=1).min())
    found.metrics[f"{name}/edit_distance"] = float(distance.mean())
    if truncated:
        found.metrics[f"{name}/truncated"] = truncated
    found.curves[name] = accuracy_by_distance(answers, distance)
    return found


def accuracy_by_distance(right: np.ndarray, distance: np.ndarray) -> list[dict[str, Any]]:
    """The accuracy in each of BINS equal parts of the distance from 0 to 1 that has questions in it, of answers and
    distances `[samples, questions]`. `x` is the mean distance there, `n` the number of answers, `low` and `high` the
    bootstrap interval over the questions."""
    place = np.minimum((distance * BINS).astype(int), BINS - 1)
    points = []
    for part in range(BINS):
        here = place == part
        if here.any():
            low, high = bootstrap_share((right * here).sum(axis=0), here.sum(axis=0))
            point = {"x": distance[here].mean(), "y": right[here].mean(), "n": here.sum(), "low": low, "high": high}
            points.append({name: float(value) for name, value in point.items()})
    return points


def margins(scores: np.ndarray, num_options: Sequence[int] | np.ndarray) -> np.ndarray:
    """By how much the right option of each question is likelier than the best of the others, in nats."""
    by_question = np.split(scores, np.cumsum(num_options)[:-1])
    return np.array([s[0] - s[1:].max() for s in by_question])

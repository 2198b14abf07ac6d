"""The likelihood of a text over its tokenizations, estimated by importance sampling.

A model assigns a probability to every tokenization of a text, and the probability of the text is their sum. A model
trained on expanded data puts some of it on other tokenizations than the canonical one, so that its canonical likelihood
alone underestimates it. The sum here is over all refinements of the canonical ids: each id replaced by any of its
segmentations. With draws t from `uniform`, whose probability q(t) is known exactly,

    P(text) = P(canonical) + E[ P(t) / q(t), where t is not canonical ],

estimated for one span of SPAN canonical ids after the other, each given the canonical ids before it: over a longer
stretch the weights would differ by so much that one draw decides. The logarithm of an estimate is too small on average
(Jensen), so that the bits reported are an upper bound in the mean, and never above the canonical ones.

With few draws this bias is larger than the spread of the estimate, and an error of the spread alone would hardly ever
cover the truth. The error therefore also spans the distance to an estimate that is too large on average: the tangent of
the logarithm, log c + x / c - 1 >= log x, at an x and a c from different halves of the draws. Neither sees what no draw
has met: that is what the effective sample size (Kish 1965) is for.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import EvaluatorOutput
from stochastok_cli.evaluation.likelihood import Pair
from stochastok_cli.evaluation.metrics import bits_per_byte
from stochastok_cli.evaluation.results import Metric
from stochastok_cli.evaluation.robustness import Tokenization
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.evaluation.statistics import CONFIDENCE_Z
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.segmentation_lattice import SegmentationLattice
from stochastok_cli.tokenization.vocabulary import Vocabulary

SPAN = 8  # canonical ids whose tokenizations are summed over together
LEAST_EFFECTIVE_SAMPLES = 50
"""With fewer effective draws the error can't be relied on (see the simulation in the tests)."""
_SPANS = 2**12  # held at once
_LARGEST_EXPONENT = 300.0  # of a weight, whose square must be finite


def evaluate_marginal(
    lm: LM, name: str, ids: np.ndarray, num_bytes: int, tokenization: Tokenization
) -> EvaluatorOutput:
    """Bits per byte of a text, as metrics of the part `<method><p>`.

    canonical: bits per byte of the canonical ids alone; all_tokenizations: bits per byte of the sum over tokenizations;
    monte_carlo_error: one standard error of `all_tokenizations`, with the bias of the logarithm; effective_sample_size:
    how many draws of equal weight would carry as much information about the other tokenizations (0: no draw has any).

    Args:
        lm: The model.
        name: The name of the text.
        ids: Its canonical ids, `[tokens]`.
        num_bytes: How many bytes of text they have.
        tokenization: What is drawn; see `require_known_probability`.
    """
    require_known_probability(tokenization)
    require_draws_fit(name, ids, lm.vocabulary, tokenization, lm.context_window)
    progress, lm = lm.progress, lm.without_progress()
    spans = [ids[start : start + SPAN] for start in range(0, len(ids), SPAN)]
    estimates = []
    for first in range(0, len(spans), _SPANS):
        some = spans[first : first + _SPANS]
        draws, log_q = _draw(some, first, lm.vocabulary, tokenization)
        pairs = list(_pairs(ids, first * SPAN, some, draws, lm.context_window, lm.vocabulary.end_of_text))
        num_options = [tokenization.samples + 1] * len(some)
        nats = lm.question_log_likelihoods(pairs, num_options, description=name)
        estimates.append(sum_of_spans(nats.reshape(len(some), -1), log_q))
        progress(f"{name}, {tokenization.text}", first + len(some), len(spans))
    whole = Estimate(*map(sum, zip(*estimates, strict=True)))
    nats_of = {"canonical": -whole.canonical, "all_tokenizations": -whole.total, "monte_carlo_error": whole.error}
    values = {metric: bits_per_byte(nats, num_bytes) for metric, nats in nats_of.items()}
    values["effective_sample_size"] = whole.effective_sample_size
    return EvaluatorOutput(
        [Metric("bits_per_byte", name, tokenization.name, metric, value, len(ids)) for metric, value in values.items()]
    )


def require_known_probability(tokenization: Tokenization) -> None:
    """Raises UserError for another method than `uniform`, and for p = 0, which draws nothing."""
    if tokenization.method != "uniform" or tokenization.p == 0:
        raise UserError(
            f"--tokenization {tokenization.method}:{tokenization.p}: of bits per byte over all tokenizations the "
            "draws must have a known probability",
            fix="give uniform:P with P above 0, such as uniform:0.2",
        )


def require_draws_fit(
    name: str, ids: np.ndarray, vocabulary: Vocabulary, tokenization: Tokenization, context_window: int
) -> None:
    """Raises UserError if a draw of some span of a text is longer than the context window.

    The draws are known before the model is: they are made here where the longest segmentation does not fit.

    Args:
        name: The name of the text.
        ids: Its canonical ids, `[tokens]`.
        vocabulary: The vocabulary.
        tokenization: What is drawn.
        context_window: The most ids that the model reads.
    """
    expanders = _expanders(vocabulary, tokenization)
    most = expanders[0].lattice.max_splits.astype(np.int64) + 1  # ids of the longest segmentation of each id
    step = _SPANS * SPAN
    for start in range(0, len(ids), step):
        some = ids[start : start + step]
        starts = np.arange(0, len(some), SPAN)
        if np.add.reduceat(most[some], starts).max() <= context_window:
            continue
        lengths = np.minimum(SPAN, len(some) - starts)
        drawn = [expand.documents(some, lengths, start // SPAN)[1] for expand in expanders]
        longest = np.max([lengths, *drawn], axis=0)
        if longest.max() > context_window:
            span = int(np.argmax(longest > context_window))
            at = start + span * SPAN
            raise UserError(
                f"bits per byte of {name} over all tokenizations: of the {lengths[span]} tokens from token {at:,} on, "
                f"a draw of {tokenization.text} has {longest[span]}, more than the model's context window of "
                f"{context_window}",
                fix="give a smaller P in --tokenization uniform:P, or a model with a longer window"
                if (lengths <= context_window).all()
                else "give a model with a longer window",
            )


class Estimate(NamedTuple):
    """Sums over spans, in nats, of the log-likelihood over all tokenizations and of what its error is made of.

    Attributes:
        canonical: log P(canonical).
        total: The estimate, which is too small on average.
        variance: Its variance (delta method); NaN for a single draw a span.
        upper: An estimate that is too large on average.
        upper_variance: The variance of `upper`.
        weight: The weights of the draws relative to the estimate of their span.
        weight_squared: Their squares.
    """

    canonical: float
    total: float
    variance: float
    upper: float
    upper_variance: float
    weight: float
    weight_squared: float

    @property
    def error(self) -> float:
        """So that `total` and the truth differ by at most 1.96 errors with a probability of 95%.

        NaN where no draw differs from the canonical tokenization: then nothing is known about the others.
        """
        if not self.weight_squared:
            return math.nan
        above = max(self.upper - self.total, 0.0) / CONFIDENCE_Z + math.sqrt(self.upper_variance)
        error = max(above, math.sqrt(self.variance))
        return min(error, -self.total / CONFIDENCE_Z) if self.total < 0 else error  # no text is likelier than 1

    @property
    def effective_sample_size(self) -> float:
        """Kish's effective number of draws."""
        return self.weight**2 / self.weight_squared if self.weight_squared else 0.0


def sum_of_spans(nats: np.ndarray, log_q: np.ndarray) -> Estimate:
    """Estimates the log-likelihood of spans over all of their tokenizations.

    Args:
        nats: The model's log-likelihoods, the canonical tokenization first, float64 `[spans, 1 + samples]`.
        log_q: Log-probabilities of the draws, float64 `[spans, samples]`; infinite for a draw that is canonical.
    """
    canonical = nats[:, 0]
    weights = np.exp(np.minimum(nats[:, 1:] - canonical[:, None] - log_q, _LARGEST_EXPONENT))  # over P(canonical)
    total = 1 + weights.mean(axis=1)
    samples = weights.shape[1]
    if samples > 1:
        spread = weights.var(axis=1, ddof=1)
        variance = spread / samples / total**2
        first, second = weights[:, : samples // 2], weights[:, samples // 2 :]
        one, one_variance = _tangent(1 + first.mean(axis=1), 1 + second.mean(axis=1), spread / second.shape[1])
        two, two_variance = _tangent(1 + second.mean(axis=1), 1 + first.mean(axis=1), spread / first.shape[1])
        # The halves are independent, and where a tangent touches hardly matters for how much it varies.
        upper, upper_variance = (one + two) / 2, (one_variance + two_variance) / 4
    else:
        variance = upper = upper_variance = np.full(len(weights), np.nan)
    shares = weights / total[:, None]
    sums = canonical, canonical + np.log(total), variance, canonical + upper, upper_variance, shares, shares**2
    return Estimate(*(float(one.sum()) for one in sums))


def _tangent(at: np.ndarray, x: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tangent of the logarithm at `at`, at `x` of some `variance`, and the variance of that, each `[spans]`."""
    return np.log(at) + x / at - 1, variance / at**2


def _expanders(vocabulary: Vocabulary, tokenization: Tokenization) -> list[StochasTok]:
    """What makes each sample's draws."""
    return [StochasTok(vocabulary, tokenization.p, "uniform", seed=sample) for sample in range(tokenization.samples)]


def _draw(
    spans: list[np.ndarray], first_index: int, vocabulary: Vocabulary, tokenization: Tokenization
) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """Draws of each span and their log q, `[spans, samples]`."""
    lengths = np.array([len(span) for span in spans])
    flat = np.concatenate(spans)
    draws: list[list[np.ndarray]] = [[] for _ in spans]
    log_q = np.empty((len(spans), tokenization.samples))
    for sample, expand in enumerate(_expanders(vocabulary, tokenization)):
        out, new_lengths = expand.documents(flat, lengths, first_index)
        ends = np.cumsum(new_lengths)
        for i, (end, n) in enumerate(zip(ends.tolist(), new_lengths.tolist(), strict=True)):
            drawn = out[end - n : end]
            draws[i].append(drawn)
            is_canonical = len(drawn) == len(spans[i]) and bool((drawn == spans[i]).all())
            log_q[i, sample] = (
                np.inf if is_canonical else log_probability(spans[i], drawn, expand.lattice, vocabulary, expand.p)
            )
    return draws, log_q


def log_probability(
    canonical: np.ndarray, drawn: np.ndarray, lattice: SegmentationLattice, vocabulary: Vocabulary, p: float
) -> float:
    """log q of ids that `uniform` drew from canonical ones.

    Each segmentation of a token has the probability p / (number of segmentations); its own id has another 1 - p.
    """
    total, end = 0.0, 0
    for token in canonical.tolist():
        length, covered, start = len(vocabulary.pieces[token]), 0, end
        while covered < length:
            covered += len(vocabulary.pieces[drawn[end]])
            end += 1
        segmentations = float(lattice.total[lattice.node[token]])
        if segmentations > 1:
            unchanged = end == start + 1 and drawn[start] == token
            total += math.log(p / segmentations + (1 - p if unchanged else 0.0))
    return total


def _pairs(
    ids: np.ndarray,
    start: int,
    spans: list[np.ndarray],
    draws: list[list[np.ndarray]],
    context_window: int,
    end_of_text: int,
) -> Iterator[Pair]:
    """The canonical span and its draws, each after as many of the canonical ids before it as fit with the longest."""
    for span, drawn in zip(spans, draws, strict=True):
        limit = context_window + 1 - max(map(len, [span, *drawn]))
        context = ids[max(start - limit, 0) : start] if start else np.array([end_of_text])
        yield context, span
        for draw in drawn:
            yield context, draw
        start += len(span)

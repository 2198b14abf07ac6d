"""The likelihood of a text over its tokenizations, estimated by importance sampling.

A model assigns a probability to every tokenization of a text, and the probability of the text is their sum. A model
trained on expanded data puts some of it on other tokenizations than the canonical one, so that its canonical likelihood
alone underestimates it. The sum here is over all refinements of the canonical ids: each id replaced by any of its
segmentations. With draws t from `uniform`, whose probability q(t) is known exactly,

    P(text) = P(canonical) + E[ P(t) / q(t), where t is not canonical ],

estimated for one span of SPAN canonical ids after the other, each given the canonical ids before it: over a longer
stretch the weights would differ by so much that one draw decides. The logarithm of an estimate is too small on average
(Jensen), so that the bits reported are an upper bound in the mean, and never above the canonical ones.
"""

import math
from collections.abc import Iterator

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import EvaluatorOutput, Metric
from stochastok_cli.evaluation.likelihood import Pair
from stochastok_cli.evaluation.metrics import bits_per_byte
from stochastok_cli.evaluation.robustness import Tokenization
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.segmentation_lattice import SegmentationLattice
from stochastok_cli.tokenization.vocabulary import Vocabulary

SPAN = 8  # canonical ids whose tokenizations are summed over together
_SPANS = 2**12  # held at once


def evaluate_marginal(
    lm: LM, name: str, ids: np.ndarray, num_bytes: int, tokenization: Tokenization
) -> EvaluatorOutput:
    """Bits per byte of a text, as metrics of the part `<method><p>`.

    canonical: bits per byte of the canonical ids alone; all_tokenizations: bits per byte of the sum over tokenizations;
    monte_carlo_error: one standard error of `all_tokenizations`.

    Args:
        lm: The model.
        name: The name of the text.
        ids: Its canonical ids, `[tokens]`.
        num_bytes: How many bytes of text they have.
        tokenization: What is drawn; see `require_known_probability`.
    """
    require_known_probability(tokenization)
    progress, lm = lm.progress, lm.without_progress()
    spans = [ids[start : start + SPAN] for start in range(0, len(ids), SPAN)]
    canonical = total = variance = 0.0
    for first in range(0, len(spans), _SPANS):
        some = spans[first : first + _SPANS]
        draws, log_q = _draw(some, first, lm.vocabulary, tokenization)
        pairs = list(_pairs(ids, first * SPAN, some, draws, lm.context_window, lm.vocabulary.end_of_text))
        num_options = [tokenization.samples + 1] * len(some)
        nats = lm.question_log_likelihoods(pairs, num_options, description=name)
        log_canonical, log_total, error = estimate(nats.reshape(len(some), -1), log_q)
        canonical -= log_canonical.sum()
        total -= log_total.sum()
        variance += float((error**2).sum())
        progress(f"{name}, {tokenization.name}", first + len(some), len(spans))
    values = {"canonical": canonical, "all_tokenizations": total, "monte_carlo_error": math.sqrt(variance)}
    return EvaluatorOutput(
        [
            Metric("bits_per_byte", name, tokenization.name, metric, bits_per_byte(nats, num_bytes), len(ids))
            for metric, nats in values.items()
        ]
    )


def require_known_probability(tokenization: Tokenization) -> None:
    """Raises UserError for another method than `uniform`, and for p = 0, which draws nothing."""
    if tokenization.method != "uniform" or tokenization.p == 0:
        raise UserError(
            f"--tokenization {tokenization.method}:{tokenization.p}: of bits per byte over all tokenizations the "
            "draws must have a known probability",
            fix="give uniform:P with P above 0, such as uniform:0.2",
        )


def estimate(nats: np.ndarray, log_q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates the log-likelihood of each span over all of its tokenizations.

    Args:
        nats: The model's log-likelihoods, the canonical tokenization first, float64 `[spans, 1 + samples]`.
        log_q: Log-probabilities of the draws, float64 `[spans, samples]`; infinite for a draw that is canonical.

    Returns:
        By span, float64 `[spans]` each: log P(canonical), the log of the estimated sum, and the standard error of that
        log (delta method).
    """
    canonical = nats[:, 0]
    weights = np.exp(np.minimum(nats[:, 1:] - canonical[:, None] - log_q, 700))  # relative to P(canonical)
    total = 1 + weights.mean(axis=1)
    samples = weights.shape[1]
    error = weights.std(axis=1, ddof=1) / math.sqrt(samples) if samples > 1 else np.full(len(weights), np.nan)
    return canonical, canonical + np.log(total), error / total


def _draw(
    spans: list[np.ndarray], first_index: int, vocabulary: Vocabulary, tokenization: Tokenization
) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """Draws of each span and their log q, `[spans, samples]`."""
    lengths = np.array([len(span) for span in spans])
    flat = np.concatenate(spans)
    draws: list[list[np.ndarray]] = [[] for _ in spans]
    log_q = np.empty((len(spans), tokenization.samples))
    for sample in range(tokenization.samples):
        expand = StochasTok(vocabulary, tokenization.p, "uniform", seed=sample)
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
        longest = max(map(len, [span, *drawn]))
        limit = context_window + 1 - longest
        if limit < 1:
            raise UserError(
                f"a draw of {len(span)} tokens has {longest}, and the context window only {context_window}",
                fix="lower P in --tokenization uniform:P",
            )
        context = ids[max(start - limit, 0) : start] if start else np.array([end_of_text])
        yield context, span
        for draw in drawn:
            yield context, draw
        start += len(span)

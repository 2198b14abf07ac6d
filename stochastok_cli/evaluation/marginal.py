"""The likelihood of a text over its tokenizations, estimated by importance sampling.

A model gives every tokenization of a text a probability, and the text's own is their sum. A model trained on expanded
data puts some of it on other tokenizations than the canonical one, so its canonical likelihood alone sells it short.
The sum here is over all refinements of the canonical ids: each id replaced by any of its segmentations. With draws
t from `uniform`, whose probability q(t) is known exactly,

    P(text) = P(canonical) + E[ P(t) / q(t), where t is not canonical ],

estimated for one span of SPAN canonical ids after the other, each given the canonical ids before it: over a long
stretch the weights would differ by so much that one draw decides. The logarithm of an estimate is too small on average
(Jensen), so the bits reported are an upper bound in the mean, and never above the canonical ones.
"""

import math
from collections.abc import Iterator

import numpy as np

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.bits_per_byte import ScoredText
from stochastok_cli.evaluation.findings import EvalResult
from stochastok_cli.evaluation.robustness import Tokenization
from stochastok_cli.evaluation.scoring import BATCH_TOKENS, Pair
from stochastok_cli.evaluation.shared_prefix import question_log_likelihoods
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.segmentation_lattice import SegmentationLattice
from stochastok_cli.tokenization.vocabulary import Vocabulary

SPAN = 8  # canonical ids whose tokenizations are summed over together
_SPANS = 2**12  # held at once


def marginal_bits_per_byte(
    model: CausalLM,
    vocabulary: Vocabulary,
    text: ScoredText,
    tokenization: Tokenization,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: ProgressCallback = no_progress,
) -> EvalResult:
    """Bits per byte as `bits_per_byte/<folder>/<method><p>/<metric>`: `canonical` ids alone, `all_tokenizations`, and
    the `monte_carlo_error` of the latter (one standard error)."""
    require_known_probability(tokenization)
    spans = [text.ids[start : start + SPAN] for start in range(0, len(text.ids), SPAN)]
    canonical = estimated = variance = 0.0
    for first in range(0, len(spans), _SPANS):
        some = spans[first : first + _SPANS]
        draws, log_q = _draw(some, first, vocabulary, tokenization)
        pairs = list(_pairs(text.ids, first * SPAN, some, draws, model.context_window, vocabulary.end_of_text))
        num_options = [tokenization.samples + 1] * len(some)
        nats = question_log_likelihoods(model, pairs, num_options, batch_tokens, what=text.name)
        found = estimate(nats.reshape(len(some), -1), log_q)
        canonical -= found[0].sum()
        estimated -= found[1].sum()
        variance += float((found[2] ** 2).sum())
        progress(f"{text.name}, {tokenization.name}", first + len(some), len(spans))
    name, unit = f"bits_per_byte/{text.name}/{tokenization.name}", math.log(2) * text.num_bytes
    return EvalResult(
        {
            f"{name}/canonical": canonical / unit,
            f"{name}/all_tokenizations": estimated / unit,
            f"{name}/monte_carlo_error": math.sqrt(variance) / unit,
        }
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
    """By span: log P(canonical), the log of the estimated sum, and the standard error of that log (delta method).

    `nats` `[spans, 1 + samples]` are the model's log-likelihoods, the canonical first; `log_q` `[spans, samples]` the
    draws' log-probabilities, infinite for a draw that is the canonical one.
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
            same = len(drawn) == len(spans[i]) and bool((drawn == spans[i]).all())
            log_q[i, sample] = (
                np.inf if same else log_probability(spans[i], drawn, expand.lattice, vocabulary, expand.p)
            )
    return draws, log_q


def log_probability(
    canonical: np.ndarray, drawn: np.ndarray, lattice: SegmentationLattice, vocabulary: Vocabulary, p: float
) -> float:
    """log q of ids that `uniform` drew from canonical ones: each token's segmentation has p / (number of them), and its
    own id, where it stayed, another 1 - p."""
    total, place = 0.0, 0
    for token in canonical.tolist():
        size, taken, start = len(vocabulary.pieces[token]), 0, place
        while taken < size:
            taken += len(vocabulary.pieces[drawn[place]])
            place += 1
        ways = float(lattice.total[lattice.node[token]])
        if ways > 1:
            stayed = place == start + 1 and drawn[start] == token
            total += math.log(p / ways + (1 - p if stayed else 0.0))
    return total


def _pairs(
    ids: np.ndarray, start: int, spans: list[np.ndarray], draws: list[list[np.ndarray]], window: int, end_of_text: int
) -> Iterator[Pair]:
    """The canonical span and its draws, each after as many of the canonical ids before it as fit with the longest."""
    for span, drawn in zip(spans, draws, strict=True):
        room = window + 1 - max(map(len, [span, *drawn]))
        if room < 1:
            raise UserError(
                f"a draw of {len(span)} tokens has {window + 1 - room}, and the context window only {window}",
                fix="lower P in --tokenization uniform:P",
            )
        context = ids[max(start - room, 0) : start] if start else np.array([end_of_text])
        yield context, span
        for one in drawn:
            yield context, one
        start += len(span)

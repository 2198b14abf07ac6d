"""The likelihood over all tokenizations against their sum, one by one."""

import itertools
import math

import numpy as np
import pytest

from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation import marginal
from stochastok_cli.evaluation.evaluators.bits_per_byte import BitsPerByte, ScoredText, evaluate_bits_per_byte
from stochastok_cli.evaluation.marginal import evaluate_marginal, log_probability
from stochastok_cli.evaluation.robustness import Tokenization
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.evaluation.statistics import CONFIDENCE_Z
from stochastok_cli.progress import no_progress
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.segmentation_lattice import segmentation_lattice
from tests.models.small_models import sharp_model, small_config
from tests.tokenization.toys import ids_of, toy_vocabulary


def marginal_bits_per_byte(model, vocabulary, text: ScoredText, tokenization: Tokenization) -> dict[str, float]:
    return evaluate_marginal(LM(model, vocabulary), text.name, text.ids, text.num_bytes, tokenization).values


def segmentations(spelled: bytes, ids: dict[bytes, int]) -> list[list[int]]:
    if not spelled:
        return [[]]
    return [
        [ids[spelled[:n]], *rest]
        for n in range(1, len(spelled) + 1)
        if spelled[:n] in ids
        for rest in segmentations(spelled[n:], ids)
    ]


@pytest.fixture(scope="module")
def tokenizations(vocabulary):
    """A few canonical ids and all of their refinements."""
    ids = {piece: i for i, piece in enumerate(vocabulary.pieces) if i not in vocabulary.special}
    canonical = vocabulary.encode("The old house")
    parts = [segmentations(vocabulary.token_bytes(i), ids) for i in canonical]
    return canonical, [list(itertools.chain(*chosen)) for chosen in itertools.product(*parts)]


@pytest.mark.parametrize("p", [0.3, 1.0])
def test_the_probabilities_of_the_draws_sum_to_1(vocabulary, tokenizations, p):
    canonical, every = tokenizations
    lattice = segmentation_lattice(vocabulary)
    canonical = np.array(canonical)
    total = sum(math.exp(log_probability(canonical, np.array(one), lattice, vocabulary, p)) for one in every)
    assert len(every) > 100
    assert total == pytest.approx(1)


def test_the_estimate_agrees_with_the_sum_within_its_error(vocabulary, model, tokenizations, monkeypatch):
    canonical, every = tokenizations
    monkeypatch.setattr(marginal, "SPAN", len(canonical))
    nats = LM(model, vocabulary).log_likelihoods([([vocabulary.end_of_text], one) for one in every])
    bits = len(b"The old house") * math.log(2)
    truth = -np.logaddexp.reduce(nats) / bits
    text = ScoredText("text", np.array(canonical, dtype=np.uint16), len(b"The old house"))
    values = marginal_bits_per_byte(model, vocabulary, text, Tokenization("uniform", 1.0, 2000))
    name = "bits_per_byte/text/uniform1.0"
    error = values[f"{name}/monte_carlo_error"]
    assert 0 < error < 0.1
    assert abs(values[f"{name}/all_tokenizations"] - truth) < 4 * error
    assert values[f"{name}/canonical"] == pytest.approx(-nats[every.index(canonical)] / bits, abs=1e-5)
    assert truth < values[f"{name}/canonical"] - 4 * error  # or the test would show nothing


WORDS = toy_vocabulary("a", "b", "c", "d", "ab", "bc", "cd", "abc", "bcd", "abcd", "dd", "ddd")
WHOLE = np.array(ids_of(WORDS, "abcd", "ddd"))  # 8 and 4 segmentations


def simulated(spans: int, samples: int, p: float, repetition: int, preferred: float) -> tuple[marginal.Estimate, float]:
    """The estimate for spans of one token, and the sum over all of its tokenizations, under a made-up model.

    The model gives each token of each span a weight of its own, so that P(t) is the product of the weights of t.
    `preferred` is how unequal they are.
    """
    random = np.random.default_rng(0)
    log_weight = preferred * random.standard_normal((spans, WORDS.size)) - 1

    def log_p(i: int, ids: list[int]) -> float:
        return log_weight[i, ids].sum() - 20  # so small that no span is likelier than 1

    tokens = WHOLE[np.arange(spans) % 2]
    draws, log_q = marginal._draw(
        [tokens[i : i + 1] for i in range(spans)], repetition * spans, WORDS, Tokenization("uniform", p, samples)
    )
    nats = np.array([[log_p(i, [token]), *(log_p(i, t) for t in draws[i])] for i, token in enumerate(tokens)])
    ids = {piece: i for i, piece in enumerate(WORDS.pieces)}
    every = {token: segmentations(WORDS.pieces[token], ids) for token in WHOLE.tolist()}
    sums = [[log_p(i, t) for t in every[token]] for i, token in enumerate(tokens.tolist())]
    return marginal.sum_of_spans(nats, log_q), sum(np.logaddexp.reduce(one) for one in sums)


@pytest.mark.parametrize(("spans", "samples"), [(200, 2), (60, 8), (10, 64)])
@pytest.mark.parametrize("preferred", [0.5, 1.5])
def test_the_error_covers_the_sum_of_all_tokenizations(spans, samples, preferred):
    """About as often as it says or more often, with few draws too."""
    by_error = []
    for repetition in range(30):
        estimated, truth = simulated(spans, samples, 1.0, repetition, preferred)
        assert estimated.effective_sample_size >= marginal.LEAST_EFFECTIVE_SAMPLES
        assert 0 > estimated.total >= estimated.canonical
        assert CONFIDENCE_Z * estimated.error <= -estimated.total  # no text is likelier than 1
        by_error.append(abs(estimated.total - truth) <= CONFIDENCE_Z * estimated.error)
    assert np.mean(by_error) >= 0.9


def test_the_error_without_the_bias_does_not_cover_it():
    """What the test above would not show if its cases were easier."""
    results = [simulated(200, 2, 1.0, repetition, 1.5) for repetition in range(10)]
    assert not any(abs(one.total - truth) <= CONFIDENCE_Z * math.sqrt(one.variance) for one, truth in results)


def test_few_effective_draws_are_told_by_their_number():
    estimated, _ = simulated(10, 2, 0.2, 0, 3.0)
    assert estimated.effective_sample_size < marginal.LEAST_EFFECTIVE_SAMPLES
    one_draw, _ = simulated(10, 1, 1.0, 0, 0.5)
    assert math.isnan(one_draw.error)
    none_differs, _ = simulated(1, 2, 1e-9, 0, 0.5)
    assert none_differs.effective_sample_size == 0 and math.isnan(none_differs.error)


def test_the_canonical_part_is_the_ordinary_bits_per_byte_while_the_window_holds_all(vocabulary, model):
    ids = np.array(vocabulary.encode("It was a dark night, and the old house stood by the river."), dtype=np.uint16)
    text = ScoredText("text", ids[:40], len(vocabulary.decode_bytes(ids[:40].tolist())))
    values = marginal_bits_per_byte(model, vocabulary, text, Tokenization("uniform", 0.1, 3))
    ordinary = evaluate_bits_per_byte(LM(model, vocabulary), text).values["bits_per_byte/text"]
    # Where a draw is long, its span sees a little less of what came before.
    assert values["bits_per_byte/text/uniform0.1/canonical"] == pytest.approx(ordinary, rel=0.02)
    assert (
        values["bits_per_byte/text/uniform0.1/all_tokenizations"] <= values["bits_per_byte/text/uniform0.1/canonical"]
    )


def test_a_draw_longer_than_the_window_is_one_clear_line(vocabulary):
    ids = np.array(vocabulary.encode("understanding everything " * 4), dtype=np.uint16)
    text = ScoredText("text", ids, 100)
    narrow = sharp_model(small_config(context_window=16))
    with pytest.raises(UserError, match=r"from token \d+ on, a draw .* window of 16; give a smaller P"):
        marginal_bits_per_byte(narrow, vocabulary, text, Tokenization("uniform", 1.0, 4))


@pytest.mark.parametrize("window", range(6, 40, 3))
def test_draws_fit_exactly_where_no_draw_is_longer_than_the_window(vocabulary, window, monkeypatch):
    monkeypatch.setattr(marginal, "_SPANS", 2)  # several at once, and not all
    ids = np.array(vocabulary.encode("The old house stands behind understanding everything alone."), dtype=np.uint16)
    draws = Tokenization("uniform", 0.7, 3)
    longest = max(
        len(drawn)
        for sample in range(3)
        for i in range(0, len(ids), marginal.SPAN)
        for drawn in [StochasTok(vocabulary, 0.7, "uniform", seed=sample)(ids[i : i + marginal.SPAN], i // 8)]
    )
    if longest <= window:
        marginal.require_draws_fit("text", ids, vocabulary, draws, window)
    else:
        remedy = "give a smaller P" if window >= marginal.SPAN else "give a model with a longer window"
        with pytest.raises(UserError, match=f"window of {window}; {remedy}"):
            marginal.require_draws_fit("text", ids, vocabulary, draws, window)


def test_draws_that_do_not_fit_are_refused_when_the_text_is_loaded(vocabulary, tmp_path):
    tokenize("sample", tokenizer="sample2k", data_dir=tmp_path)
    evaluator = BitsPerByte(benchmarks=("sample-tokenized",), tokenization="uniform:1.0", num_samples=2)
    with pytest.raises(UserError, match="bits per byte of sample-tokenized over all tokenizations: .* smaller P"):
        evaluator.load(vocabulary, 12, tmp_path, no_progress)
    assert evaluator.load(vocabulary, 200, tmp_path, no_progress)


def test_draws_of_unknown_probability_are_refused(vocabulary, model):
    text = ScoredText("text", np.array([1, 2], dtype=np.uint16), 2)
    for tokenization in (Tokenization("stochastok", 0.1, 2), Tokenization("uniform", 0.0, 2)):
        with pytest.raises(UserError, match="known probability; give uniform:P"):
            marginal_bits_per_byte(model, vocabulary, text, tokenization)

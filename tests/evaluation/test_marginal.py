"""The likelihood over all tokenizations against their sum, one by one."""

import itertools
import math

import numpy as np
import pytest

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation import marginal
from stochastok_cli.evaluation.evaluators.bits_per_byte import ScoredText, evaluate_bits_per_byte
from stochastok_cli.evaluation.marginal import evaluate_marginal, log_probability
from stochastok_cli.evaluation.robustness import Tokenization
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.tokenization.segmentation_lattice import segmentation_lattice
from tests.models.small_models import sharp_model, small_config


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
    with pytest.raises(UserError, match="the context window only 16; lower P"):
        marginal_bits_per_byte(narrow, vocabulary, text, Tokenization("uniform", 1.0, 4))


def test_draws_of_unknown_probability_are_refused(vocabulary, model):
    text = ScoredText("text", np.array([1, 2], dtype=np.uint16), 2)
    for tokenization in (Tokenization("stochastok", 0.1, 2), Tokenization("uniform", 0.0, 2)):
        with pytest.raises(UserError, match="known probability; give uniform:P"):
            marginal_bits_per_byte(model, vocabulary, text, tokenization)

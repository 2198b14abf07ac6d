"""Normalizations of answers, held to the metric of lm-evaluation-harness."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.text_match import Normalization, exact_match, prefix_match

TEXTS = st.text(st.sampled_from("aAbBß3٣.,!$ \nİé"), max_size=6)
REGEXES = st.lists(st.sampled_from([",", r"\$", "(?s).*#", r"\.$", "[aA]+", "^b"]), max_size=2).map(tuple)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(TEXTS, TEXTS, st.booleans(), st.booleans(), st.booleans(), REGEXES)
def test_texts_are_equal_when_lm_eval_says_so(answer, right, case, punctuation, numbers, regexes):
    # The harness lowers letters in NumPy arrays of a fixed width, which cut off what becomes longer, as İ does.
    assume(not case or "İ" not in answer + right)
    metrics = pytest.importorskip("lm_eval.api.metrics", reason="the extra lm-eval is not installed")
    expected = metrics.exact_match_hf_evaluate(
        [answer],
        [right],
        regexes_to_ignore=list(regexes) or None,
        ignore_case=case,
        ignore_punctuation=punctuation,
        ignore_numbers=numbers,
    )["exact_match"]
    normalization = Normalization(case, punctuation, numbers, regexes)
    assert (normalization.apply(answer) == normalization.apply(right)) == bool(expected)


@given(TEXTS, TEXTS, st.booleans(), st.booleans(), st.booleans(), REGEXES)
def test_matches_agree_with_each_other(answer, right, case, punctuation, numbers, regexes):
    normalization = Normalization(case, punctuation, numbers, regexes)
    exact, prefix = (match(answer, [right, "never"], normalization) for match in (exact_match, prefix_match))
    assert not exact or prefix
    assert exact == exact_match(right, [answer], normalization)
    assert exact_match(f" {right}\n", [right], Normalization())
    assert prefix_match(f"{right} {answer}", [right], Normalization()) == bool(right.strip() or not answer.strip())
    if exact_match(answer, [right], Normalization(regexes_to_ignore=regexes)):
        assert exact


def test_an_expression_that_is_none():
    with pytest.raises(UserError, match=r"--regexes-to-ignore '\(' is no regular expression: "):
        Normalization(regexes_to_ignore=("(",)).check()

"""The search for the most harmful tokenization: its neighbors, its budget, and what it finds."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stochastok_cli.evaluation import adversarial
from stochastok_cli.evaluation.adversarial import (
    SearchSettings,
    evaluate_adversarial,
    evaluate_transfer,
    search_hardest,
)
from stochastok_cli.evaluation.benchmarks import Benchmark, Question
from stochastok_cli.evaluation.encoding import EncodedBenchmark, EncodedQuestion, encode
from stochastok_cli.evaluation.evaluators.multiple_choice import MultipleChoice
from stochastok_cli.evaluation.metrics import margins
from stochastok_cli.evaluation.neighbors import TextGraph, TokenFinder
from stochastok_cli.evaluation.prompts import PromptEncoder
from stochastok_cli.evaluation.robustness import retokenize
from stochastok_cli.evaluation.run import evaluate
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.models.llama.state_dict import save_model
from stochastok_cli.tokenization.expansion import StochasTok
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.split_table import split_table
from stochastok_cli.tokenization.vocabulary import Vocabulary
from tests.data.chat_tokenizers import save_tokenizer, save_tokenizer_with_bos, template
from tests.evaluation.conftest import LONG_WINDOW as WINDOW

RIGHT = np.array([0.0, -1.0])
"""Scores of two options of which the right one is likelier."""


@pytest.fixture(scope="module")
def model(long_model):
    return long_model


@pytest.fixture(scope="module")
def finder(vocabulary) -> TokenFinder:
    return TokenFinder(vocabulary)


# ------------------------------------------------------------------------------------------------ neighbors


def tokenizations(text: bytes, ids_of: dict[bytes, list[int]]) -> list[tuple[int, ...]]:
    """All of them, one by one."""
    if not text:
        return [()]
    return [
        (token, *rest)
        for end in range(1, len(text) + 1)
        for token in ids_of.get(text[:end], ())
        for rest in tokenizations(text[end:], ids_of)
    ]


def edges(ids: tuple[int, ...], pieces) -> list[tuple[int, int]]:
    """Position and id of each token."""
    ends = np.cumsum([len(pieces[token]) for token in ids]).tolist()
    return list(zip([0, *ends], ids, strict=False))


@given(text=st.text("aeinrst h", min_size=1, max_size=9), data=st.data())
@settings(max_examples=25, deadline=None)
def test_neighbors_are_the_tokenizations_with_one_or_two_other_tokens_side_by_side(text, data, vocabulary, finder):
    """Against all tokenizations of the text."""
    possible = tokenizations(text.encode(), finder.ids_of)
    ids = data.draw(st.sampled_from(possible))
    own = edges(ids, vocabulary.pieces)
    expected = []
    for other in possible:
        new = [i for i, edge in enumerate(edges(other, vocabulary.pieces)) if edge not in own]
        if 1 <= len(new) <= 2 and new[-1] - new[0] == len(new) - 1:
            expected.append(other)
    found = [tuple(replacement.apply(ids)) for replacement in TextGraph(ids, finder).neighbors(ids)]
    assert sorted(found) == sorted(expected)


def test_splits_are_those_of_the_table(encoded, vocabulary, finder):
    ids = [int(token) for token in encoded.questions[0].context]
    table = split_table(vocabulary)
    expected = [(i, pair) for i, token in enumerate(ids) for pair in table.of(token)]
    assert [(one.first, one.ids) for one in TextGraph(ids, finder).splits(ids)] == expected


def test_special_tokens_stay_in_every_neighbor(vocabulary, finder):
    ids = [*vocabulary.encode(" the"), vocabulary.end_of_text, *vocabulary.encode(" other")]
    found = [one.apply(ids) for one in TextGraph(ids, finder).neighbors(ids)]
    assert found
    for other in found:
        place = other.index(vocabulary.end_of_text)
        assert (vocabulary.decode(other[:place]), vocabulary.decode(other[place + 1 :])) == (" the", " other")


# ------------------------------------------------------------------------------------------------ search


def tokenizer_with_bos(folder) -> tuple[Vocabulary, PromptEncoder]:
    save_tokenizer_with_bos(folder)
    vocabulary = load_vocabulary(folder)
    return vocabulary, PromptEncoder.of(vocabulary)


def search(lm: LM, encoded: EncodedBenchmark, budget: int, **more) -> dict[str, float]:
    output = evaluate_adversarial(encoded, search_hardest(lm, encoded, SearchSettings(budget, **more)), lm.vocabulary)
    return {metric.name: metric.value for metric in output.metrics}


@pytest.mark.parametrize("neighbors", ["lattice", "splits"])
def test_one_round_takes_the_worst_neighbor(neighbors, encoded, vocabulary, finder, model, monkeypatch):
    """Against trying every neighbor one by one."""
    monkeypatch.setattr(adversarial, "ROUND", 10_000)
    lm = LM(model, vocabulary)
    for question in encoded.questions[:3]:
        single = EncodedBenchmark("one", [question])
        ids = [int(token) for token in question.context]
        graph = TextGraph(ids, finder)
        candidates = [one.apply(ids) for one in (graph.neighbors if neighbors == "lattice" else graph.splits)(ids)]
        score = partial(lm.question_scores, description="")
        margin = margins(score(single))[0]
        worst = min(margins([lm.log_likelihoods([(cut, o) for o in question.options])])[0] for cut in candidates)
        [found] = search_hardest(lm, single, SearchSettings(1 + len(candidates), neighbors))
        assert found.passes == (1 + len(candidates) if margin > 0 else 1)
        assert (found.broken_after is None) == (margin > 0 and worst > 0)
        if margin > 0:
            assert found.best_margin == pytest.approx(min(worst, margin), abs=1e-5)
            assert margins(score(EncodedBenchmark("found", [question.with_text(found.best_ids)])))[0] == pytest.approx(
                found.best_margin, abs=1e-5
            )


def test_the_accuracy_by_budget_is_that_of_searches_of_these_budgets(encoded, vocabulary, model):
    lm = LM(model, vocabulary)
    output = evaluate_adversarial(encoded, search_hardest(lm, encoded, SearchSettings(100)), vocabulary)
    [curve] = output.curves
    assert [point["x"] for point in curve.points] == [1, 2, 4, 8, 16, 32, 64, 100]
    values = [point["y"] for point in curve.points]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]
    for point in curve.points[1:-1:2]:
        smaller = search(lm, encoded, point["x"])
        assert smaller["accuracy"] == point["y"]
        assert smaller["passes"] <= point["x"]


def test_a_restart_begins_at_a_random_tokenization_and_keeps_the_budget(encoded, vocabulary, model):
    lm = LM(model, vocabulary)
    plain, restarted = (search_hardest(lm, encoded, SearchSettings(60, "splits", restarts)) for restarts in (0, 3))
    assert [one.ids for one in plain] != [one.ids for one in restarted]
    for one in restarted:
        assert one.passes <= 60
        assert one.best_margin <= one.margin
        assert vocabulary.decode(one.best_ids) == vocabulary.decode(one.question.text)
    assert sum(one.broken_after is not None for one in restarted) >= sum(one.broken_after == 1 for one in plain)


def test_candidates_spell_the_same_text_and_fit(encoded, vocabulary, finder):
    question = encoded.questions[0]
    for room in (10, 1, 0):
        window = len(question.context) + max(map(len, question.options)) - 1 + room
        one = adversarial.Search(question, 0, SearchSettings(100), RIGHT)
        one.propose(finder, lambda *_: [], window, 0)
        assert 0 < len(one.candidates) <= adversarial.ROUND
        assert all(len(candidate) <= len(one.ids) + room for candidate in one.candidates)
        assert {vocabulary.decode(candidate) for candidate in one.candidates} == {vocabulary.decode(one.ids)}


def test_every_neighbor_is_tried_once_before_the_search_gives_up(encoded, finder):
    one = adversarial.Search(encoded.questions[0], 0, SearchSettings(10_000), RIGHT)
    tried = []
    for round_ in range(10_000):
        one.propose(finder, lambda *_: [], WINDOW, round_)
        if not one.candidates:
            break
        tried += one.candidates
        one.accept([RIGHT * 2] * len(one.candidates))
    assert len(tried) == len(list(TextGraph(one.ids, finder).neighbors(one.ids))) > adversarial.ROUND


def test_frozen_parts_of_a_prefix_keep_their_ids(vocabulary, model):
    questions = [Question(f"The {w} house stands here.", [" yes", " no"], i, "") for i, w in enumerate(("old", "new"))]
    texts = {"frozen_prefix": "Read this carefully. ", "frozen_suffix": "\nAnswer:"}
    encoded = encode(Benchmark("own", questions), vocabulary, WINDOW, **texts)
    before, after = (vocabulary.encode(text) for text in texts.values())
    for one in search_hardest(LM(model, vocabulary), encoded, SearchSettings(200)):
        context = one.question.with_text([*one.best_ids, *one.ids]).context.tolist()
        assert (context[: len(before)], context[-len(after) :]) == (before, after)
        assert vocabulary.decode(one.best_ids) == questions[one.index].prefix
    [whole, _] = encoded.questions
    cut = whole.cut_to(len(whole.context) - 1)
    assert cut.frozen == (len(before) - max(map(len, whole.options)), len(after))
    assert list(cut.text) == list(whole.text)


def test_the_words_of_a_chat_template_keep_their_ids(tmp_path):
    pytest.importorskip("jinja2")
    import transformers

    save_tokenizer(tmp_path, template("chatml"))
    tokenizer, vocabulary = transformers.AutoTokenizer.from_pretrained(tmp_path), load_vocabulary(tmp_path)
    question = Question("Which river is the longest?", ["the first", " the last"], 1, "")
    chat = PromptEncoder.of(vocabulary, chat=True)
    encoded = encode(Benchmark("own", [question], True), vocabulary, 256, frozen_prefix="Think:\n", prompts=chat)
    [one] = encoded.questions
    messages = [{"role": "user", "content": f"Think:\n{question.prefix}"}]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert list(one.context) == expected
    assert vocabulary.decode(one.text) == question.prefix
    assert [vocabulary.decode(ids) for ids in one.options] == ["the first", "the last"]
    cut = retokenize(encoded, StochasTok(vocabulary, 0.7, "uniform"), 256).benchmark.questions[0]
    before, after = one.frozen
    assert (list(cut.context[:before]), list(cut.context[-after:])) == (expected[:before], expected[-after:])
    assert len(cut.text) > len(one.text) and vocabulary.decode(cut.text) == question.prefix


def test_what_a_tokenizer_puts_before_texts_comes_once_and_stays(tmp_path):
    vocabulary, prompts = tokenizer_with_bos(tmp_path)
    bos = prompts.before
    questions = [
        Question("Which river is it?", [" the first", " the last"], 1, ""),
        Question("", ["Yes.", "No."], 2, ""),
    ]
    own, made = (
        encode(Benchmark("own", questions, whole), vocabulary, 64, prompts=prompts).questions for whole in (True, False)
    )
    assert len(bos) == 1
    assert [list(one.context[:1]) for one in own] == [bos, bos]
    assert [list(one.context).count(bos[0]) for one in (*own, *made)] == [1, 1, 0, 0]
    assert vocabulary.decode(own[0].text) == questions[0].prefix
    assert list(own[1].context) == bos and not own[1].has_prefix


def test_a_question_without_a_prefix_stays_as_it_is(vocabulary, model):
    encoded = EncodedBenchmark("pairs", [EncodedQuestion([vocabulary.end_of_text], [[5, 6], [7, 8]], has_prefix=False)])
    [one] = search_hardest(LM(model, vocabulary), encoded, SearchSettings(50))
    assert (one.passes, list(one.best_ids)) == (1, [])


def test_every_call_has_a_first_model_of_its_own(langgame_folder, model, vocabulary, tmp_path):
    save_model(model, tmp_path, vocabulary)
    evaluator = MultipleChoice(benchmarks=("langgame-val",), num_samples=3, adversarial=4, transfer=True)
    for _ in range(2):
        results = evaluate([tmp_path, tmp_path], evaluator, data_dir=langgame_folder, device="cpu")
        assert ["transfer" in {metric.part for metric in result.metrics} for result in results] == [False, True]


def test_transfer_asks_another_model_what_was_found_on_the_first(encoded, vocabulary, model):
    lm = LM(model, vocabulary)
    found = search_hardest(lm, encoded, SearchSettings(60))
    again = evaluate_transfer(lm, encoded, [one.best_ids for one in found]).values
    assert again["mcq/langgame-val/transfer/accuracy"] == np.mean([one.best_margin > 0 for one in found])
    canonical = evaluate_transfer(lm, encoded, [question.text for question in encoded.questions]).values
    assert canonical["mcq/langgame-val/transfer/accuracy"] == np.mean([one.broken_after != 1 for one in found])

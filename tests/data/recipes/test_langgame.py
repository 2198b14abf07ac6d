"""LangGame's questions: an independent parser answers them, and their law is compared with one that is enumerated."""

import hashlib
import itertools
import math
import re
from collections import Counter, defaultdict
from string import ascii_lowercase

import pytest

from stochastok_cli.data.recipes.langgame import HOLDOUTS
from stochastok_cli.data.recipes.langgame_generator import LangGame
from stochastok_cli.data.recipes.langgame_questions import case_table, substring_lengths
from stochastok_cli.data.recipes.langgame_templates import WORDINGS
from stochastok_cli.data.word_list import read_words

THE = "the possible|the available|the"
MANY = "options|choices|option words|option strings"
ONE = "word||string|option|choice|option word|option string"
HEAD = rf"(?:(?P<wh>Which|What) (?P<one>{ONE})|Which of (?P<head_the>{THE}) (?P<head_many>{MANY}))"
PREDICATE = (
    r"(?:has the most letter '(?P<letter>[a-z])'s\?|(?P<verb>contains|starts with|ends with) '(?P<part>[^']+)'\?"
    r"|is the (?P<extreme>longest|shortest)\?)"
)
LIST = (
    rf"(?P<start>These are (?P<list_the>{THE})|The(?P<list_adjective> possible| available)?) (?P<list_many>{MANY})"
    r"(?P<are> are)?: \[(?P<options>(?: [^ ,\]]+,)* [^ ,\]]+)\]\."
)
QUESTION = [
    re.compile(rf"{HEAD} {PREDICATE} {LIST} Answer:"),
    re.compile(rf"{LIST} {HEAD} {PREDICATE} Answer:"),
]


def parse(text):
    """The parts of a question; `order` 0 if the head stands first."""
    for order, pattern in enumerate(QUESTION):
        if match := pattern.fullmatch(text):
            groups = match.groupdict()
            assert not (groups["are"] and groups["start"].startswith("These"))
            listed = groups["list_the"] or f"the{groups['list_adjective'] or ''}"
            assert groups["head_the"] in (None, listed)
            assert groups["head_many"] in (None, groups["list_many"])
            kind = groups["extreme"] or groups["verb"] or "most"
            form = 2 if groups["head_the"] else ("Which", "What").index(groups["wh"])
            list_form = 2 if groups["list_the"] else int(bool(groups["are"]))
            wording = (form, groups["one"], listed, groups["list_many"], list_form, order)
            return kind, groups["letter"] or groups["part"] or "", groups["options"][1:].split(", "), wording
    raise AssertionError(f"not a question: {text!r}")


def scores(kind, argument, options):
    """How well each option answers; the right one scores highest."""
    rank = {
        "most": lambda word: word.count(argument),
        "contains": lambda word: argument in word,
        "starts with": lambda word: word.startswith(argument),
        "ends with": lambda word: word.endswith(argument),
        "longest": len,
        "shortest": lambda word: -len(word),
    }[kind]
    return [rank(option) for option in options]


def questions(split="train", count=3000, seed=0, options=4, lengths=(1, 3), holdout="none", words=None):
    """`(text, options with the right one first)` of the first questions."""
    words = words or read_words().words
    tables = {
        name: case_table(words, options, substring_lengths(*lengths, side))
        for name, side in zip(("train", "val"), HOLDOUTS[holdout], strict=True)
    }
    for block in LangGame(tables, seed).blocks(split, count):
        for text, row in zip(block.texts, block.options.tolist(), strict=True):
            yield text, [words[i] for i in row]


def assert_law(observed, expected):
    """Chi-square of counts against probabilities, by the normal limit of its distribution: at most 4 sigma."""
    assert set(observed) <= set(expected), set(observed) - set(expected)
    assert math.isclose(sum(expected.values()), 1)
    n = sum(observed.values())
    chi_square = sum((observed[cell] - n * p) ** 2 / (n * p) for cell, p in expected.items())
    freedom = len(expected) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom), (chi_square, freedom)


def uniform(cells):
    cells = list(cells)
    return dict.fromkeys(cells, 1 / len(cells))


@pytest.mark.parametrize("options", [2, 4, 7])
def test_every_question_has_exactly_one_right_option(options):
    kinds = Counter()
    for text, (right, *wrong) in questions(options=options):
        kind, argument, shown, _ = parse(text)
        kinds[kind] += 1
        assert sorted(shown) == sorted([right, *wrong])
        assert len(set(shown)) == options
        points = scores(kind, argument, shown)
        assert points.count(max(points)) == 1
        assert shown[points.index(max(points))] == right
        match kind:
            case "most":
                assert right.count(argument) >= 2
                assert max(word.count(argument) for word in wrong) <= 1
            case "longest":
                assert len(right) >= 7
                assert max(map(len, wrong)) <= 4
            case "shortest":
                assert len(right) <= 3
                assert min(map(len, wrong)) >= 6
            case _:
                assert 1 <= len(argument) <= 3
    assert_law(kinds, uniform(["most", "contains", "starts with", "ends with", "longest", "shortest"]))


def test_the_published_example_is_a_question():
    text = "Which word starts with 'hu'? The options: [ fell, hundred, wall, sing]. Answer:"
    kind, argument, shown, _ = parse(text)
    assert (kind, argument, shown) == ("starts with", "hu", ["fell", "hundred", "wall", "sing"])
    wording = next(w for w in WORDINGS if w.head == "Which word" and w.listing == "The options:" and w.head_first)
    assert wording.question("starts with 'hu'?", shown) == text


def test_an_empty_noun_leaves_two_spaces():
    texts = [text for text, _ in questions(count=500)]
    assert any("Which  " in text for text in texts)
    assert any("What  " in text for text in texts)


def test_wording_and_rotation_are_uniform():
    wordings, rotations = Counter(), Counter()
    for text, options in questions(count=60_000):
        _, _, shown, wording = parse(text)
        rotation = shown.index(options[0])
        assert shown == [options[(i - rotation) % 4] for i in range(4)]
        wordings[wording] += 1
        rotations[rotation] += 1
    assert_law(rotations, uniform(range(4)))
    parts = itertools.product(range(3), ONE.split("|"), THE.split("|"), MANY.split("|"), range(3), range(2))
    expected = Counter()
    for form, one, the, many, list_form, order in parts:
        expected[form, None if form == 2 else one, the, many, list_form, order] += 1 / len(WORDINGS)
    assert_law(wordings, expected)


SMALL = ["a", "be", "see", "been", "deed", "letter", "seventh", "abcdefg", "bbbxyzw", "xxq"]


def enumerated_law(words, others, lengths):
    """Probability of each (kind, argument, right option, wrong options in their order), as the contract words it."""

    def alternatives(eligible):
        return list(itertools.permutations(eligible, others))

    by_kind = {
        kind: defaultdict(float) for kind in ("most", "contains", "starts with", "ends with", "longest", "shortest")
    }
    letters = {}
    for letter in ascii_lowercase:
        answers = [word for word in words if word.count(letter) >= 2]
        wrong = alternatives([word for word in words if word.count(letter) <= 1])
        if answers and wrong:
            letters[letter] = answers, wrong
    for letter, (answers, wrong) in letters.items():
        for answer, options in itertools.product(answers, wrong):
            by_kind["most"][letter, answer, options] += 1 / len(letters) / len(answers) / len(wrong)
    for answer in words:
        for length in range(lengths[0], min(lengths[1], len(answer)) + 1):
            share = 1 / len(words) / (min(lengths[1], len(answer)) - lengths[0] + 1)
            places = len(answer) - length + 1
            predicates = [("contains", answer[i : i + length], share / places) for i in range(places)]
            predicates += [
                ("starts with", answer[:length], share),
                ("ends with", answer[len(answer) - length :], share),
            ]
            for kind, part, p in predicates:
                wrong = alternatives([word for word in words if not scores(kind, part, [word])[0]])
                for options in wrong:
                    by_kind[kind][part, answer, options] += p / len(wrong)
    for answer in words:
        if len(answer) >= 7:
            wrong = alternatives([word for word in words if len(word) <= 4])
            for options in wrong:
                by_kind["longest"]["", answer, options] += 1 / len(wrong)
        if len(answer) <= 3:
            wrong = alternatives([word for word in words if len(word) >= 6])
            for options in wrong:
                by_kind["shortest"]["", answer, options] += 1 / len(wrong)
    law = {}
    for kind, cells in by_kind.items():
        total = sum(cells.values())  # what is left of 1 is drawn again
        law |= {(kind, *cell): p / total / 6 for cell, p in cells.items()}
    return law


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        (2, (1, 3)),
        pytest.param(3, (1, 3), marks=pytest.mark.slow),
        (3, (1, 99)),
        pytest.param(2, (2, 4), marks=pytest.mark.slow),
    ],
)
def test_the_law_is_the_enumerated_one(options, lengths):
    words = [word for word in SMALL if len(word) >= lengths[0]]
    seen = Counter()
    for text, (right, *wrong) in questions(count=200_000, options=options, lengths=lengths, words=words):
        kind, argument, _, _ = parse(text)
        seen[kind, argument, right, tuple(wrong)] += 1
    law = enumerated_law(words, options - 1, lengths)
    rare = {cell for cell, p in law.items() if p * 200_000 < 5}  # too rare for the chi-square: counted as one
    pooled = Counter({cell: n for cell, n in seen.items() if cell not in rare})
    expected = {cell: p for cell, p in law.items() if cell not in rare}
    if rare:
        pooled["rare"], expected["rare"] = sum(seen[cell] for cell in rare), sum(law[cell] for cell in rare)
    assert set(seen) <= set(law)
    assert_law(pooled, expected)


@pytest.mark.parametrize("longest", [3, 99])
@pytest.mark.parametrize(("holdout", "train_is_long"), [("long", False), ("short", True)])
def test_holdout_parts_the_substrings(holdout, train_is_long, longest):
    for split, long in (("train", train_is_long), ("val", not train_is_long)):
        kinds = set()
        for text, (right, *_) in questions(split, 2000, holdout=holdout, lengths=(1, longest)):
            kind, argument, _, _ = parse(text)
            kinds.add(kind)
            if kind in ("contains", "starts with", "ends with"):
                assert (len(argument) > len(right) / 2) == long
        assert len(kinds) == 6


def test_a_shorter_set_is_the_beginning_of_a_longer_one_and_seeds_and_splits_differ():
    long = list(questions(count=20_000))  # more than one block
    assert list(questions(count=100)) == long[:100]
    assert list(questions(count=17_000)) == long[:17_000]
    for other in (questions(count=100, seed=1), questions("val", count=100)):
        assert len({other_text for other_text, _ in other} & {text for text, _ in long[:100]}) < 3


def test_questions_stay_what_they_are():
    """A seed gives the same questions on every platform; a change of these is a change of everyone's data."""
    texts = "\n".join(text for split in ("train", "val") for text, _ in questions(split))
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == "ce90953d003e7737"

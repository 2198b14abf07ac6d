"""LangGame's six kinds of question over a word list, the distribution they are drawn from, and the draw.

The distribution is a table of cases. A case is a right answer, the condition that it meets (a predicate), and its
probability. A question is one draw from the table, with wrong options drawn uniformly and without repetition from the
words that the predicate allows as wrong options.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np

from stochastok_cli.errors import UserError, count_of

LONGEST_ANSWER, LONGEST_OTHERS = 7, 4  # letters: the answer has at least, the others at most
SHORTEST_ANSWER, SHORTEST_OTHERS = 3, 6  # letters: the answer has at most, the others at least

Lengths = Callable[[int], list[int]]
"""The lengths of the substrings that may be asked about in a word of so many letters."""


def substring_lengths(shortest: int, longest: int, side: str | None = None) -> Lengths:
    """The lengths from `shortest` to `longest`, or to the whole word.

    `side` "long" keeps the lengths above half of the word, "short" the others (the split of the paper's Figure 6).

    >>> substring_lengths(1, 3)(5), substring_lengths(1, 3, "short")(5), substring_lengths(1, 3, "long")(5)
    ([1, 2, 3], [1, 2], [3])
    """

    def lengths(letters: int) -> list[int]:
        possible = range(shortest, min(longest, letters) + 1)
        return [n for n in possible if side is None or (2 * n > letters) == (side == "long")]

    return lengths


@dataclass(frozen=True, eq=False)
class Predicate:
    """The condition that the right answer meets: the end of the question, and the words that can't be wrong options.

    Args:
        text: the end of the question, such as `starts with 'hu'?`.
        excluded: ascending indices of the words that can't be wrong options.
    """

    text: str
    excluded: list[int]


class Case(NamedTuple):
    """A right answer (the index of a word) and its probability within the kind, up to a common factor."""

    predicate: Predicate
    answer: int
    weight: float


Cases = Callable[[str, list[str], Lengths], Iterator[Case]]
"""The cases of a kind, from its pattern, the words and the possible lengths of substrings."""


def _most_of_a_letter(pattern: str, words: list[str], lengths: Lengths) -> Iterator[Case]:
    """The letter is uniform from a to z, the answer uniform over the words that have it twice or more."""
    for letter in ascii_lowercase:
        answers = [w for w, word in enumerate(words) if word.count(letter) >= 2]
        predicate = Predicate(pattern.format(letter), answers)
        yield from (Case(predicate, answer, 1 / len(answers)) for answer in answers)


def _about_substrings(substrings: Callable[[str, int], list[str]]) -> Cases:
    """A kind about a substring: the answer is uniform over the words (with a possible length), the substring's length
    over the possible lengths, and the substring over `substrings(word, length)`, one for each position that the kind
    looks at. A word with the same substring at such a position is no wrong option."""

    def cases(pattern: str, words: list[str], lengths: Lengths) -> Iterator[Case]:
        used = {n for word in words for n in lengths(len(word))}
        having: dict[str, list[int]] = defaultdict(list)
        for w, word in enumerate(words):
            for part in {part for n in used if n <= len(word) for part in substrings(word, n)}:
                having[part].append(w)
        predicates = {part: Predicate(pattern.format(part), excluded) for part, excluded in having.items()}
        for w, word in enumerate(words):
            possible = lengths(len(word))
            for n in possible:
                parts = substrings(word, n)
                yield from (Case(predicates[part], w, 1 / (len(possible) * len(parts))) for part in parts)

    return cases


def _longest(pattern: str, words: list[str], lengths: Lengths) -> Iterator[Case]:
    predicate = Predicate(pattern, [w for w, word in enumerate(words) if len(word) > LONGEST_OTHERS])
    return (Case(predicate, w, 1.0) for w, word in enumerate(words) if len(word) >= LONGEST_ANSWER)


def _shortest(pattern: str, words: list[str], lengths: Lengths) -> Iterator[Case]:
    predicate = Predicate(pattern, [w for w, word in enumerate(words) if len(word) < SHORTEST_OTHERS])
    return (Case(predicate, w, 1.0) for w, word in enumerate(words) if len(word) <= SHORTEST_ANSWER)


class Kind(NamedTuple):
    """A kind of question.

    Args:
        title: its name in messages.
        pattern: the end of the sentence, with `{}` for a letter or a substring.
        cases: the cases that the kind has over a word list.
        rule: what its options must be, for messages; empty where the pattern says it.
    """

    title: str
    pattern: str
    cases: Cases
    rule: str = ""


KINDS: dict[str, Kind] = {
    "most_of_a_letter": Kind("most of a letter", "has the most letter '{}'s?", _most_of_a_letter),
    "contains": Kind(
        "contains",
        "contains '{}'?",
        _about_substrings(lambda word, n: [word[i : i + n] for i in range(len(word) - n + 1)]),
    ),
    "starts_with": Kind("starts with", "starts with '{}'?", _about_substrings(lambda word, n: [word[:n]])),
    "ends_with": Kind("ends with", "ends with '{}'?", _about_substrings(lambda word, n: [word[-n:]])),
    "longest": Kind(
        "longest",
        "is the longest?",
        _longest,
        f"its answer has {LONGEST_ANSWER} letters or more, and every other option {LONGEST_OTHERS} or fewer",
    ),
    "shortest": Kind(
        "shortest",
        "is the shortest?",
        _shortest,
        f"its answer has {SHORTEST_ANSWER} letters or fewer, and every other option {SHORTEST_OTHERS} or more",
    ),
}
"""The kinds by their names in metrics (`mcq/langgame-val/starts_with/accuracy`). Each is asked equally often."""

_PREDICATE = re.compile(
    "|".join(f"(?P<{name}>{re.escape(kind.pattern).replace(re.escape('{}'), '.+?')})" for name, kind in KINDS.items())
)


def kind_of(question: str) -> str:
    """The kind of a question, from its text (the files do not record it); "" for a text that is no question.

    >>> kind_of("Which word starts with 'hu'? The options: [ fell, hundred]. Answer:")
    'starts_with'
    """
    match = _PREDICATE.search(question)
    return str(match.lastgroup) if match else ""


def predicate_of(question: str) -> str:
    """The predicate of a question, without the wording and the options; the text itself if it is not from LangGame.

    >>> predicate_of("Which word starts with 'hu'? The options: [ fell, hundred]. Answer:")
    "starts with 'hu'?"
    """
    match = _PREDICATE.search(question)
    return match.group() if match else question


@dataclass(frozen=True)
class CaseTable:
    """All cases over a word list, for questions with a number of options.

    Args:
        words: the word list.
        num_options: options of each question, one of them right.
        answer: the right answer of each case, an index of `words`; int64 `[cases]`.
        predicate: the predicate of each case; int64 `[cases]`.
        cumulative: the probability of a case and those before it; float64 `[cases]`, the last is 1.
        predicates: the texts of the predicates.
        first: where the part of a predicate begins in `excluded`; int64 `[predicates + 1]`.
        excluded: for each word that a predicate excludes from the wrong options, the number of allowed words before
            it, plus `predicate * (words + 1)` so that the whole array is ascending; int64.
    """

    words: list[str]
    num_options: int
    answer: np.ndarray
    predicate: np.ndarray
    cumulative: np.ndarray
    predicates: list[str]
    first: np.ndarray
    excluded: np.ndarray

    def draw(self, random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws questions; the distribution is exact but for the rounding of doubles in `cumulative`.

        Returns:
            The cases, int64 `[count]`, and the options, int64 `[count, num_options]`: indices of words, the right one
            first.
        """
        case = np.searchsorted(self.cumulative, random.random(count), side="right")
        predicate = self.predicate[case]
        allowed = len(self.words) - (self.first[predicate + 1] - self.first[predicate])
        ranks = np.empty((count, self.num_options - 1), dtype=np.int64)  # of the wrong options among the allowed words
        for i in range(self.num_options - 1):
            rank = random.integers(0, allowed - i)  # among those not taken yet
            for taken in np.sort(ranks[:, :i], axis=1).T:
                rank += rank >= taken
            ranks[:, i] = rank
        keys = predicate[:, None] * (len(self.words) + 1) + ranks
        excluded_before = np.searchsorted(self.excluded, keys, side="right") - self.first[predicate][:, None]
        return case, np.column_stack([self.answer[case], ranks + excluded_before])


def case_table(
    words: list[str],
    num_options: int,
    lengths: Lengths,
    allowed: Callable[[str, str], bool] = lambda predicate, answer: True,
) -> CaseTable:
    """The distribution of LangGame: uniform over KINDS, then over the kind's cases as the kind weights them.

    Args:
        words: the word list.
        num_options: options of each question, one of them right.
        lengths: the lengths of substrings that may be asked about.
        allowed: `allowed(predicate, answer)` is whether a case is drawn.

    Returns:
        The table. Cases that leave too few words for the wrong options are left out.

    Raises:
        UserError: no question of some kind can be made.
    """
    cases: list[Case] = []
    probabilities: list[np.ndarray] = []
    for kind in KINDS.values():
        possible = [
            case
            for case in kind.cases(kind.pattern, words, lengths)
            if len(words) - len(case.predicate.excluded) >= num_options - 1
            and allowed(case.predicate.text, words[case.answer])
        ]
        if not possible:
            these = f"{'this' if len(words) == 1 else 'these'} {count_of(len(words), 'word')}"
            raise UserError(
                f"no question {kind.title!r} can be made of {these} with {num_options} options"
                + (f": {kind.rule}" if kind.rule else ""),
                fix="give more varied words, fewer options or another range of substrings",
            )
        cases += possible
        weights = np.array([case.weight for case in possible])
        probabilities.append(weights / (math.fsum(weights) * len(KINDS)))
    index: dict[Predicate, int] = {}
    predicate = np.array([index.setdefault(case.predicate, len(index)) for case in cases])
    keys = [
        i * (len(words) + 1) + np.array(p.excluded, dtype=np.int64) - np.arange(len(p.excluded))
        for p, i in index.items()
    ]
    cumulative = np.cumsum(np.concatenate(probabilities))
    return CaseTable(
        words=words,
        num_options=num_options,
        answer=np.array([case.answer for case in cases]),
        predicate=predicate,
        cumulative=cumulative / cumulative[-1],  # ends in exactly 1, which no draw reaches
        predicates=[p.text for p in index],
        first=np.cumsum([0, *map(len, keys)]),
        excluded=np.concatenate(keys),
    )

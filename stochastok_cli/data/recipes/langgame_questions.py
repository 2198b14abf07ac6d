"""What LangGame asks: six kinds of question over a word list, the law they are drawn by, and the draw.

The law is a table of cases, each a right answer with what is asked about it and its probability. A question is one
draw from the table, and wrong options drawn uniformly and without repetition from the words that the case allows.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np

from stochastok_cli.errors import UserError

LONGEST_ANSWER, LONGEST_OTHERS = 7, 4  # letters: the answer has at least, the others at most
SHORTEST_ANSWER, SHORTEST_OTHERS = 3, 6  # letters: the answer has at most, the others at least

Lengths = Callable[[int], list[int]]
"""The lengths of the substrings that may be asked about in a word of so many letters."""


def substring_lengths(shortest: int, longest: int, side: str | None = None) -> Lengths:
    """From `shortest` to `longest` or the whole word. Of these, `side` "long" keeps those that are longer than half
    the word, "short" the others (the split of the paper's Figure 6).

    >>> substring_lengths(1, 3)(5), substring_lengths(1, 3, "short")(5), substring_lengths(1, 3, "long")(5)
    ([1, 2, 3], [1, 2], [3])
    """

    def lengths(letters: int) -> list[int]:
        possible = range(shortest, min(longest, letters) + 1)
        return [n for n in possible if side is None or (2 * n > letters) == (side == "long")]

    return lengths


@dataclass(frozen=True, eq=False)
class Ask:
    """What is asked: the rest of the sentence, and the words (indices, ascending) that can't be wrong options."""

    predicate: str
    excluded: list[int]


class Case(NamedTuple):
    ask: Ask
    answer: int  # index of a word
    weight: float  # its probability within the kind, up to a common factor


def _most_of_a_letter(words: list[str], lengths: Lengths) -> Iterator[Case]:
    """The letter is uniform from a to z, the answer uniform over the words that have it twice or more."""
    for letter in ascii_lowercase:
        answers = [w for w, word in enumerate(words) if word.count(letter) >= 2]
        ask = Ask(f"has the most letter '{letter}'s?", answers)
        yield from (Case(ask, answer, 1 / len(answers)) for answer in answers)


def _about_parts(phrase: str, parts: Callable[[str, int], list[str]]) -> Callable[[list[str], Lengths], Iterator[Case]]:
    """A kind about a part of the word: the answer is uniform over the words (that have a possible length), the part's
    length over the possible ones and the part over `parts(word, length)`, one for each place where the kind looks.
    A word with the same part in such a place is no wrong option."""

    def cases(words: list[str], lengths: Lengths) -> Iterator[Case]:
        used = {n for word in words for n in lengths(len(word))}
        having: dict[str, list[int]] = defaultdict(list)
        for w, word in enumerate(words):
            for part in {part for n in used if n <= len(word) for part in parts(word, n)}:
                having[part].append(w)
        asks = {part: Ask(f"{phrase} '{part}'?", excluded) for part, excluded in having.items()}
        for w, word in enumerate(words):
            possible = lengths(len(word))
            for n in possible:
                places = parts(word, n)
                yield from (Case(asks[part], w, 1 / (len(possible) * len(places))) for part in places)

    return cases


def _longest(words: list[str], lengths: Lengths) -> Iterator[Case]:
    ask = Ask("is the longest?", [w for w, word in enumerate(words) if len(word) > LONGEST_OTHERS])
    return (Case(ask, w, 1.0) for w, word in enumerate(words) if len(word) >= LONGEST_ANSWER)


def _shortest(words: list[str], lengths: Lengths) -> Iterator[Case]:
    ask = Ask("is the shortest?", [w for w, word in enumerate(words) if len(word) < SHORTEST_OTHERS])
    return (Case(ask, w, 1.0) for w, word in enumerate(words) if len(word) <= SHORTEST_ANSWER)


KINDS: dict[str, Callable[[list[str], Lengths], Iterator[Case]]] = {
    "most of a letter": _most_of_a_letter,
    "contains": _about_parts("contains", lambda word, n: [word[i : i + n] for i in range(len(word) - n + 1)]),
    "starts with": _about_parts("starts with", lambda word, n: [word[:n]]),
    "ends with": _about_parts("ends with", lambda word, n: [word[-n:]]),
    "longest": _longest,
    "shortest": _shortest,
}


@dataclass(frozen=True)
class CaseTable:
    """All cases over `words`, for questions with `num_options` options. By case: `answer` and `ask` (int64) and
    `cumulative` (float64), the probability of this case and those before it. By ask: `predicates` and `first` (int64,
    one more than asks: where its part of `excluded` begins). `excluded` (int64, ascending) is for each excluded word
    the number of allowed words before it in the list, plus ask * (words + 1), which tells the asks apart.
    """

    words: list[str]
    num_options: int
    answer: np.ndarray
    ask: np.ndarray
    cumulative: np.ndarray
    predicates: list[str]
    first: np.ndarray
    excluded: np.ndarray

    def draw(self, random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`count` questions: cases `(count,)` and options `(count, num_options)`, indices of words with the right one
        first, all int64. The law is exact but for the rounding of doubles in `cumulative`."""
        case = np.searchsorted(self.cumulative, random.random(count), side="right")
        ask = self.ask[case]
        allowed = len(self.words) - (self.first[ask + 1] - self.first[ask])
        ranks = np.empty((count, self.num_options - 1), dtype=np.int64)  # of the others among the allowed words
        for i in range(self.num_options - 1):
            rank = random.integers(0, allowed - i)  # among those not taken yet
            for taken in np.sort(ranks[:, :i], axis=1).T:
                rank += rank >= taken
            ranks[:, i] = rank
        keys = ask[:, None] * (len(self.words) + 1) + ranks
        excluded_before = np.searchsorted(self.excluded, keys, side="right") - self.first[ask][:, None]
        return case, np.column_stack([self.answer[case], ranks + excluded_before])


def case_table(
    words: list[str], num_options: int, lengths: Lengths, allowed: Callable[[str, str], bool] = lambda ask, answer: True
) -> CaseTable:
    """The law of LangGame: the kind is uniform over KINDS and the case as its kind says, drawn again where it leaves
    too few words for the wrong options or is not `allowed(predicate, answer)`. Raises UserError naming a kind of which
    no question can be made."""
    cases: list[Case] = []
    probabilities: list[np.ndarray] = []
    for name, make in KINDS.items():
        possible = [
            case
            for case in make(words, lengths)
            if len(words) - len(case.ask.excluded) >= num_options - 1
            and allowed(case.ask.predicate, words[case.answer])
        ]
        if not possible:
            raise UserError(
                f"no question {name!r} can be made of these {len(words):,} words with {num_options} options",
                fix="give more varied words, fewer options or another range of substrings",
            )
        cases += possible
        weights = np.array([case.weight for case in possible])
        probabilities.append(weights / (math.fsum(weights) * len(KINDS)))
    numbers: dict[Ask, int] = {}
    ask = np.array([numbers.setdefault(case.ask, len(numbers)) for case in cases])
    keys = [
        number * (len(words) + 1) + np.array(a.excluded, dtype=np.int64) - np.arange(len(a.excluded))
        for a, number in numbers.items()
    ]
    cumulative = np.cumsum(np.concatenate(probabilities))
    return CaseTable(
        words=words,
        num_options=num_options,
        answer=np.array([case.answer for case in cases]),
        ask=ask,
        cumulative=cumulative / cumulative[-1],  # ends in exactly 1, which no draw reaches
        predicates=[a.predicate for a in numbers],
        first=np.cumsum([0, *map(len, keys)]),
        excluded=np.concatenate(keys),
    )

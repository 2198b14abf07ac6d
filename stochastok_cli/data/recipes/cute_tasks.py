"""The eight subword tasks of CUTE (Edman et al. 2024): the wording of a question, its answer, and the wrong options.

The wording is the StochasTok paper's (Table 2), with ` Answer:` after it as in LangGame. The inputs of a task come in
the order in which CUTE's own files have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NUM_OPTIONS = 4  # of tasks whose questions do not name the options


@dataclass(frozen=True)
class Task:
    """A subword task.

    Args:
        wording: the question, with `{}` for each input.
        answer: the right answer, from the inputs.
        draw: draws inputs for a word; None if the task does not apply to the word.
        choices: the possible answers, from the inputs, where the question names them.
    """

    wording: str
    answer: Callable[..., str]
    draw: Callable[[np.random.Generator, str], tuple[str, ...] | None]
    choices: Callable[..., list[str]] | None = None

    def question(self, inputs: Sequence[str]) -> str:
        """The whole question, `Answer:` included.

        >>> TASKS["spell"].question(["there"]), TASKS["contains_char"].question(["c", "there"])
        ('Spell out the word: there. Answer:', "Is there a 'c' in 'there'? Answer:")
        """
        text = self.wording.format(*inputs)
        return f"{text} Answer:" if text.endswith("?") else f"{text}. Answer:"


def _letters(word: str) -> list[str]:
    return sorted({letter for letter in word if letter.isalpha()})


def _choose(random: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(random.integers(len(choices)))]


def _draw_contained(random: np.random.Generator, word: str) -> tuple[str, ...] | None:
    # Yes and no equally often.
    absent = [letter for letter in ascii_lowercase if letter not in word]
    return (_choose(random, _letters(word) if random.random() < 0.5 or not absent else absent), word)


def _draw_deletion(random: np.random.Generator, word: str) -> tuple[str, ...] | None:
    return (_choose(random, _letters(word)), word) if len(_letters(word)) > 1 else None


def _draw_insertion(random: np.random.Generator, word: str) -> tuple[str, ...] | None:
    return _choose(random, ascii_lowercase), _choose(random, _letters(word)), word


def _draw_substitution(random: np.random.Generator, word: str) -> tuple[str, ...] | None:
    old = _choose(random, _letters(word))
    return old, _choose(random, [letter for letter in ascii_lowercase if letter != old]), word


def _draw_swap(random: np.random.Generator, word: str) -> tuple[str, ...] | None:
    single = [letter for letter in _letters(word) if word.count(letter) == 1]
    if len(single) < 2:
        return None
    first, second = random.permutation(len(single))[:2]
    return single[first], single[second], word


def _swapped(first: str, second: str, word: str) -> str:
    return word.translate(str.maketrans(first + second, second + first))


def levenshtein(word: str, other: str) -> int:
    """The edit distance of two words.

    >>> levenshtein("happy", "apply")
    2
    """
    above = list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        here = [i]
        for j, other_letter in enumerate(other, 1):
            here.append(min(here[-1] + 1, above[j] + 1, above[j - 1] + (letter != other_letter)))
        above = here
    return above[-1]


def _nearer(word: str, first: str, second: str) -> str:
    return first if levenshtein(word, first) < levenshtein(word, second) else second


TASKS = {
    "spell": Task("Spell out the word: {}", lambda word: " ".join(word), lambda random, word: (word,)),
    "spell_inverse": Task(
        "Write the word that is spelled out (no spaces): {}",
        lambda spelled: spelled.replace(" ", ""),
        lambda random, word: (" ".join(word),),
    ),
    "contains_char": Task(
        "Is there a '{}' in '{}'?",
        lambda letter, word: "Yes" if letter in word else "No",
        _draw_contained,
        lambda letter, word: ["Yes", "No"],
    ),
    "orth": Task(
        "Closer in Levenshtein distance to '{}': {} or {}?",
        _nearer,
        lambda random, word: (word,),  # `cute_generator` adds two candidates from the word list
        lambda word, first, second: [first, second],
    ),
    "ins_char": Task(
        "Add '{}' after every '{}' in '{}'",
        lambda new, after, word: word.replace(after, after + new),
        _draw_insertion,
    ),
    "del_char": Task("Delete every '{}' in '{}'", lambda letter, word: word.replace(letter, ""), _draw_deletion),
    "sub_char": Task(
        "Replace every '{}' with '{}' in '{}'", lambda old, new, word: word.replace(old, new), _draw_substitution
    ),
    "swap_char": Task("Swap '{}' and '{}' in '{}'", _swapped, _draw_swap),
}


def options(
    task: str, inputs: Sequence[str], answer: str, words: Sequence[str], random: np.random.Generator
) -> list[str]:
    """The options of a question, the right one first.

    Wrong ones are the other answers that the question names, or for `spell_inverse` other words, or else the answer
    with letters substituted and reordered.
    """
    choices = TASKS[task].choices
    if choices is not None:
        return [answer, *(choice for choice in choices(*inputs) if choice != answer)]
    answers = [answer]
    while len(answers) < NUM_OPTIONS:
        if task == "spell_inverse":
            other = _choose(random, words)
        else:
            other = _corrupted(answer, spaced=task == "spell", reorder=len(answers) % 2 == 0, random=random)
        if other not in answers:
            answers.append(other)
    return answers


def _corrupted(answer: str, *, spaced: bool, reorder: bool, random: np.random.Generator) -> str:
    """The answer after one or two changes: a letter replaced, or (with `reorder`) two letters swapped."""
    letters = list(answer.replace(" ", "") if spaced else answer)
    for _ in range(1 + random.integers(2)):
        i, j = random.integers(len(letters), size=2)
        if reorder and len(set(letters)) > 2:
            letters[i], letters[j] = letters[j], letters[i]
        else:
            letters[i] = _choose(random, ascii_lowercase)
    return (" " if spaced else "").join(letters)

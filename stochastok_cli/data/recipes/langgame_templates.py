"""The sentences of LangGame (paper, Appendix on the language game): the wording of a question and its list of options.

A question is a head (`Which word starts with 'hu'?`) and a list (`The options: [ fell, hundred].`) in either order,
then `Answer:`. The wording is one uniform draw of everything that may vary, so head and list use the same nouns.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

HEADS = ("which {one}", "what {one}", "which of {the} {many}")
LISTS = ("{the} {many}:", "{the} {many} are:", "these are {the} {many}:")
ONE = ("word", "", "string", "option", "choice", "option word", "option string")
MANY = ("options", "choices", "option words", "option strings")
THE = ("the", "the possible", "the available")


class Wording(NamedTuple):
    """The wording of a question.

    Args:
        head: "Which option word", "Which " (the empty noun leaves two spaces), "Which of the choices".
        listing: "These are the choices:".
        head_first: whether the head comes before the list.
    """

    head: str
    listing: str
    head_first: bool

    def question(self, predicate: str, options: Sequence[str]) -> str:
        """The whole question, `Answer:` included.

        >>> Wording("Which word", "The options:", True).question("is the longest?", ["a", "hundred"])
        'Which word is the longest? The options: [ a, hundred]. Answer:'
        """
        listed = ", ".join(options)
        if self.head_first:
            return f"{self.head} {predicate} {self.listing} [ {listed}]. Answer:"
        return f"{self.listing} [ {listed}]. {self.head} {predicate} Answer:"


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


WORDINGS = [
    Wording(
        _capitalized(head.format(one=one, the=the, many=many)), _capitalized(listing.format(the=the, many=many)), first
    )
    for head, listing, one, many, the, first in product(HEADS, LISTS, ONE, MANY, THE, (True, False))
]
"""Every combination, so that a uniform draw from the list is a uniform draw of each part."""

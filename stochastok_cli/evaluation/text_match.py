"""Whether a generated answer is right: exact and prefix match, after the normalizations of lm-evaluation-harness.

The options have the names that the metric `exact_match` of lm-evaluation-harness gives them. This module imports
neither numpy nor torch.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from stochastok_cli.errors import UserError


@dataclass(frozen=True)
class Normalization:
    """What of a text counts when it is compared. All options are off by default.

    Attributes:
        ignore_case: Capitals count as small letters.
        ignore_punctuation: ASCII punctuation is left out.
        ignore_numbers: The digits 0 to 9 are left out.
        regexes_to_ignore: What matches one of these regular expressions is left out, in this order, before all else.
        keep_white_space: White space around a text counts.
    """

    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False
    regexes_to_ignore: tuple[str, ...] = ()
    keep_white_space: bool = False

    def __or__(self, other: "Normalization") -> "Normalization":
        """What either leaves out; white space counts where it does in one of them."""
        return Normalization(
            self.ignore_case or other.ignore_case,
            self.ignore_punctuation or other.ignore_punctuation,
            self.ignore_numbers or other.ignore_numbers,
            self.regexes_to_ignore + other.regexes_to_ignore,
            self.keep_white_space or other.keep_white_space,
        )

    def check(self) -> None:
        """Raises UserError for a regular expression that is none."""
        for pattern in self.regexes_to_ignore:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(f"--regexes-to-ignore {pattern!r} is no regular expression: {error}") from None

    def apply(self, text: str) -> str:
        """The text that is compared.

        >>> Normalization(ignore_case=True, ignore_punctuation=True).apply("It's 5!")
        'its 5'
        >>> Normalization(ignore_numbers=True, regexes_to_ignore=(".*#### ",)).apply("2 + 3 #### 5 apples")
        ' apples'
        """
        for pattern in self.regexes_to_ignore:
            text = re.sub(pattern, "", text)
        if self.ignore_case:
            text = text.lower()
        left_out = string.punctuation * self.ignore_punctuation + string.digits * self.ignore_numbers
        return text.translate(str.maketrans("", "", left_out))


def exact_match(answer: str, right: Sequence[str], normalization: Normalization) -> bool:
    """Whether an answer equals one of the right ones; white space around them does not count.

    >>> exact_match(" make", ["make"], Normalization()), exact_match("makes", ["make"], Normalization())
    (True, False)
    """
    return _stripped(answer, normalization) in {_stripped(text, normalization) for text in right}


def prefix_match(answer: str, right: Sequence[str], normalization: Normalization) -> bool:
    """Whether an answer begins with one of the right ones. An empty right answer is no beginning.

    >>> prefix_match(" make it", ["make"], Normalization()), prefix_match("remake", ["make"], Normalization())
    (True, False)
    """
    beginnings = tuple(filter(None, (_stripped(text, normalization) for text in right)))
    return exact_match(answer, right, normalization) or _stripped(answer, normalization).startswith(beginnings)


def _stripped(text: str, normalization: Normalization) -> str:
    if normalization.keep_white_space:
        return normalization.apply(text)
    return normalization.apply(text.strip()).strip()


MATCHES = {"exact_match": exact_match, "prefix_match": prefix_match}
"""The ways to compare an answer with the right ones, by the names of their metrics; the first is the default."""

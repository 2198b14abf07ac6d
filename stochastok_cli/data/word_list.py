"""The words that questions are made of: the bundled list or a file with one word a line."""

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from stochastok_cli.errors import FAILED, UserError

# Nothing that the text of a question uses around words: no space, comma, bracket or quotation mark at a word's end.
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class WordList(NamedTuple):
    """Distinct words in the order of their file, and where they come from."""

    words: list[str]
    name: str

    @property
    def fingerprint(self) -> str:
        """A hash of the words and their order, equal for equal lists whatever the file is called."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:32]


def read_words(file: Path | None = None) -> WordList:
    """The words of `file`, or the 1,000 that ship in the package (`assets/LICENSES.md` tells how they were chosen).

    A word is made of letters of any alphabet, upper and lower case as they stand, with apostrophes or hyphens between
    them. Raises UserError naming the line for anything else, for a blank line and for a word that stands twice.
    """
    if file is None:
        text = (resources.files("stochastok_cli") / "assets" / "words.txt").read_text(encoding="utf-8")
        return WordList(text.split(), "words.txt")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"the words file {file} does not exist") from None
    except UnicodeDecodeError as error:
        raise UserError(f"the words file {file} is not UTF-8 text (byte {error.start})", exit_code=FAILED) from None
    words = [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []
    first_line: dict[str, int] = {}
    for number, word in enumerate(words, 1):
        if not _WORD.fullmatch(word) or not all(c.isalpha() or c in "'’-" for c in word):
            what = f"{word!r}, which is not one word of letters" if word else "blank"
            raise UserError(f"{file}, line {number}: {what}", fix="give one word a line")
        if word in first_line:
            raise UserError(f"{file}, line {number}: {word!r} stands on line {first_line[word]} already")
        first_line[word] = number
    return WordList(words, file.name)

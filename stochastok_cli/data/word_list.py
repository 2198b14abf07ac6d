"""The word lists that questions are generated from: the bundled one, or a file with one word a line."""

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from stochastok_cli.errors import FAILED, UserError

# A word has nothing that the text of a question has around it: space, comma, bracket, quotation mark.
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class WordList(NamedTuple):
    """Distinct words in the order of their file, and the name of the file."""

    words: list[str]
    name: str

    @property
    def fingerprint(self) -> str:
        """A hash of the words in their order. The name of the file does not matter."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()[:32]


def read_words(file: str | Path | None = None) -> WordList:
    """Reads a word list; without a file, the 1,000 words of the package (`assets/LICENSES.md` describes their choice).

    A word consists of letters of any alphabet, with apostrophes or hyphens between them; its case is kept. Raises
    UserError for an empty file, and naming the line for anything else, a blank line and a word that is there twice.
    """
    if file is None:
        text = (resources.files("stochastok_cli") / "assets" / "words.txt").read_text(encoding="utf-8")
        return WordList(text.split(), "words.txt")
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"the words file {file} does not exist") from None
    except UnicodeDecodeError as error:
        raise UserError(f"the words file {file} is not UTF-8 text (byte {error.start})", exit_code=FAILED) from None
    words = [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []
    if not words:
        raise UserError(f"the words file {file} is empty", fix="give one word a line")
    first_line: dict[str, int] = {}
    for number, word in enumerate(words, 1):
        if not _WORD.fullmatch(word) or not all(c.isalpha() or c in "'’-" for c in word):
            problem = f"{word!r}, which is not one word of letters" if word else "blank"
            raise UserError(f"{file}, line {number}: {problem}", fix="give one word a line")
        if word in first_line:
            raise UserError(f"{file}, line {number}: {word!r} stands on line {first_line[word]} already")
        first_line[word] = number
    return WordList(words, file.name)

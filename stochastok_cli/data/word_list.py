"""The word lists that questions are generated from: the bundled one, or a file with one word a line."""

import hashlib
import re
import unicodedata
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from stochastok_cli.errors import FAILED, UserError, similar_path

# A word has nothing that the text of a question has around it: space, comma, bracket, quotation mark.
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_BETWEEN = "'’-"


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

    A word consists of letters of any alphabet, with apostrophes or hyphens between them; its case is kept. Each letter
    is one character, because questions count, spell and cut words by characters. So combining marks are refused, which
    questions would take for letters. Raises UserError for an empty file, and naming the line for anything else, a blank
    line and a word that is there twice.
    """
    if file is None:
        text = (resources.files("stochastok_cli") / "assets" / "words.txt").read_text(encoding="utf-8")
        return WordList(text.split(), "words.txt")
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"the words file {file} does not exist{similar_path(file)}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"the words file {file} is not UTF-8 text (byte {error.start})", exit_code=FAILED) from None
    words = [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []
    if not words:
        raise UserError(f"the words file {file} is empty", fix="give one word a line")
    first_line: dict[str, int] = {}
    for number, word in enumerate(words, 1):
        if not _is_word(word):
            problem, fix = _problem(word)
            raise UserError(f"{file}, line {number}: {problem}", fix=fix)
        if word in first_line:
            raise UserError(f"{file}, line {number}: {word!r} stands on line {first_line[word]} already")
        first_line[word] = number
    return WordList(words, file.name)


def _is_word(word: str) -> bool:
    return bool(_WORD.fullmatch(word)) and all(c.isalpha() or c in _BETWEEN for c in word)


def _problem(word: str) -> tuple[str, str]:
    """What is wrong with a line that is not one word, and what to do."""
    one_a_line = "give one word a line"
    if not word:
        return "blank", one_a_line
    other = next((c for c in word if not (c.isalpha() or c in _BETWEEN)), None)
    if other is None:
        return f"{word!r}, which is not one word of letters", f"{one_a_line}, with ' and - between letters only"
    named = f"U+{ord(other):04X} {unicodedata.name(other, '')}".rstrip()
    if not unicodedata.category(other).startswith("M"):
        return f"{word!r}, which is not one word of letters ({named})", one_a_line
    if _is_word(unicodedata.normalize("NFC", word)):
        return (
            f"{word!r} has {named}, apart from the letter that it belongs to",
            "compose the letters of the file (Unicode normalization NFC, such as uconv -x any-nfc)",
        )
    return (
        f"{word!r} has {named}, a mark that makes a letter together with the one before it",
        "leave such words out: questions count, spell and cut words by characters, so each letter must be one",
    )

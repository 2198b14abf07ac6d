"""Questions from the rows of any file: which columns hold the question, the options, the answer and the kind.

A row of a file, a folder or a dataset on the Hub has a question, perhaps options, and an answer. Published sets write
this in several ways, which are told apart by the names of their columns:

- the question in one of QUESTIONS, in several languages as `prompt_en`, `prompt_tl`;
- the options as a list of texts in one of OPTIONS, as ARC's lists of texts and keys, or in columns `choice1`, `choice2`
  … (`option1` …);
- the answer in one of ANSWERS: the text of the right option, its letter or key, or its number. Where there is no such
  column, the first option is the right one;
- the kind in one of KINDS.

The columns of PACUTE's `prompts` (a list of one object) are read like those of the row.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import UserError, did_you_mean, short_json

if TYPE_CHECKING:
    import datasets

QUESTIONS = ("question", "prompt", "text", "input", "query")
OPTIONS = ("options", "choices", "endings")
ANSWERS = ("answer", "answers", "label", "answerKey", "target")
KINDS = ("kind", "task", "task_type", "subcategory", "category", "subject", "type", "level")
_NUMBERED = re.compile(r"(?:choice|option)_?(\d+)")
_NESTED = "prompts"
_TRUTH = {"true": ("true", "yes"), "false": ("false", "no")}
_DEFAULT_LANGUAGE = "en"

Row = dict[str, Any]


@dataclass(frozen=True)
class QuestionRow:
    """A row as a question.

    Attributes:
        question: The text before the answer.
        options: The options, the right one first; empty where the file has none.
        answers: The texts that are right answers: the right option, or those of the answer's column.
        kind: The kind of question; "" where there are no kinds.
    """

    question: str
    options: list[str]
    answers: list[str]
    kind: str = ""


@dataclass(frozen=True)
class _Columns:
    """The names of the columns of a file; of several for one thing, the first that a row has is used."""

    question: tuple[str, ...]
    options: tuple[str, ...]
    numbered_options: tuple[str, ...]
    answer: tuple[str, ...]
    kinds: tuple[str, ...]


class _InvalidRow(ValueError):
    """What is wrong with a row."""


def read_question_rows(
    description: str, dataset: "datasets.Dataset", *, language: str | None = None, needs_options: bool = False
) -> list[QuestionRow]:
    """The questions of all rows, in their order.

    Args:
        description: What the rows are, for errors.
        dataset: The rows.
        language: The ending of the columns that are used where the questions are in several languages; English, or else
            the first one, where None.
        needs_options: Whether rows without options are an error.

    Raises:
        UserError: Columns are missing, or a row is not a valid question; it names the column or the row.
    """
    rows = [_flat(row) for row in dataset]
    columns = _columns(description, list(rows[0]) if rows else dataset.column_names, language, needs_options)
    questions = _each_row(description, rows, lambda row: _question(row, columns))
    kinds = [_kind(row, columns) for row in rows]
    if not (columns.options or columns.numbered_options):
        answers = _each_row(description, rows, lambda row: _answer_texts(_first(row, columns.answer)))
        return [
            QuestionRow(question, [], texts, kind)
            for question, texts, kind in zip(questions, answers, kinds, strict=True)
        ]
    options = _each_row(description, rows, lambda row: _options(row, columns))
    positions = _positions(description, rows, columns, options)
    result = []
    for question, (texts, _), right, kind in zip(questions, options, positions, kinds, strict=True):
        ordered = [texts[right], *texts[:right], *texts[right + 1 :]]
        result.append(QuestionRow(question, ordered, ordered[:1], kind))
    return result


def _flat(row: Row) -> Row:
    """A row with the columns of its only prompt, if it has such a list."""
    nested = row.get(_NESTED)
    if isinstance(nested, list) and len(nested) == 1 and isinstance(nested[0], dict):
        return {key: value for key, value in row.items() if key != _NESTED} | nested[0]
    return row


def _columns(description: str, names: Sequence[str], language: str | None, needs_options: bool) -> _Columns:
    """Raises UserError where there is no question, or no answer, or a language that the file does not have."""
    ending = _language(description, names, language)

    def choose(candidates: Sequence[str]) -> tuple[str, ...]:
        wanted = dict.fromkeys(name + end for name in candidates for end in ("", ending))
        return tuple(name for name in wanted if name in names)

    numbered = {int(match[1]): name for name in names if (match := _NUMBERED.fullmatch(name))}
    columns = _Columns(
        question=choose(QUESTIONS),
        options=choose(OPTIONS),
        numbered_options=() if choose(OPTIONS) else tuple(numbered[number] for number in sorted(numbered)),
        answer=choose(ANSWERS),
        kinds=_kind_columns(names),
    )
    there_are = f"there are {', '.join(names)}"
    if not columns.question:
        raise UserError(
            f"{description}: there is no column of questions{did_you_mean(QUESTIONS[0], list(names))}",
            fix=f"{there_are}; one of {', '.join(QUESTIONS)} is needed",
        )
    has_options = columns.options or columns.numbered_options
    if needs_options and not has_options:
        raise UserError(
            f"{description}: there is no column of options{did_you_mean(OPTIONS[0], list(names))}",
            fix=f"{there_are}; {OPTIONS[0]} (a list of texts) or option1, option2 … are needed, or give questions "
            "without options to --evaluator generation",
        )
    if not has_options and not columns.answer:
        raise UserError(
            f"{description}: there is no column of answers{did_you_mean(ANSWERS[0], list(names))}",
            fix=f"{there_are}; one of {', '.join(ANSWERS)} is needed",
        )
    return columns


def _language(description: str, names: Sequence[str], language: str | None) -> str:
    """The ending of the columns of a language, with its underscore; "" where the questions are in one only."""
    bases = () if set(QUESTIONS) & set(names) else QUESTIONS
    endings = [name.removeprefix(f"{base}_") for base in bases for name in names if name.startswith(f"{base}_")]
    languages = [ending for ending in endings if re.fullmatch(r"[a-z]{2,3}", ending)]
    if language is None:
        return "" if not languages else f"_{_DEFAULT_LANGUAGE if _DEFAULT_LANGUAGE in languages else languages[0]}"
    if language not in languages:
        known = f"there are: {', '.join(languages)}" if languages else "its questions are in one language: drop it"
        raise UserError(f"{description}: --language {language} is not there", fix=known)
    return f"_{language}"


def _kind_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Category and subcategory together, or else the first of KINDS."""
    present = [name for name in KINDS if name in names]
    if {"category", "subcategory"} <= set(present) and present[0] == "subcategory":
        return "category", "subcategory"
    return tuple(present[:1])


def _each_row(description: str, rows: Sequence[Row], read: Callable[[Row], Any]) -> list[Any]:
    values = []
    for i, row in enumerate(rows, 1):
        try:
            values.append(read(row))
        except _InvalidRow as error:
            raise UserError(f"{description}, row {i}: {error}") from None
    return values


def _first(row: Row, names: Sequence[str]) -> Any:
    """The value of the first of some columns that a row has; None if it has none."""
    return next((value for name in names if (value := row.get(name)) is not None), None)


def _question(row: Row, columns: _Columns) -> str:
    question = _first(row, columns.question)
    if not isinstance(question, str):
        raise _InvalidRow(f"the question is no text: {short_json(question)}")
    return question


def _kind(row: Row, columns: _Columns) -> str:
    kind = "_".join(str(row[name]) for name in columns.kinds if row.get(name) is not None)
    return " ".join(kind.split())


def _options(row: Row, columns: _Columns) -> tuple[list[str], list[str]]:
    """The options of a row in their order, and their keys: letters, where the row names none."""
    if columns.options:
        value = _first(row, columns.options)
        keys = None
        if isinstance(value, dict) and {"text", "label"} <= value.keys():  # as in ARC
            value, keys = value["text"], value["label"]
        if not isinstance(value, list):
            raise _InvalidRow(f"the options must be a list of texts, not {short_json(value)}")
    else:
        value, keys = [row.get(name) for name in columns.numbered_options], None
        while value and value[-1] in (None, ""):  # a question with fewer options than others; CSV has "" for none
            value.pop()
    texts = [_text(option, "an option") for option in value]
    if len(texts) < 2:
        raise _InvalidRow(f"there must be two options or more, not {short_json(value)}")
    if keys is not None and (not isinstance(keys, list) or len(keys) != len(texts)):
        raise _InvalidRow(f"there must be a label for each of the {len(texts)} options, not {keys!r}")
    return texts, [str(key) for key in keys] if keys else list(ascii_uppercase[: len(texts)])


def _text(value: Any, name: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _InvalidRow(f"{name} is no text: {short_json(value)}")
    text = str(value)
    if not text.strip():
        raise _InvalidRow(f"{name} is empty")
    return text


def _answer_texts(value: Any) -> list[str]:
    """All right answers of a question without options."""
    texts = [_text(text, "the answer") for text in (value if isinstance(value, list) else [value])]
    if not texts:
        raise _InvalidRow("there is no answer")
    return texts


# ------------------------------------------------------------------------------------------- which option is right


def _positions(
    description: str, rows: Sequence[Row], columns: _Columns, options: Sequence[tuple[list[str], list[str]]]
) -> list[int]:
    """The place of the right option of each row.

    All answers of a file are read in the same way, so that an option `A` is not taken for the letter of another: as
    texts of options if all of them are, or else as letters or keys, or as numbers. Numbers are counted from 0, or from
    1 where that is the only way: none is 0, and one equals the number of options. `true` and `false` are the options of
    that text, or yes and no. Letters may be small where no answer of the file is the text of an option. Answers that
    could be both texts and numbers, with different meanings, are refused.
    """
    if not columns.answer:
        return [0] * len(rows)
    answers = [_first(row, columns.answer) for row in rows]
    texts = [_by_text(answer, one) for answer, (one, _) in zip(answers, options, strict=True)]
    folds = all(place is None for place in texts)  # else a small letter may be a text with a mistake
    keys = [_by_key(answer, one, ignore_case=folds) for answer, (_, one) in zip(answers, options, strict=True)]
    numbers = _by_number(answers, [len(one) for one, _ in options])
    readings = [texts, keys, numbers]
    whole = [reading for reading in readings if None not in reading]
    if whole and whole[0] is texts and None not in numbers and texts != numbers:
        i = next(i for i, (one, other) in enumerate(zip(texts, numbers, strict=True)) if one != other)
        raise UserError(
            f"{description}, row {i + 1}: the answer {answers[i]!r} is the text of an option and the number of another",
            fix="write letters in the column of answers, or put the right option first and drop it",
        )
    best = whole[0] if whole else max(readings, key=lambda reading: len(reading) - reading.count(None))
    positions = [position for position in best if position is not None]
    if len(positions) < len(rows):
        i = best.index(None)
        listed, known = options[i]
        raise UserError(
            f"{description}, row {i + 1}: the answer {answers[i]!r} is not the text of an option ({listed}), nor a key "
            f"({', '.join(known)}), nor a number from 0 to {len(listed) - 1}"
        )
    return positions


def _by_text(answer: Any, options: Sequence[str]) -> int | None:
    text = str(answer)
    if text in options:
        return options.index(text)
    stripped = [option.strip() for option in options]
    if text.strip() in stripped:
        return stripped.index(text.strip())
    if isinstance(answer, float) and answer.is_integer():  # a column of numbers with gaps, as pandas writes it
        return _by_text(int(answer), options)
    words = _TRUTH.get(text.strip().lower(), ())
    matching = [i for i, option in enumerate(stripped) if option.lower() in words]
    return matching[0] if len(matching) == 1 else None


def _by_key(answer: Any, keys: Sequence[str], *, ignore_case: bool) -> int | None:
    text = str(answer).strip().removesuffix(".").strip("()")
    if text in keys or not ignore_case:
        return keys.index(text) if text in keys else None
    matching = [i for i, key in enumerate(keys) if key.lower() == text.lower()]
    return matching[0] if len(matching) == 1 else None


def _by_number(answers: Sequence[Any], num_options: Sequence[int]) -> list[int | None]:
    numbers = [_number(answer) for answer in answers]
    known = [(number, n) for number, n in zip(numbers, num_options, strict=True) if number is not None]
    from_one = all(number > 0 for number, _ in known) and any(number == n for number, n in known)
    places = [None if number is None else number - from_one for number in numbers]
    return [
        place if place is not None and 0 <= place < n else None for place, n in zip(places, num_options, strict=True)
    ]


def _number(answer: Any) -> int | None:
    if isinstance(answer, float) and answer.is_integer():
        return int(answer)
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        return None
    try:
        return int(re.sub(r"\.0+$", "", answer.strip()) if isinstance(answer, str) else answer)
    except ValueError:
        return None

"""Addition: greedy answers to questions in several tokenizations, compared digit by digit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.answers import Answers
from stochastok_cli.evaluation.base import Direction, Evaluator, EvaluatorOutput, LoadedEvaluator, option, register
from stochastok_cli.evaluation.results import Metric, metric_group

if TYPE_CHECKING:
    from stochastok_cli.evaluation.scoring import LM
    from stochastok_cli.progress import ProgressCallback
    from stochastok_cli.tokenization.vocabulary import Vocabulary

SHUFFLE_SEED = 42  # that of the paper's code, so that the same rows are evaluated
ANSWERS_NOTE = "Sums are written with their last digit first."
STOP = "$"  # the beginning of the next question
_MAKE_AGAIN = "make the data again with the model's: stochastok make-addition --tokenizer CHECKPOINT"


@register
@dataclass(frozen=True)
class MathGeneration(Evaluator):
    """Exact match of generated sums, for each split and each form of tokenization."""

    name = "math_generation"
    title = "Addition"
    description = "addition"
    has_answers = True
    meanings: ClassVar[Mapping[str, str]] = {
        "exact_match": "the answer is the sum, digit by digit",
        "answer_found": "the answer contains the sum",
    }
    directions: ClassVar[Mapping[str, Direction | None]] = {
        "exact_match": "higher",
        "answer_found": "higher",
    }
    accuracies = ("exact_match", "answer_found")
    main_metrics = ("exact_match",)

    num_samples: int | None = option(
        None, "questions of each benchmark, always the same ones", min=1, show_default="all"
    )
    addition: str = option(
        "multi_digit_addition", "the `--name` of what make-addition made", show_default="multi_digit_addition"
    )

    def absent_data(self, data_dir: Path) -> list[Path]:
        from stochastok_cli.data.folders import dataset_dir

        folder = dataset_dir(data_dir) / self.addition
        return [] if folder.is_dir() else [folder]

    def load(
        self, vocabulary: "Vocabulary", context_window: int, data_dir: Path, progress: "ProgressCallback"
    ) -> list[LoadedEvaluator]:
        loaded = load_addition(data_dir, vocabulary, self.num_samples, self.addition)
        for questions in loaded:
            _require_window(questions, context_window)
        return [
            LoadedEvaluator(
                {metric_group(self.name, questions.split, questions.form): len(questions.prompts)},
                partial(evaluate_addition, questions=questions),
            )
            for questions in loaded
        ]


@dataclass(frozen=True)
class AdditionQuestions:
    """Questions of one split in one form of tokenization.

    Attributes:
        dataset: The name of the dataset.
        split: "train" or "val".
        form: One of `addition_tokenizations.FORMS`.
        rows: The rows of the dataset, counted from 1.
        prompts: The ids of `$a+b=`.
        answers: The digits of the sum as the data has them, last digit first.
        max_new_tokens: Enough for an answer whose every digit is a token, and a little more.
    """

    dataset: str
    split: str
    form: str
    rows: list[int]
    prompts: list[list[int]]
    answers: list[str]
    max_new_tokens: int


def load_addition(
    data_dir: Path, vocabulary: "Vocabulary", num_samples: int | None = None, name: str = "multi_digit_addition"
) -> list[AdditionQuestions]:
    """The first `num_samples` rows (all where None) of each shuffled split, in each form that the data contain.

    Raises UserError if there are no such data, or if they were made with another vocabulary.
    """
    import datasets

    from stochastok_cli.data.memmap import SPLITS, dataset_dir
    from stochastok_cli.data.recipes.addition_tokenizations import FORMS
    from stochastok_cli.evaluation.question_files import read_path, require_columns
    from stochastok_cli.manifest import read_manifest, same_tokenizer
    from stochastok_cli.paths import validate_folder_name

    folder = dataset_dir(data_dir) / validate_folder_name(name)
    if not folder.is_dir():
        raise UserError(f"there is no {folder}", fix="run stochastok make-addition first, or give --data-dir")
    manifest = read_manifest(folder)
    if manifest and not same_tokenizer(manifest.options["tokenizer"], vocabulary.fingerprint):
        raise UserError(f"{folder} was made with another tokenizer than the model's", fix=_MAKE_AGAIN)
    loaded = []
    for split in SPLITS:
        description = f"addition ({split})"
        dataset = read_path(description, folder, split)
        require_columns(description, dataset, ("question", "answer", "t_question_base"))
        if not len(dataset):
            raise UserError(f"{description}: {folder} has no rows")
        row_numbers = datasets.Dataset.from_dict({"row": range(1, len(dataset) + 1)})
        # The order depends on the length and the seed alone. In memory: otherwise it is written beside the data.
        dataset, row_numbers = (one.shuffle(seed=SHUFFLE_SEED, keep_in_memory=True) for one in (dataset, row_numbers))
        chosen = range(min(num_samples or len(dataset), len(dataset)))
        rows, row_numbers = dataset.select(chosen), row_numbers.select(chosen)["row"][:]
        questions, answers = rows["question"][:], rows["answer"][:]
        digits = max(len(number) for question in questions for number in re.findall(r"\d+", question))
        for form in FORMS:
            if f"t_question_{form}" not in rows.column_names:
                continue
            prompts = rows[f"t_question_{form}"][:]
            if not manifest:
                _require_same_text(description, form, prompts, questions, vocabulary)
            loaded.append(AdditionQuestions(name, split, form, row_numbers, prompts, answers, 2 * digits + 4))
    return loaded


def _require_window(questions: AdditionQuestions, context_window: int) -> None:
    """Raises UserError if a question and the digits of its answer, a token each, do not fit the context window."""
    for prompt, answer in zip(questions.prompts, questions.answers, strict=True):
        needed = len(prompt) + len(answer) - 1  # the last digit is predicted, never read
        if needed > context_window:
            raise UserError(
                f"addition ({questions.split}, {questions.form}): a question of {len(prompt)} tokens and an answer of "
                f"{len(answer)} digits need a context window of {needed}, and the model's is {context_window}",
                fix="use a model with a longer window, or numbers with fewer digits (make-addition --num-digits)",
            )


def _require_same_text(
    description: str, form: str, prompts: list[list[int]], questions: list[str], vocabulary: "Vocabulary"
) -> None:
    """Data without a manifest do not record their vocabulary; their ids must at least decode to the questions."""
    for prompt, question in zip(prompts, questions, strict=True):
        if max(prompt) >= vocabulary.size or vocabulary.decode(prompt) != question:
            raise UserError(
                f"{description}: in the model's vocabulary the ids of t_question_{form} do not spell {question!r}",
                fix=_MAKE_AGAIN,
            )


def evaluate_addition(lm: "LM", questions: AdditionQuestions) -> EvaluatorOutput:
    """exact_match and answer_found, fractions of the questions.

    An answer is the greedy continuation of the prompt, up to `$`, to end-of-text or to the limit of tokens. It matches
    exactly if it equals the correct answer; the correct answer is found if the continuation contains it.
    """
    # Greedy decoding takes the likeliest id even of NaNs; scoring an id raises for a model that gives them.
    first = questions.prompts[0]
    lm.without_progress().log_likelihoods([(first, first[:1])], description="addition")
    generated = lm.generate_greedy(questions.prompts, questions.max_new_tokens, lambda ids: ended(ids, lm.vocabulary))
    texts = [answer_text(ids, lm.vocabulary) for ids in generated]
    lm.progress(f"addition, {questions.split}, {questions.form}", len(texts), len(texts))
    pairs = list(zip(texts, questions.answers, strict=True))
    return EvaluatorOutput(
        [
            _mean("exact_match", questions, [text == answer for text, answer in pairs]),
            _mean("answer_found", questions, [answer in text for text, answer in pairs]),
        ],
        answers=[
            Answers(
                MathGeneration.name,
                questions.split,
                questions.form,
                questions=[lm.vocabulary.decode(prompt) for prompt in questions.prompts],
                options=[[answer] for answer in questions.answers],
                answers=texts,
                is_correct=[text == answer for text, answer in pairs],
                note=ANSWERS_NOTE,
                rows=questions.rows,
                dataset=questions.dataset,
                token_ids=questions.prompts,
            )
        ],
    )


def _mean(name: str, questions: AdditionQuestions, outcomes: Sequence[bool]) -> Metric:
    import numpy as np

    values = np.array(outcomes, dtype=np.float64)
    return Metric(MathGeneration.name, questions.split, questions.form, name, float(values.mean()), len(values), values)


def ended(ids: list[int], vocabulary: "Vocabulary") -> bool:
    """Whether an answer ends with its last id."""
    return ids[-1] == vocabulary.end_of_text or STOP in vocabulary.decode(ids[-1:])


def answer_text(ids: list[int], vocabulary: "Vocabulary") -> str:
    """The text of an answer before what ended it."""
    ids = ids[:-1] if ids[-1] == vocabulary.end_of_text else ids
    return vocabulary.decode(ids).partition(STOP)[0]

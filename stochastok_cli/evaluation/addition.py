"""Addition: greedy answers to questions that are tokenized in several ways, compared digit by digit."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stochastok_cli.artifacts import read_manifest
from stochastok_cli.data.memmap import SPLITS, dataset_dir
from stochastok_cli.data.recipes.addition import NAME
from stochastok_cli.data.recipes.addition_tokenizations import FORMS
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.findings import EvalResult
from stochastok_cli.evaluation.generation import greedy
from stochastok_cli.evaluation.question_files import read_path, require_columns
from stochastok_cli.evaluation.scoring import log_likelihoods
from stochastok_cli.models.base import CausalLM
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.tokenization.vocabulary import Vocabulary

SHUFFLE_SEED = 42  # the reference's, so that it asks the same rows
STOP = "$"  # the beginning of the next question
_MAKE_AGAIN = "make the data again with the model's: stochastok make-addition --tokenizer CHECKPOINT"


@dataclass(frozen=True)
class AdditionQuestions:
    """Questions of one split in one form of tokenization.

    prompts: the ids of `$a+b=`; answers: the digits of the sum as the data has them, last digit first;
    max_new_tokens: room for an answer whose every digit is a token, and a little more.
    """

    split: str
    form: str
    prompts: list[list[int]]
    answers: list[str]
    max_new_tokens: int


def load_addition(data_dir: Path, vocabulary: Vocabulary, num_samples: int | None = None) -> list[AdditionQuestions]:
    """The first `num_samples` rows (all where None) of each shuffled split, in each form that the data have.

    Raises UserError if there are no such data, or if they are of another vocabulary.
    """
    folder = dataset_dir(data_dir) / NAME
    if not folder.is_dir():
        raise UserError(f"there is no {folder}", fix="run stochastok make-addition first, or give --data-dir")
    manifest = read_manifest(folder)
    if manifest and manifest.options["tokenizer"] != vocabulary.fingerprint:
        raise UserError(f"{folder} was made with another tokenizer than the model's", fix=_MAKE_AGAIN)
    found = []
    for split in SPLITS:
        what = f"addition ({split})"
        dataset = read_path(what, folder, split)
        require_columns(what, dataset, ("question", "answer", "t_question_base"))
        if not len(dataset):
            raise UserError(f"{what}: {folder} has no rows")
        dataset = dataset.shuffle(seed=SHUFFLE_SEED, keep_in_memory=True)  # or it writes beside the data
        rows = dataset.select(range(min(num_samples or len(dataset), len(dataset))))
        questions, answers = rows["question"][:], rows["answer"][:]
        digits = max(len(number) for question in questions for number in re.findall(r"\d+", question))
        for form in FORMS:
            if f"t_question_{form}" not in rows.column_names:
                continue
            prompts = rows[f"t_question_{form}"][:]
            if not manifest:
                _require_spelling(what, form, prompts, questions, vocabulary)
            found.append(AdditionQuestions(split, form, prompts, answers, 2 * digits + 4))
    return found


def _require_spelling(
    what: str, form: str, prompts: list[list[int]], questions: list[str], vocabulary: Vocabulary
) -> None:
    """Data without a manifest don't say what they were made with; at least they must spell what they should."""
    for prompt, question in zip(prompts, questions, strict=True):
        if max(prompt) >= vocabulary.size or vocabulary.decode(prompt) != question:
            raise UserError(
                f"{what}: in the model's vocabulary the ids of t_question_{form} do not spell {question!r}",
                fix=_MAKE_AGAIN,
            )


def ask_addition(
    model: CausalLM, vocabulary: Vocabulary, asked: AdditionQuestions, *, progress: ProgressCallback = no_progress
) -> EvalResult:
    """`math_generation/<split>/<form>/exact_match` and `…/answer_found`, shares of the questions.

    An answer is what the model says greedily after the prompt, up to `$`, to end-of-text or to the limit of tokens;
    the prompt is no part of it. It matches exactly if it equals the right one, which is found if it contains it.
    """
    # Greedy decoding would read an answer out of anything; scoring an id refuses a model that gives no numbers.
    log_likelihoods(model, [(asked.prompts[0], asked.prompts[0][:1])], what="addition")
    said = greedy(model, asked.prompts, asked.max_new_tokens, lambda ids: ended(ids, vocabulary))
    texts = [answer_text(ids, vocabulary) for ids in said]
    progress(f"addition, {asked.split}, {asked.form}", len(texts), len(texts))
    pairs = list(zip(texts, asked.answers, strict=True))
    name = f"math_generation/{asked.split}/{asked.form}"
    found = EvalResult()
    found.add(f"{name}/exact_match", np.array([text == answer for text, answer in pairs]))
    found.add(f"{name}/answer_found", np.array([answer in text for text, answer in pairs]))
    return found


def ended(ids: list[int], vocabulary: Vocabulary) -> bool:
    """Whether an answer is over with its last id."""
    return ids[-1] == vocabulary.end_of_text or STOP in vocabulary.decode(ids[-1:])


def answer_text(ids: list[int], vocabulary: Vocabulary) -> str:
    """The text of an answer before what ended it."""
    ids = ids[:-1] if ids[-1] == vocabulary.end_of_text else ids
    return vocabulary.decode(ids).partition(STOP)[0]

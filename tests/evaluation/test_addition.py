"""Addition: which rows are questions, where an answer ends, and what counts as right."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stochastok_cli.data.recipes.addition import make_addition
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.evaluation.evaluators.math_generation import (
    AdditionQuestions,
    MathGeneration,
    answer_text,
    evaluate_addition,
    load_addition,
)
from stochastok_cli.evaluation.sample_log import sample_rows
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.models.base import KeyValueCache
from stochastok_cli.progress import no_progress
from stochastok_cli.tokenization.loaders import load_vocabulary
from stochastok_cli.tokenization.vocabulary import Vocabulary
from tests.models.small_models import sharp_model, small_config


class Speaker(nn.Module):
    """A stand-in for the network: says `speech(question)` one character at a time, and then end-of-text.

    It keeps what it has read in the cache, and does not look at padding, as the network does.
    """

    def __init__(self, vocabulary: Vocabulary, speech: Callable[[str], str]):
        super().__init__()
        self.vocabulary, self.speech = vocabulary, speech
        self.context_window, self.vocab_size, self.device = 48, vocabulary.size, torch.device("cpu")
        self.head_weight = nn.Parameter(torch.eye(vocabulary.size))

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.head_weight.T

    def forward(self, ids: Tensor, segment_start: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        read = ids if cache is None else cache.extend(0, ids[:, None, :, None], ids[:, None, :, None])[0][:, 0, :, 0]
        starts = [0] * len(read) if segment_start is None else segment_start[:, -1].tolist()
        chosen = torch.tensor([self._next(row[start:].tolist()) for row, start in zip(read, starts, strict=True)])
        return F.one_hot(chosen, self.vocabulary.size).float()[:, None].expand(-1, ids.shape[1], -1)

    def _next(self, read: list[int]) -> int:
        question, equals, text = self.vocabulary.decode(read).partition("=")
        left = self.speech(question + equals)[len(text) :]
        return self.vocabulary.encode(left[0])[0] if left else self.vocabulary.end_of_text


def reversed_sum(question: str) -> str:
    first, second = question.strip("$=").split("+")
    return str(int(first) + int(second))[::-1]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_addition(load_vocabulary("sample2k"), folder, num_digits=2, val_fraction=0.01)  # 90 questions a split
    return folder


def questions_of(questions: list[str], vocabulary: Vocabulary) -> AdditionQuestions:
    prompts = [vocabulary.encode(question) for question in questions]
    return AdditionQuestions(
        "digits",
        "val",
        "base",
        list(range(1, len(prompts) + 1)),
        prompts,
        [reversed_sum(question) for question in questions],
        8,
    )


def results(speech: Callable[[str], str], questions: AdditionQuestions, vocabulary: Vocabulary) -> tuple[float, float]:
    metrics = evaluate_addition(LM(Speaker(vocabulary, speech), vocabulary), questions).values
    return metrics["math_generation/val/base/exact_match"], metrics["math_generation/val/base/answer_found"]


def test_nothing_is_written_beside_the_data(data_dir):
    before = sorted(data_dir.rglob("*"))
    load_addition(data_dir, load_vocabulary("sample2k"), 5)
    assert sorted(data_dir.rglob("*")) == before


def test_a_model_that_knows_the_answer_is_right_in_every_form_of_both_splits(data_dir, vocabulary):
    forms = load_addition(data_dir, vocabulary, 20)
    assert {(questions.split, questions.form) for questions in forms} >= {
        (split, form) for split in ("train", "val") for form in ("base", "stochastok", "character")
    }
    for questions in forms:
        metrics = evaluate_addition(
            LM(Speaker(vocabulary, lambda q: reversed_sum(q) + "$1+1="), vocabulary), questions
        ).values
        assert metrics == {
            f"math_generation/{questions.split}/{questions.form}/exact_match": 1.0,
            f"math_generation/{questions.split}/{questions.form}/answer_found": 1.0,
        }


@pytest.mark.parametrize(
    ("speech", "expected"),
    [
        (lambda q: reversed_sum(q), (1, 1)),  # ended by end-of-text
        (lambda q: reversed_sum(q) + "7", (0, 1)),
        (lambda q: "7" + reversed_sum(q) + "$", (0, 1)),
        (lambda q: reversed_sum(q)[::-1] + "$", (0, 0)),  # not reversed
        (lambda q: "$" + reversed_sum(q) + "$", (0, 0)),  # after the end
        (lambda q: q + reversed_sum(q), (0, 0)),  # the question again: it begins with `$`
        (lambda q: "", (0, 0)),
        (lambda q: "7" * 6 + reversed_sum(q) + "$", (0, 0)),  # 2d + 4 = 8 tokens, all but the answer's last digit
    ],
)
def test_what_counts_as_right(speech, expected, vocabulary):
    questions = questions_of(["$71+52=", "$61+93="], vocabulary)
    assert results(speech, questions, vocabulary) == expected
    [answers] = evaluate_addition(LM(Speaker(vocabulary, speech), vocabulary), questions).answers
    assert (answers.questions, answers.options) == (["$71+52=", "$61+93="], [[a] for a in questions.answers])
    given = zip(answers.answers, questions.answers, strict=True)
    assert answers.is_correct == [text == right for text, right in given] == [expected[0] == 1] * 2


def test_the_text_of_an_answer_ends_before_what_ended_it(vocabulary):
    for text in ("12$34", "12$", "12"):
        ids = vocabulary.encode(text)
        assert answer_text(ids, vocabulary) == answer_text([*ids, vocabulary.end_of_text], vocabulary) == "12"


def test_the_answer_is_not_looked_for_in_the_question(vocabulary):
    questions = questions_of(["$22+0=", "$11+0="], vocabulary)
    assert all(answer in question for answer, question in zip(["22", "11"], ["$22+0=", "$11+0="], strict=True))
    assert results(lambda q: "9$", questions, vocabulary) == (0, 0)
    assert results(lambda q: "22$", questions, vocabulary) == (0.5, 0.5)


def test_the_number_of_tokens_is_limited(data_dir, vocabulary):
    spoken = []

    def endless(question: str) -> str:
        spoken.append(question)
        return "7" * 100

    questions = load_addition(data_dir, vocabulary, 1)[0]
    assert questions.max_new_tokens == 2 * 2 + 4
    evaluate_addition(LM(Speaker(vocabulary, endless), vocabulary), questions)
    assert len(spoken) == questions.max_new_tokens + 1  # and one for the check that the model gives numbers


def test_questions_without_room_for_their_answers_are_refused(data_dir, vocabulary):
    loaded = load_addition(data_dir, vocabulary, 20)
    needed = max(
        len(prompt) + len(answer) - 1
        for questions in loaded
        for prompt, answer in zip(questions.prompts, questions.answers, strict=True)
    )
    evaluator = MathGeneration(num_samples=20)
    assert len(evaluator.load(vocabulary, needed, data_dir, no_progress)) == len(loaded)
    with pytest.raises(UserError, match=f"need a context window of {needed}, and the model's is {needed - 1}; use a"):
        evaluator.load(vocabulary, needed - 1, data_dir, no_progress)


def test_the_first_rows_after_shuffling_with_seed_42_are_asked(data_dir, vocabulary):
    saved = datasets.load_from_disk(str(data_dir / "data_as_datasets" / "multi_digit_addition"))
    expected = saved["val"].shuffle(seed=42)["question"][:7]
    questions = next(questions for questions in load_addition(data_dir, vocabulary, 7) if questions.split == "val")
    assert [vocabulary.decode(prompt) for prompt in questions.prompts] == expected
    assert questions.answers == [reversed_sum(question) for question in expected]
    assert [saved["val"][row - 1]["question"] for row in questions.rows] == expected and questions.rows != [
        *range(1, 8)
    ]
    assert len(load_addition(data_dir, vocabulary)[0].prompts) == 90


def test_answers_name_the_dataset_and_its_rows(data_dir, vocabulary):
    questions = load_addition(data_dir, vocabulary, 7)[0]
    output = evaluate_addition(LM(Speaker(vocabulary, lambda text: "1$"), vocabulary), questions)
    [line, *_] = sample_rows(output.answers[0], vocabulary, {})
    assert (line["dataset"], line["benchmark"], line["row"]) == ("multi_digit_addition", "train", questions.rows[0])


def saved(folder: Path, **columns: list) -> Path:
    rows = datasets.Dataset.from_dict({"question": ["$1+1="], "answer": ["2"], **columns})
    datasets.DatasetDict(train=rows, val=rows).save_to_disk(folder / "data_as_datasets" / "multi_digit_addition")
    return folder


def test_absent_forms_are_skipped_and_all_others_asked(tmp_path, vocabulary):
    ids = [vocabulary.encode("$1+1=")]
    folder = saved(tmp_path, t_question_base=ids, t_question_bpe_dropout=ids)
    assert [questions.form for questions in load_addition(folder, vocabulary)] == ["base", "bpe_dropout"] * 2


def test_data_of_another_tokenizer_are_refused(tmp_path, data_dir, vocabulary):
    ids = [load_vocabulary("gpt2").encode("$1+1=")]
    ids[0][0] = 50000
    with pytest.raises(UserError, match="t_question_base do not spell '\\$1\\+1='; make the data again"):
        load_addition(saved(tmp_path, t_question_base=ids), vocabulary)
    with pytest.raises(UserError, match="multi_digit_addition was made with another tokenizer than the model's"):
        load_addition(data_dir, load_vocabulary("gpt2"))


def test_data_that_are_not_there(tmp_path, vocabulary):
    with pytest.raises(UserError, match="there is no .*multi_digit_addition; run stochastok make-addition"):
        load_addition(tmp_path, vocabulary)
    with pytest.raises(UserError, match="no column 't_question_base'"):
        load_addition(saved(tmp_path, other=["x"]), vocabulary)


def test_a_model_that_gives_no_numbers_is_an_error(vocabulary):
    model = sharp_model(small_config())
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(UserError, match="no number") as caught:
        evaluate_addition(LM(model, vocabulary), questions_of(["$1+1="], vocabulary))
    assert caught.value.exit_code == FAILED


def test_the_real_network_answers_and_keeps_its_mode(model, vocabulary, data_dir):
    questions = load_addition(data_dir, vocabulary, 20)[0]
    before = model.training
    metrics = evaluate_addition(LM(model, vocabulary), questions).values
    assert all(0 <= value <= 1 for value in metrics.values())
    assert model.training == before

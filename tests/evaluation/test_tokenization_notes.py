"""What is said about questions that the tokenizer loses, and about another tokenization that changes nothing."""

import warnings

import pytest
import tokenizers

from stochastok_cli.errors import Notice
from stochastok_cli.evaluation.evaluators.generation import Generation
from stochastok_cli.evaluation.evaluators.multiple_choice import MultipleChoice
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.progress import no_progress
from stochastok_cli.tokenization.loaders import load_vocabulary

EVALUATORS = [MultipleChoice, Generation]


@pytest.fixture
def without_bytes(tmp_path):
    """A WordPiece vocabulary of a few letters, and an unknown token for all other words."""
    pieces = ["[UNK]", "[SEP]", "a", "b", "c", "##a"]
    model = tokenizers.models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]", "[SEP]"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return load_vocabulary(str(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_questions_that_lose_text_are_counted(evaluator, without_bytes, vocabulary, jsonl, tmp_path):
    rows = [{"question": question, "options": ["b", "c"]} for question in ("a é", "a b", "ü")]
    one = evaluator((f"x={jsonl(rows)}",))
    with pytest.warns(Notice, match="benchmark x: 2 questions have text that the tokenizer can't represent"):
        one.load(without_bytes, 48, tmp_path, no_progress)
    with warnings.catch_warnings(category=Notice, action="error"):
        one.load(vocabulary, 48, tmp_path, no_progress)


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_a_tokenization_that_changes_no_question_is_named(evaluator, vocabulary, model, jsonl, tmp_path):
    file = jsonl([{"question": "the house", "options": ["old", "new"]}])
    [fixed] = evaluator((f"x={file}",), tokenization="digits:right3").load(vocabulary, 48, tmp_path, no_progress)
    with pytest.warns(Notice, match="x, digits:right3: no question was changed by the tokenization"):
        fixed.run(LM(model, vocabulary))
    [other] = evaluator((f"x={file}",), tokenization="character").load(vocabulary, 48, tmp_path, no_progress)
    with warnings.catch_warnings(category=Notice, action="error"):
        other.run(LM(model, vocabulary))

"""From questions to scores: the boundary between prefix and option, the window, the sample."""

import numpy as np
import pytest
import torch

from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.benchmarks import Benchmark, Question, benchmark_specs
from stochastok_cli.evaluation.encoding import encode, split_at_boundary
from stochastok_cli.evaluation.evaluators.multiple_choice import evaluate_multiple_choice
from stochastok_cli.evaluation.metrics import multiple_choice_metrics
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.evaluation.test_scoring import by_definition
from tests.models.small_models import sharp_model, small_config

BENCHMARK = Benchmark(
    "arc",
    [
        Question("What falls from the sky? ", ["rain", "a house", "the tree of the garden"], 1),
        Question("", ["The cat sleeps.", "The cat sleep."], 2),
        Question("Answer:", [" yes", "no"], 3),
    ],
)


def multiple_choice(model, vocabulary, benchmark, **options):
    encoded = encode(benchmark, vocabulary, model.config.context_window)
    return evaluate_multiple_choice(LM(model, vocabulary, **options), encoded).values


@pytest.mark.parametrize(
    ("prefix", "option", "expected"),
    [
        ("Answer:", " sing", ("Answer:", " sing")),  # LangGame: a second space was never seen in training
        ("Answer:", "sing", ("Answer:", " sing")),
        ("Answer: ", "sing", ("Answer:", " sing")),
        ("Answer:\n", "sing", ("Answer:", "\nsing")),
        ("Answer:  ", "sing", ("Answer:", "  sing")),
        ("Answer:", "\tsing", ("Answer:", "\tsing")),
        ("", "The cat sleeps.", ("", "The cat sleeps.")),
        (" ", "sing", ("", " sing")),
    ],
)
def test_the_space_at_the_boundary_belongs_to_the_option(prefix, option, expected):
    assert split_at_boundary(prefix, option) == expected


def test_prefix_and_option_are_tokenized_separately(vocabulary):
    encoded = encode(Benchmark("arc", [Question("the ", ["re", "se"], 1)]), vocabulary, 48)
    assert encoded.pairs == [
        (vocabulary.encode("the"), vocabulary.encode(" re")),
        (vocabulary.encode("the"), vocabulary.encode(" se")),
    ]


@pytest.fixture(scope="module")
def joining(tmp_path_factory):
    """A vocabulary that joins punctuation with the line break after it, as cl100k_base does, and `. X`."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    entries = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), ":Ċ", "ĠX", ".ĠX"]
    merges = [(":", "Ċ"), ("Ġ", "X"), (".", "ĠX")]
    raw = Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\. X| ?[^\s\w]+[\r\n]*| ?\w+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    folder = tmp_path_factory.mktemp("joining")
    raw.save(str(folder / "tokenizer.json"))
    return load_vocabulary(str(folder))


def encoded_texts(vocabulary, question, **options):
    [encoded] = encode(Benchmark("arc", [question], **options), vocabulary, 48).questions
    return vocabulary.decode(encoded.context), [vocabulary.decode(ids) for ids in encoded.options]


def test_published_benchmarks_are_cut_after_as_many_ids_as_the_prefix_has(joining):
    question = Question("Answer:\n", ["re", "se"], 1)
    assert encoded_texts(joining, question) == ("Answer:", ["\nre", "\nse"])
    assert encoded_texts(joining, question, encode_whole=True) == ("Answer:", ["re", "se"])
    spaced = Question("Answer: ", ["re", "se"], 1)
    assert encoded_texts(joining, spaced, encode_whole=True) == encoded_texts(joining, spaced)
    # Nothing would remain of the option " X", so that both are encoded on their own.
    joined = Question("a.", ["X", "Y"], 1)
    assert encoded_texts(joining, joined, encode_whole=True) == ("a.", [" X", " Y"])


def test_which_benchmarks_follow_lm_evaluation_harness():
    whole = {name for name, spec in benchmark_specs().items() if spec.encode_whole}
    assert whole == {"hellaswag", "arc", "mmlu", "winograd", "blimp"}


@pytest.mark.slow
def test_the_rule_of_lm_evaluation_harness_itself(joining, vocabulary):
    lm_eval = pytest.importorskip("lm_eval.api.model", reason="the extra lm-eval is not installed")

    class Theirs(lm_eval.TemplateLM):
        eot_token_id = 0

        def tok_encode(self, string, **kwargs):
            return self.vocabulary.encode(string)

        def _loglikelihood_tokens(self, *arguments): ...
        def loglikelihood_rolling(self, *arguments): ...
        def generate_until(self, *arguments): ...

    theirs = Theirs()
    for theirs.vocabulary in (joining, vocabulary):
        for prefix in ("Answer:\n", "Answer:", "What falls from the sky? ", "Yes.\n\n"):
            [question] = encode(
                Benchmark("arc", [Question(prefix, [" rain", " fog"], 1)], True), theirs.vocabulary, 48
            ).questions
            for option, ids in zip([" rain", " fog"], question.options, strict=True):
                assert theirs._encode_pair(prefix, option) == (question.context, ids)


def test_scores_are_the_log_likelihood_of_the_option_alone(model, vocabulary):
    """Against the definition: neither prefix nor end-of-text is scored, and an empty prefix is end-of-text."""
    expected = []
    for question in BENCHMARK.questions:
        scores = []
        for option in question.options:
            before, after = split_at_boundary(question.prefix, option)
            context = vocabulary.encode(before) if before else [vocabulary.end_of_text]
            scores.append(by_definition(model, context, vocabulary.encode(after)))
        expected.append(np.array(scores))
    metrics = multiple_choice(model, vocabulary, BENCHMARK)
    assert metrics == pytest.approx(
        {f"mcq/arc/{name}": value for name, value in multiple_choice_metrics(expected).items()}, abs=1e-4
    )


def test_the_answers_of_a_model(model, vocabulary):
    encoded = encode(BENCHMARK, vocabulary, model.config.context_window)
    lm = LM(model, vocabulary)
    scores = lm.question_scores(encoded)
    output = evaluate_multiple_choice(lm, encoded)
    [answers] = output.answers
    assert answers.key == "mcq/arc" and answers.questions == [question.prefix for question in BENCHMARK.questions]
    chosen = [int(of_question.argmax()) for of_question in scores]
    assert answers.answers == [q.options[i] for q, i in zip(BENCHMARK.questions, chosen, strict=True)]
    assert answers.is_correct == [i == 0 for i in chosen]
    for i, of_question, probability in zip(chosen, scores, answers.probabilities, strict=True):
        assert probability == pytest.approx(float(torch.tensor(of_question).softmax(0)[i]))
    chances = {metric.name: metric.chance for metric in output.metrics}
    assert chances["accuracy"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3) and chances["normalized_accuracy"] == 0
    assert output.values["mcq/arc/accuracy"] == np.mean(answers.is_correct)


def test_a_tie_is_no_right_answer(model, vocabulary):
    twice = encode(Benchmark("arc", [Question("Answer:", ["yes", "yes"], 1)]), vocabulary, 48)
    [answers] = evaluate_multiple_choice(LM(model, vocabulary), twice).answers
    assert (answers.answers, answers.is_correct, answers.probabilities) == (["yes"], [False], [0.5])


def test_the_batch_size_changes_no_metric(model, vocabulary):
    assert multiple_choice(model, vocabulary, BENCHMARK, batch_tokens=1) == pytest.approx(
        multiple_choice(model, vocabulary, BENCHMARK), abs=1e-4
    )


def test_a_long_prefix_is_truncated_from_the_left_and_counted(model, vocabulary):
    long = "the garden and the house and " * 20 + "the river:"
    benchmark = Benchmark("arc", [Question(long, ["rain", "the house of the king"], 1), BENCHMARK.questions[0]])
    encoded = encode(benchmark, vocabulary, model.config.context_window)
    assert encoded.truncated == 1
    longest = max(len(option) for _, option in encoded.pairs[:2])
    kept = vocabulary.encode(long)[-(49 - longest) :]
    assert [prefix for prefix, _ in encoded.pairs[:2]] == [kept, kept]  # the same for all options of a question
    assert max(len(prefix) + len(option) - 1 for prefix, option in encoded.pairs) == 48
    assert multiple_choice(model, vocabulary, benchmark)["mcq/arc/truncated"] == 1


def test_nothing_is_said_of_truncation_where_all_fits(model, vocabulary):
    assert "mcq/arc/truncated" not in multiple_choice(model, vocabulary, BENCHMARK)


def test_an_option_that_fills_the_window_is_scored_and_a_longer_one_refused(vocabulary):
    text = " the" * 47
    assert len(vocabulary.encode(text)) == 47
    benchmark = Benchmark("arc", [Question("Question?", [text, " a"], 7)])
    model = sharp_model(small_config(context_window=47))
    assert multiple_choice(model, vocabulary, benchmark)["mcq/arc/truncated"] == 1
    with pytest.raises(UserError, match="benchmark arc, row 7: an option has 47 tokens, .* window is 46"):
        encode(benchmark, vocabulary, 46)

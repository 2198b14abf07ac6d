"""The options of evaluators: what is accepted and what is refused; `evaluate` from Python."""

import pytest
import transformers

from stochastok_cli.config import EvaluatorConfig
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.evaluators.alignment import Alignment
from stochastok_cli.evaluation.evaluators.generation import Generation
from stochastok_cli.evaluation.evaluators.multiple_choice import MultipleChoice
from stochastok_cli.evaluation.registry import EVALUATORS, main_keys, make_evaluator, metric_of_key
from stochastok_cli.evaluation.results import Metric
from stochastok_cli.evaluation.run import as_evaluator, evaluate
from stochastok_cli.models.llama.state_dict import save_model
from stochastok_cli.training.events import Evaluated, describe
from tests.data.chat_tokenizers import save_tokenizer, template
from tests.models.small_models import sharp_model, small_config


def test_the_evaluators_in_their_order():
    assert list(EVALUATORS)[:4] == ["mcq", "math_generation", "bits_per_byte", "alignment"]


def test_an_evaluator_in_every_notation():
    expected = MultipleChoice(("arc", "blimp"), num_samples=5)
    options = {"evaluator": "mcq", "benchmarks": ["arc", "blimp"], "num_samples": 5}
    assert as_evaluator(options) == as_evaluator(EvaluatorConfig("mcq", 5, ("arc", "blimp"))) == expected
    assert as_evaluator(expected) == expected
    assert as_evaluator("alignment") == Alignment()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mcqs", {}, "unknown evaluator 'mcqs'; did you mean 'mcq'"),
        ("mcq", {}, "--evaluator mcq needs --benchmarks; there are: hellaswag"),
        ("mcq", {"benchmarks": ["arc", "arc=x.csv"]}, "--benchmarks names arc twice"),
        ("mcq", {"benchmarks": ["arc"], "adversarial": 1}, "--adversarial = 1 must be at least 2"),
        ("mcq", {"benchmarks": ["arc"], "samples": 2}, "--samples says nothing without --tokenization"),
        ("mcq", {"benchmarks": ["arc"], "colour": "red"}, "'colour' is no option of an evaluator"),
        ("math_generation", {"tokenization": "uniform:0.1"}, "mcq or bits_per_byte or alignment or .*; drop it"),
        (
            "alignment",
            {"contamination": True},
            "--contamination can only go with --evaluator mcq or gen",
        ),
        ("bits_per_byte", {"benchmarks": ["text"], "tokenization": "stochastok:0.1"}, "known probability"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        make_evaluator(name, options)


def test_absent_options_fit_every_evaluator():
    absent = {"by_kind": False, "words": None, "benchmarks": ()}
    assert make_evaluator("math_generation", absent) == EVALUATORS["math_generation"]()


# ------------------------------------------------------------------------------------------------ from Python


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, vocabulary):
    folder = tmp_path_factory.mktemp("checkpoints") / "model"
    folder.mkdir()
    save_model(sharp_model(small_config()), folder, vocabulary)
    return folder


def test_evaluate_from_python(checkpoint, tmp_path):
    seen = []
    results = evaluate(
        ["model", checkpoint],
        [
            Alignment(num_samples=3, samples=2),
            {"evaluator": "alignment", "num_samples": 2, "tokenization": "uniform:0.9"},
        ],
        checkpoint_dir=checkpoint.parent,
        data_dir=tmp_path,
        on_result=seen.append,
    )
    assert seen == results
    first, second = results
    assert (first.checkpoint, first.label, first.iteration) == (str(checkpoint), "model", None)
    assert first.values == second.values
    assert first.sample_counts == {"alignment/uniform1.0": 3, "alignment/uniform0.9": 2}
    assert [curve.key for curve in first.curves] == [
        f"alignment/{name}" for name in ("uniform1.0", "uniform1.0/pca", "uniform0.9", "uniform0.9/pca")
    ]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("langgame-val", MultipleChoice(("langgame-val",), num_samples=5)),
        ("easy-val", MultipleChoice(("easy-val",), num_samples=5)),
        ("mine=a/b.jsonl:dev", MultipleChoice(("mine=a/b.jsonl:dev",), num_samples=5)),
        ("mcq:arc,blimp", MultipleChoice(("arc", "blimp"), num_samples=5)),
        ("generation:mine=org/set:dev", Generation(("mine=org/set:dev",), num_samples=5)),
        ("alignment", Alignment(num_samples=5)),
    ],
)
def test_tasks(task, expected):
    options = {"num_samples": 5, "tokenization": None}
    assert as_evaluator(task, options) == expected
    assert as_evaluator(Alignment(), options) == Alignment()  # an evaluator has its options already


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "langame-val:x",
            r"'langame-val:x' is no task; did you mean 'langgame-val'\?; give a benchmark, or",
        ),
        ("aligment", "did you mean 'alignment'"),
        ("alignment:x", "what alignment scores is always the same"),
        ("mcq", "--evaluator mcq needs --benchmarks"),
    ],
)
def test_texts_that_are_no_tasks(task, message):
    with pytest.raises(UserError, match=message):
        as_evaluator(task)


def test_a_loaded_model_gives_what_its_folder_gives(tmp_path, jsonl):
    folder = tmp_path / "model"
    config = transformers.GPT2Config(vocab_size=2112, n_embd=16, n_layer=1, n_head=2, n_positions=64, eos_token_id=7)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    save_tokenizer(folder, template("chatml"))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    file = jsonl({"question": f"Is {i} odd?", "options": ["yes", "no"]} for i in range(4))
    tasks, options = [f"mine={file}", f"generation:mine={file}"], {"tokenization": "uniform:0.5", "samples": 2}
    [loaded, named] = evaluate([model, folder], tasks, tokenizer=tokenizer, **options)
    assert model.training
    assert len(loaded.metrics) > 15
    assert loaded.values == named.values
    assert [answers.answers for answers in loaded.answers] == [answers.answers for answers in named.answers]
    for arguments, message in [
        ((model, tasks), r"needs its tokenizer: evaluate\(model, tasks, tokenizer=tokenizer\)"),
        ((object(), tasks), "an object of type object can't be evaluated"),
    ]:
        with pytest.raises(UserError, match=message):
            evaluate(*arguments)


def test_what_training_prints_of_the_metrics_of_benchmarks():
    def metrics(evaluator: str, benchmark: str, part: str, *names: str) -> list[Metric]:
        return [Metric(evaluator, benchmark, part, name, 0.5) for name in names]

    output = [
        *metrics("mcq", "arc", "kind", "accuracy"),
        *metrics("mcq", "arc", "", "accuracy", "path_confidence", "normalized_accuracy"),
        *metrics("mcq", "arc", "uniform0.5", "accuracy", "worst_case"),
        *metrics("generation", "cute", "", "exact_match", "prefix_match", "truncated"),
        *metrics("math_generation", "val", "base", "exact_match", "answer_found"),
        *metrics("math_generation", "val", "character", "exact_match", "answer_found"),
        *metrics("bits_per_byte", "canonical", "", "bits_per_byte"),
        *metrics("bits_per_byte", "canonical", "uniform0.5", "canonical", "monte_carlo_error"),
        *metrics("alignment", "uniform1.0", "layer_1", "distance"),
    ]
    assert set(main_keys(output)) == {
        "mcq/arc/accuracy",
        "generation/cute/exact_match",
        "generation/cute/prefix_match",
        "math_generation/val/base/exact_match",
        "bits_per_byte/canonical",
    }
    assert [metric_of_key(metric.key)[1] for metric in output] == [metric.name for metric in output]
    values = {"validation/loss": 2.0} | {metric.key: metric.value for metric in output}
    line = describe(Evaluated(4, values, 1.0, ["validation/loss", *main_keys(output)]))
    assert "mcq/arc/accuracy 0.5000  " in line and "kind" not in line
    assert line.endswith("bits_per_byte/canonical 0.5000  12 more in metrics.jsonl  (1.0 s)")

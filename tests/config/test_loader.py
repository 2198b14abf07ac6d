"""The configuration: the shipped files, overrides, and what is refused."""

import typing
from pathlib import Path

import pytest
import yaml

from stochastok_cli.config import (
    Config,
    config_from_dict,
    config_from_file,
    find_config,
    load_config,
    load_config_and_sources,
)
from stochastok_cli.config.schema import TEXT_OPTIONS
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.registry import EVALUATORS, find_invalid_values, make_evaluator
from stochastok_cli.evaluation.run import as_evaluator

SHIPPED = sorted(Path("configs").glob("*.yaml"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f.stem)
def test_every_shipped_configuration_is_valid(file):
    config = load_config(str(file))
    assert config_from_dict(yaml.safe_load(config.to_yaml()), "again") == config


def test_the_shipped_values_are_the_published_ones():
    pretraining, tuning = load_config("pretraining"), load_config("instruction_tuning")
    assert pretraining == Config(trainer=pretraining.trainer)
    assert pretraining.trainer.optimizer.lr == 6e-4
    assert pretraining.trainer.training.eval_iters == 500
    assert pretraining.trainer.eval[0].benchmarks == ("winograd", "hellaswag", "arc", "mmlu", "blimp")
    training, optimizer = tuning.trainer.training, tuning.trainer.optimizer
    assert (training.max_iters, training.lr_decay_iters, training.warmup_iters) == (3000, 3000, 500)
    assert (training.eval_interval, training.log_interval, training.eval_iters) == (50, 5, 50)
    assert (optimizer.lr, optimizer.min_lr, optimizer.weight_decay) == (1e-4, 1e-5, 0.05)
    assert tuning.trainer.dataset.is_instruction
    assert tuning.trainer.eval[0].benchmarks == ("langgame-train", "langgame-val")


def test_a_speedrun_has_the_model_and_the_data_of_pretraining():
    speedrun, pretraining = load_config("speedrun"), load_config("pretraining")
    assert (speedrun.model, speedrun.trainer.dataset) == (pretraining.model, pretraining.trainer.dataset)
    assert speedrun.trainer.optimizer.name == "muon"


def test_published_command_lines_work_verbatim():
    config = load_config(
        "pretraining",
        [
            "trainer.dataset.name=multi_digit_addition_base",
            'trainer.eval=[{evaluator:"math_generation",num_samples:100}]',
        ],
    )
    assert config.trainer.dataset.name == "multi_digit_addition_base"
    assert config.trainer.eval[0].evaluator == "math_generation"
    assert config.trainer.eval[0].num_samples == 100
    for key in ("trainer", "model"):
        assert load_config("instruction_tuning", [f"{key}.checkpoint_name=run-1"]).checkpoint_name == "run-1"
    assert load_config("pretraining", ["trainer.eval=[]"]).trainer.eval == ()
    assert load_config("pretraining", ["trainer.optimizer.lr=1e-3"]).trainer.optimizer.lr == 1e-3
    nested = load_config("pretraining", ["trainer.eval=[{evaluator: mcq, benchmarks:[arc,'mmlu']}]"])
    assert nested.trainer.eval[0].benchmarks == ("arc", "mmlu")


OPTIONS = {
    "benchmarks": ["own=rows.jsonl"],
    "language": "tl",
    "num_samples": 7,
    "by_kind": True,
    "contamination": True,
    "tokenization": "uniform:0.5",
    "samples": 3,
    "adversarial": 9,
    "neighbors": "splits",
    "restarts": 2,
    "frozen_prefix": "Read this.",
    "frozen_suffix": "Answer:",
    "addition": "two-digits",
    "words": "words.txt",
    "num_fewshot": 2,
    "fewshot_split": "dev",
    "max_new_tokens": 8,
    "until": ["."],
    "match": "prefix_match",
    "ignore_case": True,
    "ignore_punctuation": True,
    "ignore_numbers": True,
    "regexes_to_ignore": ["[aeiou]"],
}


@pytest.mark.parametrize("name", [name for name, evaluator in EVALUATORS.items() if evaluator.in_training])
def test_every_option_of_an_evaluator_can_be_given_in_training(name):
    """The same evaluator as on the command line, from an override and from the file that a run writes."""
    options = {option: OPTIONS[option] for option, one in EVALUATORS[name].options().items() if one.in_training}
    entry = yaml.safe_dump([{"evaluator": name, **options}], default_flow_style=True, width=1000).strip()
    config = load_config("pretraining", [f"trainer.eval={entry}"], [find_invalid_values])
    saved = config_from_dict(yaml.safe_load(config.to_yaml()), "saved")
    assert saved == config
    assert as_evaluator(saved.trainer.eval[0]) == make_evaluator(name, options)


def test_an_entry_without_other_options_is_saved_with_three_keys():
    [entry] = load_config("pretraining").to_dict()["trainer"]["eval"]
    assert [*entry] == ["evaluator", "num_samples", "benchmarks"]


def test_a_mapping_is_merged_into_a_section_as_in_hydra(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "trainer:\n  training: {batch_size: 16, max_iters: 60}\n  optimizer: {lr: 0.1, min_lr: 0.01}\n"
        "  eval: [{benchmarks: [arc]}, {benchmarks: [mmlu]}]\n"
    )
    overrides = [
        "trainer={training: {max_iters: 2}, optimizer: {lr: 1e-3}}",
        "trainer.training.max_iters=3",
        "trainer.eval=[{benchmarks: [blimp]}]",
        "trainer.lora={target_modules: null}",
    ]
    config, sources = load_config_and_sources(str(file), overrides)
    training, optimizer = config.trainer.training, config.trainer.optimizer
    assert (training.batch_size, training.max_iters, optimizer.lr, optimizer.min_lr) == (16, 3, 1e-3, 0.01)
    assert [entry.benchmarks for entry in config.trainer.eval] == [("blimp",)]
    assert {key: source.name for key, source in sources.items() if source.kind != "default"} == {
        "trainer.training.batch_size": str(file),
        "trainer.training.max_iters": overrides[1],
        "trainer.optimizer.lr": overrides[0],
        "trainer.optimizer.min_lr": str(file),
        "trainer.eval.0.benchmarks": overrides[2],
        "trainer.lora.target_modules": overrides[3],
    }
    assert config.overridden >= {"trainer.optimizer.lr"}
    assert not config.overridden & {"trainer", "trainer.optimizer", "trainer.optimizer.min_lr"}


@pytest.mark.parametrize("text", ["010", "2024_10", "1e3", "1:30", "2024-01-01", "true", "on", "0x1f", "=", "1.50"])
def test_a_text_is_what_is_written_even_where_it_looks_like_a_number(tmp_path, text):
    overrides = [f"trainer.dataset.name={text}", f"trainer.checkpoint_name={text}"]
    overrides += [f"trainer.eval=[{{evaluator: generation, benchmarks: [{text}], until: [{text}], language: {text}}}]"]
    config = load_config("pretraining", overrides)
    [entry] = config.trainer.eval
    assert (config.trainer.dataset.name, config.checkpoint_name, entry.benchmarks) == (text, text, (text,))
    assert entry.options == {"until": [text], "language": text}
    file = tmp_path / "a.yaml"
    file.write_text(f"trainer:\n  dataset:\n    name: {text}\n  checkpoint_name: {text}\n")
    assert config_from_file(file).trainer.dataset.name == config_from_file(file).checkpoint_name == text
    file.write_text(config.to_yaml())
    assert config_from_file(file) == config


def test_a_whole_number_is_decimal():
    for text, value in [("010", 10), ("-010", -10), ("08", 8), ("1_000", 1000), ("0x1f", 31), ("1e3", 1000)]:
        assert load_config("pretraining", [f"general.seed={text}"]).general.seed == value
    assert load_config("pretraining", ["trainer.optimizer.lr=1e-3"]).trainer.optimizer.lr == 1e-3
    assert load_config("pretraining", ["trainer.checkpoint_name=null"]).checkpoint_name is None
    assert load_config("pretraining", ["trainer.checkpoint_name="]).checkpoint_name is None


def test_the_options_that_are_texts_are_those_of_evaluators():
    kinds = {
        option: kind
        for evaluator in EVALUATORS.values()
        for option, kind in typing.get_type_hints(evaluator).items()
        if evaluator.in_training and option in evaluator.options() and evaluator.options()[option].in_training
    }
    texts = {option for option, kind in kinds.items() if {str, Path} & {kind, *typing.get_args(kind)}}
    assert texts - {"benchmarks"} == TEXT_OPTIONS


def test_the_file_of_the_reference_implementation_loads(tmp_path):
    """Whole floats for integers, a key we do not use, `device: cuda`, and a trailing space."""
    tree = load_config("pretraining").to_dict()
    tree["trainer"]["training"]["checkpoint_interval"] = 1000000000.0
    tree["general"]["paths"]["output_dir"] = "outputs"
    tree["general"]["device"] = "cuda"
    file = tmp_path / "reference.yaml"
    file.write_text(yaml.safe_dump(tree).replace("device: cuda", "device: cuda  "))
    config = load_config(str(file))
    assert config.trainer.training.checkpoint_interval == 1_000_000_000
    assert config.general.paths.output_dir == "outputs"


def test_all_problems_are_reported_at_once_with_key_origin_and_nearest_key():
    with pytest.raises(UserError) as caught:
        load_config(
            "pretraining",
            [
                "trainer.trainng.batch_size=3",
                "model.hidden_dim=abc",
                "model.vocab_size=12.5",
                "model.core_model.attn.attn_type=flash",
                "trainer.dataset.is_instruction=1",
                "trainer.optimizer.lr=",
                "general.seed=true",
                "no_equals_sign",
            ],
        )
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert "'trainer.trainng' (override 'trainer.trainng.batch_size=3'); did you mean 'trainer.training'" in message
    assert "model.hidden_dim must be a whole number, not 'abc' (override 'model.hidden_dim=abc')" in message
    assert "model.vocab_size must be a whole number, not 12.5" in message
    assert "attn_type = 'flash' is not supported, only 'generic'" in message
    assert "trainer.dataset.is_instruction must be true or false, not 1" in message
    assert "trainer.optimizer.lr must be a number, not empty" in message
    assert "general.seed must be a whole number, not true" in message
    assert "'no_equals_sign' is not an override" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden_dim=500", "multiple of num_heads"),
        ("model.core_model.attn.group_size=3", "must divide num_heads"),
        ("model.core_model.attn.is_causal=false", "is not supported"),
        ("model.core_model.ffn.bias=true", "have no bias"),
        ("model.core_model.ffn.ffn_type=gelu", "only 'swiglu'"),
        ("model.positional_encoding_type=learned", "only 'rope'"),
        ("trainer.training.batch_size=0", "at least 1"),
        ("trainer.dropout_scheduler.dropout=1", r"\[0, 1\)"),
        ("trainer.optimizer.lr=-1", "trainer.optimizer.lr"),
        ("trainer.optimizer.lr=.nan", "trainer.optimizer.lr"),
        ("trainer.dataset.expand_prop=-0.1", "not negative"),
        ("trainer.eval=[{evaluator: mcq}]", "benchmarks"),
        ("trainer.eval=[{evaluator: mcqs}]", "only 'mcq' or"),
        ("trainer.eval=[{evaluator: alignment, prompt: The old}]", "prompt = 'The old' can't be given in training: "),
        ("trainer.eval=[{evaluator: lm_eval, tasks: [arc_easy]}]", "evaluator = 'lm_eval' can't be given in training"),
        ("trainer.eval=[{evaluatr: mcq, benchmarks: [arc]}]", "evaluatr = 'mcq' is no option .* mean 'evaluator'"),
        ("trainer.eval=[{evaluator: math_generation, adition: two}]", "no option of .* did you mean 'addition'"),
        ("trainer.eval=[{evaluator: math_generation, addition: [two]}]", "0.addition = .* Expected text, got a list"),
        ("trainer.eval=[{benchmarks: [arc], samples: 3}]", "not possible: --samples says nothing without --tok"),
        ("trainer.eval=[{benchmarks: [arc], tokenization: 'uniform:x'}]", "--tokenization 'uniform:x' is not METHOD:P"),
        ("trainer.eval=[{benchmarks: [arc], tokenization: 'uniform:1', samples: 0}]", "--samples = 0 must be at least"),
        ("trainer.eval=nothing", "must be a list"),
        ("trainer.eval=[", "override 'trainer.eval=\\['"),
        ("general.device=tpu", "only 'auto' or 'cpu' or 'cuda'"),
        ("batch_size=3", "did you mean 'trainer.training.batch_size'"),
        ("lr=1e-3", "unknown key 'lr' .*did you mean 'trainer.optimizer.lr'"),
        ("normalization=x", "did you mean 'model.core_model.ffn.normalization' or 'model.core_model.attn.normalizat"),
        ("optimizer.lr=1", "unknown key 'optimizer' .*did you mean 'trainer.optimizer.lr'"),
        ("model.hidden_dim.x=3", "is a value, not a section"),
        ("trainer.optimizer=", "trainer.optimizer is a section and can't be empty; set keys of it, as in trainer.opt"),
        ("trainer.optimizer=null", "trainer.optimizer is a section and can't be empty"),
        ("trainer={training: {}}", "trainer.training is a section and can't be empty"),
        ("trainer.optimizer=3", "must be a section of keys, not 3"),
        ("general.paths.data_dir=[a,b]", "must be text, not \\['a', 'b'\\]"),
        ("trainer.optimizer={lrr: 3}", "unknown key 'trainer.optimizer.lrr'.*did you mean 'trainer.optimizer.lr'"),
        ("general.seed=1:30", "must be a whole number, not '1:30'"),
        ("general.seed=0b11", "must be a whole number, not '0b11'"),
    ],
)
def test_invalid_values_are_refused_by_name(override, message):
    with pytest.raises(UserError, match=message) as caught:
        load_config("pretraining", [override], [find_invalid_values])
    assert "\n" not in str(caught.value)


def aliases(of: str) -> str:
    """Nine levels of ten aliases each, a billion values."""
    lines = [f"a0: &a0 {of}"]
    items = ", ".join
    for i in range(1, 10):
        listed = items([f"*a{i - 1}"] * 10)
        lines.append(f"a{i}: &a{i} " + (f"{{<<: [{listed}]}}" if of.startswith("{") else f"[{listed}]"))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (aliases("[x, x]"), "aliases that repeat them as often"),
        (aliases("{x: 1}"), "aliases that repeat them as often"),
        ("general: &a [1, [2, [3, [4, [5]]]]]", r"general must be a section of keys, not \[1, \[2, \[3, \[...\]\]\]\]"),
        ("model: &a {x: *a}", "an alias repeats a value inside itself"),
        ("[" * 10_000, "nested too deeply"),
        ("- " * 1000, "nested too deeply"),
        ("a: !!timestamp 2024-13-45", "month must be in 1..12"),
        ("a: !!timestamp x", "a value with a tag is not of the tag's type"),
        ("a: !!int", "a value with a tag is not of the tag's type"),
        (f"model: {{hidden_dim: 0x{'f' * 5000}}}", "a number of too many digits is too large"),
        ("model: {hidden_dim: 1e300}", "is too large for a whole number"),
        (f"trainer: {{optimizer: {{lr: {'9' * 400}}}}}", "has too many digits"),
        ('trainer: {dataset: {name: "a\\0"}}', "has characters that no name has"),
        ("model: {context_window: 1000000000000}", "context_window = 1000000000000 must be at most 2,097,152"),
        ("model: {hidden_dim: 10000000}", "parameters with the other sizes"),
        (f"? {'k' * 5000}\n: 1", "unknown key 'k"),
        ("\n".join(f"k{i}: 1" for i in range(50)), "and 30 more"),
    ],
)
def test_what_a_file_may_hold_is_bounded_and_so_are_errors(tmp_path, text, message):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_config(str(file))
    assert len(str(caught.value)) < 3000


def test_two_checkpoints_that_differ_are_refused():
    with pytest.raises(UserError, match="differ"):
        load_config("pretraining", ["trainer.checkpoint_name=a", "model.checkpoint_name=b"])


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(UserError, match="did you mean 'pretraining'"):
        find_config("pretrainin")
    file = tmp_path / "bad.yaml"
    for text, message in [
        ("model: [1, 2", "line 1"),
        ("just text", "holds no sections"),
        ("model:\n  hidden_dim: 3\n\n  hidden_dim: 4\n", "line 4: .*stands twice"),
        ("modle:\n  hidden_dim: 3\n", "did you mean 'model'"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            load_config(str(file))

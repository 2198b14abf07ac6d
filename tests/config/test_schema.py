"""The configuration's reference: complete, and in the words of a YAML file."""

import yaml

from stochastok_cli.config import Config, EvaluatorConfig, TrainerConfig, flatten
from stochastok_cli.config.schema import config_reference
from stochastok_cli.evaluation.registry import EVALUATORS


def test_every_key_is_documented():
    keys = {key.path: key for key in config_reference()}
    assert all(key.help.endswith(".") and key.type for key in keys.values())
    tree = flatten(Config(trainer=TrainerConfig(eval=(EvaluatorConfig(),))).to_dict())
    (entry,) = tree["trainer.eval"]
    tree["trainer.eval"] = []
    tree |= {f"trainer.eval[].{name}": value for name, value in entry.items()}
    other = keys.pop("trainer.eval[].…").help
    options = {
        name: one
        for evaluator in EVALUATORS.values()
        if evaluator.in_training
        for name, one in evaluator.options().items()
    }
    assert all((f"`{name}`" in other) == one.in_training for name, one in options.items() if name not in entry)
    assert {path: yaml.safe_load(key.default) for path, key in keys.items()} == tree


def test_numbers_have_units():
    numbers = [key for key in config_reference() if {"int", "float"} & set(key.type.split(" | "))]
    pure = {"general.seed", "trainer.lora.alpha", "trainer.optimizer.lr", "trainer.optimizer.min_lr"}
    pure.add("trainer.optimizer.muon_lr")
    assert {key.path for key in numbers if not key.unit} == pure


def test_types_are_those_of_a_yaml_file():
    keys = {key.path: key for key in config_reference()}
    assert keys["trainer.training.keep_checkpoints"].type == "int | null"
    assert keys["general.device"].type == "auto | cpu | cuda"
    assert keys["trainer.eval[].benchmarks"].type == "list of str"
    assert keys["trainer.training.batch_size"].unit == "windows"

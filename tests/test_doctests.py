"""The examples in the docstrings of every module of the package are run."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import stochastok_cli

# Modules that import a package that may be absent, and that package; their tests are then shown as skipped.
NEEDED = {
    "models.llama.fused": "triton",
    "models.huggingface": "transformers",
    "integrations.datatrove": "datatrove",
    "integrations.lm_eval": "lm_eval",
    "evaluation.harness.retokenizing_lm": "lm_eval",
}
# Modules that had examples when this test was written: their number must not fall to zero.
WITH_EXAMPLES = {
    "",
    "cli.eval_options",
    "data.recipes.cute_tasks",
    "data.recipes.edit_distances",
    "data.recipes.langgame_questions",
    "errors",
    "evaluation.base",
    "evaluation.comparison",
    "evaluation.encoding",
    "evaluation.metrics",
    "evaluation.results",
    "evaluation.robustness",
    "evaluation.run",
    "hub.client",
    "integrations.transformers",
    "random_streams",
    "report.paper_values",
    "report.tables",
    "tokenization.expansion",
    "tokenization.loaders",
    "tokenization.merges",
    "tokenization.split_table",
}
_WALK = pkgutil.walk_packages(stochastok_cli.__path__, "stochastok_cli.")
MODULES = ["", *(module.name.removeprefix("stochastok_cli.") for module in _WALK)]


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__"])
def test_examples(name):
    for module, package in NEEDED.items():
        if name.startswith(module) and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    result = doctest.testmod(importlib.import_module(f"stochastok_cli.{name}".rstrip(".")))
    assert result.failed == 0
    assert result.attempted > 0 or name not in WITH_EXAMPLES


def test_modules_with_examples_exist():
    assert set(MODULES) >= WITH_EXAMPLES

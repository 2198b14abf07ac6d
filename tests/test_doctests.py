"""The examples in the docstrings of evaluation and report are true."""

import doctest
import importlib

import pytest

MODULES = [
    "data.recipes.cute_tasks",
    "evaluation.statistics",
    "data.recipes.langgame_questions",
    "evaluation.base",
    "evaluation.encoding",
    "evaluation.metrics",
    "evaluation.run",
    "evaluation.robustness",
    "evaluation.comparison",
    "cli.eval_options",
    "report.paper_values",
    "report.tables",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"stochastok_cli.{name}"))
    assert found.attempted > 0 and found.failed == 0

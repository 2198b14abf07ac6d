"""The examples in the docstrings of evaluation and report are true."""

import doctest
import importlib

import pytest

MODULES = [
    "data.cute_tasks",
    "evaluation.intervals",
    "evaluation.leakage",
    "evaluation.multiple_choice",
    "evaluation.tokenization",
    "report.comparisons",
    "report.plots",
    "report.references",
    "report.tables",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"stochastok_cli.{name}"))
    assert found.attempted > 0 and found.failed == 0

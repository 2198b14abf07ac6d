"""Modules, classes, functions, parameters, variables and attributes have names that practitioners know."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "stochastok_cli"

# Private words that this code once used. The comment names the word that took the place of some of them.
MODULES = {
    "sense",  # validation
    "building",
    "conversation",  # client
    "shards",
    "bulk",
    "codecs",
    "exchange",
    "shared_folders",
    "question_folders",
    "examples",
    "feed",
    "findings",  # evaluation/results.py
    "rows",
    "leakage",  # contamination
    "causal_model",  # models/huggingface.py
    "preparation",
    "costs",
    "references",  # paper_values
}
CLASSES = {"Findings", "Found", "Made", "Shared", "Place", "Asked", "Figures", "Share", "Extras", "Where"}
WORDS = {
    "lead",  # is_main_rank, margin
    "share",
    "tell",  # emit
    "settle",
    "superseded",
    "patiently",
    "examine",
    "recut",  # retokenized
    "turned",
    "counted",  # num_loss_tokens
    "leakage",  # contamination
    "findings",
    "said",
    "told",
    "asked",
    "spoken",
    "twin",
    "twins",
    "room",
    "rooms",
    "house",
    "door",
    "gone",
}
NAMES = {
    "sense",
    "building",
    "conversation",
    "shards",
    "bulk",
    "codecs",
    "exchange",
    "shared_folders",
    "question_folders",
    "feed",
    "causal_model",
    "preparation",
    "costs",
    "references",
    "first_visible",  # segment_start
    "found",  # what was found: metrics, folders
}
DEMANDED = {("hub/streaming.py", "tell"), ("data/formats/mds.py", "shards")}
"""Names that another library demands: the protocol of file objects, and a key of the index of MDS."""


def defined_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The names that a module defines, with their lines: not those that it calls, nor keywords of calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, 0
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name, node.lineno


def private_words(name: str) -> set[str]:
    """The words of the lists above that an identifier consists of or contains.

    `_by_lead` contains "lead", `leading` does not.
    """
    lowered = name.strip("_").lower()
    words = WORDS & set(lowered.split("_"))
    return words | (NAMES & {lowered}) | (CLASSES & {name.strip("_")})


@pytest.mark.parametrize(
    ("name", "words"),
    [("_by_lead", {"lead"}), ("leading", set()), ("Extras", {"Extras"}), ("first_visible", {"first_visible"})],
)
def test_how_names_are_judged(name, words):
    assert private_words(name) == words


def test_names_of_modules():
    stems = {path.stem for path in ROOT.rglob("*.py")} | {path.name for path in ROOT.rglob("*") if path.is_dir()}
    assert stems & MODULES == set()
    assert not (ROOT / "evaluation" / "tokenization.py").exists()


def test_names_that_are_defined():
    wrong = [
        f"{file.relative_to(ROOT)}:{line}: {name} ({', '.join(sorted(words))})"
        for file in sorted(ROOT.rglob("*.py"))
        for name, line in defined_names(ast.parse(file.read_text(encoding="utf-8")))
        if (words := private_words(name)) and (file.relative_to(ROOT).as_posix(), name) not in DEMANDED
    ]
    assert wrong == []

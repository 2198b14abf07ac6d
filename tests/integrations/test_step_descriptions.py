"""A corpus is that of its steps: with another filter or other files it is refused, and never taken for the new one."""

import os
import re
import subprocess
import sys

import pytest

pytest.importorskip("datatrove", reason="needs datatrove")
from datatrove.data import Document
from datatrove.pipeline.filters import LambdaFilter, RegexFilter
from datatrove.pipeline.readers import JsonlReader

from stochastok_cli.errors import Notice, UserError
from stochastok_cli.integrations.datatrove.executors import Tasks
from stochastok_cli.integrations.datatrove.keyed_corpus import make_corpus
from stochastok_cli.integrations.datatrove.step_descriptions import describe_step

pytestmark = pytest.mark.slow


def longer_than(length):
    return LambdaFilter(lambda document: len(document.text) > length)


def test_a_corpus_of_other_steps_or_files_is_not_taken_for_this_one(tmp_path):
    rows = tmp_path / "rows"
    rows.mkdir()
    lines = [f'{{"id": "{i}", "text": "{"text " * i}"}}\n' for i in range(1, 40)]
    (rows / "a.jsonl").write_text("".join(lines))

    def make(length, **options):
        steps = [JsonlReader(str(rows)), longer_than(length)]
        options |= {"tokenizer": "sample2k", "val_fraction": 0, "data_dir": tmp_path / "data"}
        return make_corpus(steps, Tasks("local", 1), name="web", **options)

    assert make(50).manifest.splits["train"].documents == 29
    assert not make(50).created
    with pytest.raises(UserError, match="made with other options"):
        make(100)
    assert make(100, force=True).manifest.splits["train"].documents == 19
    (rows / "a.jsonl").write_text("".join(lines[:30]))
    with pytest.raises(UserError, match="made with other options"):
        make(100)
    assert make(100, force=True).manifest.splits["train"].documents == 10


THRESHOLD = 10


def above_the_threshold(document):
    return len(document.text) > THRESHOLD and document.text not in {"a", "b", "c"}


def test_functions_are_described_by_what_they_do(monkeypatch):
    described = describe_step(LambdaFilter(above_the_threshold))
    assert described == describe_step(LambdaFilter(above_the_threshold))
    monkeypatch.setitem(globals(), "THRESHOLD", 11)
    assert described != describe_step(LambdaFilter(above_the_threshold))
    twice = [describe_step(longer_than(n)) for n in (1, 1, 2)]
    assert twice[0] == twice[1] != twice[2]
    one, other = (
        LambdaFilter(lambda document: "a" in document.text),
        LambdaFilter(lambda document: "b" in document.text),
    )
    assert describe_step(one) != describe_step(other)


def test_functions_and_documents_may_stand_for_steps():
    def first(documents, rank, world_size):
        yield next(documents)

    def last(documents, rank, world_size):
        yield [*documents][-1]

    assert describe_step(first) == describe_step(first) != describe_step(last)
    documents = [[Document("a", "1")], [Document("a", "1")], [Document("b", "1")]]
    one, same, other = map(describe_step, documents)
    assert one == same != other


def test_patterns_sets_and_objects_are_described_by_their_content():
    class Words:
        def __init__(self, *words):
            self.words = {*words}

    def described(value):
        step = longer_than(1)
        step.option = value
        return describe_step(step)

    assert describe_step(RegexFilter("foo")) != describe_step(RegexFilter("bar"))
    assert described(re.compile("a")) != described(re.compile("a", re.I))
    assert described({"a", "b"}) == described({"b", "a"}) != described({"a"})
    assert described({"a": 1}) == described({"a": 1}) != described({"a": 2})
    assert described(Words("a")) == described(Words("a")) != described(Words("b"))
    with pytest.warns(Notice, match="LambdaFilter has an option of the type builtins.object, which is not compared"):
        described(object())


def test_a_description_is_the_same_in_every_process(tmp_path):
    """Also where a set has another order, and where the function has moved within its file."""
    code = """
from datatrove.pipeline.filters import FineWebQualityFilter, GopherRepetitionFilter, LambdaFilter
from stochastok_cli.integrations.datatrove.step_descriptions import describe_step
LONG = 5
def is_long(document):
    return len(document.text) > LONG and document.text not in {"x", "yy", "zzz"}
for step in (LambdaFilter(is_long), FineWebQualityFilter(), GopherRepetitionFilter()):
    print(describe_step(step))
"""
    outputs = []
    for number, moved in enumerate(("", "# moved\n\n")):
        script = tmp_path / f"script_{number}.py"
        script.write_text(moved + code)
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        outputs.append(subprocess.check_output([sys.executable, script], env=environment, text=True))
    assert outputs[0] == outputs[1] and "is_long" in outputs[0]

"""A method registered from outside of the package works like the others, in Python and on the command line."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from preloaded_python import run_python

from stochastok_cli import StochasTok, UserError, load_vocabulary
from stochastok_cli.data.memmap import Corpus
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.integrations.transformers import expand_example
from stochastok_cli.tokenization.methods import (
    METHODS,
    Method,
    method_names,
    register_method,
    require_method,
    usable_methods,
)
from stochastok_cli.tokenization.split_table import split_table
from tests.training.conftest import TINY

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
VOCABULARY = load_vocabulary("sample2k")
BUILT_IN = ["stochastok", "stochastok-uni", "uniform-k", "grampa", "uniform", "unigram"]
BUILT_IN += ["patok", "bpe-dropout", "maxmatch-dropout", "mix", "character", "digits"]
BUILT_IN += ["longest-first", "reversed-merges"]


@pytest.fixture
def toy():
    """The toy method, registered for one test."""
    from tests.extending.toy_method import TOY

    register_method(TOY)
    yield TOY
    del METHODS["toy"]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    """`stochastok` in a process that has imported the toy method."""
    code = "import tests.extending.toy_method; from stochastok_cli.cli.app import main; main()"
    return run_python("-c", code, *args, cwd=ROOT)


def toy_expansion(ids: list[int]) -> list[int]:
    table = split_table(VOCABULARY)
    return [part for token in ids for part in (table.of(token) or [(token,)])[0]]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tokenize("sample", tokenizer=VOCABULARY, data_dir=folder)
    return folder


def test_the_registry_of_the_package():
    assert method_names() == BUILT_IN
    for name, method in METHODS.items():
        assert (method.name, require_method(method.example or name).family) == (name, name)
        assert method.description and method.p_meaning and method.source
    with pytest.raises(UserError, match="unknown method 'unifrom'; did you mean 'uniform'"):
        require_method("unifrom")
    uniform = METHODS["uniform"]
    assert register_method(uniform) is uniform  # importing a file twice changes nothing
    with pytest.raises(ValueError, match="already a method 'uniform'"):
        register_method(Method(name="uniform", description="", p_meaning="", source="", expand=uniform.expand))


def test_in_python(toy):
    assert method_names() == [*BUILT_IN[:2], "toy", *BUILT_IN[2:]]
    expand = StochasTok(VOCABULARY, method="toy")
    ids = VOCABULARY.encode("An example sentence about elephants")
    expanded = expand(ids).tolist()
    assert expanded == toy_expansion(ids)
    assert len(expanded) > len(ids) and VOCABULARY.decode(expanded) == VOCABULARY.decode(ids)
    example = expand_example(expand, {"input_ids": ids, "loss_mask": [*range(len(ids))]}, 0)
    assert example["input_ids"] == expanded and len(example["loss_mask"]) == len(expanded)
    with pytest.raises(UserError, match="toy makes no counted splits"):
        StochasTok(VOCABULARY, method="toy", max_splits=3)


def test_a_method_that_refuses_a_vocabulary_or_an_option():
    def require(vocabulary):
        raise UserError(f"picky does not know {vocabulary.name}")

    def expand(*_):
        raise AssertionError("not called")

    texts = {"name": "picky", "description": "x", "p_meaning": "x", "source": "x"}
    register_method(Method(**texts, expand=expand, options=(), require=require))
    try:
        with pytest.raises(UserError, match="picky does not know sample2k"):
            StochasTok(VOCABULARY, method="picky")
        with pytest.raises(UserError, match="picky can't leave single tokens alone"):
            StochasTok(VOCABULARY, method="picky", keep="x")
    finally:
        del METHODS["picky"]


def test_on_the_command_line(data_dir):
    shown = run("expand", "--help")
    assert "toy" in shown.stdout, shown.stderr
    done = run("expand", "sample-tokenized", "--method", "toy", "--data-dir", data_dir)
    assert done.returncode == 0, done.stderr
    before, after = Corpus(data_dir / "data_as_memmaps" / "sample-tokenized"), Corpus(Path(done.stdout.strip()))
    assert after.name == "sample-tokenized-toy0.1"
    assert after.ids("val").tolist() == toy_expansion(before.ids("val").tolist())
    text = run("expand", "--text", "An example", "--tokenizer", "sample2k", "--method", "all", "--samples", 1, "--json")
    labels = [row["label"] for row in json.loads(text.stdout)]
    names = usable_methods(VOCABULARY)
    expected = [f"{name} 1" if require_method(name).takes_p else name for name in names]
    assert labels == ["canonical", *expected[:2], "toy 1", *expected[2:]]
    report = run("expand", "sample-tokenized", "--report", "--method", "toy", "--json", "--data-dir", data_dir)
    (row,) = json.loads(report.stdout)
    assert (row["method"], row["growth"] > 1.3) == ("toy", True)


def test_in_training(data_dir, tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    paths = [f"general.paths.data_dir={data_dir}", f"general.paths.checkpoint_dir={tmp_path}"]
    method = ["trainer.dataset.expand_method=toy", "trainer.dataset.expand_prop=0.1"]
    refused = run("train", "--config", config, "trainer.dataset.expand_method=toi", method[1], *paths)
    assert refused.returncode == 2
    assert "did you mean 'toy'" in refused.stderr
    done = run("train", "--config", config, "trainer.training.max_iters=2", *method, *paths)
    assert done.returncode == 0, done.stderr


def test_a_method_with_arguments(data_dir, tmp_path):
    """It expands a corpus, expands as training draws, and gives the tokenizations of an evaluation."""
    spelling = "toy-long:min_bytes=5"
    code = "import tests.extending.toy_method as t; t.register_method(t.TOY_LONG); t.register_method(t.TOY_FIXED);"
    code += "from stochastok_cli.cli.app import main; main()"
    where = ["--data-dir", data_dir]
    done = run_python("-c", code, "expand", "sample-tokenized", "--method", spelling, "-p", 0.5, *where, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).name == "sample-tokenized-toy-long-min_bytes-5-0.5"
    refused = run_python("-c", code, "expand", "sample-tokenized", "--method", "toy-fixed", "-p", 0.5, *where, cwd=ROOT)
    assert (refused.returncode, "fixed rule" in refused.stderr) == (2, True)
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    paths = [f"general.paths.data_dir={data_dir}", f"general.paths.checkpoint_dir={tmp_path}"]
    for method in (
        [f"trainer.dataset.expand_method={spelling}", "trainer.dataset.expand_prop=0.5"],
        ["trainer.dataset.expand_method=toy-fixed"],
    ):
        train = ["train", "--force", "--config", config, "trainer.training.max_iters=2", *method, *paths]
        done = run_python("-c", code, *train, cwd=ROOT)
        assert done.returncode == 0, done.stderr
    run, scored = done.stdout.strip(), []
    for tokenization in (f"{spelling}:0.5", "toy-fixed"):
        scores = ["eval", run, "--evaluator", "alignment", "--tokenization", tokenization, "--json", *where]
        done = run_python("-c", code, *scores, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        scored.append(json.loads(done.stdout)["metrics"])
    assert scored[0] != scored[1]


def test_documents_of_every_method_are_ids_of_the_vocabulary(toy):
    ids = np.array(VOCABULARY.encode("An example sentence about elephants") * 2)
    for name in usable_methods(VOCABULARY):
        p = 0.5 if require_method(name).takes_p else None
        out, lengths = StochasTok(VOCABULARY, p, name).documents(ids, np.array([0, len(ids) - 2, 2]))
        assert (out.dtype, lengths.dtype, lengths[0], lengths.sum()) == (VOCABULARY.dtype, np.int64, 0, len(out))
        assert VOCABULARY.decode(out) == VOCABULARY.decode(ids)

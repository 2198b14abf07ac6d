"""A format registered from outside of the package works like the others, in Python and on the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from stochastok_cli.data.formats import FORMATS
from stochastok_cli.data.tokenize import tokenize
from tests.data.test_export import DOCUMENTS, make_corpus

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    """`stochastok` in a process that has imported the toy format."""
    code = "import tests.extending.toy_format; from stochastok_cli.cli.app import main; main()"
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_registry_of_the_package():
    assert [*FORMATS] == ["arrow", "datatrove", "litdata", "mds", "megatron"]
    assert all(name == target.name and target.description for name, target in FORMATS.items())


def test_the_command_line(tmp_path):
    make_corpus(tmp_path)
    shown = run("export", "corpus", "--format", "numbers", "--data-dir", tmp_path)
    assert shown.returncode == 0, shown.stderr
    folder = Path(shown.stdout.strip())
    assert folder == tmp_path / "data_as_numbers" / "corpus"
    for split, documents in DOCUMENTS.items():
        lines = (folder / f"{split}.numbers").read_text().splitlines()
        assert [[int(number) for number in line.split()] for line in lines] == documents
    assert "lines of numbers" in " ".join(run("export", "--help").stdout.split())


def test_it_is_read_back(tmp_path):
    (tmp_path / "texts.txt").write_text("one two\n\nthree\n\nfour five six\n")
    made = tokenize(tmp_path / "texts.txt", tokenizer="sample2k", val_fraction=0.4, data_dir=tmp_path)
    exported = run("export", made.path.name, "--format", "numbers", "--data-dir", tmp_path)
    folder = exported.stdout.strip()
    expanded = run("expand", folder, "--name", "back", "-p", "0", "--data-dir", tmp_path)
    assert (exported.returncode, expanded.returncode) == (0, 0), expanded.stderr
    for split in ("train", "val"):
        content = (Path(expanded.stdout.strip()) / f"{split}.bin").read_bytes()
        assert content and content == (made.path / f"{split}.bin").read_bytes()

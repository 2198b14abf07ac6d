"""A format registered from outside of the package works like the others, in Python and on the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from stochastok_cli.data.formats import FORMATS
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
        lines = (folder / f"{split}.txt").read_text().splitlines()
        assert [[int(number) for number in line.split()] for line in lines] == documents
    assert "lines of numbers" in " ".join(run("export", "--help").stdout.split())

"""A recipe registered from outside of the package works like the others: make, push, pull, train form, eval, help."""

import json
import subprocess
from pathlib import Path

import pytest
from hub_server import USER
from preloaded_python import run_python

from stochastok_cli.data.sft_dataset import SFTDataset
from stochastok_cli.models.llama.state_dict import save_model
from stochastok_cli.tokenization.loaders import load_vocabulary
from tests.models.small_models import sharp_model, small_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SIZES = ("--train-size", 30, "--val-size", 20, "--tokenizer", "sample2k")


def run(*args: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """`stochastok` in a process that has imported the toy recipe."""
    program = "import tests.extending.toy_recipe; from stochastok_cli.cli.app import main; main()"
    done = run_python("-c", program, *args, cwd=ROOT)
    assert done.returncode == code, done.stderr
    return done


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but manifests, which name the command, and locks."""
    files = (f for f in folder.rglob("*") if f.is_file() and f.name != "manifest.json" and f.suffix != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_make_push_pull_and_evaluate(hub_server, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    made = run("make-backwards", *SIZES, "--data-dir", here, "--push")
    assert made.stdout == f"{here / 'data_as_memmaps' / 'backwards'}\n"
    assert "made backwards: train 30 documents" in made.stderr
    assert "for example: Which word is" in made.stderr
    assert f"pushed to {hub_server.url}/datasets/{USER}/backwards" in made.stderr
    assert SFTDataset(here / "data_as_memmaps" / "backwards").num_rows == {"train": 30, "val": 20}
    card = hub_server.dataset(f"{USER}/backwards").files["README.md"].decode()
    assert "written backwards" in card and f"stochastok make-backwards --pull --repo {USER}/backwards" in card

    pulled = run("make-backwards", "--pull", "--hf-username", USER, "--data-dir", there)
    assert pulled.stdout == f"{there / 'data_as_memmaps' / 'backwards'}\n"
    assert bytes_of(there) == bytes_of(here)

    (tmp_path / "model").mkdir()
    save_model(sharp_model(small_config(context_window=64)), tmp_path / "model", load_vocabulary("sample2k"))
    evaluate = ("eval", tmp_path / "model", "--evaluator", "mcq", "--by-kind", "--data-dir", there)
    result = json.loads(run(*evaluate, "--benchmarks", "backwards-val", "--json").stdout)
    assert result["n"]["mcq/backwards-val"] == 20
    assert 0 <= result["metrics"]["mcq/backwards-val/accuracy"] <= 1
    by_kind = [result["n"][f"mcq/backwards-val/{kind}"] for kind in ("short", "long")]
    assert all(by_kind) and sum(by_kind) == 20


def test_options_and_wrong_use(tmp_path):
    shown = run("make-backwards", "--help").stdout
    for text in ("Questions to validate on.", "--val-size", "--seed", "--push", "--quiet", "written backwards"):
        assert text in shown
    assert "make-backwards" in run("--help").stdout
    refused = run("make-backwards", "--pull", "--data-dir", tmp_path, code=2)
    assert "give --repo OWNER/NAME or --hf-username" in refused.stderr


@pytest.mark.parametrize("taken", ["name", "command"])
def test_a_name_or_command_is_registered_once(taken):
    code = (
        "from dataclasses import replace; from stochastok_cli.data.recipes.base import RECIPES, register_recipe;"
        f"register_recipe(replace(RECIPES['cute'], {'command' if taken == 'name' else 'name'}='other'))"
    )
    done = run_python("-c", code, cwd=ROOT)
    assert "ValueError: there is a recipe" in done.stderr

"""The import order of the packages, and the cost of importing them."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from random_sources import random_sources

from stochastok_cli.config import ModelConfig
from stochastok_cli.models.llama_config import config_json

ROOT = Path(__file__).parent.parent / "stochastok_cli"
ORDER = [
    "errors",
    "argument_checks",
    "panics",
    "random_streams",
    "progress",
    "background",
    "quiet_libraries",
    "literal_paths",
    "paths",
    "json_files",
    "arrow_columns",
    "manifest",
    "atomic_writes",
    "same_options",
    "artifacts",
    "config",
    "hub",
    "tokenization",
    "data",
    "models",
    "evaluation",
    "training",
    "integrations",
    "report",
    "cli",
]
# Modules that may use another source of randomness than `random_streams`: what, and why.
RANDOM_SOURCES = {
    "random_streams.py": {"numpy.random.Generator", "numpy.random.Philox", "numpy.random.default_rng"},
    "training/backends.py": {"torch.manual_seed"},  # seeds the dropout of the readable model, for each micro-batch
    "training/setup.py": {"torch.manual_seed"},  # seeds the initial weights, which PyTorch's modules draw themselves
    "training/loggers/wandb.py": {"secrets", "secrets.token_hex"},  # a run id at W&B must not repeat under one seed
}
HEAVY = {"torch", "datasets", "numba", "transformers", "pyarrow", "tiktoken", "tokenizers", "huggingface_hub"}


def imports_of(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("stochastok_cli"):
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("stochastok_cli.")}
    return names & set(ORDER)


def test_a_package_imports_only_from_packages_above_it():
    wrong = []
    for file in ROOT.rglob("*.py"):
        package = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if package in ORDER:
            below = ORDER[ORDER.index(package) + 1 :]
            wrong += [f"{file.relative_to(ROOT)} imports {name}" for name in sorted(imports_of(file)) if name in below]
    assert wrong == []


def test_every_module_belongs_to_a_package():
    packages = {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in ROOT.rglob("*.py")}
    assert packages - set(ORDER) == {"__init__", "__main__"}


def loaded_by(code: str) -> set[str]:
    shown = subprocess.check_output([sys.executable, "-c", f"import sys; {code}\nprint(*sys.modules)"], text=True)
    return set(shown.split())


def test_importing_the_package_is_light():
    assert not loaded_by("import stochastok_cli") & (HEAVY | {"numpy"})


def test_the_command_line_is_light():
    assert not loaded_by("from stochastok_cli.cli import app; app.register_subcommands()") & (HEAVY | {"numpy"})


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config", "pretraining", "trainer.optmizer.lr=1"],
        ["train", "--config", "pretraining", "trainer.checkpoint_name=missing"],
        ["train", "--config", "pretraining", "--show-config"],
        ["runs", "."],
        ["generate", "missing", "a text"],
        ["eval", "missing", "--evaluator", "bits_per_byte", "--benchmarks", "missing"],
    ],
)
def test_what_needs_no_model_does_not_wait_for_torch(arguments):
    run = f"from stochastok_cli.cli.app import main; import contextlib; sys.argv[1:] = {arguments}"
    loaded = loaded_by(f"{run}\nwith contextlib.suppress(SystemExit): main()\n")
    assert not loaded & ((HEAVY | {"numpy"}) if arguments[0] in ("train", "runs") else {"torch"})


@pytest.mark.parametrize("more", [[], ["--html", "page.html"], ["--method", "all"]])
def test_a_text_is_expanded_without_numba(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["expand", "--text", "hello", "-p", "1", "--samples", "1", *more]
    run = f"from stochastok_cli.cli.app import main; import contextlib; sys.argv[1:] = {arguments}"
    loaded = loaded_by(f"{run}\nwith contextlib.suppress(SystemExit): main()\n")
    assert not loaded & {"torch", "datasets", "numba", "scipy", "awkward", "gigatoken", "yaml"}


@pytest.mark.parametrize(
    "line", ["eval --evaluator mcq --benchmarks", "train trainer.dataset.name =", "expand --method"]
)
def test_completion_is_light(line):
    words = ["stochastok", *line.split(), ""]
    request = {
        "_STOCHASTOK_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": f"{len(words) - 1}",
    }
    run = f"import contextlib, os; os.environ |= {request}; from stochastok_cli.cli.app import main"
    loaded = loaded_by(f"{run}\nwith contextlib.suppress(SystemExit): main()\n")
    assert "stochastok_cli.cli.candidates" in loaded and not loaded & (HEAVY | {"numpy"})


def test_show_config_with_a_llama_is_light(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_json(ModelConfig(), 0, "float32")))
    arguments = ["train", "--config", "pretraining", f"trainer.checkpoint_name={tmp_path}", "--show-config"]
    run = f"from stochastok_cli.cli.app import main; import contextlib; sys.argv[1:] = {arguments}"
    printed = loaded_by(f"{run}\nwith contextlib.suppress(SystemExit): main()\n")
    assert str(tmp_path) in printed and not printed & (HEAVY | {"numpy"})


def test_the_registry_of_methods_is_light():
    assert not loaded_by("import stochastok_cli.tokenization.methods") & (HEAVY | {"numpy"})


def test_random_numbers_come_from_random_streams():
    names_in = {
        str(file.relative_to(ROOT)): set(random_sources(file.read_text("utf-8"))) for file in ROOT.rglob("*.py")
    }
    assert {file: names for file, names in names_in.items() if names} == RANDOM_SOURCES


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import random", "random"),
        ("import random as r", "random"),
        ("from random import shuffle as s", "random.shuffle"),
        ("def f():\n    import random", "random"),
        ("import numpy as np\nnp.random.default_rng(0)", "numpy.random.default_rng"),
        ("import numpy as np\nnp.random.seed(0)", "numpy.random.seed"),
        ("import numpy\nnumpy.random.rand()", "numpy.random.rand"),
        ("import numpy.random as r\nr.rand()", "numpy.random.rand"),
        ("import numpy.random", "numpy.random"),
        ("from numpy import random", "numpy.random"),
        ("from numpy import random as r\nr.normal()", "numpy.random.normal"),
        ("from numpy.random import default_rng as d", "numpy.random.default_rng"),
        ("from numpy.random import *", "numpy.random.*"),
        ("import numpy as np\nr = np.random", "numpy.random"),
        ("import numpy as np\nn = np\nn.random.rand()", "numpy.random.rand"),
        ("import numpy as np\nmake = np.random.default_rng\nmake()", "numpy.random.default_rng"),
        ("import numpy as np\nnp.random.Generator(np.random.PCG64())", "numpy.random.Generator"),
        ("import numpy as np\ngetattr(np, 'random')", "numpy.random"),
        ("import importlib\nimportlib.import_module('random')", "random"),
        ("from importlib import import_module as load\nload('numpy.random')", "numpy.random"),
        ("__import__('secrets')", "secrets"),
        ("import torch\ntorch.Generator()", "torch.Generator"),
        ("from torch import Generator as G\nG()", "torch.Generator"),
        ("import torch as t\nt.randn(3)", "torch.randn"),
        ("import torch\ntorch.randint(3, (2,))", "torch.randint"),
        ("import torch\ntorch.randperm(3)", "torch.randperm"),
        ("import torch\ntorch.bernoulli(x)", "torch.bernoulli"),
        ("import torch\ntorch.cuda.manual_seed_all(1)", "torch.cuda.manual_seed_all"),
        ("from torch import nn\nnn.init.normal_(w)", "torch.nn.init.normal_"),
        ("import torch\ntorch.empty(3).uniform_()", ".uniform_"),
        ("weight.normal_(0, 0.02)", ".normal_"),
        ("import triton.language as tl\ntl.rand(seed, offsets)", "triton.language.rand"),
        ("import os\nos.urandom(8)", "os.urandom"),
        ("from uuid import uuid4", "uuid.uuid4"),
        ("import secrets as s\ns.token_hex()", "secrets.token_hex"),
        ("from scipy import stats\nstats.norm.rvs()", "scipy.stats.norm.rvs"),
    ],
)
def test_every_way_to_other_random_numbers_is_found(code, name):
    assert name in random_sources(code)


@pytest.mark.parametrize(
    "code",
    [
        "import numpy as np\ndef f(generator: np.random.Generator) -> None: generator.normal()",
        "from numpy.random import Generator\ndef f(g: Generator): ...",
        "from stochastok_cli import random_streams\nrandom_streams.stream(0, 'x')",
        "from stochastok_cli.tokenization.methods.kernels import random",
        "import torch\ntorch.zeros(3)\nrandom = 1\nself.random = 2",
    ],
)
def test_nothing_else_is_found(code):
    assert random_sources(code) == []

"""The order of the rooms, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent / "stochastok_cli"
ORDER = [
    "errors",
    "random_streams",
    "progress",
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


def test_a_room_imports_only_from_rooms_above_it():
    wrong = []
    for file in ROOT.rglob("*.py"):
        room = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in ORDER:
            below = ORDER[ORDER.index(room) + 1 :]
            wrong += [f"{file.relative_to(ROOT)} imports {name}" for name in sorted(imports_of(file)) if name in below]
    assert wrong == []


def test_every_module_belongs_to_a_room():
    rooms = {file.relative_to(ROOT).parts[0].removesuffix(".py") for file in ROOT.rglob("*.py")}
    assert rooms - set(ORDER) == {"__init__", "__main__"}


def loaded_by(code: str) -> set[str]:
    shown = subprocess.check_output([sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"], text=True)
    return set(shown.split())


def test_importing_the_package_is_light():
    assert not loaded_by("import stochastok_cli") & (HEAVY | {"numpy"})


def test_the_command_line_is_light():
    names = "tokenize, expand, make_langgame, make_addition, make_cute, train, eval"
    modules = ", ".join(f"stochastok_cli.cli.{name}" for name in names.split(", "))
    assert not loaded_by(f"import stochastok_cli.cli.app, {modules}") & HEAVY


def test_nothing_else_makes_random_generators():
    makers = ("default_rng", "np.random.", "import random", "torch.Generator(")
    found = [
        f"{file.relative_to(ROOT)}: {maker}"
        for file in ROOT.rglob("*.py")
        for maker in makers
        if file.name != "random_streams.py"
        and maker in file.read_text(encoding="utf-8")
        and not (maker == "np.random." and "np.random.Generator" in file.read_text(encoding="utf-8"))
    ]
    assert found == []

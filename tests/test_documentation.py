"""The code blocks of the README and of the documentation pages: commands exist, and what can run here runs."""

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

import stochastok_cli
from stochastok_cli.cli.app import app, register_subcommands

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code; `reason` says why it is not run, if it is not."""

    language: str
    code: str
    reason: str | None


def blocks_of(page: Path) -> list[Block]:
    return [Block(m["language"], m["code"], m["reason"]) for m in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands_in(code: str) -> list[list[str]]:
    """The `stochastok` commands of a bash block, as arguments after the program's name."""
    lines = code.replace("\\\n", " ").splitlines()
    found = [m[1] for line in lines if (m := re.search(r"(?:^|\$\()\s*stochastok (.*)", line))]
    return [shlex.split(line.split('" = ')[0].rstrip(")"), comments=True) for line in found]


def test_every_page_has_blocks_to_check():
    assert sum(len(blocks_of(page)) for page in PAGES) > 20
    assert commands_in("x=$(stochastok tokenize a --quiet)\nstochastok eval A \\\n  --evaluator mcq  # note\n") == [
        ["tokenize", "a", "--quiet"],
        ["eval", "A", "--evaluator", "mcq"],
    ]


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=lambda page: page.name)
def test_no_relative_link_leads_nowhere_in_a_clone(page):
    """Pages that are generated when the documentation is built are not there."""
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(<?([^)#>\s]+)", prose)
    relative = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in relative if not (page.parent / target).exists()] == []


@pytest.mark.slow
def test_no_link_leads_nowhere_on_the_built_pages(tmp_path):
    """Here pages and figures can be missing that are there in a clone."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    pages = sorted(tmp_path.rglob("index.html"))
    assert len(pages) > 10
    dead = []
    for page in pages:
        for target in re.findall(r'(?:href|src)="([^"#?]+)', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|//", target) and not (page.parent / target).exists():
                dead.append(f"{page.relative_to(tmp_path)}: {target}")
    assert dead == []


def test_names_of_the_api_page_can_be_imported_as_it_says():
    names, integrations = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8").split("## Integrations")
    integrations, errors = integrations.split("## Errors")
    public = re.findall(r"^::: (\S+)", names + errors, flags=re.M)
    assert len(public) > 20
    for path in public:
        module, _, name = path.rpartition(".")
        assert getattr(stochastok_cli, name) is getattr(importlib.import_module(module), name)
    assert {path.rpartition(".")[2] for path in public} | {"FORMATS", "RECIPES"} == set(stochastok_cli.__all__)
    for path in re.findall(r"^::: (\S+)", integrations, flags=re.M):
        assert (ROOT / Path(*path.split(".")[:-1])).with_suffix(".py").exists()


def test_the_table_of_extras_has_all_of_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "getting-started.md").read_text()
    rows = re.search(r"^\| extra \|.*?\n\|---.*?\n(.*?)\n\n", page, re.M | re.S)[1].splitlines()
    named = [name for row in rows for name in re.findall("`([^`]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(project["optional-dependencies"])


def test_the_page_names_the_subcommands_of_the_quickstart():
    script = (ROOT / "examples" / "quickstart.sh").read_text()
    page = (ROOT / "docs" / "getting-started.md").read_text()
    chained = re.search(r"It chains (.*?):\n", page, re.S)[1]
    names = re.findall("`([^`]+)`", chained)
    assert set(names) == {name for name, *_ in commands_in(script)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_have_these_options(page):
    register_subcommands()
    group = typer.main.get_command(app)
    for block in blocks_of(page):
        for name, *arguments in commands_in(block.code) if block.language == "bash" else []:
            group.commands[name].make_context(name, arguments)  # raises a usage error for an unknown option


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if any(not b.reason for b in blocks_of(p))], ids=lambda page: page.name
)
def test_documented_code_runs(page, tmp_path):
    """The blocks of a page that are not marked run one after the other in one folder."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    for block in blocks_of(page):
        if block.reason is None:
            command = (
                ["bash", "-euo", "pipefail", "-c", block.code]
                if block.language == "bash"
                else [sys.executable, "-c", block.code]
            )
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{block.code}\n{done.stderr}"

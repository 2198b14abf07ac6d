"""MkDocs hook that generates the configuration and command-line reference pages from the code."""

import re
from collections.abc import Iterator
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from stochastok_cli.cli.app import app, register_subcommands
from stochastok_cli.config.schema import config_reference

CONFIG_INTRODUCTION = """\
# Configuration

Every key of a configuration file, with its type, its default value, its unit and its meaning. A key is set in the YAML
file or on the command line (`trainer.optimizer.lr=1e-3`). A number without a unit is a pure number. `stochastok train
--show-config` prints [the values of a run](../training.md#configuration), and where each comes from. This page is
generated from `stochastok_cli/config/schema.py`.
"""
CLI_INTRODUCTION = """\
# Command line

Every subcommand with its options, as `--help` shows them. This page is generated from the application.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages to the files of the site."""
    files.append(File.generated(config, "reference/configuration.md", content=configuration_page()))
    files.append(File.generated(config, "reference/cli.md", content=command_line_page()))
    return files


def configuration_page() -> str:
    """The page with one table for each section of the configuration."""
    sections: dict[str, list[str]] = {}
    for key in config_reference():
        section, _, name = key.path.rpartition(".")
        cells = (f"`{name}`", f"`{key.type}`", f"`{key.default}`", key.unit, key.help)
        sections.setdefault(section, []).append(f"| {' | '.join(map(_cell, cells))} |")
    lines = [CONFIG_INTRODUCTION]
    for section, rows in sections.items():
        lines += [f"\n## `{section}`\n", "| key | type | default | unit | meaning |", "|---|---|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def command_line_page() -> str:
    """The page with a section and a table of options for each subcommand."""
    return "\n".join([CLI_INTRODUCTION, *_subcommands()]) + "\n"


def _subcommands() -> Iterator[str]:
    register_subcommands()
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for name, command in group.commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join([f"stochastok {name}", "[OPTIONS]", *map(_argument_name, arguments)])
        yield f"\n## `stochastok {name}`\n"
        yield _plain(command.help or "")
        yield f"\n```text\n{usage}\n```\n"
        yield "| option | default | meaning |"
        yield "|---|---|---|"
        yield from map(_option_row, command.params)


def _argument_name(parameter: Any) -> str:
    return parameter.metavar or parameter.name.upper()


def _option_row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name, default = f"`{_argument_name(parameter)}`", ""
    else:
        name = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
        shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
        hidden = parameter.show_default is False or shown in (None, "", False) or callable(shown)
        default = "" if hidden else f"`{getattr(shown, 'value', shown)}`"
    return f"| {_cell(name)} | {_cell(default)} | {_cell(_plain(parameter.help or ''))} |"


def _plain(text: str) -> str:
    """Help text without rich's markup, as Markdown."""
    text = re.sub(r"\\\[", "[", re.sub(r"\[/?(dim|bold|italic)\]", "", text))
    return text.replace("<", "&lt;").replace("\b", "")


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")

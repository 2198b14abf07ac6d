"""The help of a command in a terminal that is too narrow for columns: each option on its own line, its text below.

typer's layout (rich) has a column for names, one for values and one for texts, and cuts the words that have no room.
"""

import inspect
import re
import textwrap
from typing import Any, NamedTuple

from typer.core import TyperCommand, TyperGroup

_HEADINGS = ("Arguments", "Options", "Commands")
_FRAME = 14
"""What rich puts around and between its columns, in characters."""


class _Entry(NamedTuple):
    """An argument, an option or a command: the heading it stands under, its names, its value, and its text."""

    heading: str
    names: str
    value: str
    text: str


class _NarrowHelp:
    """Gives a command the layout for narrow terminals, where rich's columns would cut a word."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from rich.console import Console  # as typer asks for the width

        command: Any = self
        width = Console().width
        entries = _entries(command, ctx)
        if _fits(entries, width):
            super().format_help(ctx, formatter)  # type: ignore[misc]
        else:
            formatter.write(_narrow(command, ctx, entries, width))


class Command(_NarrowHelp, TyperCommand):
    """A subcommand."""


class Group(_NarrowHelp, TyperGroup):
    """The application, with its subcommands."""


def joined_lines(docstring: str | None) -> str:
    """A docstring with each paragraph on one line, since rich keeps the line ends of all paragraphs but the first.

    >>> joined_lines("Make a dataset.\\n\\n    Prints its\\n    path.\\n    ")
    'Make a dataset.\\n\\nPrints its path.'
    """
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(docstring or ""))


def _entries(command: Any, ctx: Any) -> list[_Entry]:
    from rich.markup import render

    entries: list[_Entry] = []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:  # hidden
            continue
        term, text = record
        written = parameter.help or ""
        text = text.replace(written, render(written).plain, 1)
        if parameter.param_type_name == "argument":
            names, _, value = term.partition(" ")
            entries.append(_Entry("Arguments", names, value, text))
        else:
            names = re.match(r"(?:-[-\w]+(?:, | / |(?= |$)))+", term)
            end = names.end() if names else 0
            entries.append(_Entry("Options", term[:end], term[end:].strip(), text))
    for name in getattr(command, "commands", ()):
        listed = command.get_command(ctx, name)
        if not listed.hidden:
            entries.append(_Entry("Commands", name, "", (listed.help or "").partition("\n\n")[0]))
    return sorted(entries, key=lambda entry: _HEADINGS.index(entry.heading))


def _fits(entries: list[_Entry], width: int) -> bool:
    """Whether the columns have room for every word. rich takes from the widest column first, so that the texts keep
    the width of the longest word while they are no narrower than the names and the values."""
    names = max(len(entry.names) for entry in entries)
    values = max(len(entry.value) for entry in entries)
    words = max(len(word) for entry in entries for word in entry.text.split())
    return names + values + max(words, names, values) + _FRAME <= width


def _narrow(command: Any, ctx: Any, entries: list[_Entry], width: int) -> str:
    usage = " ".join(["Usage:", ctx.command_path, *command.collect_usage_pieces(ctx)])
    lines = [_filled(usage, width, "", "    "), ""]
    for paragraph in (command.help or "").split("\n\n"):
        lines += [_filled(paragraph, width), ""]
    heading = ""
    for entry in entries:
        if entry.heading != heading:
            heading = entry.heading
            lines += [*([""] if lines[-1] else []), f"{heading}:"]
        lines += [_filled(f"{entry.names} {entry.value}", width, "  ", "      "), _filled(entry.text, width, "      ")]
    return "\n".join(lines) + "\n"


def _filled(text: str, width: int, first: str = "", other: str | None = None) -> str:
    """A paragraph in lines that are broken between words alone."""
    return textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first if other is None else other,
        break_long_words=False,
        break_on_hyphens=False,
    )

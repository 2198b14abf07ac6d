"""What `stochastok train --show-config` prints: the run's folder, every value, and where each comes from."""

import json
import shutil
from typing import TYPE_CHECKING, Any

from stochastok_cli.cli.text_table import NO_EDGE
from stochastok_cli.errors import short_repr, shorten

if TYPE_CHECKING:
    from stochastok_cli.config import Source
    from stochastok_cli.training.effective_config import EffectiveConfig

FOLDER, ACTION = "run.folder", "run.action"
"""Stand before the keys of the configuration."""
WIDEST_VALUE = 40
"""Longer values don't move the column of sources for all others."""


def config_table(shown: "EffectiveConfig", source_of_folder: "Source") -> str:
    """Sections of keys, values as in a YAML file, and sources."""
    entries = _entries(shown, source_of_folder)
    values = {key: _yaml(value) for key, (value, _) in entries.items()}
    if shown.state.action == "continue":
        values[ACTION] += f" from iteration {shown.state.progress.iteration}"
    names = max(len(key.rpartition(".")[2]) for key in values)
    width = max(len(value) for value in values.values() if len(value) <= WIDEST_VALUE)
    lines: list[str] = []
    section = None
    for key, value in values.items():
        parent, _, name = key.rpartition(".")
        if parent != section:
            section = parent
            lines += [*([""] if lines else []), parent]
        remark = " (no effect on this model)" if key in shown.unused else ""
        source = str(entries[key][1]) + remark
        source = source if source.isprintable() else short_repr(source)  # it has to stay in its line
        lines += _lines(f"  {name:{names}}  {value:{width}}", source)
    return "\n".join(lines)


def _lines(value: str, source: str) -> list[str]:
    """A key with its value and the source: in one line, or in a narrow terminal in two, where a long source ends in …

    A file and a pipe have whole lines.
    """
    columns = shutil.get_terminal_size((NO_EDGE, 0)).columns
    if len(f"{value}  {source}") <= columns:
        return [f"{value}  {source}"]
    return [value.rstrip(), f"    {shorten(source, max(columns - 4, 20))}"]


def config_json(shown: "EffectiveConfig", source_of_folder: "Source") -> str:
    """One object: for each dotted key its value, the kind of its source, and the source's name where it has one."""
    entries: dict[str, dict[str, Any]] = {}
    for key, (value, source) in _entries(shown, source_of_folder).items():
        entries[key] = {"value": value, "source": source.kind, "from": source.name or None}
        if key == ACTION:
            entries[key] |= {"iteration": shown.state.progress.iteration, "reason": shown.state.reason or None}
        if key in shown.unused:
            entries[key]["has_effect"] = False
    return json.dumps(entries)


def _entries(shown: "EffectiveConfig", source_of_folder: "Source") -> "dict[str, tuple[Any, Source]]":
    """Values and sources by key."""
    from stochastok_cli.config import Source, values_by_key

    of_config = {key: (value, shown.sources[key]) for key, value in values_by_key(shown.config).items()}
    folder, checkpoint = str(shown.run_folder), shown.state.progress.checkpoint
    source_of_action = Source("run", folder) if checkpoint is None else Source("checkpoint", str(checkpoint))
    return {FOLDER: (folder, source_of_folder), ACTION: (shown.state.action, source_of_action), **of_config}


def _yaml(value: Any) -> str:
    """A value as in a YAML file, in one line."""
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("...").strip()

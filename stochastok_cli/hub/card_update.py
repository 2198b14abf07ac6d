"""Updates the card of a repository that its owner may have edited since the last push."""

import re
from typing import Any

import yaml

from stochastok_cli.errors import UserError
from stochastok_cli.hub.cards import BEGIN, CONFIG, END, SOURCE_LICENSE

_SECTION = re.compile(rf"{re.escape(BEGIN)}(?:(?!{re.escape(BEGIN)}).)*?{re.escape(END)}", re.DOTALL)
_OF_THE_FILES = ("size_categories",)  # entries of the header that describe the files, besides `configs`


def update_card(repo: str, existing: str, card: str) -> str:
    """The card of a repository after a push: the owner's text with the header and the marked section of `card`.

    Entries of the header that describe the files are replaced, tags are added, and other entries are kept where there
    are any. The license is replaced too if it is the one that the last push wrote. A card without a marked section gets
    one at its end.

    Args:
        repo: the repository, for messages.
        existing: the card that the repository has.
        card: the card that a push to a new repository would write.

    Raises:
        UserError: the header of the existing card is not a YAML mapping.
    """
    from huggingface_hub import RepoCard

    if not existing.strip():
        return card
    new, section = RepoCard(card), _SECTION.search(card)
    assert section is not None
    try:
        merged = RepoCard(existing)
    except (ValueError, TypeError, yaml.YAMLError):
        raise UserError(f"the header of {repo}'s README.md is not a YAML mapping", fix="mend it on the Hub") from None
    _update_header(merged.data, new.data)
    before = _SECTION.search(merged.text)
    if before:
        if f"| {SOURCE_LICENSE} | {merged.data.get('license')} |" in before[0]:
            merged.data["license"] = new.data.get("license")
        merged.text = merged.text[: before.start()] + section[0] + merged.text[before.end() :]
    elif merged.text.strip():
        merged.text = f"{merged.text.rstrip()}\n\n{section[0]}\n"
    else:
        merged.text = new.text
    return str(merged)


def _update_header(header: Any, new: Any) -> None:
    """Puts the entries of one `huggingface_hub.CardData` into another, as `update_card` says."""
    for key, value in new.to_dict().items():
        there = header.get(key)
        if key == "tags":
            there = there if isinstance(there, list) else [there] if there else []
            header[key] = [*there, *(tag for tag in value if tag not in there)]
        elif key == "configs":
            header[key] = value + _of_other_configs(there)
            # `datasets.push_to_hub` writes sizes and features, which `datasets` would compare with the new files.
            header["dataset_info"] = _of_other_configs(header.get("dataset_info")) or None
        elif key in _OF_THE_FILES or not there:
            header[key] = value


def _of_other_configs(entries: Any) -> list[Any]:
    """The entries of a list that belong to other configurations of a dataset than the default one."""
    listed = entries if isinstance(entries, list) else []
    return [entry for entry in listed if isinstance(entry, dict) and entry.get("config_name", CONFIG) != CONFIG]

"""Whether a folder that is there was made with the options that are given now, and what to say where it was not."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stochastok_cli.errors import UserError, short_name, short_repr
from stochastok_cli.manifest import Manifest, same_tokenizer

_SOURCE_SIZES = {"source_bytes": "bytes of the source", "source_files": "files of the source"}
IsSameSource = Callable[[Manifest, bool], bool]
"""Whether a folder with this manifest was made of a source. The flag says whether the content of the source may be
compared, which takes as long as to read it."""


def require_same_options(
    final: Path, manifest: Manifest | None, options: dict[str, Any], is_same_source: IsSameSource | None
) -> None:
    """Raises UserError for a folder without a manifest, and for one that was made with other options.

    Args:
        final: the folder.
        manifest: its manifest; None if it has none.
        options: everything that decides the content, as it is now.
        is_same_source: see `stochastok_cli.artifacts.create_artifact`.
    """
    if manifest is None:
        raise UserError(
            f"{final} exists and has no manifest, so what it was made with is unknown",
            fix="give another name, remove it, or make it again with --force",
        )
    before = manifest.options
    if "tokenizer" not in before and manifest.tokenizer is not None and "tokenizer" in options:
        before = {**before, "tokenizer": manifest.tokenizer.fingerprint}  # earlier versions recorded it there alone
    differing = [key for key in sorted({*before, *options}) if before.get(key) != options.get(key)]
    if "tokenizer" in differing and same_tokenizer(before.get("tokenizer"), options.get("tokenizer")):
        differing.remove("tokenizer")
    if "limit" in differing:  # the size of the source is an option only where all of it is read
        differing = [key for key in differing if key not in _SOURCE_SIZES]
    if "source" in differing and is_same_source is not None and is_same_source(manifest, differing == ["source"]):
        differing.remove("source")
    if differing:
        raise _made_otherwise(final, manifest, before, options, differing)


def _made_otherwise(
    final: Path, manifest: Manifest, before: dict[str, Any], options: dict[str, Any], differing: list[str]
) -> UserError:
    """The error of a folder that is there, made with another value of the options `differing`.

    Another source comes first: then the folder is another dataset of the same name, which is not to be replaced.
    """
    how, fix = [], "--force makes it again"
    sources = before.get("source"), options.get("source")
    if "source" in differing and all(isinstance(name, str) and not _is_hash(name) for name in sources):
        how.append(f"of {short_repr(sources[0], 500)} and not of {short_repr(sources[1], 500)}")
        differing = [key for key in differing if key != "source" and key not in _SOURCE_SIZES]
        fix = "give it another name (--name), or make it again with --force"
    if differing:
        listed = (_describe_difference(key, before.get(key), options.get(key), manifest) for key in differing[:20])
        how.append(f"with other options: {', '.join(listed)}")
    return UserError(f"{final} exists, made {', '.join(how)}", fix=fix)


def _describe_difference(key: str, before: Any, now: Any, manifest: Manifest) -> str:
    """`p (there 0.1, now 0.2)`: an option of a folder that is there, and another value of it.

    Hashes tell people nothing: the tokenizer is named, and of anything else it is said that it is another.
    """
    name = _SOURCE_SIZES.get(key, short_name(key))
    if key == "tokenizer" and manifest.tokenizer is not None:
        return f"{name} (there {short_repr(manifest.tokenizer.name)}, now another)"
    if _is_hash(before) and _is_hash(now):
        return f"{name} (made again or changed since)" if key == "source" else f"{name} (another than there)"
    return f"{name} (there {_shown_option(before)}, now {_shown_option(now)})"


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32,}(?:-[0-9a-f]+)?", value) is not None


def _shown_option(value: Any) -> str:
    words = {None: "not given", True: "on", False: "off"}
    return words[value] if value is None or isinstance(value, bool) else short_repr(value)

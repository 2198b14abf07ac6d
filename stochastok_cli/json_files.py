"""JSON files: read and checked against the type that their content must have, and written.

The content that is read comes from outside: from a disk that has failed, an editor, a repository on the Hub. Whatever
is wrong with it is a `UserError` in one line that names the file and the field.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from stochastok_cli.errors import FAILED, UserError

T = TypeVar("T")
DEEPEST = 100  # levels of objects and arrays in one another; code that walks them is recursive


def parse_json(content: bytes, source: object, *, fix: str = "") -> Any:
    """The value in the bytes of a JSON file. `source` is the file's name in an error.

    Raises UserError (exit code 1) for anything that is not JSON in UTF-8, and for values nested too deeply.
    """
    try:
        value = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"it is not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
    except ValueError:
        reason = "it holds a number of too many digits"
    except RecursionError:
        reason = "its values are nested too deeply"
    else:
        if not _is_too_deep(value):
            return value
        reason = "its values are nested too deeply"
    raise UserError(f"{source} is damaged: {reason}", fix=fix, exit_code=FAILED)


def checked(value: Any, kind: type[T], source: object, *, where: str = "", fix: str = "") -> T:
    """A JSON value as an instance of a type, such as a dataclass, with exactly the types of its annotations.

    Args:
        value: As `parse_json` returns it.
        kind: The type. A ValueError of a dataclass's `__post_init__` counts as a field that is wrong.
        source: The file's name in an error.
        where: The place of the value in the file, such as `splits.train`.
        fix: What the user can do.

    Raises:
        UserError: A field is missing or has another type (exit code 1).
    """
    import msgspec

    try:
        return msgspec.convert(value, kind, strict=True)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        # Half of a surrogate pair, where it is a name, or a text where there should be none, can't be encoded.
        text = "Expected valid text" if isinstance(error, UnicodeEncodeError) else str(error)
        reason, _, path = text.partition(" - at `$")
        reason = " ".join(re.sub(r"`([^`]*)`", r"\1", reason).split())[:200]
        field = f"{where}{path.rstrip('`')}".lstrip(".")
        raise UserError(
            f"{source} is damaged: {f'{field}: ' if field else ''}{reason}", fix=fix, exit_code=FAILED
        ) from None


def read_json(file: Path, kind: type[T], *, fix: str = "") -> T:
    """The content of a JSON file as an instance of a type.

    Raises FileNotFoundError or another OSError if the file can't be read, and UserError if its content is wrong.
    """
    return checked(parse_json(file.read_bytes(), file, fix=fix), kind, file, fix=fix)


def _is_too_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _children(outer) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def json_bytes(content: Any) -> bytes:
    """Indented JSON in UTF-8 with a newline at the end. Bytes of paths that are not UTF-8 are escaped (`\\udcff`)."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def write_json(file: Path, content: Any) -> None:
    """Writes a file of `json_bytes`."""
    file.write_bytes(json_bytes(content))

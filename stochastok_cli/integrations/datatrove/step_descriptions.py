"""What identifies the steps of a pipeline and the files that they read.

A corpus is made again, or refused, where a run has other steps than the one that made it. So a description is the same
in every process, and another one for another function, pattern, option or file.
"""

import dataclasses
import hashlib
import json
import re
import sysconfig
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep

from stochastok_cli.errors import Notice

_LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")})


def describe_step(step: PipelineStep | Callable[..., Any] | Sequence[Any]) -> str:
    """A step's class and options, and the names, sizes and times of the local files that it reads. In place of a step a
    pipeline may have a function or documents.

    Functions are described by their code and by what they refer to, those of libraries by their names alone. A warning
    names what can't be described.
    """
    if not isinstance(step, PipelineStep):
        return json.dumps(_describe(step, []), sort_keys=True)
    described = {name: _describe(value, [step]) for name, value in vars(step).items() if name != "stats"}
    files = _listing(step)
    return f"{type(step).__name__} {json.dumps(described, sort_keys=True)}{f' files {files}' if files else ''}"


def _describe(value: Any, inside: list[Any]) -> Any:
    """A value for JSON. `inside` holds the objects that the value is a part of."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if any(value is outer for outer in inside):
        return "itself"
    inside = [*inside, value]
    match value:
        case Mapping():
            return sorted([_describe(key, inside), _describe(value[key], inside)] for key in value)
        case tuple() if value and all(isinstance(item, str) for item in value):
            return sorted(value)  # filters of datatrove make them of sets, whose order differs between processes
        case list() | tuple():
            return [_describe(item, inside) for item in value]
        case set() | frozenset():
            return sorted(json.dumps(_describe(item, inside)) for item in value)
        case bytes():
            return _hash(value)
        case re.Pattern():
            return [_describe(value.pattern, inside), value.flags]
        case DataFolder():
            return value.path
        case PurePath():
            return str(value)
        case MethodType():
            of_class = getattr(type(value.__self__), value.__name__, None) is value.__func__
            function = value.__qualname__ if of_class else _describe(value.__func__, inside)
            return [function, _describe(value.__self__, inside)]
        case FunctionType():
            return _describe_function(value, inside)
        case type() | ModuleType() | BuiltinFunctionType():
            return _name(value)
    if dataclasses.is_dataclass(value):  # it may have slots in place of a dictionary
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return [_name(type(value)), _describe(fields, inside)]
    if hasattr(value, "__dict__"):
        return [_name(type(value)), _describe(vars(value), inside)]
    option = f"{type(inside[0]).__name__} has an option of the type {_name(type(value))}"
    warnings.warn(Notice(f"{option}, which is not compared with that of an earlier run"), stacklevel=2)
    return _name(type(value))


def _describe_function(function: FunctionType, inside: list[Any]) -> Any:
    code = function.__code__
    if code.co_filename.startswith(_LIBRARIES):
        return _name(function)
    values = {"defaults": function.__defaults__, "keyword_defaults": function.__kwdefaults__}
    values |= {name: function.__globals__[name] for name in _names(code) if name in function.__globals__}
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    values |= {name: cell.cell_contents for name, cell in cells}
    return [function.__qualname__, _hash(repr(_instructions(code)).encode()), _describe(values, inside)]


def _names(code: CodeType) -> set[str]:
    """The names of globals and attributes in a function and in those that it defines."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names}.union(*map(_names, inner))


def _instructions(code: CodeType) -> list[Any]:
    """A function's instructions and constants, without the file and the lines where it stands."""
    constants = [
        _instructions(c) if isinstance(c, CodeType) else sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c)
        for c in code.co_consts
    ]
    return [code.co_code, code.co_names, constants]


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _listing(step: PipelineStep) -> str:
    """A hash of the names, sizes and modification times of the local files that a reader reads; "" for others."""
    folder = getattr(step, "data_folder", None)
    if not isinstance(folder, DataFolder) or not folder.is_local():
        return ""
    files = folder.list_files(
        recursive=getattr(step, "recursive", True), glob_pattern=getattr(step, "glob_pattern", None)
    )
    states = {name: Path(folder.path, name).stat() for name in files}
    return _hash(json.dumps([[name, state.st_size, state.st_mtime_ns] for name, state in states.items()]).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]

"""The options of the evaluators as options of `stochastok eval`: one for each field of any evaluator."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from stochastok_cli.cli import candidates
from stochastok_cli.evaluation.base import Option
from stochastok_cli.evaluation.registry import EVALUATORS

TUPLE = tuple[str, ...]
COMPLETIONS = {"benchmarks": candidates.benchmarks, "tokenization": candidates.tokenizations}


def with_evaluator_options(function: Callable[..., None]) -> Callable[..., None]:
    """Replaces the `**kwargs` of a function by a keyword parameter for each option of an evaluator.

    They follow the parameter `evaluator`.
    """
    signature = inspect.signature(function)
    names = dict.fromkeys(name for evaluator in EVALUATORS.values() for name in evaluator.options())
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        if parameter.name == "evaluator":
            parameters += map(_parameter, names)
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return function


def parsed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the options as the evaluators take them: a list separated by commas becomes a tuple."""
    return {name: _as_tuple(value) if _type(name) == TUPLE else value for name, value in values.items()}


def _as_tuple(value: str | list[str] | None) -> tuple[str, ...]:
    return _split(value) if isinstance(value, str) else tuple(value or ())


def _split(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def _parameter(name: str) -> inspect.Parameter:
    kind: Any = _type(name)
    default: Any = False if kind is bool else None
    options = {e.name: e.options()[name] for e in EVALUATORS.values() if name in e.options()}
    first = next(iter(options.values()))
    if kind == TUPLE:
        kind, default = (list[str], None) if first.repeatable else (str, "")
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            kind,
            typer.Option(
                str(first.flag),
                help=_help(options),
                metavar=first.metavar,
                min=first.min,
                show_default=first.show_default or False,
                autocompletion=candidates.listed(first.choices) if first.choices else COMPLETIONS.get(name),
            ),
        ],
    )


def _type(name: str) -> Any:
    """The type of an evaluator's field."""
    for evaluator in EVALUATORS.values():
        if any(field.name == name for field in dataclasses.fields(evaluator)):
            return typing.get_type_hints(evaluator)[name]
    raise KeyError(name)


def _help(options: Mapping[str, Option]) -> str:
    """One text for an option of several evaluators.

    >>> _help({"mcq": Option("questions"), "math_generation": Option("questions"), "alignment": Option("words")})
    'mcq, math_generation: questions; alignment: words.'
    >>> _help({"mcq": Option("also the accuracy on each kind")})
    'Also the accuracy on each kind.'
    """
    texts: dict[str, list[str]] = {}
    for name, option in options.items():
        texts.setdefault(option.help, []).append(name)
    if len(texts) == 1:
        [text] = texts
        return f"{text[0].upper()}{text[1:]}."
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in texts.items()) + "."

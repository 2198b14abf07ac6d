"""The evaluators by name, and the rules of their options for the command line and for `trainer.eval`."""

import functools
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stochastok_cli.errors import UserError, did_you_mean, short_repr
from stochastok_cli.evaluation.base import Evaluator, benchmark_name
from stochastok_cli.evaluation.evaluators import EVALUATORS
from stochastok_cli.evaluation.results import Metric

if TYPE_CHECKING:
    from stochastok_cli.config import Config, EvaluatorConfig


def make_evaluator(name: str, options: Mapping[str, Any]) -> Evaluator:
    """A checked evaluator from the values of its options; None, False and empty values count as not given.

    Raises:
        UserError: The name is unknown, an option does not belong to the evaluator or has a value of the wrong type, or
            the options do not fit together.
    """
    if name not in EVALUATORS:
        raise UserError(
            f"unknown evaluator {name!r}{did_you_mean(name, [*EVALUATORS])}", fix=f"there are: {', '.join(EVALUATORS)}"
        )
    given = {option: value for option, value in options.items() if _is_given(value)}
    for option in given:
        if option not in EVALUATORS[name].options():
            owners = [other for other, evaluator in EVALUATORS.items() if option in evaluator.options()]
            if not owners:
                raise UserError(f"{option!r} is no option of an evaluator", fix="drop it")
            flag = EVALUATORS[owners[0]].options()[option].flag
            raise UserError(f"{flag} can only go with --evaluator {' or '.join(owners)}", fix="drop it")
    values = {}
    for option, value in given.items():
        try:
            values[option] = _converted(EVALUATORS[name], option, value)
        except ValueError as error:
            raise UserError(f"{EVALUATORS[name].options()[option].flag} = {short_repr(value)}: {error}") from None
    evaluator = EVALUATORS[name](**values)
    evaluator.check()
    return evaluator


@functools.lru_cache(maxsize=4096)
def metric_of_key(key: str) -> tuple[type[Evaluator], str] | None:
    """The evaluator and the name of a metric, by its key in `metrics.jsonl` (see `Metric.key`).

    None where it is of none of the evaluators, or not declared in `Evaluator.directions`.

    >>> metric_of_key("bits_per_byte/owt-tokenized"), metric_of_key("train/loss")
    ((<class 'stochastok_cli.evaluation.evaluators.bits_per_byte.BitsPerByte'>, 'bits_per_byte'), None)
    """
    parts = key.split("/")
    evaluator = EVALUATORS.get(parts[0])
    if evaluator is None:
        return None
    # A metric that is named as its evaluator is not named again, so that the last of two parts is a benchmark.
    names = [parts[-1] if len(parts) > 2 else "", evaluator.name]
    return next(((evaluator, name) for name in names if name in evaluator.directions), None)


def main_keys(metrics: Sequence[Metric]) -> list[str]:
    """The keys of the metrics that stand for all: `Evaluator.main_metrics` of whole benchmarks.

    Of a benchmark that has them for its parts alone, such as the forms of addition, those of the first part.
    """
    main = [one for one in metrics if one.name in EVALUATORS.get(one.evaluator, Evaluator).main_metrics]
    parts: dict[tuple[str, str], str] = {}  # the one that is kept of each benchmark
    for metric in sorted(main, key=lambda one: one.part != ""):
        parts.setdefault((metric.evaluator, metric.benchmark), metric.part)
    return [one.key for one in main if parts[one.evaluator, one.benchmark] == one.part]


def options_of(entry: "EvaluatorConfig") -> dict[str, Any]:
    """The options of an entry of `trainer.eval`, as `make_evaluator` takes them."""
    return {"benchmarks": entry.benchmarks, "num_samples": entry.num_samples, **entry.options}


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != () and value != []


def _converted(evaluator: type[Evaluator], option: str, value: Any) -> Any:
    """A value as the type of an evaluator's field: a list as a tuple, a text as a path. Raises ValueError."""
    import msgspec

    kind = typing.get_type_hints(evaluator)[option]
    try:
        return msgspec.convert(value, kind, dec_hook=lambda of, text: of(text))
    except (msgspec.ValidationError, TypeError) as error:
        reason = str(error).partition(" - at ")[0]  # an index in a list follows
        raise ValueError(re.sub("`([^`]*)`", _type_in_words, reason)) from None


_TYPES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a section",
}


def _type_in_words(match: re.Match[str]) -> str:
    return " or ".join(_TYPES.get(name, name) for name in match[1].split(" | "))


def find_invalid_values(config: "Config") -> Iterator[tuple[str, Any, str]]:
    """The keys of `trainer.eval` with values that are not valid, the values, and what they must be."""
    seen: set[tuple[str, str]] = set()
    for i, entry in enumerate(config.trainer.eval):
        key = f"trainer.eval.{i}"
        name, samples, benchmarks = entry.evaluator, entry.num_samples, list(entry.benchmarks)
        if name not in EVALUATORS:
            yield f"{key}.evaluator", name, f"is not supported, only {' or '.join(map(repr, EVALUATORS))}"
            continue
        if not EVALUATORS[name].in_training:
            yield f"{key}.evaluator", name, "can't be given in training: run stochastok eval on a checkpoint"
            continue
        options = EVALUATORS[name].options()
        invalid = [*_invalid_options(key, EVALUATORS[name], entry.options)]
        yield from invalid
        if samples is not None and "num_samples" not in options:
            yield f"{key}.num_samples", samples, f"must be absent: {name} has no samples"
        elif samples is not None and samples < 1:
            yield f"{key}.num_samples", samples, "must be at least 1"
        if "benchmarks" in options and not benchmarks:
            yield f"{key}.benchmarks", benchmarks, f"must name what {name} scores"
        elif "benchmarks" not in options and benchmarks:
            yield f"{key}.benchmarks", benchmarks, f"must be empty: what {name} scores is always the same"
        scored = [(name, benchmark_name(benchmark)) for benchmark in benchmarks or [""]]
        if seen.intersection(scored) or len(set(scored)) < len(scored):
            yield f"{key}.benchmarks", benchmarks, "must not name what is scored already"
        seen.update(scored)
        if entry.options and not invalid:
            try:
                make_evaluator(name, options_of(entry))
            except UserError as error:
                yield key, name, f"is not possible: {error}"


def _invalid_options(key: str, evaluator: type[Evaluator], given: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Those of the other options of an entry of `trainer.eval` that the evaluator does not have or can't take."""
    options = evaluator.options()
    for option, value in given.items():
        if option not in options:
            possible = ["evaluator", *(name for name, one in options.items() if one.in_training)]
            hint = did_you_mean(option, possible)
            yield f"{key}.{option}", value, f"is no option of {evaluator.name}{hint}; there are: {', '.join(possible)}"
        elif not options[option].in_training:
            yield f"{key}.{option}", value, f"can't be given in training: see stochastok eval {options[option].flag}"
        elif _is_given(value):
            try:
                _converted(evaluator, option, value)
            except ValueError as error:
                yield f"{key}.{option}", value, f"has the wrong type: {error}"

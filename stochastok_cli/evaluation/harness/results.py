"""Results of lm-evaluation-harness as metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.evaluation.answers import Answers
from stochastok_cli.evaluation.harness.answers import EVALUATOR, answers_of
from stochastok_cli.evaluation.results import Metric

_STDERR = "_stderr"


@dataclass(frozen=True)
class Value:
    """A value of the harness.

    Attributes:
        value: The harness's aggregate over a task or a group.
        n: How many questions it rests on.
        stderr: The harness's standard error, if it gives one.
        higher_is_better: What the task says.
        outcomes: One value per question whose mean is `value`, float64 `[questions]`; None where it is no mean.
    """

    value: float
    n: int
    stderr: float | None
    higher_is_better: bool
    outcomes: np.ndarray | None


@dataclass(frozen=True)
class TaskRun:
    """What one run of the harness gave.

    Attributes:
        values: By task or group, and by the name of the metric: `acc`, `exact_match,strict-match` (of a filter).
        counts: By task, what became of its requests (see `RequestCounts`).
        answers: By task, the answers to its questions, where they are right or wrong.
        unlogged: The other tasks.
    """

    values: Mapping[str, Mapping[str, Value]]
    counts: Mapping[str, Mapping[str, int]]
    answers: Mapping[str, Answers]
    unlogged: Sequence[str]

    @classmethod
    def of(cls, results: Mapping[str, Any], counts: Mapping[str, Mapping[str, int]]) -> Self:
        """Reads what `lm_eval.simple_evaluate` returns, with its samples."""
        _require_numbers(results["samples"])
        values = {task: dict(_values(task, of_task, results)) for task, of_task in results["results"].items()}
        answers = answers_of(results)
        unlogged = [task for task in results["samples"] if task not in answers]
        return cls(values, {task: dict(of_task) for task, of_task in counts.items()}, answers, unlogged)


def _values(task: str, of_task: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    members = [*_members(task, results)]
    sizes = {name: results["n-samples"][name]["effective"] for name in members}
    for key, value in of_task.items():
        name, comma, filter_name = key.partition(",")
        if not comma or name.endswith(_STDERR) or not _is_number(value):
            continue
        stderr = of_task.get(f"{name}{_STDERR},{filter_name}")
        direction = results["higher_is_better"].get(task, {}).get(name)
        outcomes = _outcomes(members, name, filter_name, value, results["samples"])
        shown = name if filter_name == "none" else key
        yield (
            shown,
            Value(
                float(value),
                sum(sizes.values()),
                _finite(stderr),
                direction is not False,
                outcomes,
            ),
        )


def _members(task: str, results: Mapping[str, Any]) -> Iterator[str]:
    """The tasks of a group, of groups in it, too; the task itself where it is none."""
    if task in results["n-samples"]:
        yield task
        return
    for member in results["group_subtasks"].get(task, ()):
        yield from _members(member, results)


def _outcomes(
    tasks: Sequence[str], name: str, filter_name: str, value: float, samples: Mapping[str, Any]
) -> np.ndarray | None:
    """The values of the questions, where their mean is what the harness reports."""
    rows = [row for task in tasks for row in samples[task] if row["filter"] == filter_name]
    of_rows = [row.get(name) for row in rows]
    if not of_rows or not all(map(_is_number, of_rows)):
        return None
    outcomes = np.array(of_rows, np.float64)
    return outcomes if math.isclose(outcomes.mean(), value, rel_tol=1e-9, abs_tol=1e-12) else None


def _finite(value: Any) -> float | None:
    return float(value) if _is_number(value) and math.isfinite(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_)


def _require_numbers(samples: Mapping[str, Any]) -> None:
    """Raises UserError where a model gave NaN for likelihoods: the harness would count them as wrong answers."""
    for task, rows in samples.items():
        answers = [answer for row in rows for request in row["resps"] for answer in request]
        scores = [answer[0] if isinstance(answer, list | tuple) else answer for answer in answers]
        bad = sum(isinstance(score, float) and math.isnan(score) for score in scores)
        if bad:
            raise UserError(
                f"the model gave no number for {bad} of {len(scores)} requests ({task})",
                fix="its weights or its activations have overflowed; use an earlier checkpoint",
                exit_code=FAILED,
            )


def metrics_of(canonical: TaskRun, samples: Sequence[TaskRun], part: str) -> list[Metric]:
    """Metrics of the harness's own results, and of those in samples of another tokenization.

    Args:
        canonical: The results as the harness gives them.
        samples: Those of each sample of the other tokenization.
        part: `Metric.part` of these.
    """
    metrics = []
    for task, values in canonical.values.items():
        for name, value in values.items():
            metrics.append(_metric(task, "", name, value.value, value, value.outcomes))
            if value.stderr is not None:
                metrics.append(_metric(task, "", f"{name}{_STDERR}", value.stderr, value))
        metrics += _count_metrics(task, "", [canonical])
        if samples:
            for name in values:
                metrics += _over_samples(task, part, name, [run.values[task][name] for run in samples])
            metrics += _count_metrics(task, part, samples)
    unnamed = dict.fromkeys(
        name for run in (canonical, *samples) for name in run.counts if name not in canonical.values
    )
    for name in unnamed:  # requests whose task the harness does not say: what was lost of them must not be lost here
        metrics += [*_count_metrics(name, "", [canonical]), *(_count_metrics(name, part, samples) if samples else ())]
    return metrics


def _metric(task: str, part: str, name: str, value: float, of: Value, outcomes: np.ndarray | None = None) -> Metric:
    binary = outcomes is not None and np.isin(outcomes, (0, 1)).all()
    return Metric(EVALUATOR, task, part, name, value, of.n, outcomes, (0.0, 1.0) if binary else None)


def _over_samples(task: str, part: str, name: str, values: Sequence[Value]) -> Iterator[Metric]:
    """Mean and worst sample; where there are outcomes, also the worst and the best of each question."""
    first = values[0]
    numbers = np.array([value.value for value in values])
    worst, best = (np.min, np.max) if first.higher_is_better else (np.max, np.min)
    if any(value.outcomes is None for value in values):
        yield _metric(task, part, name, float(numbers.mean()), first)
        yield _metric(task, part, f"{name}_worst_sample", float(worst(numbers)), first)
        return
    outcomes = np.array([value.outcomes for value in values])
    yield _metric(task, part, name, float(numbers.mean()), first, outcomes.mean(axis=0))
    yield _metric(task, part, f"{name}_worst_sample", float(worst(numbers)), first)
    for end, choose in (("worst_case", worst), ("any_case", best)):
        chosen = choose(outcomes, axis=0)
        yield _metric(task, part, f"{name}_{end}", float(chosen.mean()), first, chosen)


def _count_metrics(task: str, part: str, runs: Sequence[TaskRun]) -> Iterator[Metric]:
    """How much longer requests became, how many were changed, and what was lost of them. A group has none."""
    counts = [run.counts[task] for run in runs if task in run.counts]
    if not counts:
        return

    def total(name: str) -> int:
        return sum(of_run.get(name, 0) for of_run in counts)

    task = task or "requests of unnamed tasks"
    requests = total("requests") // len(counts)
    if part and total("tokens_before"):
        yield Metric(EVALUATOR, task, part, "token_growth", total("tokens_after") / total("tokens_before"), requests)
        yield Metric(EVALUATOR, task, part, "retokenized", total("changed") / total("requests"), requests)
    for name, key in (("truncated", "truncated"), ("left_canonical", "canonical")):
        if total(key):
            yield Metric(EVALUATOR, task, part, name, total(key))

"""The names of the parts of a benchmark, which must differ in the names of metrics."""

from collections.abc import Iterable

from stochastok_cli.errors import UserError, short_repr
from stochastok_cli.evaluation.results import metric_group


def require_distinct_parts(benchmark: str, kinds: Iterable[str], others: Iterable[str]) -> None:
    """Raises UserError where a kind of question and another part would have one name in metrics.

    Args:
        benchmark: The benchmark's name.
        kinds: The kinds of its questions, as its rows write them.
        others: The other parts that are evaluated, such as "adversarial".
    """
    reserved = {metric_group("", "", part) for part in others}
    names: dict[str, str] = {}
    for kind in kinds:
        name = metric_group("", "", kind)
        if name in reserved:
            raise UserError(
                f"--by-kind: benchmark {benchmark} has a kind {short_repr(kind)}, and {name!r} is also the name of "
                "another result",
                fix="rename the kind, or drop one of the two options",
            )
        if name in names:
            raise UserError(
                f"--by-kind: benchmark {benchmark} has the kinds {short_repr(names[name])} and {short_repr(kind)}, "
                f"whose metrics would both be named {name!r}",
                fix="rename one of them",
            )
        names[name] = kind

"""The class `Method`, which describes an expansion method, and the registry of all methods.

To add a method, put a file into this folder that calls `register_method`. The choices and help texts of the command
line, `--method all`, the check of `trainer.dataset.expand_method`, `StochasTok` and `--report` derive from the
registry. Code outside of the package registers its methods in the same way.

A method may have arguments: `NAME:KEY=VALUE,…`, or another text after the colon that the method parses itself.
`require_method` returns the method bound to its arguments, whose name is the canonical spelling.

The command line imports every method when it starts, so these files import numpy and numba only inside functions.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stochastok_cli.argument_checks import real_number
from stochastok_cli.errors import UserError, did_you_mean, short_name, short_repr

if TYPE_CHECKING:
    import numpy as np

    from stochastok_cli.tokenization.expansion import StochasTok
    from stochastok_cli.tokenization.vocabulary import Vocabulary

    ExpandFunction = Callable[[StochasTok, np.ndarray, np.ndarray, np.uint64], tuple[np.ndarray, np.ndarray]]

DEFAULT_P = 0.1
MAX_P = 1000  # long before this, every token is split into single bytes
LARGEST_INTEGER = 2**63 - 1
MAX_LABEL = 120  # characters of a method in the name of a folder, which has at most 255 bytes


@dataclass(frozen=True, kw_only=True)
class Argument:
    """An argument of a method, given as `KEY=VALUE`.

    Args:
        name: the key.
        default: its value where it is not given; int, float or str, which is also the type of every value.
        description: one phrase for help texts.
        minimum: the least value of a number.
        maximum: the greatest value of a number.
    """

    name: str
    default: int | float | str
    description: str
    minimum: float = -math.inf
    maximum: float = math.inf

    def parse(self, text: str) -> int | float | str:
        """The value that `text` stands for. Raises UserError for one of another type or out of range."""
        if isinstance(self.default, str):
            return text
        kind = type(self.default)
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        # Kernels take int64. A whole number of any size compares with a float, but not all become one.
        is_number = abs(value) <= LARGEST_INTEGER if isinstance(value, int) else math.isfinite(value)
        if not (is_number and self.minimum <= value <= self.maximum):
            maximum = f"{self.maximum:g}" if self.maximum < math.inf else "2^63 - 1" if kind is int else ""
            bounds = [f"from {self.minimum:g}"] if self.minimum > -math.inf else []
            bounds += [f"up to {maximum}"] if maximum else []
            number = "a whole number" if kind is int else "a number"
            raise UserError(
                f"{self.name} = {short_name(text)} is not possible", fix=" ".join(["give", number, *bounds])
            )
        return value + 0  # no negative zero


@dataclass(frozen=True, kw_only=True)
class Method:
    """One expansion method.

    Args:
        name: as `--method` takes it; of a bound method, with those arguments that are not the default.
        description: one line for help texts and tables.
        p_meaning: what `p` is: "attempted splits per token", "probability" …
        source: the paper that introduced it.
        expand: expands documents. Called with the `StochasTok` (vocabulary, `p`, options, key of the random stream,
            tables), ids (the vocabulary's dtype, `[tokens]`: the documents one after another), lengths (int64,
            `[documents]`) and the index of the first document (uint64). Returns the expanded ids and lengths, with
            the same dtypes. It must be a pure function of these arguments and must not change `ids`.
        p_is_probability: whether `p` is limited to 1 (otherwise to `MAX_P`).
        options: which of `max_splits` and `keep` the method takes.
        keeps_token_boundaries: whether each token is replaced by parts of its own. Masks and labels can then follow
            the parts of their token.
        identity_at_zero: whether p = 0 returns the ids as they are, without a call of `expand`.
        require: raises UserError with the reason for a vocabulary that the method can't expand.
        takes_p: whether the method has a `p`. A fixed rule has none.
        arguments: what may stand after the name, as `KEY=VALUE,…`.
        values: the value of each argument by its name; the defaults in the registry.
        bind: binds the method to its arguments; called with the method of the registry and the text after the colon
            ("" where there is none). By default, `parse_arguments`.
        interpretable: whether kernels may run interpreted on little data, with the tables `splits` and `lattice` of its
            ids alone: not where a kernel fills a table of the whole vocabulary.
        example: a spelling that can be used, for a method that can't be used without arguments.
    """

    name: str
    description: str
    p_meaning: str
    source: str
    expand: "ExpandFunction"
    p_is_probability: bool = False
    options: tuple[str, ...] = ("max_splits", "keep")
    keeps_token_boundaries: bool = True
    identity_at_zero: bool = True
    require: "Callable[[Vocabulary], Any] | None" = None
    takes_p: bool = True
    arguments: tuple[Argument, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
    bind: "Callable[[Method, str], Method] | None" = None
    interpretable: bool = True
    example: str | None = None

    @property
    def family(self) -> str:
        """The name in the registry: that without arguments."""
        return self.name.partition(":")[0]

    @property
    def help(self) -> str:
        """The description with the arguments and their defaults."""
        known = [
            f"{a.name}, {a.description} ({a.default if a.default != '' else 'none'} by default)" for a in self.arguments
        ]
        return f"{self.description}; arguments: {', '.join(known)}" if known else self.description

    def resolve_p(self, p: float | None) -> float:
        """The `p` to expand with: DEFAULT_P where none is given, and always 1 for a fixed rule.

        Raises:
            UserError: for a `p` that is impossible, and for any given to a fixed rule.
        """
        if not self.takes_p:
            if p is not None:
                raise UserError(f"{self.name} is a fixed rule, which has no p", fix="drop its p")
            return 1.0
        return DEFAULT_P if p is None else self.check_p(p)

    @property
    def p_counts_splits(self) -> bool:
        """Whether a document of n tokens gets floor(n p) splits, or attempts to split: none where n p is below 1."""
        return self.takes_p and self.p_meaning.endswith("splits per token")

    @property
    def max_p(self) -> float:
        """The largest `p` that the method takes."""
        return 1 if self.p_is_probability else MAX_P

    def check_p(self, p: float) -> float:
        """Returns `p` as a number of Python. Raises UserError if it is none, or out of range."""
        p = real_number("p", p)
        shown = p if isinstance(p, float) else short_repr(p)
        if not 0 <= p < math.inf:
            raise UserError(f"p = {shown} is not possible", fix="give a number that is not negative, such as 0.1")
        if p > MAX_P:
            fix = f"give at most {MAX_P:,}; long before, all is single bytes"
            raise UserError(f"p = {shown} is not possible", fix=fix)
        if p > self.max_p:
            raise UserError(f"p = {p} is not possible: for {self.name} it is a probability")
        return p

    def check_options(self, max_splits: int | None, keep: str | None) -> None:
        """Raises UserError for an option that the method does not take."""
        if max_splits is not None and "max_splits" not in self.options:
            raise UserError(f"{self.name} makes no counted splits to limit", fix="drop --max-splits")
        if keep is not None and "keep" not in self.options:
            raise UserError(f"{self.name} can't leave single tokens alone", fix="drop --keep")

    def check_vocabulary(self, vocabulary: "Vocabulary") -> None:
        """Raises UserError for a vocabulary that the method can't expand."""
        if self.require is not None:
            self.require(vocabulary)


METHODS: dict[str, Method] = {}
"""Every registered method by its name, in the order of help texts and tables."""


def register_method(method: Method) -> Method:
    """Adds a method to the registry.

    Fixed rules come last. Methods that keep token boundaries come first, those with a probability after the others,
    then by name.

    Raises:
        ValueError: if another method has that name.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]+", method.name):
        raise ValueError(f"{method.name!r} is not the name of a method: give letters, digits, '.', '_' and '-'")
    known = METHODS.get(method.name)
    if known is not None and replace(known, values={}) != replace(method, values={}):
        raise ValueError(f"there is already a method {method.name!r}")
    defaults = {argument.name: argument.default for argument in method.arguments}
    METHODS[method.name] = replace(method, values=defaults | dict(method.values))
    in_order = sorted(
        METHODS.values(),
        key=lambda m: (not m.takes_p, not m.keeps_token_boundaries, m.p_is_probability, m.name),
    )
    METHODS.clear()
    METHODS.update({m.name: m for m in in_order})
    return method


def method_names() -> list[str]:
    """The names of all registered methods."""
    return [*METHODS]


def require_method(text: str) -> Method:
    """The method of that name, bound to the arguments after the first colon, if there are any.

    Raises:
        UserError: an unknown method or argument, with the nearest, or an impossible value.
    """
    if not isinstance(text, str):
        raise UserError(f"{short_name(str(text))} is no name of a method", fix=f"give {', '.join(METHODS)}")
    name, colon, arguments = text.partition(":")
    if name not in METHODS:
        raise UserError(
            f"unknown method {short_name(name)!r}{did_you_mean(name, METHODS)}", fix=f"give {', '.join(METHODS)}"
        )
    method = METHODS[name]
    if colon and not arguments:
        raise UserError(f"no arguments follow the colon of {text!r}", fix=f"give {name}:KEY=VALUE, or {name}")
    if method.bind is not None:
        return method.bind(method, arguments)
    return parse_arguments(method, arguments)


def parse_arguments(method: Method, text: str) -> Method:
    """The method bound to `KEY=VALUE,…`. Its name has the arguments in their order, without the defaults.

    Raises:
        UserError: an unknown argument, with the nearest, one given twice, or an impossible value.
    """
    known = {argument.name: argument for argument in method.arguments}
    given: dict[str, int | float | str] = {}
    for piece in text.split(",") if text else []:
        key, equals, value = (part.strip() for part in piece.partition("="))
        if not known:
            raise UserError(f"{method.family} takes no arguments", fix=f"drop {short_name(':' + text)!r}")
        if key in known and not equals:
            raise UserError(f"{method.family}: the argument {key} has no value", fix=f"give {key}=VALUE")
        if key not in known:
            fix = "give " + ", ".join(f"{name}=VALUE" for name in known)
            raise UserError(
                f"{method.family} has no argument {short_name(piece.strip())!r}{did_you_mean(key, known)}", fix=fix
            )
        if key in given:
            raise UserError(f"{method.family}: {key} is given twice", fix="drop one")
        try:
            given[key] = known[key].parse(value)
        except UserError as error:
            raise UserError(f"{method.family}: {error}") from None
    return with_values(method, {**method.values, **given})


def with_values(method: Method, values: Mapping[str, Any]) -> Method:
    """The method with these values of its arguments, and the name that spells them."""
    written = [f"{a.name}={_spelled(values[a.name])}" for a in method.arguments if values[a.name] != a.default]
    return replace(method, name=":".join([method.family, *([",".join(written)] if written else [])]), values=values)


def _spelled(value: int | float | str) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def usable_methods(vocabulary: "Vocabulary | None" = None) -> list[str]:
    """A spelling of each registered method that can be used as it is: its name, or its example with arguments.

    Only those that can expand the vocabulary, if one is given.
    """
    names = []
    for method in METHODS.values():
        name = method.example or method.name
        try:
            if vocabulary is not None:
                require_method(name).check_vocabulary(vocabulary)
        except UserError:
            continue
        names.append(name)
    return names


def split_methods(text: str) -> list[str]:
    """The methods of a list with commas.

    A comma begins another method, unless it stands in parentheses, or the piece after it has a `=` before any colon:
    that is an argument.

    >>> split_methods("grampa:temperature=2,min_length=2,uniform")
    ['grampa:temperature=2,min_length=2', 'uniform']
    """
    methods: list[str] = []
    for piece in text.split(","):
        is_open = methods and methods[-1].count("(") > methods[-1].count(")")
        if is_open or (methods and "=" in piece.partition(":")[0]):
            methods[-1] += f",{piece.strip()}"
        else:
            methods.append(piece.strip())
    return methods


def p_among(method: str, methods: Sequence[str], p: float | None) -> float | None:
    """The p of one of several methods that share `p`: the fixed rules among them have none."""
    return p if len(methods) == 1 or require_method(method).takes_p else None


def tokenization_text(label: str) -> str:
    """What `--tokenization` takes for the label of an expansion, to show it; any other text as it is.

    The labels of methods with several arguments, whose signs are lost, stay as they are.

    >>> tokenization_text("stochastok0.5"), tokenization_text("digits-right3"), tokenization_text("starts_with")
    ('stochastok:0.5', 'digits:right3', 'starts_with')
    """
    name, dash, argument = label.partition("-")
    if dash and name in METHODS and not METHODS[name].takes_p:
        return f"{name}:{argument}"
    match = re.fullmatch(r"(.+?)(\d[\d.]*(?:e-?\d+)?)", label)
    if match is not None and match[1] in METHODS and METHODS[match[1]].takes_p:
        return f"{match[1]}:{match[2]}"
    return label


def expansion_label(method: str, p: float | None = None) -> str:
    """What names an expansion in folders and metrics: the canonical spelling and p, as Python prints the float.

    Characters other than letters, digits, `.`, `_` and `-` become `-`. A fixed rule has no p; between arguments and p
    stands another `-`. A spelling longer than MAX_LABEL is cut, with 8 digits of its hash at the end.

    >>> expansion_label("uniform", 0.5)
    'uniform0.5'
    """
    definition = require_method(method)
    label = re.sub(r"[^A-Za-z0-9._-]", "-", definition.name)
    if len(label) > MAX_LABEL:
        label = f"{label[: MAX_LABEL - 9]}-{hashlib.sha256(definition.name.encode()).hexdigest()[:8]}"
    if not definition.takes_p:
        return label
    return f"{label}{'' if definition.name == definition.family else '-'}{float(definition.resolve_p(p))!r}"


def max_tokens(
    vocabulary: "Vocabulary", ids: "np.ndarray", lengths: "np.ndarray", budget: "np.ndarray"
) -> "np.ndarray":
    """The most tokens that each document can have after `budget` attempted splits.

    Args:
        vocabulary: the vocabulary of the ids.
        ids: `[tokens]`, the documents one after another.
        lengths, budget: int64 `[documents]`.

    Returns:
        int64 `[documents]`. No document gets longer than its number of bytes.
    """
    import numpy as np

    by_attempts = lengths + budget
    if by_attempts.sum() <= 5 * len(ids):  # counting bytes costs more than the memory that it saves
        return by_attempts
    bytes_before = np.concatenate([[0], np.cumsum(vocabulary.widths[ids])])
    return np.minimum(by_attempts, np.diff(bytes_before[np.cumsum(lengths)], prepend=0))

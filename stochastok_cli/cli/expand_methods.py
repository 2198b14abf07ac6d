"""The methods of `stochastok expand --method`: their list, their choice, and lists of affixes as their arguments."""

import json
import warnings
from typing import TYPE_CHECKING

from stochastok_cli.errors import Notice, UserError
from stochastok_cli.tokenization.methods import METHODS, require_method, split_methods, usable_methods, with_values
from stochastok_cli.tokenization.methods.patok import listed_affixes, spell_affixes

if TYPE_CHECKING:
    from stochastok_cli.tokenization.vocabulary import Vocabulary


def list_methods(as_json: bool) -> None:
    """Prints every method of the registry with its description and the meaning of p."""
    listed = [
        {
            "method": method.name,
            "description": method.help,
            "p": method.p_meaning if method.takes_p else None,
            "example": method.example or method.name,
        }
        for method in METHODS.values()
    ]
    if as_json:
        print(json.dumps(listed))
        return
    from stochastok_cli.cli.text_table import print_paragraph

    for entry in listed:
        p = "a fixed rule without p" if entry["p"] is None else f"p: {entry['p']}"
        example = "" if entry["example"] == entry["method"] else f"; for example {entry['example']}"
        print(entry["method"])
        print_paragraph(f"{entry['description']}; {p}{example}", indent=4)


def with_affixes(option: str, lists: dict[str, str]) -> str:
    """The methods that `--method` names, with lists of affixes as arguments of those that take them.

    Raises:
        UserError: no method takes a list, or one is given twice.
    """
    if not lists:
        return option
    flags = ", ".join(f"--{name}" for name in lists)
    if option == "all":
        raise UserError(f"{flags} goes with methods that are named, not with all", fix="give --method patok,uniform")
    methods = split_methods(option)
    given = {name: spell_affixes(listed_affixes(value)) for name, value in lists.items()}
    takes = [i for i, method in enumerate(methods) if {*lists} <= {a.name for a in require_method(method).arguments}]
    if not takes:
        raise UserError(f"{flags} would have no effect with --method {option}", fix="add --method patok")
    for i in takes:
        method = require_method(methods[i])
        if twice := [name for name in lists if method.values[name]]:
            raise UserError(f"--{twice[0]} and {methods[i]} both give {twice[0]}", fix="drop one or the other")
        methods[i] = with_values(method, {**method.values, **given}).name
    return ",".join(methods)


def choose_methods(option: str, vocabulary: "Vocabulary") -> list[str]:
    """The methods that `--method` names, each once: one, several with commas, or all that the vocabulary allows."""
    if option != "all":
        chosen = split_methods(option)
        if "all" in chosen:
            raise UserError("all stands for every method, and is not one of several", fix="give --method all alone")
        names = [require_method(method).name for method in chosen]
        if repeated := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            warnings.warn(f"given more than once, and used once: --method {', '.join(repeated)}", Notice, stacklevel=2)
        return list(dict.fromkeys(names))
    allowed = []
    for method in usable_methods():
        try:
            require_method(method).check_vocabulary(vocabulary)
            allowed.append(method)
        except UserError as error:
            warnings.warn(f"{method} is left out: {error}", Notice, stacklevel=2)
    return allowed

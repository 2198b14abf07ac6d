"""The expansion methods: every module in this folder registers one (see `base`)."""

import importlib
import pkgutil

from stochastok_cli.tokenization.methods.base import (
    METHODS,
    Argument,
    Method,
    expansion_label,
    method_names,
    p_among,
    parse_arguments,
    register_method,
    require_method,
    split_methods,
    tokenization_text,
    usable_methods,
    with_values,
)

for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "METHODS",
    "Argument",
    "Method",
    "expansion_label",
    "method_names",
    "p_among",
    "parse_arguments",
    "register_method",
    "require_method",
    "split_methods",
    "tokenization_text",
    "usable_methods",
    "with_values",
]

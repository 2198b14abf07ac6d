"""The expansion methods: every module in this folder registers one (see `base`)."""

import importlib
import pkgutil

from stochastok_cli.tokenization.methods.base import METHODS, Method, method_names, register_method, require_method

for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["METHODS", "Method", "method_names", "register_method", "require_method"]

"""The evaluators, one module each. All modules of this package are imported, so that a new file adds an evaluator."""

import importlib
import pkgutil

from stochastok_cli.evaluation.base import EVALUATORS

_FIRST = ("multiple_choice", "math_generation", "bits_per_byte", "alignment")  # in help texts; others follow by name

for _name in dict.fromkeys([*_FIRST, *sorted(module.name for module in pkgutil.iter_modules(__path__))]):
    importlib.import_module(f"{__name__}.{_name}")

__all__ = ["EVALUATORS"]

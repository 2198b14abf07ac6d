"""The formats of other trainers: every module in this folder registers one (see `base`)."""

import importlib
import pkgutil

from stochastok_cli.data.formats.base import (
    FORMATS,
    DocumentBatch,
    Format,
    SplitDocuments,
    StoredBatch,
    StoredDocuments,
    holds_ids,
    require_format,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "FORMATS",
    "DocumentBatch",
    "Format",
    "SplitDocuments",
    "StoredBatch",
    "StoredDocuments",
    "holds_ids",
    "require_format",
]

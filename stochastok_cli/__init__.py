"""StochasTok for language-model training: tokenize, expand, train, evaluate.

The Python API is loaded lazily, so that importing the package imports neither torch nor datasets:

>>> from stochastok_cli import StochasTok, load_vocabulary
>>> vocabulary = load_vocabulary("gpt2")
>>> expand = StochasTok(vocabulary, p=0.5, seed=1)
>>> ids = vocabulary.encode("An example sentence")
>>> vocabulary.decode(expand(ids)) == vocabulary.decode(ids)
True
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stochastok_cli.config import load_config as load_config
    from stochastok_cli.errors import UserError as UserError
    from stochastok_cli.tokenization.expansion import StochasTok as StochasTok
    from stochastok_cli.tokenization.loaders import load_vocabulary as load_vocabulary
    from stochastok_cli.tokenization.vocabulary import Vocabulary as Vocabulary
    from stochastok_cli.training.train import TrainResult as TrainResult
    from stochastok_cli.training.train import train as train

_HOMES = {
    "StochasTok": "stochastok_cli.tokenization.expansion",
    "TrainResult": "stochastok_cli.training.train",
    "UserError": "stochastok_cli.errors",
    "Vocabulary": "stochastok_cli.tokenization.vocabulary",
    "load_config": "stochastok_cli.config",
    "load_vocabulary": "stochastok_cli.tokenization.loaders",
    "train": "stochastok_cli.training.train",
}
__all__ = ["StochasTok", "TrainResult", "UserError", "Vocabulary", "load_config", "load_vocabulary", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

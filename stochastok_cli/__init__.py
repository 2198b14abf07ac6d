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
    from stochastok_cli.artifacts import Artifact as Artifact
    from stochastok_cli.config import load_config as load_config
    from stochastok_cli.config import load_config_and_sources as load_config_and_sources
    from stochastok_cli.data.expand import expand as expand
    from stochastok_cli.data.export import export as export
    from stochastok_cli.data.formats import FORMATS as FORMATS
    from stochastok_cli.data.formats.base import Format as Format
    from stochastok_cli.data.hub_datasets import pull_corpus as pull_corpus
    from stochastok_cli.data.hub_datasets import push_corpus as push_corpus
    from stochastok_cli.data.recipes.addition import make_addition as make_addition
    from stochastok_cli.data.recipes.base import RECIPES as RECIPES
    from stochastok_cli.data.recipes.base import Recipe as Recipe
    from stochastok_cli.data.recipes.cute import make_cute as make_cute
    from stochastok_cli.data.recipes.langgame import make_langgame as make_langgame
    from stochastok_cli.data.tokenize import tokenize as tokenize
    from stochastok_cli.data.tokenize_instructions import tokenize_instructions as tokenize_instructions
    from stochastok_cli.errors import UserError as UserError
    from stochastok_cli.evaluation.generated_texts import GeneratedText as GeneratedText
    from stochastok_cli.evaluation.generated_texts import generate as generate
    from stochastok_cli.evaluation.results import EvalResult as EvalResult
    from stochastok_cli.evaluation.results import Metric as Metric
    from stochastok_cli.evaluation.run import evaluate as evaluate
    from stochastok_cli.manifest import Manifest as Manifest
    from stochastok_cli.tokenization.expansion import StochasTok as StochasTok
    from stochastok_cli.tokenization.loaders import load_vocabulary as load_vocabulary
    from stochastok_cli.tokenization.vocabulary import Vocabulary as Vocabulary
    from stochastok_cli.training.train import TrainResult as TrainResult
    from stochastok_cli.training.train import train as train

# The public names, and the module that each one is loaded from when it is first used.
_MODULES = {
    "Artifact": "stochastok_cli.artifacts",
    "EvalResult": "stochastok_cli.evaluation.results",
    "FORMATS": "stochastok_cli.data.formats",
    "Format": "stochastok_cli.data.formats.base",
    "GeneratedText": "stochastok_cli.evaluation.generated_texts",
    "Manifest": "stochastok_cli.manifest",
    "Metric": "stochastok_cli.evaluation.results",
    "RECIPES": "stochastok_cli.data.recipes.base",
    "Recipe": "stochastok_cli.data.recipes.base",
    "StochasTok": "stochastok_cli.tokenization.expansion",
    "TrainResult": "stochastok_cli.training.train",
    "UserError": "stochastok_cli.errors",
    "Vocabulary": "stochastok_cli.tokenization.vocabulary",
    "evaluate": "stochastok_cli.evaluation.run",
    "expand": "stochastok_cli.data.expand",
    "export": "stochastok_cli.data.export",
    "generate": "stochastok_cli.evaluation.generated_texts",
    "load_config": "stochastok_cli.config",
    "load_config_and_sources": "stochastok_cli.config",
    "load_vocabulary": "stochastok_cli.tokenization.loaders",
    "make_addition": "stochastok_cli.data.recipes.addition",
    "make_cute": "stochastok_cli.data.recipes.cute",
    "make_langgame": "stochastok_cli.data.recipes.langgame",
    "pull_corpus": "stochastok_cli.data.hub_datasets",
    "push_corpus": "stochastok_cli.data.hub_datasets",
    "tokenize": "stochastok_cli.data.tokenize",
    "tokenize_instructions": "stochastok_cli.data.tokenize_instructions",
    "train": "stochastok_cli.training.train",
}
__all__ = [
    "FORMATS",
    "RECIPES",
    "Artifact",
    "EvalResult",
    "Format",
    "GeneratedText",
    "Manifest",
    "Metric",
    "Recipe",
    "StochasTok",
    "TrainResult",
    "UserError",
    "Vocabulary",
    "evaluate",
    "expand",
    "export",
    "generate",
    "load_config",
    "load_config_and_sources",
    "load_vocabulary",
    "make_addition",
    "make_cute",
    "make_langgame",
    "pull_corpus",
    "push_corpus",
    "tokenize",
    "tokenize_instructions",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

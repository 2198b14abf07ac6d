"""The configuration of a run: typed sections, filled from a YAML file and `a.b=c` overrides.

All problems of a configuration are reported at once, each with its key, the file or override that set it, and the
nearest valid key.
"""

from stochastok_cli.config.loader import (
    as_written,
    config_from_dict,
    config_from_file,
    config_names,
    find_config,
    load_config,
    load_config_and_sources,
    read_yaml,
)
from stochastok_cli.config.schema import (
    MUON_KEYS,
    AttentionConfig,
    Config,
    CoreModelConfig,
    DatasetConfig,
    EvaluatorConfig,
    FeedForwardConfig,
    LoraConfig,
    ModelConfig,
    OptimizerConfig,
    TrainerConfig,
    TrainingConfig,
    config_reference,
    flatten,
)
from stochastok_cli.config.sources import Source, values_by_key
from stochastok_cli.config.validation import LONGEST_CONTEXT

__all__ = [
    "LONGEST_CONTEXT",
    "MUON_KEYS",
    "AttentionConfig",
    "Config",
    "CoreModelConfig",
    "DatasetConfig",
    "EvaluatorConfig",
    "FeedForwardConfig",
    "LoraConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Source",
    "TrainerConfig",
    "TrainingConfig",
    "as_written",
    "config_from_dict",
    "config_from_file",
    "config_names",
    "config_reference",
    "find_config",
    "flatten",
    "load_config",
    "load_config_and_sources",
    "read_yaml",
    "values_by_key",
]

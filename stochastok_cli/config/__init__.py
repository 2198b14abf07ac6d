"""The configuration of a run: typed sections, filled from a YAML file and `a.b=c` overrides.

Every problem of a configuration is reported at once, each with the key, where it came from and the nearest valid
key. Nothing here touches the disk beyond reading the YAML file.
"""

from stochastok_cli.config.loader import config_from_dict, find_config, load_config, read_yaml
from stochastok_cli.config.schema import (
    AttentionConfig,
    Config,
    CoreModelConfig,
    EvaluatorConfig,
    FeedForwardConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
    flatten,
)

__all__ = [
    "AttentionConfig",
    "Config",
    "CoreModelConfig",
    "EvaluatorConfig",
    "FeedForwardConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TrainingConfig",
    "config_from_dict",
    "find_config",
    "flatten",
    "load_config",
    "read_yaml",
]

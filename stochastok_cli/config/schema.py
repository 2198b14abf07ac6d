"""The sections of a configuration, key by key, with the published defaults."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml


@dataclass(frozen=True)
class FeedForwardConfig:
    ffn_type: Literal["swiglu"] = "swiglu"
    ffn_dim: int = 1320  # width of the gated hidden layer
    normalization: Literal["rms_norm"] = "rms_norm"
    bias: bool = False


@dataclass(frozen=True)
class AttentionConfig:
    attn_type: Literal["generic"] = "generic"
    num_heads: int = 16  # query heads
    group_size: int = 4  # query heads that share one key/value head
    normalization: Literal["rms_norm"] = "rms_norm"
    bias: bool = False
    is_causal: bool = True


@dataclass(frozen=True)
class CoreModelConfig:
    num_layers: int = 8
    ffn: FeedForwardConfig = FeedForwardConfig()
    attn: AttentionConfig = AttentionConfig()


@dataclass(frozen=True)
class HeadConfig:
    normalization: Literal["rms_norm"] = "rms_norm"
    bias: bool = False


@dataclass(frozen=True)
class ModelConfig:
    core_model: CoreModelConfig = CoreModelConfig()
    lm_head: HeadConfig = HeadConfig()
    hidden_dim: int = 512
    context_window: int = 512  # tokens
    vocab_size: int = 50257
    embedding_weight_tying: bool = True
    positional_encoding_type: Literal["rope"] = "rope"
    checkpoint_name: str | None = None  # where the weights start from; the same as trainer.checkpoint_name

    @property
    def head_dim(self) -> int:
        return self.hidden_dim // self.core_model.attn.num_heads

    @property
    def kv_heads(self) -> int:
        return self.core_model.attn.num_heads // self.core_model.attn.group_size


@dataclass(frozen=True)
class DropoutConfig:
    dropout: float = 0.1  # on embeddings, attention weights and the attention output


@dataclass(frozen=True)
class TrainingConfig:
    batch_size: int = 60  # windows in one micro-batch
    gradient_accumulation_steps: int = 8  # micro-batches in one iteration, over all ranks together
    max_iters: int = 30000
    lr_decay_iters: int = 30000  # length of the cosine, counted from the end of the warm-up
    warmup_iters: int = 5000
    eval_interval: int = 200  # iterations
    log_interval: int = 10  # iterations
    eval_iters: int = 500  # batches of batch_size windows in one validation
    checkpoint_interval: int = 1000  # iterations
    keep_checkpoints: int | None = 3  # the latest so many and the best by validation loss are kept; null keeps all
    run_profiler: bool = False
    fp8_logits: bool = False  # the logits' product in 8-bit floats: fused kernels only, and not quite the same loss


@dataclass(frozen=True)
class OptimizerConfig:
    lr: float = 6e-4
    min_lr: float = 6e-5
    weight_decay: float = 0.1  # on tensors of two or more dimensions
    beta1: float = 0.9
    beta2: float = 0.95
    grad_clip: float = 1.0  # largest norm of the whole gradient; 0 switches clipping off
    decay_lr: bool = True


@dataclass(frozen=True)
class DatasetConfig:
    name: str = "openwebtext-tokenized"  # a folder under data_as_memmaps
    is_instruction: bool = False  # rows of question and answer, with the loss on the answer only
    expand_prop: float = 0.0  # expand each window as it is drawn: p of the method below
    expand_method: str = "stochastok"


@dataclass(frozen=True)
class EvaluatorConfig:
    evaluator: Literal["mcq", "math_generation", "bits_per_byte", "alignment"] = "mcq"
    num_samples: int | None = None  # questions of each benchmark; all where absent
    benchmarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainerConfig:
    dropout_scheduler: DropoutConfig = DropoutConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    dataset: DatasetConfig = DatasetConfig()
    eval: tuple[EvaluatorConfig, ...] = ()
    checkpoint_name: str | None = None  # where the weights start from


@dataclass(frozen=True)
class LoggingConfig:
    run_name_prefix: str = "pretraining"
    wandb_log: bool = False
    wandb_project: str = "stochastok"
    tensorboard_log: bool = False  # event files in the run's folder


@dataclass(frozen=True)
class PathsConfig:
    data_dir: str = "data"
    checkpoint_dir: str = "checkpoints"
    output_dir: str | None = None  # a key of the reference; nothing is written there


@dataclass(frozen=True)
class GeneralConfig:
    logging: LoggingConfig = LoggingConfig()
    paths: PathsConfig = PathsConfig()
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    kernels: Literal["auto", "reference", "fused"] = "auto"  # fused where the GPU and the shapes allow


@dataclass(frozen=True)
class Config:
    """The configuration of one run, complete and checked."""

    model: ModelConfig = ModelConfig()
    trainer: TrainerConfig = TrainerConfig()
    general: GeneralConfig = GeneralConfig()
    overridden: frozenset[str] = field(default=frozenset(), compare=False)  # keys set on the command line

    @property
    def checkpoint_name(self) -> str | None:
        """The checkpoint whose weights the run starts from, from either of the two keys that may name it."""
        return self.trainer.checkpoint_name or self.model.checkpoint_name

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries, in the order of the YAML file."""
        tree = dataclasses.asdict(self)
        del tree["overridden"]
        tree["trainer"]["eval"] = [{**e, "benchmarks": list(e["benchmarks"])} for e in tree["trainer"]["eval"]]
        return tree

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with keys like `trainer.optimizer.lr`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat

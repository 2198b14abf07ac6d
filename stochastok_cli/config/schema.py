"""The sections of a configuration: every key with its type, the published default, its meaning and its unit."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args, get_origin

import yaml

OTHER_KEYS = "…"
"""What the reference page calls the keys of a section that are no fields of it."""
TEXT_OPTIONS = {
    *("language", "tokenization", "neighbors", "frozen_prefix", "frozen_suffix", "addition", "words"),
    *("fewshot_split", "until", "match", "regexes_to_ignore"),
}
"""Those options of evaluators, in `trainer.eval`, that are texts or lists of texts: there, 010 is no number."""


def key(default: Any, help: str, unit: str = "", *, is_path: bool = False) -> Any:
    """A documented field of a section.

    Args:
        default: The published value.
        help: A sentence for the reference page (see `config_reference`).
        unit: What a number counts, such as "tokens".
        is_path: Whether a text is a path or may be one, in which `~` is the home folder.
    """
    return field(default=default, metadata={"help": help, "unit": unit, "is_path": is_path})


@dataclass(frozen=True)
class FeedForwardConfig:
    """`model.core_model.ffn`"""

    ffn_type: Literal["swiglu"] = key("swiglu", "The kind of feed-forward layer.")
    ffn_dim: int = key(1320, "Width of the gated hidden layer.", "features")
    normalization: Literal["rms_norm"] = key("rms_norm", "The norm before the layer.")
    bias: bool = key(False, "Linear layers have no bias; true is refused.")


@dataclass(frozen=True)
class AttentionConfig:
    """`model.core_model.attn`"""

    attn_type: Literal["generic"] = key("generic", "The kind of attention layer.")
    num_heads: int = key(16, "Query heads.", "heads")
    group_size: int = key(4, "Query heads that share one key/value head.", "heads")
    normalization: Literal["rms_norm"] = key("rms_norm", "The norm before the layer.")
    bias: bool = key(False, "Linear layers have no bias; true is refused.")
    is_causal: bool = key(True, "The model is causal; false is refused.")


@dataclass(frozen=True)
class CoreModelConfig:
    """`model.core_model`"""

    num_layers: int = key(8, "Blocks of attention and feed-forward.", "layers")
    ffn: FeedForwardConfig = FeedForwardConfig()
    attn: AttentionConfig = AttentionConfig()


@dataclass(frozen=True)
class HeadConfig:
    """`model.lm_head`"""

    normalization: Literal["rms_norm"] = key("rms_norm", "The norm before the output head.")
    bias: bool = key(False, "The output head has no bias; true is refused.")


@dataclass(frozen=True)
class ModelConfig:
    """`model`: the hyperparameters of a Llama-family model."""

    core_model: CoreModelConfig = CoreModelConfig()
    lm_head: HeadConfig = HeadConfig()
    hidden_dim: int = key(512, "Width of the embeddings and of the residual stream.", "features")
    context_window: int = key(512, "The longest sequence, and the length of a training window.", "tokens")
    vocab_size: int = key(
        50257,
        "Size of the vocabulary: that of the data's tokenizer, which replaces the value of a file.",
        "entries",
    )
    embedding_weight_tying: bool = key(True, "Whether the embedding is also the weight of the output head.")
    positional_encoding_type: Literal["rope"] = key("rope", "The kind of positional encoding.")
    checkpoint_name: str | None = key(None, "The same as `trainer.checkpoint_name`.", is_path=True)

    @property
    def head_dim(self) -> int:
        """The width of an attention head."""
        return self.hidden_dim // self.core_model.attn.num_heads

    @property
    def kv_heads(self) -> int:
        """The number of key/value heads."""
        return self.core_model.attn.num_heads // self.core_model.attn.group_size


@dataclass(frozen=True)
class DropoutConfig:
    """`trainer.dropout_scheduler`"""

    dropout: float = key(0.1, "Dropout on embeddings, attention weights and the attention's output.", "probability")


@dataclass(frozen=True)
class TrainingConfig:
    """`trainer.training`"""

    batch_size: int = key(60, "Size of a micro-batch.", "windows")
    gradient_accumulation_steps: int = key(8, "Micro-batches of an iteration, over all GPUs together.", "micro-batches")
    max_iters: int = key(30000, "Length of the run. A run can be continued with a larger value.", "iterations")
    lr_decay_iters: int = key(30000, "Length of the cosine, counted from the end of the warm-up.", "iterations")
    warmup_iters: int = key(
        5000,
        "Length of the linear warm-up. The first iteration's learning rate is 0, as in the reference code.",
        "iterations",
    )
    eval_interval: int = key(200, "Validation and benchmarks run each time after so many.", "iterations")
    log_interval: int = key(10, "Metrics are logged each time after so many.", "iterations")
    eval_iters: int = key(500, "Size of a validation.", "batches of batch_size windows")
    checkpoint_interval: int = key(1000, "A checkpoint is saved each time after so many.", "iterations")
    keep_checkpoints: int | None = key(
        3,
        "How many of the latest checkpoints are kept, besides the best by validation loss and permanent ones; null "
        "keeps all.",
        "checkpoints",
    )
    permanent_checkpoint_interval: int | None = key(
        None,
        "A checkpoint is also saved each time after so many, and is never removed; null makes none permanent. With "
        "`keep_checkpoints=null`, no checkpoint is removed anyway.",
        "iterations",
    )
    async_save: bool = key(
        False,
        "Copy weights and optimizer state to host memory, and write the checkpoint from there while training goes on. "
        "It takes host memory for one more copy of them.",
    )
    weight_dtype: Literal["float32", "bfloat16"] = key(
        "float32",
        "The type of weights, gradients and moments, in memory and in checkpoints. bfloat16 halves the memory and "
        "loses small updates. With `trainer.lora`, it is that of the base model, and the adapters are float32.",
    )
    checkpoint_dtype: Literal["float32", "bfloat16"] = key(
        "float32",
        "The type of the weights in a checkpoint's model. With bfloat16, the float32 weights that training goes on "
        "from are saved beside the moments.",
    )
    activation_checkpointing: bool = key(
        False,
        "Compute the activations of each layer again in the backward pass: less memory and more time. The fused "
        "kernels do so also with false where the GPU's memory has room for less than 8,192 tokens.",
    )
    run_profiler: bool = key(False, "Record a trace of iterations 3 to 5, and the kernels that take most time.")
    fp8_logits: bool = key(
        False, "Compute the product of the output head in 8-bit floats. Fused kernels only; the loss differs slightly."
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """`trainer.optimizer`: AdamW, or Muon for the matrices of the layers and AdamW for the rest.

    The options of Muon have the names and the meaning that they have in `torch.optim.Muon`.
    """

    name: Literal["adamw", "muon"] = key(
        "adamw",
        "AdamW for all weights; or Muon (Jordan et al. 2024) for the matrices of the layers, and AdamW for the rest: "
        "embedding, output head, norms and biases.",
    )
    lr: float = key(6e-4, "Learning rate of AdamW after the warm-up.")
    min_lr: float = key(6e-5, "Learning rate of AdamW at the end of the decay.")
    weight_decay: float = key(
        0.1,
        "Weight decay of AdamW on tensors of two or more dimensions, as a factor of the learning rate.",
        "per iteration",
    )
    beta1: float = key(0.9, "Decay of the first moment.", "per iteration")
    beta2: float = key(0.95, "Decay of the second moment.", "per iteration")
    grad_clip: float = key(1.0, "Largest norm of the whole gradient; 0 switches clipping off.", "L2 norm")
    decay_lr: bool = key(True, "Whether the learning rate decays; false holds it after the warm-up.")
    schedule: Literal["cosine", "wsd"] = key(
        "cosine",
        "How it decays: a cosine, or (warm-up, stable, decay) held and then lowered along a line to `min_lr`.",
    )
    wsd_decay_iters: int = key(0, "Length of the decay of `wsd`, up to `max_iters`.", "iterations")
    muon_lr: float = key(
        0.02,
        "Learning rate of Muon after the warm-up. It is the same multiple of that of AdamW throughout.",
    )
    muon_weight_decay: float = key(0.1, "Weight decay of Muon, as a factor of its learning rate.", "per iteration")
    momentum: float = key(0.95, "Decay of the momentum of Muon.", "per iteration")
    nesterov: bool = key(True, "Whether the momentum of Muon is Nesterov's.")
    ns_coefficients: tuple[float, float, float] = key(
        (3.4445, -4.7750, 2.0315), "The polynomial of a Newton-Schulz step of Muon: a x + b x³ + c x⁵."
    )
    ns_steps: int = key(5, "Newton-Schulz steps of Muon, which orthogonalize an update.", "steps")
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = key(
        "original",
        "What the learning rate of Muon is multiplied by for a matrix of m rows and n columns: sqrt(max(1, m / n)), or "
        "0.2 sqrt(max(m, n)), with which `muon_lr` and `muon_weight_decay` may be those of AdamW (Liu et al. 2025).",
    )


MUON_KEYS = (
    *("muon_lr", "muon_weight_decay", "momentum", "nesterov"),
    *("ns_coefficients", "ns_steps", "adjust_lr_fn"),
)
"""The keys of `trainer.optimizer` that only Muon reads."""


@dataclass(frozen=True)
class DatasetConfig:
    """`trainer.dataset`"""

    name: str = key(
        "openwebtext-tokenized", "A folder under `data_as_memmaps`, or the path of such a folder.", is_path=True
    )
    is_instruction: bool = key(
        False,
        "Whether the data are examples with a loss on some of their tokens: questions with answers, prompts with "
        "completions, or conversations.",
    )
    expand_prop: float = key(
        0.0,
        "Expand each window as it is drawn, with this p of `expand_method`; 0 does not. Validation takes windows as "
        "they are, and expanded ones besides.",
        "p of the method",
    )
    expand_method: str = key(
        "stochastok",
        "The expansion method, as of `stochastok expand --method`; a fixed rule expands with `expand_prop` 0.",
    )
    expand_schedule: Literal["constant", "linear", "cosine"] = key(
        "constant",
        "How p of `expand_method` changes over training: it stays `expand_prop`, or falls from it to 0 along a line or "
        "half a cosine, which ends after `max_iters`. Validation expands with `expand_prop` throughout.",
    )
    expand_where: Literal["all", "prompt", "completion"] = key(
        "all",
        "Which tokens of an example are expanded: all, those without a loss, or those with a loss; `expand_prop` is a "
        "proportion of these.",
    )


@dataclass(frozen=True)
class LoraConfig:
    """`trainer.lora`: low-rank adapters (LoRA; Hu et al. 2021)."""

    rank: int = key(
        0,
        "Rank of low-rank adapters of the linear layers, which alone are trained (extra `peft`); 0 trains all weights. "
        "A checkpoint is then an adapter in the format of peft.",
        "dimensions",
    )
    alpha: float = key(32.0, "The output of an adapter is multiplied by alpha / rank.")
    dropout: float = key(0.0, "Dropout on the input of the adapters.", "probability")
    target_modules: tuple[str, ...] | None = key(
        None, "Names of the layers that have an adapter, such as q_proj; null: all linear layers but the output head."
    )
    merge: bool = key(
        False, "A checkpoint is the model with its adapter merged into the weights, and has the adapter in `adapter/`."
    )


@dataclass(frozen=True)
class EvaluatorConfig:
    """An entry of `trainer.eval`"""

    evaluator: str = key("mcq", "The evaluator, as of `stochastok eval --evaluator`.")
    num_samples: int | None = key(None, "Size of the sample of each benchmark; null takes all.", "questions")
    benchmarks: tuple[str, ...] = key((), "What is scored, as of `stochastok eval --benchmarks`.")
    options: Mapping[str, Any] = field(
        default_factory=dict,
        hash=False,
        metadata={
            "help": "Any other option of the evaluator by its field in Python: `language`, `by_kind`, `contamination`, "
            "`tokenization`, `samples`, `adversarial`, `neighbors`, `restarts`, `frozen_prefix`, `frozen_suffix`, "
            "`addition`, `words`, `num_fewshot`, `fewshot_split`, `max_new_tokens`, `until`, `match`, `ignore_case`, "
            "`ignore_punctuation`, `ignore_numbers`, `regexes_to_ignore`.",
            "other_keys": True,
        },
    )


@dataclass(frozen=True)
class TrainerConfig:
    """`trainer`"""

    dropout_scheduler: DropoutConfig = DropoutConfig()
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    dataset: DatasetConfig = DatasetConfig()
    lora: LoraConfig = LoraConfig()
    eval: tuple[EvaluatorConfig, ...] = key((), "What is scored in each validation, besides the loss.")
    parallel: Literal["auto", "replicate", "shard"] = key(
        "auto",
        "With several GPUs: the whole model on each, or a part of it on each (FSDP2); auto shards a model whose "
        "weights, gradients and moments would fill more than half of a GPU, unless Muon trains it.",
    )
    checkpoint_name: str | None = key(
        None,
        "Start from the weights of this checkpoint: a folder, or a run under `checkpoint_dir`; null starts fresh.",
        is_path=True,
    )


@dataclass(frozen=True)
class LoggingConfig:
    """`general.logging`"""

    run_name_prefix: str = key("pretraining", "Begins the default name of the run.")
    wandb_log: bool = key(False, "Log to Weights & Biases (extra `wandb`).")
    wandb_project: str = key("stochastok", "The project at Weights & Biases.")
    tensorboard_log: bool = key(False, "Write TensorBoard event files to the run's folder (extra `tensorboard`).")


@dataclass(frozen=True)
class PathsConfig:
    """`general.paths`"""

    data_dir: str = key("data", "The folder of all data.", is_path=True)
    checkpoint_dir: str = key("checkpoints", "The folder of all runs.", is_path=True)
    output_dir: str | None = key(None, "A key of the reference implementation, accepted without effect.")


@dataclass(frozen=True)
class GeneralConfig:
    """`general`"""

    logging: LoggingConfig = LoggingConfig()
    paths: PathsConfig = PathsConfig()
    seed: int = key(0, "Seed of weights, windows, dropout and expansion.")
    device: Literal["auto", "cpu", "cuda"] = key("auto", "The device; auto takes GPUs where there are any.")
    kernels: Literal["auto", "reference", "fused"] = key(
        "auto", "PyTorch's kernels, or fused ones; auto takes the fused ones where GPU and shapes allow."
    )


@dataclass(frozen=True)
class Config:
    """The configuration of one run.

    Attributes:
        overridden: The keys that were set on the command line. Not compared, and not part of `to_dict`.
    """

    model: ModelConfig = ModelConfig()
    trainer: TrainerConfig = TrainerConfig()
    general: GeneralConfig = GeneralConfig()
    overridden: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def checkpoint_name(self) -> str | None:
        """The checkpoint that training starts from, from either of the two keys that may name it."""
        return self.trainer.checkpoint_name or self.model.checkpoint_name

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries, in the order of the YAML file."""
        tree = dataclasses.asdict(self)
        del tree["overridden"]
        tree["trainer"]["eval"] = [
            {**{name: value for name, value in entry.items() if name != "options"}, **entry["options"]}
            | {"benchmarks": list(entry["benchmarks"])}
            for entry in tree["trainer"]["eval"]
        ]
        targets = tree["trainer"]["lora"]["target_modules"]
        tree["trainer"]["lora"]["target_modules"] = None if targets is None else list(targets)
        tree["trainer"]["optimizer"]["ns_coefficients"] = list(self.trainer.optimizer.ns_coefficients)
        return tree

    def to_yaml(self) -> str:
        """The text of a configuration file."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one.

    >>> flatten({"trainer": {"optimizer": {"lr": 0.1}}})
    {'trainer.optimizer.lr': 0.1}
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


class ConfigKey(NamedTuple):
    """A key of the configuration, as the reference page shows it.

    Attributes:
        path: `trainer.optimizer.lr`; keys of list entries have `[]`: `trainer.eval[].evaluator`.
        type: As in a YAML file: `int`, `float`, `bool`, `str`, a choice of values, or a list.
        default: As in a YAML file.
        unit: What a number counts; may be empty.
        help: A sentence.
    """

    path: str
    type: str
    default: str
    unit: str
    help: str


def config_reference() -> list[ConfigKey]:
    """All keys of the configuration in the order of the YAML file.

    >>> next(key for key in config_reference() if key.path == "trainer.training.warmup_iters")[:4]
    ('trainer.training.warmup_iters', 'int', '5000', 'iterations')
    """
    return [*_keys(Config, "")]


def _keys(section: Any, prefix: str) -> Iterator[ConfigKey]:
    hints = typing.get_type_hints(section)
    for entry in dataclasses.fields(section):
        kind, path = hints[entry.name], f"{prefix}{entry.name}"
        element = get_args(kind)[0] if get_origin(kind) is tuple else None
        if dataclasses.is_dataclass(kind):
            yield from _keys(kind, f"{path}.")
        elif dataclasses.is_dataclass(element):
            yield _documented(path, "list of sections", entry)
            yield from _keys(element, f"{path}[].")
        elif "other_keys" in entry.metadata:
            yield ConfigKey(f"{prefix}{OTHER_KEYS}", "any", "null", "", entry.metadata["help"])
        elif entry.metadata:
            yield _documented(path, _type_name(kind), entry)


def _documented(path: str, type_name: str, entry: dataclasses.Field[Any]) -> ConfigKey:
    default = yaml.safe_dump(_plain(entry.default), default_flow_style=True).removesuffix("\n...\n").strip()
    return ConfigKey(path, type_name, default, entry.metadata["unit"], entry.metadata["help"])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    if get_origin(kind) is types.UnionType:
        return " | ".join("null" if part is types.NoneType else _type_name(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {_type_name(get_args(kind)[0])}"
    return kind.__name__

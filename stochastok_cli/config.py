"""The configuration of a run: typed sections, filled from a YAML file and `a.b=c` overrides.

Every problem of a configuration is reported at once, each with the key, where it came from and the nearest valid
key. Nothing here touches the disk beyond reading the YAML file.
"""

import dataclasses
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from stochastok_cli.errors import UserError, nearest


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


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with keys like `trainer.optimizer.lr`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


# ------------------------------------------------------------------------------------------------ reading


class _Loader(yaml.SafeLoader):
    """YAML in which `6e-4` is a number, as in YAML 1.2 and unlike PyYAML's 1.1, and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def find_config(name_or_path: str) -> Path:
    """The YAML file of that path, else of that name in `./configs`, else among the copies that ship in the package."""
    stem = name_or_path.removesuffix(".yaml").removesuffix(".yml")
    package = Path(__file__).parent
    folders = [Path("configs"), package / "configs", package.parent / "configs"]
    for candidate in [Path(name_or_path), *(folder / f"{stem}.yaml" for folder in folders)]:
        if candidate.is_file():
            return candidate
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    raise UserError(
        f"no configuration {name_or_path!r}: neither a file nor a name in ./configs or in the package",
        fix=f"known names: {', '.join(known)}{nearest(stem, known).replace(';', ' —')}",
    )


def load_config(name_or_path: str, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Reads a configuration file and applies `a.b=c` overrides (Hydra's grammar) to it.

    Raises UserError naming every unknown key, wrong type and impossible value at once.
    """
    path = find_config(name_or_path)
    tree = read_yaml(path)
    problems: list[str] = []
    origin: dict[str, str] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip().lstrip("+")
        if not equals or not key:
            problems.append(f"{override!r} is not an override of the form key.path=value")
            continue
        try:
            _assign(tree, key, _parse_value(text))
        except (yaml.YAMLError, ValueError) as error:
            problems.append(f"override {override!r}: {str(error).splitlines()[0]}")
        origin[key] = f"override {override!r}"
    config = _build(Config, tree, "", lambda key: _origin_of(key, origin, str(path)), problems)
    if not problems:
        problems += _impossible(config, lambda key: _origin_of(key, origin, str(path)))
    if problems:
        raise UserError(_listed("the configuration is not valid", problems))
    return dataclasses.replace(config, overridden=frozenset(origin))


def config_from_dict(tree: dict[str, Any], where: str) -> Config:
    """The configuration that `Config.to_dict` gave, read back from `where` (a file name for messages)."""
    problems: list[str] = []
    config = _build(Config, tree, "", lambda key: where, problems)
    if problems:
        raise UserError(_listed(f"{where} is not a configuration of this program", problems))
    return config


def read_yaml(path: Path) -> dict[str, Any]:
    """One YAML file as nested dictionaries. Raises UserError naming file and line if it does not parse."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}, line {line}: {error.problem}", fix="this is not valid YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no sections", fix="expected model:, trainer: and general:")
    return tree


def _listed(what: str, problems: list[str]) -> str:
    return f"{what}: {problems[0]}" if len(problems) == 1 else "\n  ".join([f"{what}:", *problems])


def _parse_value(text: str) -> Any:
    """A value in Hydra's grammar: YAML flow syntax in which no space is needed after the colon of a key."""
    spaced = re.sub(r"\"[^\"]*\"|'[^']*'|(?<=[{,])(\s*[\w.-]+):(?=\S)", lambda m: f"{m[1]}: " if m[1] else m[0], text)
    return yaml.load(spaced, _Loader) if spaced.strip() else None


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if below is None:
            below = tree[parent] = {}
        if not isinstance(below, dict):
            raise ValueError(f"{parent} is a value, not a section")
        tree = below
    tree[last] = value


def _origin_of(key: str, overrides: dict[str, str], file: str) -> str:
    """The override that set `key`, a section above it or a key below it; else the file."""
    for name, override in overrides.items():
        if f"{key}.".startswith(f"{name}.") or name.startswith(f"{key}."):
            return override
    return file


# ------------------------------------------------------------------------------------------------ checking


def _build(section: Any, tree: Any, prefix: str, origin: Any, problems: list[str]) -> Any:
    """An instance of the dataclass `section` from nested dictionaries; what is wrong is added to `problems`."""
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        problems.append(f"{prefix or 'the file'} must be a section of keys, not {tree!r} ({origin(prefix)})")
        return section()
    hints = typing.get_type_hints(section)
    hints.pop("overridden", None)
    values = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if key not in hints:
            known = [f"{prefix}.{name}" if prefix else name for name in hints] + list(_ALL_KEYS)
            problems.append(f"unknown key {path!r} ({origin(path)}){nearest(path, known)}")
        else:
            values[key] = _convert(hints[key], value, path, origin, problems)
    return section(**values)


def _convert(kind: Any, value: Any, path: str, origin: Any, problems: list[str]) -> Any:
    """`value` as `kind` (a section, a tuple of them, a Literal, an Optional or a scalar)."""
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, path, origin, problems)
    if get_origin(kind) is types.UnionType:
        return None if value is None else _convert(get_args(kind)[0], value, path, origin, problems)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            problems.append(f"{path} must be a list, not {value!r} ({origin(path)})")
            return ()
        inner = get_args(kind)[0]
        return tuple(_convert(inner, item, f"{path}.{i}", origin, problems) for i, item in enumerate(value))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            choices = " or ".join(map(repr, get_args(kind)))
            problems.append(f"{path} = {value!r} is not supported, only {choices} ({origin(path)})")
        return value
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        problems.append(f"{path} must be {names[kind]}, not {value!r} ({origin(path)})")
    return value


def _keys(section: Any, prefix: str = "") -> typing.Iterator[str]:
    for name, kind in typing.get_type_hints(section).items():
        if dataclasses.is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


_ALL_KEYS = tuple(key for key in _keys(Config) if key != "overridden")


def _impossible(config: Config, origin: Any) -> list[str]:
    """One line for each value that has the right type and still makes no sense."""
    model, trainer = config.model, config.trainer
    attn, training, optimizer = model.core_model.attn, trainer.training, trainer.optimizer
    found: list[str] = []

    def require(holds: bool, key: str, value: Any, must: str) -> None:
        if not holds:
            found.append(f"{key} = {value!r} {must} ({origin(key)})")

    for key, value in [
        ("model.core_model.num_layers", model.core_model.num_layers),
        ("model.core_model.ffn.ffn_dim", model.core_model.ffn.ffn_dim),
        ("model.core_model.attn.num_heads", attn.num_heads),
        ("model.core_model.attn.group_size", attn.group_size),
        ("model.hidden_dim", model.hidden_dim),
        ("model.context_window", model.context_window),
        ("model.vocab_size", model.vocab_size),
        *((f"trainer.training.{name}", getattr(training, name)) for name in _POSITIVE_TRAINING_KEYS),
    ]:
        require(value >= 1, key, value, "must be at least 1")
    keep = training.keep_checkpoints
    require(keep is None or keep >= 1, "trainer.training.keep_checkpoints", keep, "must be at least 1, or null for all")
    require(training.warmup_iters >= 0, "trainer.training.warmup_iters", training.warmup_iters, "must not be negative")
    require(attn.is_causal, "model.core_model.attn.is_causal", False, "is not supported: the model is causal")
    for key, biased in [
        ("model.core_model.ffn.bias", model.core_model.ffn.bias),
        ("model.core_model.attn.bias", attn.bias),
        ("model.lm_head.bias", model.lm_head.bias),
    ]:
        require(not biased, key, biased, "is not supported: the layers have no bias")
    if not found:
        heads, width = attn.num_heads, model.hidden_dim
        require(width % heads == 0, "model.hidden_dim", width, f"must be a multiple of num_heads ({heads})")
        even = width % heads != 0 or model.head_dim % 2 == 0  # where it does not even divide, one line is enough
        require(even, "model.hidden_dim", width, "must give each head an even width (for RoPE)")
        require(
            heads % attn.group_size == 0,
            "model.core_model.attn.group_size",
            attn.group_size,
            f"must divide num_heads ({heads})",
        )
    dropout = trainer.dropout_scheduler.dropout
    require(0 <= dropout < 1, "trainer.dropout_scheduler.dropout", dropout, "must be in [0, 1)")
    for key, low, high in [
        ("lr", 0, float("inf")),
        ("min_lr", 0, float("inf")),
        ("weight_decay", 0, float("inf")),
        ("grad_clip", 0, float("inf")),
        ("beta1", 0, 1),
        ("beta2", 0, 1),
    ]:
        value = getattr(optimizer, key)
        require(low <= value < high, f"trainer.optimizer.{key}", value, f"must be in [{low}, {high})")
    p = trainer.dataset.expand_prop
    require(0 <= p < float("inf"), "trainer.dataset.expand_prop", p, "must be a number that is not negative")
    require(bool(trainer.dataset.name), "trainer.dataset.name", trainer.dataset.name, "must name a dataset")
    for i, evaluator in enumerate(trainer.eval):
        key = f"trainer.eval.{i}"
        samples = evaluator.num_samples
        require(samples is None or samples >= 1, f"{key}.num_samples", samples, "must be at least 1")
        if evaluator.evaluator != "math_generation":
            require(bool(evaluator.benchmarks), f"{key}.benchmarks", [], f"must name what {evaluator.evaluator} scores")
    names = {trainer.checkpoint_name, model.checkpoint_name} - {None}
    require(len(names) < 2, "trainer.checkpoint_name", trainer.checkpoint_name, "and model.checkpoint_name differ")
    return found


_POSITIVE_TRAINING_KEYS = (
    "batch_size",
    "gradient_accumulation_steps",
    "max_iters",
    "lr_decay_iters",
    "eval_interval",
    "log_interval",
    "eval_iters",
    "checkpoint_interval",
)

"""Values that have the right type and still are not valid."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stochastok_cli.config.schema import Config, LoraConfig, ModelConfig, OptimizerConfig, TrainerConfig, TrainingConfig

Problem = tuple[str, Any, str]
"""A dotted key, its value, and what the value must be."""
Check = Callable[[Config], Iterable[Problem]]
"""Finds the values that are not valid. Packages that the configuration must not import have checks of their own."""


LONGEST_CONTEXT = 2**21
"""The largest context window: a table of the rotations of all positions is kept in memory."""
MOST_PARAMETERS = 10**12
MOST_NS_STEPS = 100
"""As of `torch.optim.Muon`: a few are enough."""


def find_invalid_values(config: Config) -> Iterator[Problem]:
    """The values that are not valid, section by section."""
    trainer = config.trainer
    yield from _model(config.model)
    yield from _training(trainer.training)
    yield from _optimizer(trainer.optimizer, trainer.training)
    if trainer.optimizer.name == "muon":
        yield from _muon(trainer)
    yield from _lora(trainer.lora)
    if trainer.lora.rank > 0 and config.checkpoint_name is None:
        yield "trainer.lora.rank", trainer.lora.rank, "needs a model to start from: set trainer.checkpoint_name"
    if trainer.training.async_save and trainer.lora.rank > 0 and trainer.lora.merge:
        yield "trainer.training.async_save", True, "must be false with trainer.lora.merge, which loads the base model"
    dropout, p = trainer.dropout_scheduler.dropout, trainer.dataset.expand_prop
    if not 0 <= dropout < 1:
        yield "trainer.dropout_scheduler.dropout", dropout, "must be in [0, 1)"
    if not 0 <= p < math.inf:
        yield "trainer.dataset.expand_prop", p, "must be a number that is not negative"
    schedule = trainer.dataset.expand_schedule
    if schedule != "constant" and p == 0:
        yield "trainer.dataset.expand_schedule", schedule, "has no effect without trainer.dataset.expand_prop above 0"
    where = trainer.dataset.expand_where
    if where != "all" and not trainer.dataset.is_instruction:
        yield (
            "trainer.dataset.expand_where",
            where,
            "must be all: there are prompts with trainer.dataset.is_instruction",
        )
    yield from _empty_names(config)
    if len({trainer.checkpoint_name, config.model.checkpoint_name} - {None}) > 1:
        yield "trainer.checkpoint_name", trainer.checkpoint_name, "and model.checkpoint_name differ"


def _empty_names(config: Config) -> Iterator[Problem]:
    """Paths and names that are empty, as where a shell variable is not set: as a path they would be the working
    directory."""
    paths, checkpoint = config.general.paths, "must name a checkpoint; null starts fresh"
    for name, value, must in [
        ("general.paths.data_dir", paths.data_dir, "must name a folder"),
        ("general.paths.checkpoint_dir", paths.checkpoint_dir, "must name a folder"),
        ("trainer.dataset.name", config.trainer.dataset.name, "must name a dataset"),
        ("trainer.checkpoint_name", config.trainer.checkpoint_name, checkpoint),
        ("model.checkpoint_name", config.model.checkpoint_name, checkpoint),
    ]:
        if value == "":
            yield name, value, must


def _model(model: ModelConfig) -> Iterator[Problem]:
    core, attn = model.core_model, model.core_model.attn
    sizes = [
        ("core_model.num_layers", core.num_layers),
        ("core_model.ffn.ffn_dim", core.ffn.ffn_dim),
        ("core_model.attn.num_heads", attn.num_heads),
        ("core_model.attn.group_size", attn.group_size),
        ("hidden_dim", model.hidden_dim),
        ("context_window", model.context_window),
        ("vocab_size", model.vocab_size),
    ]
    too_small = [(name, size) for name, size in sizes if size < 1]
    for name, size in too_small:
        yield f"model.{name}", size, "must be at least 1"
    if model.context_window > LONGEST_CONTEXT:
        yield "model.context_window", model.context_window, f"must be at most {LONGEST_CONTEXT:,}"
    if not attn.is_causal:
        yield "model.core_model.attn.is_causal", False, "is not supported: the model is causal"
    for name, bias in [
        ("core_model.ffn", core.ffn.bias),
        ("core_model.attn", attn.bias),
        ("lm_head", model.lm_head.bias),
    ]:
        if bias:
            yield f"model.{name}.bias", bias, "is not supported: the layers have no bias"
    if not too_small:
        yield from _head_shapes(model)


def _head_shapes(model: ModelConfig) -> Iterator[Problem]:
    heads, width, group_size = model.core_model.attn.num_heads, model.hidden_dim, model.core_model.attn.group_size
    if width % heads:
        yield "model.hidden_dim", width, f"must be a multiple of num_heads ({heads})"
    elif model.head_dim % 2:
        yield "model.hidden_dim", width, "must give each head an even width (for RoPE)"
    if heads % group_size:
        yield "model.core_model.attn.group_size", group_size, f"must divide num_heads ({heads})"
    layer = width * (2 * width + 2 * model.kv_heads * model.head_dim + 3 * model.core_model.ffn.ffn_dim)
    parameters = layer * model.core_model.num_layers + width * model.vocab_size
    if parameters > MOST_PARAMETERS:
        yield "model.hidden_dim", width, f"makes {parameters:,} parameters with the other sizes: at most 10^12"


def _training(training: TrainingConfig) -> Iterator[Problem]:
    for name in (
        "batch_size",
        "gradient_accumulation_steps",
        "max_iters",
        "lr_decay_iters",
        "eval_interval",
        "log_interval",
        "eval_iters",
        "checkpoint_interval",
    ):
        if getattr(training, name) < 1:
            yield f"trainer.training.{name}", getattr(training, name), "must be at least 1"
    keep, warmup = training.keep_checkpoints, training.warmup_iters
    if keep is not None and keep < 1:
        yield "trainer.training.keep_checkpoints", keep, "must be at least 1, or null for all"
    permanent = training.permanent_checkpoint_interval
    if permanent is not None and permanent < 1:
        yield "trainer.training.permanent_checkpoint_interval", permanent, "must be at least 1, or null for none"
    if warmup < 0:
        yield "trainer.training.warmup_iters", warmup, "must not be negative"


def _optimizer(optimizer: OptimizerConfig, training: TrainingConfig) -> Iterator[Problem]:
    for name, end in [
        ("lr", math.inf),
        ("min_lr", math.inf),
        ("weight_decay", math.inf),
        ("grad_clip", math.inf),
        ("muon_lr", math.inf),
        ("muon_weight_decay", math.inf),
        ("momentum", 1),
        ("beta1", 1),
        ("beta2", 1),
    ]:
        value = getattr(optimizer, name)
        if not 0 <= value < end:
            yield f"trainer.optimizer.{name}", value, f"must be in [0, {end})"
    if not 1 <= optimizer.ns_steps < MOST_NS_STEPS:
        yield "trainer.optimizer.ns_steps", optimizer.ns_steps, f"must be in [1, {MOST_NS_STEPS})"
    coefficients = optimizer.ns_coefficients
    if len(coefficients) != 3 or not all(map(math.isfinite, coefficients)):
        yield "trainer.optimizer.ns_coefficients", list(coefficients), "must be three numbers"
    decay, stable = optimizer.wsd_decay_iters, training.max_iters - training.warmup_iters
    if optimizer.schedule == "wsd" and stable < 1:
        warmup, length = training.warmup_iters, training.max_iters
        yield "trainer.training.warmup_iters", warmup, f"must be below max_iters ({length}), for the decay after it"
    elif optimizer.schedule == "wsd" and not 0 < decay <= stable:
        yield "trainer.optimizer.wsd_decay_iters", decay, f"must be in [1, {stable}], after the warm-up"


def _muon(trainer: TrainerConfig) -> Iterator[Problem]:
    """What Muon can't be combined with."""
    if trainer.optimizer.lr == 0:
        yield "trainer.optimizer.lr", 0.0, "must be above 0 with trainer.optimizer.name=muon, whose rate is a multiple"
    if trainer.parallel == "shard":
        yield (
            "trainer.parallel",
            "shard",
            "must be replicate with trainer.optimizer.name=muon, which needs whole matrices",
        )
    if trainer.lora.rank > 0:
        yield (
            "trainer.lora.rank",
            trainer.lora.rank,
            "must be 0 with trainer.optimizer.name=muon, which trains whole matrices",
        )


def _lora(lora: LoraConfig) -> Iterator[Problem]:
    if lora.rank < 0:
        yield "trainer.lora.rank", lora.rank, "must not be negative"
    if not 0 < lora.alpha < math.inf:
        yield "trainer.lora.alpha", lora.alpha, "must be a number above 0"
    if not 0 <= lora.dropout < 1:
        yield "trainer.lora.dropout", lora.dropout, "must be in [0, 1)"
    targets = lora.target_modules
    if targets is not None and not (targets and all(targets)):
        yield "trainer.lora.target_modules", list(targets), "must name layers; null takes all linear ones but the head"

"""Values of the right type that still make no sense together."""

from typing import Any

from stochastok_cli.config.schema import Config


def find_invalid_values(config: Config, origin: Any) -> list[str]:
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
    seen: set[tuple[str, str]] = set()
    for i, evaluator in enumerate(trainer.eval):
        key = f"trainer.eval.{i}"
        samples = evaluator.num_samples
        require(samples is None or samples >= 1, f"{key}.num_samples", samples, "must be at least 1")
        names, scores = list(evaluator.benchmarks), f"{evaluator.evaluator} scores"
        if evaluator.evaluator in ("mcq", "bits_per_byte"):
            require(bool(names), f"{key}.benchmarks", names, f"must name what {scores}")
        else:
            require(not names, f"{key}.benchmarks", names, f"must be empty: what {scores} is always the same")
        asked = [(evaluator.evaluator, name.partition("=")[0]) for name in names or [""]]
        twice = [name for kind, name in asked if (kind, name) in seen or asked.count((kind, name)) > 1]
        require(not twice, f"{key}.benchmarks", names, "must not name what is scored already")
        seen.update(asked)
    starts = {trainer.checkpoint_name, model.checkpoint_name} - {None}
    require(len(starts) < 2, "trainer.checkpoint_name", trainer.checkpoint_name, "and model.checkpoint_name differ")
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

"""The hyperparameters of a `Llama` in the layout of `transformers`: `config.json` of a folder.

This module imports neither torch nor numpy, for commands that only look at a checkpoint.
"""

import dataclasses
from pathlib import Path
from typing import Any

from stochastok_cli.config import (
    LONGEST_CONTEXT,
    AttentionConfig,
    CoreModelConfig,
    FeedForwardConfig,
    ModelConfig,
)
from stochastok_cli.errors import UserError, short_repr
from stochastok_cli.models.weight_files import CONFIG, WEIGHTS, read_json

MODEL_TYPE = "llama"
NORM_EPS = 1e-6
ROPE_BASE = 10_000.0


def config_json(config: ModelConfig, end_of_text: int, dtype: str) -> dict[str, Any]:
    """The content of `config.json` for a model of these hyperparameters.

    Args:
        config: The hyperparameters.
        end_of_text: The id of end-of-text.
        dtype: The type of the weights in the files, such as "float32".
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": MODEL_TYPE,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_dim,
        "intermediate_size": config.core_model.ffn.ffn_dim,
        "num_hidden_layers": config.core_model.num_layers,
        "num_attention_heads": config.core_model.attn.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context_window,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_BASE,  # read by transformers 4; the next entry by transformers 5
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": config.embedding_weight_tying,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": dtype,  # read by transformers 4; the next entry by transformers 5
        "dtype": dtype,
    }


def read_model_config(folder: Path) -> ModelConfig:
    """The model section of a configuration that the `config.json` of a folder describes.

    Raises UserError naming each field that has a value which this network doesn't support.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of a model", fix=f"name one that holds {CONFIG} and {WEIGHTS}")
    file = folder / CONFIG
    tree = read_json(file)
    if tree.get("model_type") != MODEL_TYPE:
        model_type = short_repr(tree.get("model_type"))
        raise UserError(
            f"{file} describes a model that this program can't run: model_type = {model_type} (only {MODEL_TYPE!r})"
        )
    problems = [
        f"{field} = {short_repr(value)} (only {only!r})" for field, value, only in _fixed_fields(tree) if value != only
    ]

    def size(field: str, default: int | None = None, largest: int = 2**31) -> int:
        value = tree.get(field) or default
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest:
            return value
        problems.append(f"{field} = {short_repr(value)} (must be a whole number from 1 to {largest:,})")
        return 1

    width, heads = size("hidden_size"), size("num_attention_heads")
    kv_heads = size("num_key_value_heads", default=heads)
    head_dim = size("head_dim", default=max(width // heads, 1))
    config = ModelConfig(
        core_model=CoreModelConfig(
            num_layers=size("num_hidden_layers"),
            ffn=FeedForwardConfig(ffn_dim=size("intermediate_size")),
            attn=AttentionConfig(num_heads=heads, group_size=max(heads // kv_heads, 1)),
        ),
        hidden_dim=width,
        context_window=size("max_position_embeddings", default=2048, largest=LONGEST_CONTEXT),
        vocab_size=size("vocab_size"),
        embedding_weight_tying=bool(tree.get("tie_word_embeddings", False)),
    )
    if not problems:
        if head_dim * heads != width or head_dim % 2:
            problems.append(f"head_dim = {head_dim} (must be even, and hidden_size / num_attention_heads)")
        if config.kv_heads * config.core_model.attn.group_size != heads or config.kv_heads != kv_heads:
            problems.append(f"num_key_value_heads = {kv_heads} (must divide num_attention_heads)")
    if problems:
        raise UserError(f"{file} describes a model that this program can't run: {', '.join(problems)}")
    return config


def _fixed_fields(tree: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """`(field, value, supported value)`; a field that is absent has the default of `transformers`."""
    # transformers 4 writes rope_theta and rope_scaling, 5 writes rope_parameters.
    rope = tree.get("rope_parameters") or tree.get("rope_scaling") or {}
    rope = rope if isinstance(rope, dict) else {"rope_type": rope}
    return [
        ("hidden_act", tree.get("hidden_act", "silu"), "silu"),
        ("rms_norm_eps", tree.get("rms_norm_eps", NORM_EPS), NORM_EPS),
        ("rope_theta", rope.get("rope_theta", tree.get("rope_theta", ROPE_BASE)), ROPE_BASE),
        ("rope_type", rope.get("rope_type", rope.get("type", "default")), "default"),
        ("attention_bias", tree.get("attention_bias", False), False),
        ("mlp_bias", tree.get("mlp_bias", False), False),
    ]


def shorten(config: ModelConfig, context_window: int) -> ModelConfig:
    """The hyperparameters with a smaller context window: no weight depends on the number of positions, whose rotations
    are computed."""
    return dataclasses.replace(config, context_window=context_window)
